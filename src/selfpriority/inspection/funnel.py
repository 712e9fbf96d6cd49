"""The funnel of a run: what every step of every round took in, kept and dropped, as records and as text.

Reads an unfinished run as well as a finished one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, PlainSerializer

from selfpriority.inspection.run_files import recipe_of
from selfpriority.phases.own_steps import steps_of
from selfpriority.plain_text import clean
from selfpriority.recipe import Recipe, trained_systems
from selfpriority.run import SYSTEMS, Run
from selfpriority.run_records import PairCounts
from selfpriority.storage import as_json
from selfpriority.text_table import text_table


def steps_counted(recipe: Recipe) -> tuple[str, ...]:
    """What the funnel of a recipe's rounds counts, in order."""
    return ("prompts", *(step.name for step in steps_of(recipe)), "align")


def _counted_so_far(pairs: PairCounts | None) -> Any:
    return None if pairs is None else as_json(pairs, without_none=True)


@dataclass(frozen=True)
class StepCounts:
    """One step; reasons come most frequent first."""

    step: str
    n_in: Annotated[int, Field(alias="in")]
    out: int
    dropped: dict[str, int]
    """Reason -> prompts."""
    responses_dropped: dict[str, int]
    """Reason -> single answers."""


@dataclass(frozen=True)
class RoundCounts:
    """One round so far."""

    round: int
    steps: tuple[StepCounts, ...]
    pairs: Annotated[PairCounts | None, PlainSerializer(_counted_so_far)]
    next: str | None
    """The first step that is not done."""


@dataclass(frozen=True)
class RunCounts:
    """Every round of the recipe."""

    run: str
    """Name of its folder."""
    n_rounds: int
    rounds: tuple[RoundCounts, ...]
    systems: tuple[RunCounts, ...] = ()
    """Further systems that the run trains on its own answers."""


def funnel(run: Run) -> RunCounts:
    """Counts of every step so far, for every round of the recipe."""
    recipe = recipe_of(run)
    rounds = tuple(_round_counts(run, n, steps_counted(recipe)) for n in range(1, recipe.rounds + 1))
    others = (run.folder / SYSTEMS / name for name in trained_systems(recipe))
    systems = tuple(funnel(Run(folder)) for folder in others if (folder / "resolved.yaml").is_file())
    return RunCounts(run.folder.name, recipe.rounds, rounds, systems)


def _round_counts(run: Run, number: int, names: Sequence[str]) -> RoundCounts:
    stored = run.funnel(number)
    steps = tuple(
        StepCounts(name, row.n_in, row.out, _most_first(row.dropped), _most_first(row.responses_dropped))
        for name in names
        if (row := stored.steps.get(name))
    )
    left = [name for name in names[1:] if name not in stored.steps]
    return RoundCounts(number, steps, stored.pairs, left[0] if left else None)


def _most_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def funnel_text(counts: RunCounts) -> str:
    """`funnel` for a terminal."""
    blocks = []
    for entry in counts.rounds:
        lines = [f"round {entry.round} of {counts.n_rounds}"]
        if entry.steps:
            rows = [["step", "in", "out", "dropped", "why"], *map(_step_cells, entry.steps)]
            lines += ["  " + line for line in text_table(rows, "<>>><")]
        if entry.pairs:
            lines += _pairs_lines(entry.pairs)
        if entry.next:
            lines.append(f"  next: {entry.next}" if entry.steps else "  nothing done yet")
        blocks.append("\n".join(lines))
    blocks += ["\n".join(_system_lines(system)) for system in counts.systems]
    return clean("\n\n".join(blocks))


def _system_lines(counts: RunCounts) -> Iterator[str]:
    """A further system in short; its folder shows as any run does."""
    for entry in counts.rounds:
        yield f"{counts.run}, trained on the same answers" + (f", round {entry.round}" if counts.n_rounds > 1 else "")
        yield from _pairs_lines(entry.pairs) if entry.pairs else ()
        if entry.next:
            yield f"  next: {entry.next}"


def _step_cells(row: StepCounts) -> list[str]:
    why = _counted(row.dropped)
    if row.responses_dropped:
        n = sum(row.responses_dropped.values())
        what = "rows left out" if row.step == "prompts" else "single answers lost"  # of a file of one's own pairs
        why += f"{'; ' if why else ''}{what}: {n} ({_counted(row.responses_dropped)})"
    return [row.step, str(row.n_in), str(row.out), str(sum(row.dropped.values())), why]


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in reasons.items())


def _pairs_lines(pairs: PairCounts) -> Iterator[str]:
    if pairs.n is not None:
        shares = ((name, n, n / max(pairs.n, 1)) for name, n in (pairs.decided_by or {}).items())
        yield f"  pairs: {pairs.n}; decided by {', '.join(f'{name} {n} ({share:.0%})' for name, n, share in shares)}"
    if pairs.trained is not None:
        yield f"  trained on {pairs.trained} pairs; {pairs.light_share or 0.0:.0%} of them weigh under 0.1"
    if pairs.contested is not None:
        weight = f"; they hold {pairs.contested_weight or 0.0:.0%} of the weight"
        yield f"  {pairs.contested:.0%} of them lose on another objective than the one that decided{weight}"
    if pairs.survived is not None:
        yield f"  movement that survived saving: {pairs.survived:.3f}"
