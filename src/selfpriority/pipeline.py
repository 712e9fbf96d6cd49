"""The way of a run: phase after phase, each in a process of its own.

A phase is skipped when all its steps are done. A child process gives its memory (and a GPU) back by ending, and dies
with its parent: it holds the read end of a pipe whose other end closes when the parent goes, however it goes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from selfpriority.errors import InputError, WorkFailed
from selfpriority.inputs import check_inputs
from selfpriority.interrupts import INTERRUPTED
from selfpriority.phases.batch_tokens import with_batch_tokens
from selfpriority.phases.branches import Branch, branches, prepare
from selfpriority.phases.children import ALONE, Place, run_child
from selfpriority.phases.evaluate import unfinished_systems
from selfpriority.phases.freed_memory import KEEP_FREED_MEMORY, RETURN_FREED_MEMORY
from selfpriority.phases.launch import check_alone
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.systems import systems
from selfpriority.recipe import (
    Recipe,
    dump,
    load,
    parse,
)
from selfpriority.recipe.file import set_field
from selfpriority.report.page import write_report
from selfpriority.run import Run, key_of
from selfpriority.run_records import Step
from selfpriority.side_by_side import evaluation_places, places, systems_apart, train_all
from selfpriority.stages import (
    REPORT,
    Phase,
    announced,
    before,
    evaluating,
    evaluation_parts,
    is_done,
    mark_older,
    merging,
    rounds,
)
from selfpriority.storage import as_json, write_text


@dataclass(frozen=True)
class Asked:
    """What a run shall follow from now on: a recipe, and its file as the user wrote it."""

    recipe: Recipe
    text: str


def start(recipe_path: Path, overrides: Sequence[str], out: Path | None) -> tuple[Run, Asked]:
    """The run directory of a recipe, new or found, and what it is asked for; nothing is written yet.

    Raises:
        InputError: the recipe is wrong, or the directory is not a run's.
    """
    recipe = with_absolute_paths(load(recipe_path, overrides), recipe_path.parent)
    return Run(out or Path("runs") / recipe_path.stem), Asked(recipe, recipe_path.read_text("utf-8"))


def start_own(data: dict[str, Any], overrides: Sequence[str], out: Path) -> tuple[Run, Asked]:
    """As `start`, of a recipe that a command spells out: its text could be a file.

    Args:
        data: the recipe's fields.
        overrides: `FIELD=VALUE`.
        out: the run directory.

    Raises:
        InputError: the recipe is wrong, or the directory is not a run's.
    """
    for override in overrides:
        set_field(data, override)
    recipe = with_absolute_paths(parse(data, "spa align", overrides), Path.cwd())
    assert recipe.pairs is not None
    told = {**data, "model": recipe.model, "pairs": {**data["pairs"], "source": recipe.pairs.source}}
    return Run(out), Asked(recipe, yaml.safe_dump(told, sort_keys=False, allow_unicode=True))


def follow(run: Run, asked: Asked) -> None:
    """Writes `resolved.yaml`, which makes the directory a run's and is what every phase reads, then `recipe.yaml`."""
    write_text(run.recipe, [dump(asked.recipe)])
    write_text(run.folder / "recipe.yaml", [asked.text])


def settled(asked: Asked, resources: Resources) -> Asked:
    """What is asked, with the token budget of a batch as a number; `resources` go on with that too."""
    resources.recipe = with_batch_tokens(resources.recipe, resources.run)
    return replace(asked, recipe=asked.recipe.model_copy(update={"backend": resources.recipe.backend}))


def run_all(run: Run, asked: Asked, reporter: Reporter, debug: bool = False) -> int:
    """Runs every phase that is not done, then writes the report. Returns an exit code.

    The run's recipe is replaced once no other process works on the run and the new one's inputs are sound: whoever
    works follows one recipe to the end, and a mistake leaves the run as it was.

    Raises:
        InputError: the recipe's inputs are wrong, or this is one of several processes.
    """
    check_alone()
    resources = Resources(asked.recipe, run, reporter)
    with run.locked("run"):
        check_inputs(resources)
        follow(run, settled(asked, resources))
        mark_older(run, resources)
        reporter.stages(announced(run, resources, _n_parts(run, resources)))
        if code := _all_phases(_Course(run, resources, debug)):
            return code
        reporter.stage(REPORT, "now")
        report(run)
        reporter.stage(REPORT, "done")
    return 0


@dataclass(frozen=True)
class _Course:
    """A run that is followed, and where its processes work."""

    run: Run
    resources: Resources
    debug: bool
    place: Place = ALONE
    asking: AbstractContextManager[object] = field(default_factory=nullcontext)
    """Held while answers are asked for: of systems that ask the same at once the second finds those of the first."""


def _all_phases(course: _Course) -> int:
    """The judge's check, the rounds, those of every further system that is trained here, merges, the evaluation.

    Returns the exit code of the first that failed.
    """
    run, resources = course.run, course.resources
    return (
        _do(course, before(run, resources))
        or _do(course, rounds(run, resources))
        or _train_branches(course)
        or _do(course, merging(run, resources))
        or _evaluate_in_parts(course)
        or _do(course, evaluating(run, resources))
    )


