"""`spa check-judge --compare`: every method that a model can judge by, on the same labels.

What was asked and what was found lies in the cache folder, by model: the same command goes on where it stopped.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from selfpriority.errors import InputError
from selfpriority.judges.check import check_judge
from selfpriority.judges.labels import Labels
from selfpriority.judges.methods import Comparison, Method, MethodCell, MethodRow, compared
from selfpriority.language_model import BUSY
from selfpriority.phases.judge_check import need_anchors, read_own_labels
from selfpriority.phases.judge_names import judge_backend, judge_entry
from selfpriority.phases.kept_answers import kept_answers
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.recipe import (
    ByBattery,
    ByContrast,
    ByProbe,
    ByPython,
    ByReward,
    InWords,
    JudgeSection,
    OpenaiBackend,
    Recipe,
    load,
)
from selfpriority.run import key_of
from selfpriority.run_records import Spent
from selfpriority.storage import Damaged, read_record, write_record

METHODS = ("expected", "verbal", "battery", "contrast", "probe", "reward", "python")
_VERSION = 1  # raise it when the same judge and labels would give another row


@dataclass(frozen=True)
class Candidate:
    """A method and the judge that it means."""

    method: Method
    section: JudgeSection


def compare_recipe(
    path: Path, fields: Sequence[str], labels: Path | None, only: Sequence[str], reporter: Reporter
) -> Comparison:
    """All methods of a recipe's model.

    Args:
        path: the recipe.
        fields: overrides.
        labels: answers to check against instead of the constitution's anchors.
        only: names of methods; none: all.
        reporter: told of progress.

    Raises:
        InputError: recipe, labels or a method's name is wrong, or there are neither labels nor anchors.
    """
    unknown = [name for name in only if name not in METHODS]
    if unknown:
        raise InputError(f"--method: {unknown[0]!r} is none of {', '.join(METHODS)}")
    recipe = with_absolute_paths(load(path, fields), path.parent)
    given = read_own_labels(labels, reporter) if labels else None
    with kept_answers(recipe, reporter) as run:
        resources = Resources(recipe, run, reporter)
        if given is None:
            need_anchors(resources)
        wanted = [one for one in candidates(resources.recipe) if not only or one.section.method in only]
        if not wanted:
            raise InputError(f"--method: the recipe has no judge by {' or '.join(only)}; name one in score or evaluate")
        return compared(recipe.model, tuple(_row(resources, one, given) for one in wanted))


def candidates(recipe: Recipe) -> list[Candidate]:
    """Every way that is open to the model that judges, and the heads, reward models and functions that are named.

    The model is that of `score`, where a model judges there, else the recipe's. Written verdicts come last: they take
    the longest by far, and whoever stops there has seen the rest.
    """
    own = recipe.score.judge
    name = own.judge if isinstance(own, InWords | ByBattery | ByContrast) else "self"
    backend = own.backend if isinstance(own, InWords | ByBattery) else None
    words = own if isinstance(own, InWords) else InWords(judge=name, backend=backend)
    sections: list[JudgeSection] = [
        words.model_copy(update={"method": "expected"}),
        words.model_copy(update={"method": "verbal"}),
        ByBattery(kind="battery", judge=name, backend=backend),
        ByContrast(kind="contrast", judge=name),
    ]
    found = [Candidate(Method(one.method, _fields(recipe, one)), one) for one in sections]
    named = {"score": own, "evaluate": recipe.evaluate.judge, **recipe.evaluate.more_judges}
    seen: list[JudgeSection] = []
    for role, section in named.items():
        if isinstance(section, ByProbe | ByReward | ByPython) and section not in seen:
            seen.append(section)
            name = "reward" if isinstance(section, ByReward) else f"{section.method} {Path(section.judge).name}"
            found.append(Candidate(Method(name, _fields(recipe, section), role == "score"), section))
    return sorted(found, key=lambda one: one.section.method == "verbal")


def _fields(recipe: Recipe, section: JudgeSection) -> str:
    """The override that makes `section` the judge of training, whatever stood there, as a shell takes it."""
    judge = {"kind": section.kind, **section.model_dump(mode="json", exclude_defaults=True)}
    others = recipe.score.model_dump(mode="json", exclude={"judge"}, exclude_defaults=True)
    text = yaml.safe_dump({**others, "judge": judge}, default_flow_style=True, sort_keys=False, width=10**6)
    return shlex.quote(f"score={text.strip()}")


def _row(resources: Resources, candidate: Candidate, labels: Labels | None) -> MethodRow:
    """What was found before, or what is found now; whatever a method lacks is said in its row."""
    try:
        _check_backend(resources.recipe, candidate.section)
        key = judge_entry(candidate.section, resources)["key"]
        asked = [anchor.model_dump() for anchor in resources.constitution.anchors]
        given = None if labels is None else [labels.source, repr(labels.answers), repr(labels.pairs)]
        path = resources.run.folder / "methods" / f"{key_of(_VERSION, key, asked, given)[:16]}.json"
        before = _read(path)
        if before is not None and before.objectives:
            return replace(before, method=candidate.method)
        with _timed(path, MethodRow(candidate.method, seconds=before.seconds if before else 0.0)) as row:
            judge = resources.checked_judge(candidate.section, candidate.method.name, Spent())
            report = check_judge(judge, None, resources.constitution, labels, disowning=False)
            row.measured = tuple(map(MethodCell.of, report.objectives))
            # what a busy server left out is asked again by the next command, so this is not what the method is worth
            row.is_final = not any(BUSY & {*each.unrated_reasons} for each in report.objectives)
    except InputError as error:
        return MethodRow(candidate.method, cannot=error.lines[0])
    found = replace(_read(path) or MethodRow(candidate.method), method=candidate.method, objectives=row.measured)
    resources.reporter.note(found.line)
    return found


def _check_backend(recipe: Recipe, section: JudgeSection) -> None:
    """Raises InputError for what a server cannot show."""
    own = recipe.score.judge
    runner = judge_backend(own, recipe.backend) if isinstance(own, InWords | ByBattery) else recipe.backend
    if isinstance(section, ByContrast) and isinstance(runner, OpenaiBackend):
        raise InputError(f"the model runs at {runner.base_url}, and a server shows no hidden states")


@dataclass
class _Measuring:
    """A row that is being measured."""

    measured: tuple[MethodCell, ...] = ()
    is_final: bool = False


@contextmanager
def _timed(path: Path, row: MethodRow) -> Iterator[_Measuring]:
    """Keeps the row with the time that the body took, whole or, where the body was interrupted, the time alone."""
    started, measuring = time.monotonic(), _Measuring()
    try:
        yield measuring
    finally:
        seconds = row.seconds + time.monotonic() - started
        kept = measuring.measured if measuring.is_final else ()
        write_record(path, replace(row, objectives=kept, seconds=seconds))


def _read(path: Path) -> MethodRow | None:
    try:
        return read_record(path, MethodRow) if path.is_file() else None
    except Damaged:
        return None
