"""The comparison of systems as the page's tables and bars want it: numbers in words, figures beside them.

Reads the summary, also one with parts that this version does not know. Knows nothing of run directories.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from selfpriority.rating import HIGHEST, LOWEST
from selfpriority.report.figures import Place, pareto, shares, whisker
from selfpriority.report.plain import DASH, number, probability, signed, words
from selfpriority.report.verdict import change_in_numbers, is_clear, stated
from selfpriority.report.view import View

Json = Mapping[str, Any]
BEHAVIOUR = {
    "refusal": ("refusals, points", 100.0),
    "over_refusal": ("over-refusals, points", 100.0),
    "words": ("words an answer", 1.0),
}
"""What a difference in behaviour is called, and what its unit is worth."""
TESTED_BEHAVIOUR = (
    "Points are percentage points. * p, corrected for the number of comparisons of behaviour (Holm), is at most 0.05. "
    "Intervals resample prompts and are not corrected."
)
MOST_ROWS = 80
"""Rows of a table about a part of the summary that this version does not know."""


def contests(view: View) -> Iterator[Json]:
    """One row for every system but the first, kind of prompt and objective: difference, interval, test."""
    summary = view.summary
    if summary is None:
        return
    groups = {"all": summary} | (summary["by_kind"] if len(summary["by_kind"]) > 1 else {})
    first = next(iter(summary["systems"]), "")
    keys = [key for key in summary["difference"] if key.endswith(f"_vs_{first}")]
    rated = [row for group in groups.values() for key in keys for row in group["difference"].get(key, {}).values()]
    reach = max([1.0, *(abs(row[edge]) for row in rated if row["mean"] is not None for edge in ("low", "high"))])
    for key in keys:
        for kind, group in groups.items():
            for name, row in group["difference"].get(key, {}).items():
                if kind == "all" or name in view.objectives:
                    yield contest(_names(key), kind, name, row, reach)


def _names(key: str) -> tuple[str, str]:
    system, _, baseline = key.partition("_vs_")
    return system, baseline


def contest(names: tuple[str, str], kind: str, name: str, row: Json, reach: float) -> Json:
    """One difference of (system, baseline); `reach` is what the edges of its figure mean."""
    system, baseline = names
    title = f"{name}, {system} minus {baseline}, {kind} prompts: {change_in_numbers(row)}"
    drawn = row["mean"] is not None
    return {
        "system": system,
        "baseline": baseline,
        "kind": kind,
        "name": name,
        "n": row["n"],
        "words": _longer(row) or DASH,
        "mean": signed(row["mean"]) if drawn else DASH,
        "interval": f"{signed(row['low'])} to {signed(row['high'])}" if drawn else "",
        "p": probability(row.get("p")),
        "p_holm": probability(row.get("p_holm")),
        "sure": is_clear(row),
        "figure": whisker((row["mean"], row["low"], row["high"]), (-reach, reach), 0.0, title) if drawn else "",
    }


def _longer(row: Json) -> str:
    """By how many words a's answers are longer; empty where nobody counted."""
    return "" if row.get("words") is None else signed(row["words"], 1)


def mean_words(rows: Json) -> str:
    """Mean length of the answers behind a system's scores; several where the scores rest on different answers."""
    counted = [row["words"] for row in rows.values() if isinstance(row, Mapping) and row.get("words") is not None]
    return " / ".join(dict.fromkeys(f"{n_words:.1f}" for n_words in counted)) or DASH


@dataclass(frozen=True)
class Wins:
    """How often one system beat another on one objective."""

    system: str
    baseline: str
    objective: str
    n: int
    parts: tuple[tuple[str, float, str], ...]
    """(win, tie or lose; share; its interval in words)."""
    clear: bool | None
    """Whether a test says that as many won as lost is unlikely; None without a test."""
    bar: Markup
    p: str = ""
    """Of "as many won as lost", corrected; empty without a test."""
    words: str = ""
    """Difference in words on the same prompts; empty where nobody counted."""
    flip_rate: float | None = None
    """Where a judge saw both answers in both orders: how often its verdict depended on the order. None: by ratings."""


def wins(view: View) -> list[Wins]:
    """Every contest against the first system that has been counted by prompt."""
    summary = view.summary or {}
    first = next(iter(summary.get("systems", {})), "")
    found = []
    for key, rows in summary.get("pairwise", {}).items():
        system, baseline = _names(key)
        if baseline == first:
            found += [win_row((system, baseline), name, row) for name, row in rows.items() if row["n"]]
    return found


