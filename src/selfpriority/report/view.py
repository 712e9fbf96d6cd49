"""Reads what a run directory holds, finished or not, into the records the page shows.

Every file may be missing: the page then lacks that part. Knows file names and shapes, nothing of HTML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from selfpriority.evaluation.behaviour import repetition
from selfpriority.evaluation.few import without_thin_intervals
from selfpriority.evaluation.files import EvaluationFiles
from selfpriority.evaluation.records import Summary
from selfpriority.evaluation.summary_file import read_summary
from selfpriority.evaluation.utility_records import Utility, read_utility
from selfpriority.judges.reports import Report, read_checks
from selfpriority.preferences import PreferenceRow, objectives_in
from selfpriority.recipe import Recipe, load, merged_systems, trained_systems
from selfpriority.report.catalogue import Entry, collected, held_out
from selfpriority.report.people import People, read_people
from selfpriority.report.rounds import Round, TrainedSystem, read_round, read_systems
from selfpriority.run import PAIRS, Run, trained_key
from selfpriority.run_records import Manifest
from selfpriority.storage import read_rows

SET_NAME = re.compile(r"[a-z0-9_]+")
"""What a further prompt set is called, as in the recipe."""


@dataclass(frozen=True)
class PromptSet:
    """A further set of held-out prompts that was evaluated."""

    name: str
    summary: Summary


@dataclass(frozen=True)
class View:
    """All that the page shows."""

    name: str
    resolved: str
    recipe: Recipe
    manifest: Manifest
    objectives: tuple[str, ...]
    judges: dict[str, Report]
    """Role -> the judge's check."""
    rounds: tuple[Round, ...]
    summary: Summary | None
    more_sets: tuple[PromptSet, ...] = ()
    entries: tuple[Entry, ...] = ()
    """Every prompt: the held-out ones, set by set, then those of each round."""
    people: People | None = None
    utility: Utility | None = None
    """What the present systems still know, where somebody asked."""
    systems: tuple[TrainedSystem, ...] = ()
    """What each system was trained on, where the run trains several."""
    has_old_utility: bool = False
    """Somebody asked, but other systems than there are now."""


def read_view(run: Run) -> View:
    """Everything there is in the run directory."""
    recipe = load(run.recipe)
    manifest = run.manifest
    judges = read_checks(run.folder / "judge.json").by_role()
    summary = _summary(run.evaluation)
    more_sets = _more_sets(run.evaluation, list(recipe.evaluate.more_prompts))
    names = (path.name.removeprefix("round-") for path in run.folder.glob("round-*"))
    numbers = sorted(int(name) for name in names if name.isdecimal())
    objectives = _objectives(run, summary, judges)
    is_other = recipe.pairs is not None and summary is not None  # rated by others, on what is not the page's scale
    utility = read_utility(path) if (path := run.evaluation / "utility.json").is_file() else None
    is_present = utility is not None and _trained(run, recipe) == utility.trained
    tested = held_out(run.evaluation, list(summary.systems) if summary else [], objectives)
    others = {
        more.name: held_out(run.evaluation / more.name, list(more.summary.systems), objectives, more.name)
        for more in more_sets
    }
    if summary:
        summary = _with_repetition(summary, tested)
    return View(
        name=manifest.name,
        resolved=run.recipe.read_text(encoding="utf-8"),
        recipe=recipe,
        manifest=manifest,
        objectives=objectives,
        judges=judges,
        rounds=tuple(read_round(run, number) for number in numbers),
        summary=summary,
        more_sets=tuple(replace(m, summary=_with_repetition(m.summary, others[m.name])) for m in more_sets),
        entries=(
            *tested,
            *chain.from_iterable(others.values()),
            *(entry for number in numbers if not is_other for entry in collected(run, number, objectives)),
        ),
        people=read_people(run.evaluation, tested, objectives),
        utility=utility if is_present else None,
        systems=read_systems(run, recipe),
        has_old_utility=utility is not None and not is_present,
    )


def _trained(run: Run, recipe: Recipe) -> str | None:
    return trained_key(run, recipe.rounds, trained_systems(recipe), merged_systems(recipe))


def _summary(folder: Path) -> Summary | None:
    path = EvaluationFiles(folder).summary
    return without_thin_intervals(read_summary(path)) if path.is_file() else None


def _with_repetition(summary: Summary, tested: Sequence[Entry]) -> Summary:
    """With the measure that an older version did not take; its answers are all here."""
    said = {name: [a.text for entry in tested for a in entry.answers if a.name == name] for name in summary.behaviour}
    return replace(
        summary,
        behaviour={
            name: row if row.repetition is not None else replace(row, repetition=repetition(said[name]))
            for name, row in summary.behaviour.items()
        },
    )


def _more_sets(folder: Path, order: Sequence[str]) -> tuple[PromptSet, ...]:
    """The further sets with a summary, in the order of the recipe, those of an older one behind."""
    lying = sorted(path.parent.name for path in folder.glob("*/summary.json"))
    names = [name for name in (*order, *(name for name in lying if name not in order)) if SET_NAME.fullmatch(name)]
    found = ((name, _summary(folder / name)) for name in names)
    return tuple(PromptSet(name, summary) for name, summary in found if summary)


def _objectives(run: Run, summary: Summary | None, judges: Mapping[str, Report]) -> tuple[str, ...]:
    """Objective names in priority order, from whatever of the run is there already."""
    if summary:
        return summary.objectives
    for path in sorted(run.folder.glob(f"round-*/{PAIRS}")):
        for row in read_rows(path, PreferenceRow)[:1]:
            return objectives_in([row])
    return tuple(objective.objective for report in list(judges.values())[:1] for objective in report.objectives)
