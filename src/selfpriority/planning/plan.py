"""The plan of a run: requests, tokens, time and money by step, memory by phase, as records."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from selfpriority.backends.engine import vllm_version
from selfpriority.phases.batch_tokens import with_batch_tokens
from selfpriority.phases.branches import Branch, branches
from selfpriority.phases.readiness import Ahead, check_ready
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Reporter
from selfpriority.planning.luck import lucky_share
from selfpriority.planning.memory import Held, Trained, held, trained
from selfpriority.planning.offline import Invented, invented
from selfpriority.planning.pace import Earlier, Pace, Prices
from selfpriority.planning.pilot import Pilot
from selfpriority.planning.requests import PlannedStep, Rehearsal, planned_steps
from selfpriority.recipe import Align, HfBackend, Recipe, VllmBackend, engine_of, load
from selfpriority.run import SYSTEMS, Run

TOKENIZER, CHARACTERS = "tokenizer", "estimate: 4 characters a token, for its tokenizer is not on this machine"
SERVED = "estimate: 4 characters a token, for only its server knows it"


@dataclass(frozen=True)
class PlanRow:
    """One step; seconds and cost are None where they are not known."""

    name: str
    phase: str
    requests: int
    at_most: bool
    """How many requests there are depends on answers."""
    prompt_tokens: int
    forward_tokens: int
    new_tokens: int
    trained_tokens: int
    seconds: float | None
    cost: float | None


@dataclass(frozen=True)
class PlanTotal:
    """Sums over the steps; None where a part is not known."""

    requests: int
    prompt_tokens: int
    forward_tokens: int
    new_tokens: int
    trained_tokens: int
    seconds: float | None
    cost: float | None


@dataclass(frozen=True)
class PlannedTraining:
    """The training of the largest round."""

    pools: int
    """At most."""
    by_luck: float | None
    """Share of them that is consistent where a refinement is no better than a candidate; None: nothing is refined."""
    optimizer_steps: int
    """At most."""
    measured_tokens: int
    """At most, a round: of passes without gradients, for methods that measure against a reference; else 0."""
    tokens_per_batch: int
    gradient_checkpointing: bool
    nodes: int
    processes: int
    """Of each node, one a GPU."""
    n_shards: int
    """Parts of the model, of which a process holds one."""
    choices: tuple[Trained, ...]
    """The recipe's settings and others; empty if the model's files are not here."""


@dataclass(frozen=True)
class Card:
    """What a run holds on one GPU, against the GPU's memory."""

    size: float
    """Bytes."""
    phases: dict[str, float | None]
    """Phase -> bytes at most; None where they are not known."""

    @property
    def suffices(self) -> bool | None:
        """Whether every phase fits; None where that is not known."""
        sizes = list(self.phases.values())
        if any(size is not None and size > self.size for size in sizes):
            return False
        return None if None in sizes else True


@dataclass(frozen=True)
class PlannedEngine:
    """vLLM in a process of its own, beside what the phases hold."""

    version: str
    memory_share: float
    """Of the GPU's memory, while a phase asks it."""


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    recipe: str
    invented: tuple[str, ...]
    """What stands for prompts that are not on this machine, a line each."""
    tokens: dict[str, str]
    """Model -> how its tokens were counted."""
    by_shape: tuple[str, ...]
    """Models whose memory is that of their known shape, for their files are not on this machine."""
    steps: tuple[PlanRow, ...]
    total: PlanTotal
    rates: str | None
    """Where times come from; None: they are not known."""
    memory: dict[str, Held]
    """By phase."""
    training: PlannedTraining
    engine: PlannedEngine | None
    """Who answers, where it is an engine of its own."""
    generation_tokens: int | None
    """Token budget of a generation batch; None: nothing is generated here."""
    card: Card | None
    """Whether one GPU of a given memory suffices."""
    pilot: Pilot | None = None
    """What a few of the prompts gave, where they were tried."""


@dataclass(frozen=True)
class Given:
    """What a plan rests on, beside the recipe."""

    rates: Pace | None = None
    """Tokens a second, in place of the manifest's."""
    prices: Prices | None = None
    """Of servers."""
    offline: bool = False
    """Whether what is not on this machine is guessed: prompts by their limit, and nothing has to be fetched."""


def plan(path: Path, overrides: Sequence[str], out: Path | None, given: Given | None = None) -> Plan:
    """What `spa run` with the same arguments would do, from nothing done before.

    Args:
        path: the recipe.
        overrides: `FIELD=VALUE`.
        out: the run directory; if it holds a manifest, that is where rates come from.
        given: what it rests on.

    Raises:
        InputError: whatever would stop the run in its first second, but for what only the hub knows.
    """
    given, run = given or Given(), Run(out or Path("runs") / path.stem)
    recipe = with_absolute_paths(load(path, overrides), path.parent)
    with invented(recipe) if given.offline else nullcontext(Invented(recipe, ())) as made:
        return replace(_plan(made.recipe, run, given), recipe=str(path), invented=made.told)


