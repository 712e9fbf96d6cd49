"""Makes one page about runs side by side: recipes, verdicts, funnels, and all policies' answers to shared prompts.

Reads the run directories only. Every run is compared with the first; ratings only where the same judge gave them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfpriority.evaluation.few import bare, bare_wins
from selfpriority.evaluation.records import Contest, Difference
from selfpriority.evaluation.significance import corrected, difference, mean_difference
from selfpriority.evaluation.wins import wins, won_or_lost
from selfpriority.formats import PAGE
from selfpriority.plain_text import clean
from selfpriority.rating import HIGHEST, LOWEST
from selfpriority.recipe import Recipe
from selfpriority.report.catalogue import HELD_OUT, Entry, Shown
from selfpriority.report.figures import Range
from selfpriority.report.packing import Packed, pack
from selfpriority.report.page import page
from selfpriority.report.tables import DifferenceRow, WinBar, difference_row, reach_of, span, win_bar
from selfpriority.report.verdict import changes_in_words, main_contest
from selfpriority.report.view import View, read_view
from selfpriority.run import Run
from selfpriority.storage import write_text

LONGEST_NAME = 120
"""Letters of a file's name that spells out the runs."""


@dataclass(frozen=True)
class Comparison:
    """Two runs or more, and what they have in common."""

    views: tuple[View, ...]
    labels: tuple[str, ...]
    policies: tuple[str, ...]
    """The system each run is about; empty where a run has no evaluation."""
    shared: tuple[Entry, ...]
    """Held-out prompts of all, with the policies' answers; their names are the labels."""
    doubt: str
    """Why ratings cannot be compared; empty when they can."""

    @property
    def contests(self) -> tuple[Contest, ...]:
        """Every other run against the first."""
        return tuple(Contest(label, self.labels[0]) for label in self.labels[1:])


def write_diff(folders: Sequence[Path], to: Path | None = None) -> Path:
    """Writes the page, by default into the first run directory as `against-<other>.html`; returns where it is.

    Args:
        folders: two run directories or more; the others are compared with the first.
        to: another file.

    Raises:
        InputError: one of them is no run directory.
        WorkFailed: the page cannot be written.
    """
    runs = [Run.existing(folder) for folder in folders]
    found = compare(*runs)
    path = to or runs[0].folder / _file_name(found.labels[1:])
    write_text(path, [render_diff(found)])
    return path


def _file_name(others: Sequence[str]) -> str:
    names = "-and-".join(re.sub(r"[^A-Za-z0-9_.-]+", "-", name) for name in others)
    return f"against-{names if len(names) <= LONGEST_NAME else f'{len(others)}-runs'}.html"


def compare(*runs: Run) -> Comparison:
    """What the runs hold, and where all of them meet."""
    views = tuple(read_view(run) for run in runs)
    labels = _labels(views, [run.folder for run in runs])
    leads = [main_contest(view.summary) for view in views]
    policies = tuple(lead.a if lead else "" for lead in leads)
    return Comparison(views, labels, policies, tuple(_shared(views, labels, policies)), _doubt(views))


def _labels(views: Sequence[View], folders: Sequence[Path]) -> tuple[str, ...]:
    """Names that tell the runs apart: their own, else with the folder around them, else numbered."""
    names = [view.name for view in views]
    around = [f"{folder.resolve().parent.name}/{folder.resolve().name}" for folder in folders]
    for told in (names, around):
        if len(set(told)) == len(told):
            return tuple(told)
    ordinals = ("first", "second") if len(names) == 2 else [str(number) for number in range(1, len(names) + 1)]
    return tuple(f"{name} ({place})" for name, place in zip(names, ordinals, strict=True))


def _doubt(views: Sequence[View]) -> str:
    summaries = [view.summary for view in views if view.summary is not None]
    whole = "the two" if len(views) == 2 else "them"
    if len(summaries) < len(views):
        return f"One of {whole} has no evaluation yet."
    if len({view.objectives for view in views}) > 1:
        return "They have different objectives."
    judges = {summary.judge.key if summary.judge else None for summary in summaries}
    if None in judges:
        return f"One of {whole} does not say which judge rated its answers; `spa evaluate` on it adds that."
    return "" if len(judges) == 1 else "Their answers were rated by different judges."


def _shared(views: Sequence[View], labels: Sequence[str], policies: Sequence[str]) -> Iterator[Entry]:
    """Prompts that all runs held out, equal in every turn, in the order of the first."""
    first, *others = ({entry.turns: entry for entry in view.entries if entry.part == HELD_OUT} for view in views)
    for turns, entry in first.items():
        twins = [entry, *(other[turns] for other in others if turns in other)]
        if len(twins) < len(views):
            continue
        told = [_of(policy, twin, label) for policy, twin, label in zip(policies, twins, labels, strict=True)]
        start = entry.answers[0]
        same = [any(a.name == start.name and a.text == start.text for a in twin.answers) for twin in twins]
        if start.name not in policies and all(same):
            told.insert(0, start)
        yield replace(entry, answers=tuple(answer for answer in told if answer is not None))


