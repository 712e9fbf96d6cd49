"""The rounds: which phase is next, each in a process of its own.

A phase is skipped when all its steps are done. A child process gives its memory (and a GPU) back by ending, and dies
with its parent: it holds the read end of a pipe whose other end closes when the parent goes, however it goes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from selfpriority.errors import InputError, WorkFailed
from selfpriority.interrupts import INTERRUPTED
from selfpriority.judges.reports import read_checks
from selfpriority.method.order import Order
from selfpriority.phases.align import align_step
from selfpriority.phases.batch_tokens import with_batch_tokens
from selfpriority.phases.branches import Branch, branches, prepare
from selfpriority.phases.children import KEEP_FREED_MEMORY, RETURN_FREED_MEMORY, run_child
from selfpriority.phases.collect import collect_steps
from selfpriority.phases.evaluate import check_evaluation, evaluate_steps
from selfpriority.phases.judge_check import check_anchors, judge_sections, judge_step
from selfpriority.phases.merges import merge_steps, merges
from selfpriority.phases.models import model_key
from selfpriority.phases.own_steps import as_trained, check_own, idle_in_system
from selfpriority.phases.readiness import Ahead, check_ready
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Announced, Reporter, Resources
from selfpriority.phases.round_inputs import notes_of_languages, start_of_training, usable_prompts
from selfpriority.phases.said import quietly
from selfpriority.recipe import (
    TRAINED,
    OpenaiBackend,
    Recipe,
    VllmBackend,
    branch_of,
    dump,
    load,
    parse,
    unused_fields,
    unused_in_training,
)
from selfpriority.recipe.file import set_field
from selfpriority.report.page import write_report
from selfpriority.run import Run, Step, key_of
from selfpriority.storage import as_json, write_text


@dataclass(frozen=True)
class Phase:
    """One process of a run: its name, the round it belongs to (0: none) and a way to ask for its steps."""

    name: str
    round: int
    steps: Callable[[], list[Step]]
    system: str = ""
    """Empty: the run's own."""

    @property
    def title(self) -> str:
        """What messages call it."""
        what = f"{self.name} (round {self.round})" if self.round else self.name
        return f"{self.system}: {what}" if self.system else what


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


def rounds(run: Run, resources: Resources, system: str = "") -> Iterator[Phase]:
    """The phases of all rounds. Steps are asked for lazily: a round's keys need the policy of the round before."""
    for number in range(1, resources.recipe.rounds + 1):
        yield Phase("collect", number, partial(collect_steps, run, resources, number), system)
        yield Phase("align", number, partial(_align_steps, run, resources, number), system)


def _align_steps(run: Run, resources: Resources, number: int) -> list[Step]:
    return [align_step(run, resources, number)]


def check_inputs(resources: Resources) -> None:
    """Reads every input before any work: a mistake shows in the first second, not after the first hour.

    Raises:
        InputError: constitution, prompts, personas, model, held-out prompts or a judge are wrong, or this machine lacks
            what is left to do needs: a package, a key's variable, GPUs.
    """
    recipe = resources.recipe
    check_anchors(resources)  # reads the constitution
    _check_machine(resources)
    model_key(recipe.model)  # of its files, which training needs whoever generates
    if recipe.align.start is not None:
        model_key(recipe.align.start)
    check_own(recipe)
    prompts = usable_prompts(recipe, recipe.rounds)
    for note in notes_of_languages(recipe, prompts.kept):
        resources.reporter.note(note)
    for note in prompts.notes("prompts"):
        resources.reporter.note(note)
    for reason, n in prompts.reasons.items():
        resources.reporter.note(f"prompts: {n} dropped: {reason}")
    for unused in unused_fields(recipe):
        resources.reporter.note(unused)
    if strange := recipe.align.strange_beta:
        resources.reporter.note(strange)
    beside = branches(resources.run, recipe)  # what is wrong with one is found here
    for branch in beside:
        _check_branch(branch, recipe.evaluate.more_systems[branch.name].train, resources.reporter)
    for line in _same_twice(recipe, beside):
        resources.reporter.note(line)
    merges(resources.run, recipe)
    if recipe.evaluate.prompts is not None:
        check_evaluation(resources)
    _check_training(resources)


