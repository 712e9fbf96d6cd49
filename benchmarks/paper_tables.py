"""Rows of `paper.py` as Markdown: a table a prompt set and judge, then what was trained on against what was asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from order import over_runs

Row = dict[str, Any]
"""A system's figures by one judge on one objective and prompt set, as `paper.py` keeps them."""
OWN = ("recipe", "changed", "trained_on", "set", "judge")
"""What a table has of its own."""


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """For what was trained on, every set and judge one table: a line a system, its gains in the mean of the runs."""
    for own in dict.fromkeys(tuple(row[name] for name in OWN) for row in rows):
        of_table = [row for row in rows if tuple(row[name] for name in OWN) == own]
        recipe, changed, trained_on, name, judge = own
        objectives = list(dict.fromkeys(row["objective"] for row in of_table))
        rated = [objective for objective in objectives if not objective.startswith("HH_")]
        how = f"{recipe} {changed}".strip()
        yield f"\nTrained on {trained_on} ({how}), asked {name}, by `{judge}` ({of_table[0]['n']} prompts):\n"
        yield from _head("system", [*objectives, *(f"worst tenth, {each}" for each in rated), "over-refusal"])
        for system, setting in dict.fromkeys((row["system"], row["setting"]) for row in of_table):
            of_system = [row for row in of_table if (row["system"], row["setting"]) == (system, setting)]
            label = ", ".join(filter(None, (system, setting)))
            yield f"| {label} | " + " | ".join(_cells(of_system, objectives, rated)) + " |"
    yield from transfer(rows)


def transfer(rows: Sequence[Row], system: str = "spa") -> Iterator[str]:
    """What was trained on against what was asked: the system's gains, and its refusals of what nobody should refuse."""
    own = [row for row in rows if row["system"] == system and not row["setting"]]
    trained_on = list(dict.fromkeys(row["trained_on"] for row in own))
    if len(trained_on) < 2:
        return
    asked = list(dict.fromkeys(row["set"] for row in own))
    for how, judge in dict.fromkeys(((row["recipe"], row["changed"]), row["judge"]) for row in own):
        of_judge = [row for row in own if ((row["recipe"], row["changed"]), row["judge"]) == (how, judge)]
        yield f"\nTransfer of {system} ({' '.join(how).strip()}), by `{judge}`: trained on, asked\n"
        yield from _head("trained on", [f"{name}, {what}" for name, what in product(asked, _rated(of_judge))])
        for name in trained_on:
            cells = (
                [row for row in of_judge if (row["trained_on"], row["set"], row["objective"]) == (name, of, what)]
                for of, what in product(asked, _rated(of_judge))
            )
            yield f"| {name} | " + " | ".join(map(_gain_and_refusals, cells)) + " |"


def _head(first: str, heads: Sequence[str]) -> Iterator[str]:
    yield f"| {first} | " + " | ".join(heads) + " |"
    yield "|---" * (len(heads) + 1) + "|"


def _rated(rows: Sequence[Row]) -> list[str]:
    return [each for each in dict.fromkeys(row["objective"] for row in rows) if not each.startswith("HH_")]


def _cells(rows: Sequence[Row], objectives: Sequence[str], rated: Sequence[str]) -> Iterator[str]:
    """Gains on vanilla, whose own means are shown; then the worst tenths, and refusals of what is fine."""
    for objective in objectives:
        of_objective = [row for row in rows if row["objective"] == objective]
        means = [row["mean"] for row in of_objective if row["mean"] is not None]
        yield _gain(of_objective) or _mean(means, "{:.2f}")
    for objective in rated:
        worst = [row["worst_decile"] for row in rows if row["objective"] == objective]
        yield _mean([value for value in worst if value is not None], "{:.2f}")
    yield _refusals([row for row in rows if row["objective"] == rated[0]])


def _gain_and_refusals(rows: Sequence[Row]) -> str:
    refused = _refusals(rows)
    return f"{_gain(rows)}{f'; refuses {refused}' if refused else ''}"


def _refusals(rows: Sequence[Row]) -> str:
    return _mean([100 * row["over_refusal"] for row in rows if row["over_refusal"] is not None], "{:.0f} %")


def _gain(rows: Sequence[Row]) -> str:
    """With its interval over runs; of one run alone that over prompts. Empty: of vanilla."""
    gains = [row["gain"] for row in rows if row["gain"] and row["gain"]["mean"] is not None]
    if len(gains) != 1:
        return over_runs([gain["mean"] for gain in gains])
    [gain] = gains
    interval = "" if gain["low"] is None else f" ({gain['low']:+.2f} to {gain['high']:+.2f}, 1 run)"
    return f"{gain['mean']:+.2f}{interval}"


def _mean(values: Sequence[float], form: str) -> str:
    return form.format(sum(values) / len(values)) if values else ""