def _of(system: str, entry: Entry, label: str) -> Shown | None:
    found = next((answer for answer in entry.answers if answer.name == system), None)
    return None if found is None else replace(found, name=label)


def changes(found: Comparison) -> dict[Contest, dict[str, Difference]]:
    """Every other run minus the first by objective on the shared prompts, tested as in a summary.

    Holm's correction runs over the objectives of all runs. Empty where judges differ.
    """
    if found.doubt or not found.shared:
        return {}
    cells = {
        (contest, name): difference(paired, mean_difference(_lengths(found, contest), paired))
        for contest in found.contests
        for name, paired in _ratings(found, contest).items()
    }
    nested: dict[Contest, dict[str, Difference]] = {contest: {} for contest in found.contests}
    for (contest, name), cell in corrected(cells).items():
        nested[contest][name] = bare(cell)
    return nested


def _ratings(found: Comparison, contest: Contest) -> dict[str, dict[str, tuple[float, float]]]:
    """Objective -> prompt id -> (other run's, first run's) where both are rated."""
    ratings: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in found.views[0].objectives}
    for entry in found.shared:
        by_name = {answer.name: answer.scores for answer in entry.answers}
        ours, theirs = by_name.get(contest.b, ()), by_name.get(contest.a, ())
        for name, one, other in zip(ratings, ours, theirs, strict=False):  # no answer, no scores
            if one is not None and other is not None:
                ratings[name][entry.prompt_id] = (other, one)
    return ratings


def _lengths(found: Comparison, contest: Contest) -> dict[str, tuple[float, float]]:
    """Prompt id -> words of (other run's, first run's) answer where both answered."""
    lengths = {}
    for entry in found.shared:
        by_name = {answer.name: float(len(answer.text.split())) for answer in entry.answers}
        if contest.a in by_name and contest.b in by_name:
            lengths[entry.prompt_id] = (by_name[contest.a], by_name[contest.b])
    return lengths


def diff_headline(found: Comparison) -> str:
    """Which policies are better than the first on what all were asked, in one sentence."""
    first, *others = found.labels
    names = f"{', '.join(others)} and {first}"
    if found.doubt:
        return f"{names} cannot be compared by their ratings. {found.doubt}"
    if not found.shared:
        return f"{names} share no held-out prompt, so there is nothing to compare them on."
    told = changes(found)
    start = f"On {len(found.shared)} shared held-out prompts"
    if len(others) == 1:
        return f"{start}, {others[0]} against {first}: {changes_in_words(told[found.contests[0]])}."
    by_run = (f"{contest.a}: {changes_in_words(told[contest])}" for contest in found.contests)
    return f"{start}, against {first}. {'. '.join(by_run)}."


@dataclass(frozen=True)
class RecipeRow:
    """A setting that differs."""

    field: str
    """With its path."""
    values: tuple[str, ...]
    """One a run."""


def recipe_rows(*recipes: Recipe) -> list[RecipeRow]:
    """Every setting in which not all recipes agree."""
    flat = [dict(_flat(recipe.model_dump(mode="json"))) for recipe in recipes]
    fields = dict.fromkeys(name for one in flat for name in one)
    rows = (RecipeRow(name, tuple(clean(one.get(name, PAGE.dash)) for one in flat)) for name in fields)
    return [row for row in rows if len(set(row.values)) > 1]


def _flat(settings: Mapping[str, Any], around: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{around}{name}.")
        else:
            yield f"{around}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def counted_wins(found: Comparison) -> list[WinBar]:
    """Prompts that every other run won, tied and lost, by objective, tested and corrected over all of them."""
    if found.doubt:
        return []
    tie = found.views[0].recipe.evaluate.tie
    cells = corrected(
        {
            (contest, name): wins(won_or_lost(paired, tie), words=mean_difference(_lengths(found, contest), paired))
            for contest in found.contests
            for name, paired in _ratings(found, contest).items()
        }
    )
    return [win_bar(contest, name, bare_wins(cell)) for (contest, name), cell in cells.items() if cell.n]


def difference_rows(found: Comparison) -> list[DifferenceRow]:
    """The differences as the page's table shows them."""
    told = changes(found)
    reach = reach_of(cell for cells in told.values() for cell in cells.values())
    return [
        difference_row(contest, "shared", name, cell, reach)
        for contest, cells in told.items()
        for name, cell in cells.items()
    ]


def _packed(found: Comparison) -> Packed:
    about = {
        "objectives": [clean(name) for name in found.views[0].objectives],
        "tie": found.views[0].recipe.evaluate.tie,
        "contest": [clean(label) for label in found.labels[:2]],
    }
    return pack(found.shared, about)


def render_diff(found: Comparison) -> str:
    """The page."""
    spans = [span(view.summary) for view in found.views if view.summary is not None] or [Range(LOWEST, HIGHEST)]
    return page(
        "diff.html.j2",
        _packed(found),
        found=found,
        headline=diff_headline(found),
        recipes=recipe_rows(*(view.recipe for view in found.views)),
        changes=difference_rows(found),
        wins=counted_wins(found),
        span=Range(min(one.low for one in spans), max(one.high for one in spans)),
        rounds=max(len(view.rounds) for view in found.views),
    )