def _check_machine(resources: Resources) -> None:
    """Whether this machine has what is left to do needs; a run that is done needs nothing."""
    run = resources.run
    ahead, is_over = Ahead(), False
    if run.manifest.steps:  # else its keys would fetch models, which comes after all that costs nothing
        with contextlib.suppress(InputError):  # told where what is wrong is looked at by itself
            trains = _trains_yet(resources)
            ahead = Ahead(collects=trains and _collects_yet(resources), trains=trains)
            phases = (*_before(run, resources), *rounds(run, resources), *_behind(run, resources))
            is_over = not trains and all(_is_done(run, resources, phase) for phase in phases)
    if not is_over:
        check_ready(resources.recipe, resources.constitution.names, ahead)


def _trains_yet(resources: Resources) -> bool:
    """Whether a training is left to do, of the run or of a system beside it; rounds are looked at in order."""
    beside = branches(resources.run, resources.recipe)
    for theirs in (resources, *(Resources(each.recipe, each.run, resources.reporter) for each in beside)):
        for number in range(1, theirs.recipe.rounds + 1):
            if not theirs.run.is_done(align_step(theirs.run, theirs, number)):
                return True
    return False


def _collects_yet(resources: Resources) -> bool:
    """Whether candidates are left to be drawn; of a later round that is not known before the one before is trained."""
    run = resources.run
    for phase in rounds(run, resources):
        if not _is_done(run, resources, phase):
            return phase.name == "collect" or phase.round < resources.recipe.rounds
    return False


def _check_branch(branch: Branch, changes: Mapping[str, Any], reporter: Reporter) -> None:
    place = f"evaluate.more_systems.{branch.name}.train"
    idle = [*unused_in_training(branch.recipe.align, changes.get("align", {})), *idle_in_system(branch.recipe, changes)]
    for line in filter(None, [*idle, branch.recipe.align.strange_beta]):
        reporter.note(f"{place}: {line}")
    theirs = Resources(branch.recipe, branch.run, reporter)
    try:
        if branch.recipe.pairs is None:
            Order.of(branch.recipe.pair, theirs.constitution.names)
        check_own(branch.recipe)
        _check_training(theirs)
    except InputError as error:
        raise InputError(*(f"{place}: {line}" for line in error.lines)) from error


def _same_twice(recipe: Recipe, beside: Sequence[Branch]) -> Iterator[str]:
    """A line for every system that is trained as another one is."""
    seen = {dump(as_trained(branch_of(recipe, {}, ""))): TRAINED}
    for branch in beside:
        start = recipe.evaluate.more_systems[branch.name].start or ""
        twin = seen.setdefault(f"{dump(as_trained(branch.recipe))}{start}", branch.name)
        if twin != branch.name:
            yield f"evaluate.more_systems.{branch.name}: under this recipe it is trained as {twin} is; leave it out"


def _check_training(resources: Resources) -> None:
    """Whether the model that shall be trained can be, without its weights; nothing once it was."""
    recipe, run = resources.recipe, resources.run
    is_named = recipe.align.lora is not None and recipe.align.lora.targets != "all-linear"
    # else its files are opened before anything is paid for
    is_served = isinstance(recipe.backend, OpenaiBackend | VllmBackend)
    start = start_of_training(run, recipe, 1)
    waits = Path(start).is_absolute() and not Path(start).exists()  # for one that is trained first
    if not (is_named or is_served) or (not waits and run.is_done(align_step(run, resources, 1))):
        return
    from selfpriority.training.parameters import check_trainable

    check_trainable(recipe.model, recipe.align.lora)


def settled(asked: Asked, resources: Resources) -> Asked:
    """What is asked, with the token budget of a batch as a number; `resources` go on with that too."""
    resources.recipe = with_batch_tokens(resources.recipe, resources.run)
    return replace(asked, recipe=asked.recipe.model_copy(update={"backend": resources.recipe.backend}))


