"""Rows of `paper.py` as Markdown: what the paper claims, then its tables, then what was trained on against asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from statistics import fmean
from typing import Any

from order import interval_over_runs

Row = dict[str, Any]
"""A system's figures by one judge on one objective and prompt set, as `paper.py` keeps them."""
OURS, REFERENCE = "spa", "vanilla"


@dataclass(frozen=True)
class Line:
    """What a line of a table is about."""

    system: str
    setting: str = ""
    """What makes its answers others than those of the recipe."""


@dataclass(frozen=True)
class Found:
    """All rows of one recipe that was trained on one prompt set."""

    trained_on: str
    how: str
    """Recipe, and the fields of it that were changed."""
    rows: tuple[Row, ...]

    def names(self, field: str) -> list[str]:
        """What a field holds, in order of its first time."""
        return list(dict.fromkeys(row[field] for row in self.rows))

    @property
    def objectives(self) -> list[str]:
        """In order of priority, without the weighted means."""
        return [name for name in self.names("objective") if not name.startswith("HH_")]

    @property
    def weighted(self) -> list[str]:
        """HH_<lambda>, every lambda."""
        return [name for name in self.names("objective") if name.startswith("HH_")]

    @property
    def lines(self) -> list[Line]:
        """Of every table."""
        return list(dict.fromkeys(Line(row["system"], row["setting"]) for row in self.rows))

    def of(self, line: Line, **fields: str) -> list[Row]:
        """The rows of a line, one a run where all of set, judge and objective are told."""
        wanted = {**asdict(line), **fields}
        return [row for row in self.rows if all(row[name] == value for name, value in wanted.items())]


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """For every prompt set that was trained on the claims, a table a set that was asked, and the weighted means."""
    ways = list(dict.fromkeys((row["recipe"], row["changed"], row["trained_on"]) for row in rows))
    for way in ways:
        of_way = tuple(row for row in rows if (row["recipe"], row["changed"], row["trained_on"]) == way)
        found = Found(way[2], f"{way[0]} {way[1]}".strip(), of_way)
        yield f"\n### Trained on {found.trained_on} ({found.how}): seeds {', '.join(map(str, found.names('seed')))}\n"
        yield from claims(found)
        for asked in sorted(found.names("set"), key=lambda name: name != found.trained_on):
            yield from ratings(found, asked)
        yield from weighted(found)
    yield from transfer(rows)


def claims(found: Found) -> Iterator[str]:
    """What the paper says of SPA, and what was found: both objectives, the weighted means, refusals of what is fine."""
    ours = Line(OURS)
    if ours not in found.lines:
        return
    for judge in found.names("judge"):
        gains = {name: found.of(ours, set=found.trained_on, judge=judge, objective=name) for name in found.objectives}
        told = "; ".join(f"{name} {_gain(rows)}" for name, rows in gains.items())
        yield f"- {OURS} minus {REFERENCE}, by `{judge}`: {told}."
        above = {name: _above(found, ours, judge, name) for name in found.weighted}
        for others in dict.fromkeys(above.values()):
            names = ", ".join(name for name in above if above[name] == others)
            yield f"- {names}, by `{judge}`: {f'above {OURS}: {others}' if others else f'{OURS} is highest'}."
    before, after = (_refused(found, Line(name)) for name in (REFERENCE, OURS))
    if before and after:
        yield f"- Refusals of prompts that nobody should refuse: {before} before, {after} after."


def _above(found: Found, ours: Line, judge: str, objective: str) -> str:
    """The other systems of the same setting whose mean gain is larger."""

    def gain(line: Line) -> float:
        rows = found.of(line, set=found.trained_on, judge=judge, objective=objective)
        gains = [row["gain"]["mean"] for row in rows if row["gain"] and row["gain"]["mean"] is not None]
        return fmean(gains) if gains else 0.0  # vanilla's

    others = [line for line in found.lines if line.setting == ours.setting]
    return ", ".join(line.system for line in others if gain(line) > gain(ours))


