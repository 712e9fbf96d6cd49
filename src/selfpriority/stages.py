"""The phases of a run, in order, and which of them are done. Runs none.

A phase's steps are asked for lazily: their keys may need what the phase before makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from selfpriority.judges.reports import read_checks
from selfpriority.phases.align import align_step
from selfpriority.phases.branches import branches
from selfpriority.phases.collect import collect_steps
from selfpriority.phases.evaluate import evaluate_steps
from selfpriority.phases.judge_check import judge_sections, judge_step
from selfpriority.phases.merges import merge_steps, merges
from selfpriority.phases.resources import Announced, Resources
from selfpriority.phases.said import quietly
from selfpriority.run import Run
from selfpriority.run_records import Step

REPORT = "report"


@dataclass(frozen=True)
class Phase:
    """One process of a run: its name, the round it belongs to (0: none) and a way to ask for its steps."""

    name: str
    round: int
    steps: Callable[[], list[Step]]
    system: str = ""
    """Empty: the run's own."""
    only: tuple[str, ...] = ()
    """Of a part of the evaluation, the systems that are evaluated in it."""
    part: int = 0
    """Number of that part; 0: it is no part."""

    @property
    def title(self) -> str:
        """What messages call it."""
        what = f"{self.name} (round {self.round})" if self.round else self.name
        what = f"{self.name} (part {self.part})" if self.part else what
        return f"{self.system}: {what}" if self.system else what


def announced(run: Run, resources: Resources, n_parts: int = 0) -> list[Announced]:
    """Every phase of the run, in order, and the report; none is asked for its steps.

    Args:
        run: the run.
        resources: of it.
        n_parts: in how many parts systems are evaluated at once, before what is left of the evaluation.
    """
    phases = [(run, phase) for phase in (*before(run, resources), *rounds(run, resources))]
    for branch in branches(run, resources.recipe):
        phases += [(branch.run, phase) for phase in rounds(branch.run, resources, branch.name)]
    phases += [(run, phase) for phase in merging(run, resources)]
    phases += [(run, phase) for phase in (*evaluation_parts([()] * n_parts), *evaluating(run, resources))]
    told = (Announced(phase.title, _telling(where, phase), bool(phase.part)) for where, phase in phases)
    return [*told, Announced(REPORT, str)]


def evaluation_parts(systems: Sequence[tuple[str, ...]]) -> list[Phase]:
    """Parts of an evaluation that are done at once, by the names of the systems in each."""
    return [Phase("evaluate", 0, list, only=names, part=number) for number, names in enumerate(systems, 1)]


def _telling(run: Run, phase: Phase) -> Callable[[], str]:
    """What a phase has to say; a part of the evaluation has nothing, for the result is not its own."""
    return str if phase.part else partial(quietly, run, phase.name, phase.round)


def before(run: Run, resources: Resources) -> list[Phase]:
    """The check of the judges, if there are any, which comes before all rounds."""
    is_needed = bool(judge_sections(resources.recipe))
    return [Phase("check-judge", 0, lambda: [judge_step(run, resources)])] if is_needed else []


def merging(run: Run, resources: Resources) -> list[Phase]:
    """The merge of systems of others, if there are any."""
    is_needed = bool(merges(run, resources.recipe))
    return [Phase("merge", 0, lambda: merge_steps(run, resources))] if is_needed else []


def evaluating(run: Run, resources: Resources) -> list[Phase]:
    """The evaluation, if there are prompts for it."""
    is_asked = resources.recipe.evaluate.prompts is not None
    return [Phase("evaluate", 0, lambda: evaluate_steps(run, resources))] if is_asked else []


def behind(run: Run, resources: Resources) -> list[Phase]:
    """What comes behind all rounds."""
    return [*merging(run, resources), *evaluating(run, resources)]


def rounds(run: Run, resources: Resources, system: str = "") -> Iterator[Phase]:
    """The phases of all rounds. Steps are asked for lazily: a round's keys need the policy of the round before."""
    for number in range(1, resources.recipe.rounds + 1):
        yield Phase("collect", number, partial(collect_steps, run, resources, number), system)
        yield Phase("align", number, partial(_align_steps, run, resources, number), system)


def _align_steps(run: Run, resources: Resources, number: int) -> list[Step]:
    return [align_step(run, resources, number)]


def is_done(run: Run, resources: Resources, phase: Phase) -> bool:
    """Whether all its steps are; of the check of the judges, whether the run may go on with what it found."""
    if phase.name == "check-judge":
        return judge_passes(run, resources, phase.steps()[0])
    return all(run.is_done(step) for step in phase.steps())


def judge_passes(run: Run, resources: Resources, step: Step) -> bool:
    """Whether the judge of training was checked and may train."""
    if not run.is_done(step):
        return False
    train = read_checks(run.folder / "judge.json").train
    if train is None and resources.recipe.pairs is not None:
        return True
    return (train is not None and train.usable) or not resources.recipe.score.require_signal


def mark_older(run: Run, resources: Resources) -> None:
    """Says in the manifest which steps of the rounds were done under another recipe, until they are done again.

    Their files lie there as long, and who reads them without opening a model (`spa export`) has to know. What the
    present recipe did before, and another in between did not replace, is its own again.
    """
    states: dict[str, str] = {}
    is_behind_older = False
    for number in range(1, resources.recipe.rounds + 1):
        prefix = f"round-{number}/"
        if is_behind_older:  # its keys need the policy of the round before
            states |= {name: "older" for name in run.manifest.steps if name.startswith(prefix)}
            continue
        steps = [*collect_steps(run, resources, number), align_step(run, resources, number)]
        keys = {name: entry.key for name, entry in run.manifest.steps.items()}
        states |= {step.name: "done" if keys.get(step.name) == step.key else "older" for step in steps}
        is_behind_older = not all(run.is_done(step) for step in steps)
    run.mark(states)


def next_round(run: Run, resources: Resources, phase: str) -> int:
    """The first round whose `phase` (collect or align) is not done; the last one when all are."""
    for number in range(1, resources.recipe.rounds + 1):
        steps = collect_steps(run, resources, number) if phase == "collect" else [align_step(run, resources, number)]
        if not all(run.is_done(step) for step in steps):
            return number
    return resources.recipe.rounds