def win_row(names: tuple[str, str], objective: str, row: Json) -> Wins:
    """Wins of (system, baseline) on one objective, from a cell of `pairwise`."""
    system, baseline = names
    intervals = row.get("intervals") or {}
    parts = tuple((name, row[name], _share_interval(intervals.get(name))) for name in ("win", "tie", "lose"))
    title = ", ".join(f"{name} {share:.0%}" for name, share, _ in parts)
    flips = row.get("flip_rate") if "first_shown" in row else None
    bar = shares([part[:2] for part in parts], f"{objective}, {system} against {baseline}: {title}")
    p = "" if row.get("p_holm") is None else stated(row["p_holm"])
    return Wins(system, baseline, objective, row["n"], parts, row.get("significant"), bar, p, _longer(row), flips)


def _share_interval(edges: Sequence[float] | None) -> str:
    return "" if not edges else f"{edges[0]:.0%} to {edges[1]:.0%}".replace("%", "\u2009%")


def pareto_of(view: View) -> Markup | None:
    """Systems by the means of their first two objectives; None with fewer than two of either."""
    if view.summary is None or len(view.objectives) < 2:
        return None
    places = []
    for system, rows in view.summary["systems"].items():
        first, second = (rows.get(name) or {} for name in view.objectives[:2])
        if first.get("mean") is not None and second.get("mean") is not None:
            edges = [(row["mean"], row["low"], row["high"]) for row in (first, second)]
            places.append(Place(system, edges[0], edges[1]))
    names = (words(view.objectives[0]), words(view.objectives[1]))
    title = "; ".join(f"{p.name}: {names[0]} {p.primary[0]:.2f}, {names[1]} {p.secondary[0]:.2f}" for p in places)
    return pareto(places, names, title) if len(places) > 1 else None


def span(view: View) -> tuple[float, float]:
    """The whole ratings between which every mean and its interval lies: the scale of the table's figures."""
    summary = view.summary or {}
    groups = [summary.get("systems", {}), *(part["systems"] for part in summary.get("by_kind", {}).values())]
    rows = [rows[name] for systems in groups for rows in systems.values() for name in view.objectives]
    rated = [row for row in rows if row["mean"] is not None]
    if not rated:
        return LOWEST, HIGHEST
    low, high = math.floor(min(row["low"] for row in rated)), math.ceil(max(row["high"] for row in rated))
    return float(low), float(max(high, low + 1))


def beside_the_label(report: Json) -> Grid | None:
    """What else moves a judge (length, refusals, texts that speak to it), where its check has measured that."""
    objectives = report.get("objectives", ())
    found = {o["objective"]: {name: o.get(name) or {} for name in ("bias", "attacks")} for o in objectives}
    return grid(found)


@dataclass(frozen=True)
class Grid:
    """A table of texts, as one about a part of the summary whose shape this version does not know."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    note: str = ""
    """What has to be known to read it."""


def grid(value: Any) -> Grid | None:
    """Nested numbers as a table: the innermost names are columns, those around them rows. None when there is none."""
    cells: dict[str, dict[str, str]] = {}
    for path, leaf in _leaves(value, ()):
        row = " \N{MIDDLE DOT} ".join(words(part) for part in path[:-1])
        cells.setdefault(row, {})[words(path[-1])] = leaf
    if not cells:
        return None
    columns = tuple(dict.fromkeys(name for row in cells.values() for name in row))
    rows = tuple((name, tuple(row.get(column, DASH) for column in columns)) for name, row in cells.items())
    return Grid(columns, rows[:MOST_ROWS])


def behaviour_changes(view: View) -> Iterator[tuple[str, Grid]]:
    """How every system behaves otherwise than the first on the same prompts, with tests: a title and its table."""
    summary = view.summary or {}
    first = next(iter(summary.get("systems", {})), "")
    columns = ("difference", "95\u2009% interval", "p", "p, corrected", "n")
    for key, cells in summary.get("behaviour_difference", {}).items():
        system, baseline = _names(key)
        if baseline == first:
            named = [(*BEHAVIOUR.get(name, (words(name), 1.0)), row) for name, row in cells.items()]
            rows = tuple(
                (f"{label} *" if row["significant"] else label, _tested(row, unit)) for label, unit, row in named
            )
            yield f"{system} minus {baseline}, on the same prompts", Grid(columns, rows, TESTED_BEHAVIOUR)


def _tested(row: Json, unit: float) -> tuple[str, ...]:
    if row["mean"] is None:
        return (DASH, "", "", "", "0")
    mean, low, high = (signed(row[edge] * unit, 1) for edge in ("mean", "low", "high"))
    return mean, f"{low} to {high}", probability(row["p"]), probability(row["p_holm"]), str(row["n"])


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, Mapping):
        for key in ("mean", "estimate"):
            if isinstance(value.get(key), int | float):
                edges = [value.get("low"), value.get("high")]
                interval = "" if None in edges else f" ({number(edges[0])} to {number(edges[1])})"
                yield path or ("value",), f"{number(value[key])}{interval}"
                return
        for name, inner in value.items():
            yield from _leaves(inner, (*path, str(name)))
    elif path and not isinstance(value, list | tuple):
        yield path, number(value)