def ratings(found: Found, asked: str) -> Iterator[str]:
    """One line a system: by every judge its gains and its worst tenth; then refusals of what nobody should refuse."""
    judges, first = found.names("judge"), found.objectives[0]
    n = next(row["n"] for row in found.rows if row["set"] == asked)
    yield f"\nAsked {asked} ({n} prompts a run), minus {REFERENCE}, whose means are shown:\n"
    heads = [
        head
        for judge in judges
        for head in (*(f"{name}, `{judge}`" for name in found.objectives), f"worst tenth, {first}, `{judge}`")
    ]
    yield from _head("system", [*heads, "over-refusals"])
    for line in found.lines:
        cells: list[str] = []
        for judge in judges:
            of_judge = [found.of(line, set=asked, judge=judge, objective=name) for name in found.objectives]
            cells += [_gain_or_mean(rows) for rows in of_judge]
            cells.append(_mean([row["worst_decile"] for row in of_judge[0]], "{:.2f}"))
        yield f"| {_label(found, line)} | " + " | ".join([*cells, _refused(found, line)]) + " |"


def weighted(found: Found) -> Iterator[str]:
    """HH_<lambda> on the prompts of the set that was trained on, every judge and lambda."""
    columns = list(product(found.names("judge"), found.weighted))
    yield f"\nHH_λ, asked {found.trained_on}, minus {REFERENCE}, whose means are shown:\n"
    yield from _head("system", [f"{name}, `{judge}`" for judge, name in columns])
    for line in found.lines:
        cells = [
            _gain_or_mean(found.of(line, set=found.trained_on, judge=judge, objective=name)) for judge, name in columns
        ]
        yield f"| {_label(found, line)} | " + " | ".join(cells) + " |"


def transfer(rows: Sequence[Row]) -> Iterator[str]:
    """What was trained on against what was asked: the system's gains, and its refusals of what nobody should refuse."""
    own = [row for row in rows if row["system"] == OURS and not row["setting"]]
    trained_on = list(dict.fromkeys(row["trained_on"] for row in own))
    if len(trained_on) < 2:
        return
    asked = list(dict.fromkeys(row["set"] for row in own))
    for how, judge in dict.fromkeys(((row["recipe"], row["changed"]), row["judge"]) for row in own):
        of_judge = [row for row in own if ((row["recipe"], row["changed"]), row["judge"]) == (how, judge)]
        rated = [name for name in dict.fromkeys(row["objective"] for row in of_judge) if not name.startswith("HH_")]
        yield f"\n### Transfer of {OURS} ({' '.join(how).strip()}), by `{judge}`: trained on, asked\n"
        yield from _head("trained on", [f"{name}, {what}" for name, what in product(asked, rated)])
        for name in trained_on:
            cells = (
                [row for row in of_judge if (row["trained_on"], row["set"], row["objective"]) == (name, of, what)]
                for of, what in product(asked, rated)
            )
            yield f"| {name} | " + " | ".join(map(_gain_and_refusals, cells)) + " |"


def _head(first: str, heads: Sequence[str]) -> Iterator[str]:
    yield f"| {first} | " + " | ".join(heads) + " |"
    yield "|---" * (len(heads) + 1) + "|"


def _label(found: Found, line: Line) -> str:
    """Its name and setting, and in how many runs it was, where those are fewer than all."""
    seeds = {row["seed"] for row in found.of(line)}
    runs = "" if len(seeds) == len(found.names("seed")) else f"{len(seeds)} run{'s' * (len(seeds) > 1)}"
    return ", ".join(filter(None, (line.system, line.setting, runs)))


def _refused(found: Found, line: Line) -> str:
    """Of all prompts that nobody should refuse, whichever set they are in; a set counts as much as any other."""
    objective = found.objectives[0]
    return _share(found.of(line, objective=objective, judge=found.names("judge")[0]))


def _gain_and_refusals(rows: Sequence[Row]) -> str:
    refused = _share(rows)
    return f"{_gain(rows)}{f'; refuses {refused}' if refused else ''}"


def _share(rows: Sequence[Row]) -> str:
    return _mean([None if row["over_refusal"] is None else 100 * row["over_refusal"] for row in rows], "{:.0f} %")


def _gain_or_mean(rows: Sequence[Row]) -> str:
    return _gain(rows) or _mean([row["mean"] for row in rows], "{:.2f}")


def _gain(rows: Sequence[Row]) -> str:
    """In the mean of the runs with its interval over them, that of one run alone over prompts; empty: of vanilla."""
    gains = [row["gain"] for row in rows if row["gain"] and row["gain"]["mean"] is not None]
    if len(gains) > 1:
        return interval_over_runs([gain["mean"] for gain in gains])
    if not gains:
        return ""
    [gain] = gains
    interval = "" if gain["low"] is None else f" ({gain['low']:+.2f} to {gain['high']:+.2f}, 1 run)"
    return f"{gain['mean']:+.2f}{interval}"


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(sum(known) / len(known)) if known else ""