def _train_branches(course: _Course) -> int:
    """Every further system. One that fails holds up those that start from it and the evaluation, and no other."""
    recipe = course.resources.recipe
    found = {branch.name: branch for branch in branches(course.run, recipe)}
    starts = {name: recipe.evaluate.more_systems[name].start for name in found}
    where = places([branch.recipe for branch in found.values()], recipe.evaluate.at_once)
    preparing = threading.Lock()
    # what one writes for rows of its own takes as long as a training, and nobody else asks for it
    asking = {branch.recipe.align.rows: threading.Lock() for branch in found.values()}

    def train(name: str, place: Place) -> int:
        own = replace(course, place=place, asking=asking[found[name].recipe.align.rows])
        return _train_branch(found[name], own, preparing)

    ended = train_all(starts, where, train)
    failed = {name: code for name, code in ended.items() if code}
    if INTERRUPTED in failed.values():
        return INTERRUPTED
    if failed:
        course.resources.reporter.note(
            f"not trained: {', '.join(failed)} (see above); every other system is. Mend what they lack or leave them "
            f"out, and the same command goes on to the evaluation"
        )
    return next(iter(failed.values()), 0)


def _train_branch(branch: Branch, course: _Course, preparing: threading.Lock) -> int:
    """One system from its folder to its policy; `preparing` lets one at a time look through the run's own files."""
    try:
        with branch.run.locked("run"):
            with preparing:
                theirs = prepare(branch, course.run, course.resources)
                mark_older(branch.run, theirs)
            own = replace(course, run=branch.run, resources=theirs)
            return _do(own, rounds(branch.run, theirs, branch.name))
    except (WorkFailed, InputError) as error:  # what the process of a phase says of itself, it has said
        course.resources.reporter.note(str(error))
        return error.exit_code


def _evaluate_in_parts(course: _Course) -> int:
    """Answers of all systems and verdicts on them, in as many parts at once as there are places.

    With one place that is left to the process that does all of the evaluation. A part that fails holds up no other.
    """
    run, resources = course.run, course.resources
    if not (n := _n_parts(run, resources)):
        return 0
    left = unfinished_systems(run, resources)
    where = evaluation_places(resources.recipe, left)
    apart = systems_apart(left, len(where), resources.recipe) if len(where) > 1 else []
    parts = {phase.title: phase for phase in evaluation_parts(apart)}
    for phase in evaluation_parts([()] * n)[len(parts) :]:  # they were announced, and there is nothing left for them
        resources.reporter.stage(phase.title, "done")

    def evaluate(title: str, place: Place) -> int:
        try:
            return _child(replace(course, place=place), parts[title])
        except WorkFailed as error:  # killed, it may be for its memory
            resources.reporter.note(f"{error}; evaluate.at_once: 1 evaluates one system after the other")
            return error.exit_code

    ended = train_all(dict.fromkeys(parts), where, evaluate)
    return next(filter(None, ended.values()), 0)


def _n_parts(run: Run, resources: Resources) -> int:
    """In how many parts all systems would be evaluated at once; 0: in none."""
    if resources.recipe.evaluate.prompts is None:
        return 0
    n = len(evaluation_places(resources.recipe, systems(run, resources.recipe)))
    return n if n > 1 else 0


def _do(course: _Course, phases: Iterable[Phase]) -> int:
    """Those of the phases that are not done, each as a process; the exit code of the first that failed."""
    reporter = course.resources.reporter
    for phase in phases:
        with course.asking if phase.name == "collect" else nullcontext():
            if is_done(course.run, course.resources, phase):
                reporter.stage(phase.title, "done")
                reporter.note(f"{phase.title}: done before")
                continue
            if code := _child(course, phase):
                return code
    return 0


def report(run: Run) -> Path:
    """Writes the report if anything it shows has changed; returns where it is."""
    step = _report_step(run)
    if not run.is_done(step):
        write_report(run.folder)
        with run.recording(step):  # afterwards, or the page would show itself as not done
            pass
    return step.outputs[0]


def _report_step(run: Run) -> Step:
    """The page with its key: the steps, and what else it shows that comes about without any."""
    entries = {name: entry for name, entry in run.manifest.steps.items() if name != "report"}
    steps = {name: as_json(entry, without_none=True) for name, entry in entries.items()}
    others = [run.recipe, run.evaluation / "utility.json", *sorted(run.evaluation.glob("reviews-*.jsonl"))]
    texts = {path.name: path.read_text("utf-8") for path in others if path.is_file()}
    return Step("report", key_of(steps, texts), (run.folder / "report.html",))


def _child(course: _Course, phase: Phase) -> int:
    """One phase as a process; its exit code."""
    reporter = course.resources.reporter
    flags = (*(["--debug"] if course.debug else []), *reporter.flags)
    which = ["--round", str(phase.round)] if phase.round else []
    which += ["--systems", ",".join(phase.only)] if phase.only else []
    command = [sys.executable, "-m", "selfpriority", *flags, phase.name, str(course.run.folder), "--child", *which]
    is_lean = phase.name == "align" and course.resources.recipe.align.gradient_checkpointing
    allocator = RETURN_FREED_MEMORY if is_lean else KEEP_FREED_MEMORY
    reporter.stage(phase.title, "now")
    code = run_child(command, allocator, reporter.within(phase.title), course.place)
    reporter.stage(phase.title, "failed" if code else "done")
    if code < 0:
        raise WorkFailed(f"{phase.title}: its process was killed by signal {-code}; the same command continues")
    return code
