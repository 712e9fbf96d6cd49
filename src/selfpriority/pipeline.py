"""The way of a run: phase after phase, each in a process of its own.

A phase is skipped when all its steps are done. A child process gives its memory (and a GPU) back by ending, and dies
with its parent: it holds the read end of a pipe whose other end closes when the parent goes, however it goes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from selfpriority.errors import WorkFailed
from selfpriority.inputs import check_inputs
from selfpriority.interrupts import INTERRUPTED
from selfpriority.phases.batch_tokens import with_batch_tokens
from selfpriority.phases.branches import Branch, branches, prepare
from selfpriority.phases.children import KEEP_FREED_MEMORY, RETURN_FREED_MEMORY, run_child
from selfpriority.phases.launch import check_alone
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Reporter, Resources
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
from selfpriority.stages import REPORT, Phase, announced, before, behind, is_done, mark_older, rounds
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
        reporter.stages(announced(run, resources))
        if code := _all_phases(run, resources, debug):
            return code
        reporter.stage(REPORT, "now")
        report(run)
        reporter.stage(REPORT, "done")
    return 0


def _all_phases(run: Run, resources: Resources, debug: bool) -> int:
    """The judge's check, the rounds, those of every further system that is trained here, merges, the evaluation.

    Returns the exit code of the first that failed.
    """
    return (
        _do(run, resources, before(run, resources), debug)
        or _do(run, resources, rounds(run, resources), debug)
        or _train_branches(run, resources, debug)
        or _do(run, resources, behind(run, resources), debug)
    )


def _train_branches(run: Run, resources: Resources, debug: bool) -> int:
    """Every further system. One that fails holds up those that start from it and the evaluation, and no other."""
    failed: dict[str, int] = {}
    for branch in branches(run, resources.recipe):
        start = resources.recipe.evaluate.more_systems[branch.name].start or ""
        code = failed.get(start) or _train_branch(branch, run, resources, debug)
        if code == INTERRUPTED:
            return code
        if code:
            failed[branch.name] = code
    if failed:
        resources.reporter.note(
            f"not trained: {', '.join(failed)} (see above); every other system is. Mend what they lack or leave them "
            f"out, and the same command goes on to the evaluation"
        )
    return next(iter(failed.values()), 0)


def _train_branch(branch: Branch, run: Run, resources: Resources, debug: bool) -> int:
    try:
        with branch.run.locked("run"):
            theirs = prepare(branch, run, resources)
            mark_older(branch.run, theirs)
            return _do(branch.run, theirs, rounds(branch.run, theirs, branch.name), debug)
    except WorkFailed as error:  # its process was killed; what a process says of itself, it has said
        resources.reporter.note(str(error))
        return WorkFailed.exit_code


def _do(run: Run, resources: Resources, phases: Iterable[Phase], debug: bool) -> int:
    """Those of the phases that are not done, each as a process; the exit code of the first that failed."""
    for phase in phases:
        if is_done(run, resources, phase):
            resources.reporter.stage(phase.title, "done")
            resources.reporter.note(f"{phase.title}: done before")
            continue
        resources.reporter.stage(phase.title, "now")
        is_lean = phase.name == "align" and resources.recipe.align.gradient_checkpointing
        code = _child(run, phase, debug, RETURN_FREED_MEMORY if is_lean else KEEP_FREED_MEMORY, resources.reporter)
        resources.reporter.stage(phase.title, "failed" if code else "done")
        if code:
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


def _child(run: Run, phase: Phase, debug: bool, allocator: dict[str, str], reporter: Reporter) -> int:
    """One phase as a process; its exit code."""
    flags = (*(["--debug"] if debug else []), *reporter.flags)
    number = ("--round", str(phase.round)) if phase.round else ()
    command = [sys.executable, "-m", "selfpriority", *flags, phase.name, str(run.folder), "--child", *number]
    code = run_child(command, allocator, reporter)
    if code < 0:
        raise WorkFailed(f"{phase.title}: its process was killed by signal {-code}; the same command continues")
    return code
