"""Makes `report.html` of a run: the verdict in words, figures, tables and every prompt, in one file without a network.

Reads the run directory only. Everything that came from a model or a data set is escaped and freed of control
codes.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from selfpriority.plain_text import clean
from selfpriority.report.figures import Series, calibration, curves, flow, scatter, whisker
from selfpriority.report.further_judges import other_judges, unconfirmed
from selfpriority.report.packing import Packed, pack
from selfpriority.report.plain import number, percent, words
from selfpriority.report.tables import (
    behaviour_changes,
    beside_the_label,
    contests,
    grid,
    mean_words,
    pareto_of,
    span,
    wins,
)
from selfpriority.report.utility_tables import known, losses, mt_bench_grid
from selfpriority.report.verdict import cautions, evidence, headline, main_contest
from selfpriority.report.view import Round, View, read_view
from selfpriority.run import Run, write_text

SCRIPTS = ("data.js", "prompt.js", "browser.js", "keys.js")
"""In the order they need each other; one script element holds them all."""
UNKNOWN_PARTS = {
    "significance": "Significance",
}
"""Parts of a summary that are shown as they are, whatever their shape."""
Json = Mapping[str, Any]


def write_report(run: Path) -> Path:
    """Writes `report.html` into the run directory, all or nothing, from whatever the run holds so far.

    Raises:
        InputError: not a run directory.
        WorkFailed: the page cannot be written.
    """
    opened = Run.existing(run)
    path = opened.folder / "report.html"
    write_text(path, [render(read_view(opened))])
    return path


def render(view: View) -> str:
    """The page."""
    extras = [("Other judges of the same answers", other_judges(view))]
    extras += [(title, grid((view.summary or {}).get(part))) for part, title in UNKNOWN_PARTS.items()]
    utility = [
        ("What it knows", known(view)),
        ("MT-Bench", mt_bench_grid(view.utility.mt_bench if view.utility else None)),
    ]
    return page(
        "report.html.j2",
        packed(view),
        view=view,
        headline=headline(view),
        evidence=evidence(view),
        cautions=[*cautions(view), *unconfirmed(view), *losses(view)],
        contests=list(contests(view)),
        wins=wins(view),
        span=span(view),
        pareto=pareto_of(view),
        behaviour_changes=list(behaviour_changes(view)),
        extras=[(title, table) for title, table in extras if table],
        utility=[(title, table) for title, table in utility if table],
        beside_the_label=beside_the_label,
        charts=charts,
        scatter_of=scatter_of,
        mean_whisker=mean_whisker,
        mean_words=mean_words,
        agreement_whisker=agreement_whisker,
        calibration_of=calibration_of,
    )


def page(template: str, prompts: Packed, **context: Any) -> str:
    """A template of this folder with our style, our script and the packed prompts; nothing else may run or load."""
    environment = Environment(
        loader=PackageLoader("selfpriority", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clean": clean, "percent": percent, "words": words, "number": number}
    style = own_text("report.css")
    script = "\n".join(own_text(name) for name in SCRIPTS)
    return environment.get_template(template).render(
        **context,
        flow=flow,
        prompts=prompts,
        style=Markup(style),
        style_hash=_hash(style),
        script=Markup(script),
        script_hash=_hash(script),
    )


def own_text(name: str) -> str:
    """Our own style or script; the only text that enters the page unescaped."""
    return (files("selfpriority") / "report" / name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """As a content security policy wants it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def packed(view: View) -> Packed:
    """The prompts of a run with what the browser of prompts must know about them."""
    contest = main_contest(view)
    about = {
        "objectives": [clean(name) for name in view.objectives],
        "tie": view.settings["evaluate"]["tie"],
        "contest": [clean(name) for name in reversed(contest.split("_vs_"))] if contest else [],
    }
    return pack(view.entries, about)


def mean_whisker(name: str, row: Json, bounds: tuple[float, float]) -> Markup:
    """A mean rating on the scale that all of them share."""
    edges = f"drawn from {bounds[0]:g} to {bounds[1]:g}"
    title = f"{name}: {row['mean']:.2f}, interval {row['low']:.2f} to {row['high']:.2f}, {edges}"
    return whisker((row["mean"], row["low"], row["high"]), bounds, None, title)


def agreement_whisker(name: str, row: Json) -> Markup:
    """An agreement with labels on 0..1, chance marked."""
    title = f"{name}: {row['estimate']:.2f}, interval {row['low']:.2f} to {row['high']:.2f}, chance 0.5"
    return whisker((row["estimate"], row["low"], row["high"]), (0.0, 1.0), 0.5, title)


def calibration_of(objective: Json) -> Markup | None:
    """What a judge's ratings on one objective are worth; None where its check had no single labelled answers."""
    bins = [(part["rating"], part["positive"], part["n"]) for part in objective.get("calibration") or ()]
    shares = ", ".join(f"{rating:.1f}: {percent(share)}" for rating, share, _ in bins)
    return calibration(bins, f"{objective['objective']}, share labelled good by rating: {shares}") if bins else None


def scatter_of(round_: Round, objectives: tuple[str, ...]) -> Markup:
    """The ratings of one round."""
    names = (objectives[0], objectives[1]) if len(objectives) > 1 else ("first objective", "second objective")
    title = f"Ratings of {len(round_.points)} answers of round {round_.number}: {names[0]} against {names[1]}"
    return scatter(round_.points, names, title)


@dataclass(frozen=True)
class Chart:
    """A training curve, what to look for in it, and the lines it holds."""

    name: str
    hint: str
    lines: tuple[str, ...]
    figure: Markup


_CHARTS = (
    ("Loss", "Should fall.", ("loss",)),
    ("Margin", "Should rise.", ("margin",)),
    ("Accuracy", "Share of pairs ranked right.", ("accuracy",)),
    (
        "Log-probability",
        "Mean over tokens. Both falling is SimPO's way to fail.",
        ("chosen_logp", "rejected_logp"),
    ),
)


def charts(round_: Round) -> Iterator[Chart]:
    """The training curves that were recorded."""
    steps = [float(row["step"]) for row in round_.training]
    for name, hint, fields in _CHARTS:
        if not all(field in row for row in round_.training for field in fields):
            continue
        series = [Series(f, tuple(_number(row[f]) for row in round_.training)) for f in fields]
        ends = ", ".join(f"{words(s.name)} {s.values[0]:.3g} to {s.values[-1]:.3g}" for s in series)
        lines = tuple(field.removesuffix("_logp") for field in fields)
        yield Chart(name, hint, lines, curves(steps, series, f"{name} over {len(steps)} steps: {ends}"))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
