"""What one round of a run holds, finished or not: its funnel, its ratings and its training.

Every file may be missing. Knows file names and shapes, nothing of HTML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from selfpriority.recipe import TRAINED, OtherSystem, Recipe, merged_systems, trained_systems
from selfpriority.records import Pool, Scored
from selfpriority.run import MERGED, POOLS, REFINED, SCORED, SYSTEMS, Run
from selfpriority.run_records import FunnelStep, PairCounts
from selfpriority.storage import intact, read_rows

T = TypeVar("T")

MOST_POINTS = 1500
"""Points of one scatter plot; more are thinned evenly."""


@dataclass(frozen=True)
class Point:
    """The first two ratings of one answer, and what became of its prompt."""

    primary: float
    secondary: float
    refined: bool
    kept: bool | None
    """None: not decided yet."""


@dataclass(frozen=True)
class Round:
    """One round: how many prompts each step kept, its pairs, ratings and training."""

    number: int
    steps: dict[str, FunnelStep]
    pairs: PairCounts
    points: tuple[Point, ...]
    n_points: int
    """Before thinning."""
    training: tuple[Mapping[str, float | None], ...]
    """A row a step of training; what could not be measured is None."""
    alarms: Mapping[str, int] = field(default_factory=dict)
    """Alarm -> steps of the training that raised it."""


_TRAINING = TypeAdapter(dict[str, float | None])
_LOG = TypeAdapter(dict[str, float | str | None])
_ALARM = "alarm"


def read_round(run: Run, number: int) -> Round:
    """What there is of one round."""
    folder = run.round(number)
    funnel = run.funnel(number)
    points, log = _points(folder), _log(folder / "training.jsonl")
    return Round(
        number=number,
        steps=funnel.steps,
        pairs=funnel.pairs or PairCounts(),
        points=tuple(_thinned(points, MOST_POINTS)),
        n_points=len(points),
        training=tuple(_TRAINING.validate_python({k: v for k, v in row.items() if k != _ALARM}) for row in log),
        alarms=Counter(name for row in log if _ALARM in row for name in str(row[_ALARM]).split(", ")),
    )


@dataclass(frozen=True)
class TrainedSystem:
    """What a system of the run was trained on."""

    name: str
    differs: str
    """What its training differs in from the recipe's, as `pair.order: swapped`; empty: the run's own."""
    pools: int | None
    """None: it is merged of others, and trained on nothing itself."""
    pairs: PairCounts


def read_systems(run: Run, recipe: Recipe) -> tuple[TrainedSystem, ...]:
    """The run's own system, those it trains beside, in their last round, and those that are merged of them.

    None where nothing is trained beside and nothing merged.
    """
    others, merged = recipe.evaluate.more_systems, merged_systems(recipe)
    differs = {name: ", ".join(differences(others[name], recipe)) for name in trained_systems(recipe)}
    if not differs and not merged:
        return ()
    places = {TRAINED: run, **{name: Run(run.folder / SYSTEMS / name) for name in differs}}
    trained = [
        TrainedSystem(name, differs.get(name, ""), funnel.steps["pair"].out, funnel.pairs)
        for name, place in places.items()
        if (funnel := place.funnel(recipe.rounds)).pairs is not None and "pair" in funnel.steps
    ]
    made = [name for name in merged if (run.folder / MERGED / name).is_dir()]
    return (*trained, *(TrainedSystem(name, _sum(merged[name]), None, PairCounts()) for name in made))


def _sum(merged: Mapping[str, float]) -> str:
    return "merged: " + " + ".join(f"{weight:g} {name}" for name, weight in merged.items())


def differences(other: OtherSystem, recipe: Recipe) -> Iterator[str]:
    """What a system's training differs in from the recipe's, as `pair.order: swapped`."""
    yield from _spelled(other.train, recipe.model_dump(mode="json"))
    if other.start is not None:
        yield f"starts from: {other.start}"


def _spelled(changes: Mapping[str, Any], ours: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Fields and values that are not ours; a system may also say what the recipe says."""
    for name, value in changes.items():
        own = ours.get(name)
        if isinstance(value, Mapping):
            yield from _spelled(value, own if isinstance(own, Mapping) else {}, f"{before}{name}.")
        elif name not in ours or value != own:
            yield f"{before}{name}: {value}"


def _points(folder: Path) -> list[Point]:
    """Ratings of the round so far; a pool with one objective only has no second axis and gives none."""
    path = next((folder / name for name in (REFINED, SCORED) if (folder / name).is_file()), None)
    if path is None:
        return []
    kept = None
    if (folder / POOLS).is_file():
        kept = {pool.prompt.id for pool in read_rows(folder / POOLS, Pool)}
    points: list[Point] = []
    for pool in read_rows(path, Pool):
        is_kept = None if kept is None else pool.prompt.id in kept
        points += [_point(candidate, False, is_kept) for candidate in pool.candidates]
        points += [] if pool.refined is None else [_point(pool.refined, True, is_kept)]
    return points


def _point(scored: Scored, refined: bool, kept: bool | None) -> Point:
    primary, secondary, *_ = scored.scores
    return Point(primary, secondary, refined, kept)


def _log(path: Path) -> list[dict[str, Any]]:
    """The rows so far. A last line without its newline is being written right now."""
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if line.endswith(b"\n"):
            with intact(f"{path}:{number}", "delete the line: it is shown and nothing more"):
                rows.append(_LOG.validate_json(line))
    return rows


def _thinned(rows: Sequence[T], most: int) -> Sequence[T]:
    """At most `most` of the rows, evenly spaced, so that nobody chose them."""
    if len(rows) <= most:
        return rows
    return [rows[i * len(rows) // most] for i in range(most)]
