"""The plan of a run: requests, tokens, time and money by step, memory by phase, as one JSON-ready object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any

from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Reporter
from selfpriority.planning.memory import held, trained
from selfpriority.planning.pace import Earlier, Pace, Prices
from selfpriority.planning.requests import PlannedStep, Rehearsal, planned_steps
from selfpriority.recipe import Recipe, load
from selfpriority.run import Run

Json = dict[str, Any]

TOKENIZER, CHARACTERS = "tokenizer", "estimate: 4 characters a token, for its tokenizer is not on this machine"
SERVED = "estimate: 4 characters a token, for only its server knows it"


def plan(
    path: Path, overrides: Sequence[str], out: Path | None, rates: Pace | None = None, prices: Prices | None = None
) -> Json:
    """What `spa run` with the same arguments would do, from nothing done before.

    Args:
        path: the recipe.
        overrides: `FIELD=VALUE`.
        out: the run directory; if it holds a manifest, that is where rates come from.
        rates: tokens a second, in place of the manifest's.
        prices: of servers.

    Raises:
        InputError: whatever would stop the run in its first second.
    """
    recipe = with_absolute_paths(load(path, overrides), path.parent)
    run = Run(out or Path("runs") / path.stem)
    rehearsal = Rehearsal(recipe, run, Reporter())
    steps = list(planned_steps(rehearsal))
    pace = rates or (Earlier.of(run.manifest, str(run.folder)) if run.manifest.steps else None)
    rows = [_row(step, pace, prices) for step in steps]
    align = [step for step in steps if step.trained_tokens]
    return {
        "recipe": str(path),
        "tokens": _told_tokens(rehearsal),
        "steps": rows,
        "total": _total(rows),
        "rates": pace.source if pace else None,
        "memory": {phase: asdict(bytes_) for phase, bytes_ in held(steps, rehearsal).items()},
        "training": _training(recipe, rehearsal, align),
    }


def _row(step: PlannedStep, pace: Pace | None, prices: Prices | None) -> Json:
    def total(name: str) -> int:
        return sum(getattr(asked, name) for asked in step.asked)

    return {
        "name": step.name,
        "phase": step.phase,
        "requests": step.requests,
        "at_most": step.is_bound,
        "prompt_tokens": total("prompt_tokens"),
        "forward_tokens": total("forward_tokens"),
        "new_tokens": total("new_tokens"),
        "trained_tokens": step.trained_tokens,
        "seconds": pace.seconds(step) if pace else None,
        "cost": prices.cost(step) if prices else None,
    }


def _total(rows: Sequence[Json]) -> Json:
    """Sums; null where a part is not known."""
    names = ("requests", "prompt_tokens", "forward_tokens", "new_tokens", "trained_tokens", "seconds", "cost")
    columns = {name: [row[name] for row in rows] for name in names}
    return {name: None if None in column else sum(column) for name, column in columns.items()}


def _told_tokens(rehearsal: Rehearsal) -> dict[str, str]:
    """Model -> how its tokens were counted; one that is asked here and at a server is told twice."""
    here = {name: TOKENIZER if found else CHARACTERS for name, found in rehearsal.descriptions.items()}
    there = {f"{name} (server)" if name in here else name: SERVED for name in sorted(rehearsal.served)}
    return here | there


def _training(recipe: Recipe, rehearsal: Rehearsal, align: Sequence[PlannedStep]) -> Json:
    """The training of the largest round."""
    settings = recipe.align
    n_once = max(step.trained_tokens for step in align) // settings.epochs
    n_pool = max(step.pool_tokens for step in align)
    return {
        "optimizer_steps": settings.epochs * ceil(n_once / settings.tokens_per_step),
        "tokens_per_batch": settings.tokens_per_batch,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "choices": [asdict(row) for row in trained(settings, rehearsal, n_once, n_pool)],
    }
