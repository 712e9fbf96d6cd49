"""What the inspections read from a run directory: its recipe, its rounds, their pairs. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError
from selfpriority.preferences import PreferenceRow, objectives_in, paired_pools
from selfpriority.recipe import Recipe, load
from selfpriority.records import PairedPool, Pool
from selfpriority.run import PAIRS, POOLS, Run
from selfpriority.run_records import trained_by
from selfpriority.storage import intact, read_rows

T = TypeVar("T")


def recipe_of(run: Run) -> Recipe:
    """The recipe the run follows, every default resolved."""
    return load(run.recipe)


def objectives_of(run: Run) -> tuple[str, ...]:
    """Names of the objectives, in priority order; of pairs of one's own those that their file rates."""
    recipe = recipe_of(run)
    path = run.round(1) / PAIRS
    if recipe.pairs is not None and path.is_file():
        return objectives_in(read_rows(path, PreferenceRow))
    return load_constitution(recipe.constitution).names


def rounds_with(run: Run, name: str) -> list[int]:
    """The rounds of the recipe that have a file `name` so far."""
    return [n for n in range(1, recipe_of(run).rounds + 1) if (run.round(n) / name).is_file()]


def stored_pairs(run: Run, number: int) -> list[PreferenceRow]:
    """The preference rows of a round; none where its answers are learned and not compared.

    Raises:
        InputError: the round has no pairs yet, and should have.
    """
    path = run.round(number) / PAIRS
    if not path.is_file():
        there = ", ".join(map(str, rounds_with(run, PAIRS))) or "none"
        raise InputError(f"{path}: no pairs in round {number} (rounds with pairs: {there}); `spa run` makes them")
    rows = read_rows(path, PreferenceRow)
    align = recipe_of(run).align
    if align.method == "grpo":
        raise InputError(f"{path}: holds no pair: an online training draws its answers as it goes (align.method: grpo)")
    if not rows and align.compares:
        raise InputError(f"{path}: holds no pair; `spa show {run.folder}` says why")
    return rows


def paired_of(run: Run, number: int) -> list[PairedPool]:
    """The pools of a round with their pairs.

    Raises:
        InputError: the round has no pairs yet, or they are older than its pools or than the recipe.
    """
    rows = stored_pairs(run, number)
    steps = {name: entry for name, entry in run.manifest.steps.items() if name.startswith(f"round-{number}/")}
    older = next((name for name in steps if steps[name].state == "older" and name != trained_by(number)), None)
    if older is not None:
        path = run.round(number) / PAIRS
        raise InputError(
            f"{path}: {older} was done under another recipe than {run.recipe.name}; `spa run` does it anew"
        )
    pools = read_rows(run.round(number) / POOLS, Pool)
    known = {(pool.prompt.id, scored.response.id) for pool in pools for scored in pool.responses}
    used = {(row.prompt_id, id_) for row in rows for id_ in (row.chosen_id, row.rejected_id)}
    if not used <= known:
        path = run.round(number) / PAIRS
        raise InputError(f"{path}: does not belong to {POOLS} beside it; `spa collect {run.folder}` makes it anew")
    return paired_pools(pools, rows, objectives_of(run), recipe_of(run).align.rows != "pairs")


def rows_about(path: Path, cls: type[T], prompt_id: str, id_of: Callable[[T], str]) -> list[T]:
    """The records of a JSONL file that belong to one prompt; lines without its id are not parsed."""
    if not path.is_file():
        return []
    needle = TypeAdapter(str).dump_json(prompt_id)
    adapter, rows = TypeAdapter(cls), []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if needle in line:
                with intact(f"{path}:{number}"):
                    rows.append(adapter.validate_json(line))
    return [row for row in rows if id_of(row) == prompt_id]