def run_all(run: Run, asked: Asked, reporter: Reporter, debug: bool = False) -> int:
    """Runs every phase that is not done, then writes the report. Returns an exit code.

    The run's recipe is replaced once no other process works on the run and the new one's inputs are sound: whoever
    works follows one recipe to the end, and a mistake leaves the run as it was.
    """
    resources = Resources(asked.recipe, run, reporter)
    with run.locked("run"):
        check_inputs(resources)
        follow(run, settled(asked, resources))
        reporter.stages(announced(run, resources))
        if code := _all_phases(run, resources, debug):
            return code
        reporter.stage(REPORT, "now")
        report(run)
        reporter.stage(REPORT, "done")
    return 0


REPORT = "report"


def announced(run: Run, resources: Resources) -> list[Announced]:
    """Every phase of the run, in order, and the report; none is asked for its steps."""
    phases = [(run, phase) for phase in (*_before(run, resources), *rounds(run, resources))]
    for branch in branches(run, resources.recipe):
        phases += [(branch.run, phase) for phase in rounds(branch.run, resources, branch.name)]
    phases += [(run, phase) for phase in _behind(run, resources)]
    parts = [Announced(phase.title, partial(quietly, where, phase.name, phase.round)) for where, phase in phases]
    return [*parts, Announced(REPORT, str)]


def _all_phases(run: Run, resources: Resources, debug: bool) -> int:
    """The judge's check, the rounds, those of every further system that is trained here, merges, the evaluation.

    Returns the exit code of the first that failed.
    """
    return (
        _do(run, resources, _before(run, resources), debug)
        or _do(run, resources, rounds(run, resources), debug)
        or _train_branches(run, resources, debug)
        or _do(run, resources, _behind(run, resources), debug)
    )


def _before(run: Run, resources: Resources) -> list[Phase]:
    """The check of the judges, if there are any, which comes before all rounds."""
    is_needed = bool(judge_sections(resources.recipe))
    return [Phase("check-judge", 0, lambda: [judge_step(run, resources)])] if is_needed else []


def _behind(run: Run, resources: Resources) -> list[Phase]:
    """Merges and the evaluation, if there are any."""
    found = []
    if merges(run, resources.recipe):
        found.append(Phase("merge", 0, lambda: merge_steps(run, resources)))
    if resources.recipe.evaluate.prompts is not None:
        found.append(Phase("evaluate", 0, lambda: evaluate_steps(run, resources)))
    return found


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
            return _do(branch.run, theirs, rounds(branch.run, theirs, branch.name), debug)
    except WorkFailed as error:  # its process was killed; what a process says of itself, it has said
        resources.reporter.note(str(error))
        return WorkFailed.exit_code


def _do(run: Run, resources: Resources, phases: Iterable[Phase], debug: bool) -> int:
    """Those of the phases that are not done, each as a process; the exit code of the first that failed."""
    for phase in phases:
        if _is_done(run, resources, phase):
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


def _is_done(run: Run, resources: Resources, phase: Phase) -> bool:
    if phase.name == "check-judge":
        return _judge_passes(run, resources, phase.steps()[0])
    return all(run.is_done(step) for step in phase.steps())


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


def _judge_passes(run: Run, resources: Resources, step: Step) -> bool:
    if not run.is_done(step):
        return False
    train = read_checks(run.folder / "judge.json").train
    if train is None and resources.recipe.pairs is not None:
        return True
    return (train is not None and train.usable) or not resources.recipe.score.require_signal


def _child(run: Run, phase: Phase, debug: bool, allocator: dict[str, str], reporter: Reporter) -> int:
    """One phase as a process; its exit code."""
    flags = (*(["--debug"] if debug else []), *reporter.flags)
    number = ("--round", str(phase.round)) if phase.round else ()
    command = [sys.executable, "-m", "selfpriority", *flags, phase.name, str(run.folder), "--child", *number]
    code = run_child(command, allocator, reporter)
    if code < 0:
        raise WorkFailed(f"{phase.title}: its process was killed by signal {-code}; the same command continues")
    return code


def next_round(run: Run, resources: Resources, phase: str) -> int:
    """The first round whose `phase` (collect or align) is not done; the last one when all are."""
    for number in range(1, resources.recipe.rounds + 1):
        steps = collect_steps(run, resources, number) if phase == "collect" else [align_step(run, resources, number)]
        if not all(run.is_done(step) for step in steps):
            return number
    return resources.recipe.rounds
