"""How a judge did on a user's own prompts, as text for a terminal. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator

from selfpriority.judges.own_prompts import BAR, LEAST, Found, OwnPrompts
from selfpriority.judges.probe import far_from_fitted

HEADS = ("objective", "pair", "right", "95 % interval", "n", "unrated", "")


def own_prompts_table(found: OwnPrompts) -> str:
    """One row a contrast, then where the judge fails."""
    rows = [HEADS, *map(_cells, found.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = [f"on {found.n_prompts} of the recipe's own prompts, ties as a half:"]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *_verdict(found)])


def _cells(row: Found) -> tuple[str, ...]:
    right = row.right
    return (
        row.objective,
        row.name,
        "-" if right is None else f"{right.estimate:.2f}",
        "-" if right is None else f"{right.low:.2f} to {right.high:.2f}",
        str(row.n),
        str(row.unrated),
        "too few" if right is None else "fails" if row.fails else "",
    )


def _verdict(found: OwnPrompts) -> Iterator[str]:
    failed = [f"{row.objective} ({row.name})" for row in found.rows if row.fails]
    if failed:
        yield f"on these prompts the judge is right on under {BAR:.0%} of: {'; '.join(failed)}"
    elif any(row.right is not None for row in found.rows):
        yield f"on these prompts the judge is right on {BAR:.0%} or more everywhere"
    if any(row.right is None for row in found.rows):
        yield f"too few: under {LEAST} pairs; more prompts, or a column `kind` that says which are harmful or ordinary"
    if line := far_from_fitted(found.distances):
        yield line
    if found.without:
        yield f"no pairs are known for {', '.join(found.without)}"