def _plan(recipe: Recipe, run: Run, given: Given) -> Plan:
    rehearsal = Rehearsal(recipe, run, Reporter())
    check_ready(rehearsal.recipe, rehearsal.constitution.names, Ahead(elsewhere=given.offline))
    rehearsal.recipe = recipe = with_batch_tokens(rehearsal.recipe, run)
    steps = list(planned_steps(rehearsal))
    pace = given.rates or (Earlier.of(run.manifest, str(run.folder)) if run.manifest.steps else None)
    rows = tuple(_row(step, pace, given.prices) for step in steps)
    memory = held(steps, rehearsal)
    training = _training(recipe, rehearsal, [s for s in steps if s.trained_tokens and s.name.startswith("round-")])
    beside = [_beside(branch, rehearsal, steps) for branch in branches(run, recipe)]
    return Plan(
        recipe="",
        invented=(),
        tokens=_token_counting(rehearsal),
        by_shape=tuple(sorted(rehearsal.by_shape)),
        steps=rows,
        total=_total(rows),
        rates=pace.source if pace else None,
        memory=memory,
        training=training,
        engine=_engine(recipe),
        generation_tokens=recipe.backend.batch_tokens if isinstance(recipe.backend, HfBackend) else None,
        card=_card(recipe, memory, [training, *beside]),
    )


def _beside(branch: Branch, rehearsal: Rehearsal, steps: Sequence[PlannedStep]) -> PlannedTraining:
    """The training of a further system."""
    own = f"{SYSTEMS}/{branch.name}/"
    return _training(branch.recipe, rehearsal, [s for s in steps if s.trained_tokens and s.name.startswith(own)])


def _card(recipe: Recipe, memory: Mapping[str, Held], trainings: Sequence[PlannedTraining]) -> Card | None:
    """What the phases hold on the GPU that the recipe names; None where it names none."""
    backend = recipe.backend
    if not isinstance(backend, HfBackend) or backend.memory is None:
        return None
    chosen = [choice.total for training in trainings for choice in training.choices if choice.is_chosen]
    phases = {phase: held.total for phase, held in memory.items()}
    return Card(backend.memory * 1e9, {**phases, "align": _largest(chosen)})


def _engine(recipe: Recipe) -> PlannedEngine | None:
    backend = engine_of(recipe.backend)
    if not isinstance(backend, VllmBackend):
        return None
    return PlannedEngine(vllm_version(backend.python or sys.executable), backend.memory_share)


def _largest(sizes: Sequence[float | None]) -> float | None:
    """None where there is none, or one is not known."""
    known = [size for size in sizes if size is not None]
    return max(known) if known and len(known) == len(sizes) else None


def _row(step: PlannedStep, pace: Pace | None, prices: Prices | None) -> PlanRow:
    return PlanRow(
        name=step.name,
        phase=step.phase,
        requests=step.requests,
        at_most=step.is_bound,
        prompt_tokens=sum(asked.prompt_tokens for asked in step.asked),
        forward_tokens=sum(asked.forward_tokens for asked in step.asked),
        new_tokens=sum(asked.new_tokens for asked in step.asked),
        trained_tokens=step.trained_tokens,
        seconds=pace.seconds(step) if pace else None,
        cost=prices.cost(step) if prices else None,
    )


def _total(rows: Sequence[PlanRow]) -> PlanTotal:
    return PlanTotal(
        requests=sum(row.requests for row in rows),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        forward_tokens=sum(row.forward_tokens for row in rows),
        new_tokens=sum(row.new_tokens for row in rows),
        trained_tokens=sum(row.trained_tokens for row in rows),
        seconds=_known_sum([row.seconds for row in rows]),
        cost=_known_sum([row.cost for row in rows]),
    )


def _known_sum(parts: Sequence[float | None]) -> float | None:
    """None if a part is not known."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _token_counting(rehearsal: Rehearsal) -> dict[str, str]:
    """Model -> how its tokens were counted; one that is asked here and at a server is told twice."""
    unread = rehearsal.by_shape | {name for name, found in rehearsal.descriptions.items() if found is None}
    here = {name: CHARACTERS if name in unread else TOKENIZER for name in rehearsal.descriptions}
    there = {f"{name} (server)" if name in here else name: SERVED for name in sorted(rehearsal.served)}
    return here | there


def _measured(settings: Align, n_once: int) -> int:
    """Tokens of passes without gradients: the reference once, TIS-DPO's personas then too (their own tokens are few).

    KTO's answers to other prompts then and every epoch.
    """
    if not settings.has_reference:
        return 0
    return n_once * {"kto": 2 + settings.epochs, "tis_dpo": 3}.get(settings.method, 1)


def _training(recipe: Recipe, rehearsal: Rehearsal, align: Sequence[PlannedStep]) -> PlannedTraining:
    settings = recipe.align
    n_once = max(step.trained_tokens for step in align) // settings.epochs
    n_pool = max(step.pool_tokens for step in align)
    return PlannedTraining(
        pools=max(step.pools for step in align),
        by_luck=lucky_share(recipe) if recipe.pairs is None and settings.rows == "pairs" else None,
        optimizer_steps=settings.epochs * ceil(n_once / settings.tokens_per_step),
        measured_tokens=_measured(settings, n_once),
        tokens_per_batch=settings.tokens_per_batch,
        gradient_checkpointing=settings.gradient_checkpointing,
        nodes=settings.nodes,
        processes=settings.processes,
        n_shards=settings.n_shards,
        choices=tuple(trained(settings, rehearsal, n_once, n_pool)),
    )
