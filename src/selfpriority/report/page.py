"""Makes `report.html` of a run: the verdict in words, figures, tables and every prompt, in one file without a network.

Reads the run directory only. Everything that came from a model or a data set is escaped and freed of control
codes.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from selfpriority.evaluation.few import is_thin
from selfpriority.formats import PAGE, counted, probability
from selfpriority.plain_text import clean
from selfpriority.report.cards import write_policy_cards
from selfpriority.report.figures import Series, curves, flow, scatter
from selfpriority.report.further_judges import unconfirmed
from selfpriority.report.judge_tables import agreement_whisker, beside_the_label, calibration_of
from selfpriority.report.packing import Packed, pack
from selfpriority.report.plain import words
from selfpriority.report.results import further_result, main_result
from selfpriority.report.rounds import Round
from selfpriority.report.tables import (
    TESTED_BEHAVIOUR,
    Grid,
    GridRow,
    answer_counts,
    clear_wins,
    drawn_from,
    mean_whisker,
    mean_words,
    refusals_of,
    unrated_counts,
)
from selfpriority.report.utility_tables import known, losses, mt_bench_grid
from selfpriority.report.verdict import alarms, cautions, evidence, headline, main_contest
from selfpriority.report.view import View, read_view
from selfpriority.run import Run
from selfpriority.storage import write_text

SCRIPTS = ("data.js", "prompt.js", "browser.js", "keys.js")
"""In the order they need each other; one script element holds them all."""


def write_report(run: Path) -> Path:
    """Writes `report.html` into the run directory, all or nothing, from whatever the run holds so far.

    Raises:
        InputError: not a run directory.
        WorkFailed: the page cannot be written.
    """
    opened = Run.existing(run)
    path = opened.folder / "report.html"
    write_text(path, [render(read_view(opened))])
    write_policy_cards(opened)  # which know the results from now on
    return path


def render(view: View) -> str:
    """The page."""
    mt_bench = view.utility.mt_bench if view.utility else None
    utility = {"What it knows": known(view), "MT-Bench": mt_bench_grid(mt_bench)}
    return page(
        "report.html.j2",
        packed(view),
        view=view,
        headline=headline(view),
        evidence=evidence(view),
        alarms=[*alarms(view), *losses(view)],
        cautions=[*cautions(view), *unconfirmed(view.summary)],
        main=main_result(view),
        more_results=[further_result(further) for further in view.more_sets],
        utility={title: grid for title, grid in utility.items() if grid},
        beside_the_label=beside_the_label,
        training_of=training_of,
        charts=charts,
        scatter_of=scatter_of,
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
    environment.filters |= {"clean": clean, "words": words, "p": probability}
    environment.filters |= {"percent": PAGE.share, "number": PAGE.number, "signed": PAGE.signed}
    environment.globals |= {"mean_whisker": mean_whisker, "mean_words": mean_words, "clear_wins": clear_wins}
    environment.globals |= {
        "drawn_from": drawn_from,
        "answer_counts": answer_counts,
        "unrated_counts": unrated_counts,
        "refusals_of": refusals_of,
        "counted": counted,
    }
    environment.globals |= {"is_thin": is_thin, "tested_behaviour": TESTED_BEHAVIOUR}
    style = own_text("report.css")
    script = "\n".join(own_text(name) for name in SCRIPTS)
    rendered = environment.get_template(template).render(
        **context,
        flow=flow,
        prompts=prompts,
        style=Markup(style),
        style_hash=_hash(style),
        script=Markup(script),
        script_hash=_hash(script),
    )
    return clean(rendered)  # drawings are no text of the template's, so that no filter of it reaches their titles


def own_text(name: str) -> str:
    """Our own style or script; the only text that enters the page unescaped."""
    return (files("selfpriority") / "report" / name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """As a content security policy wants it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def packed(view: View) -> Packed:
    """The prompts of a run with what the browser of prompts must know about them."""
    contest = main_contest(view.summary)
    about = {
        "objectives": [clean(name) for name in view.objectives],
        "tie": view.recipe.evaluate.tie,
        "contest": [clean(contest.b), clean(contest.a)] if contest else [],
    }
    return pack(view.entries, about)


def training_of(view: View) -> Grid:
    """What each system was trained on: what differs, pools, pairs, who decided them and how many lose something."""
    decided_by = (f"{words(name)} decided" for name in view.objectives)
    columns = ("differs in", "prompts", "pairs", *decided_by, "lose on another", "their weight")
    rows = []
    for system in view.systems:
        n, decided = system.pairs.n or 0, system.pairs.decided_by or {}
        shares = (PAGE.share(decided[name] / n) if n and name in decided else "-" for name in view.objectives)
        counted = ("-", "-") if system.pools is None else (f"{system.pools:,}", f"{n:,}")
        contested = (system.pairs.contested, system.pairs.contested_weight)
        losing = ("-" if share is None else PAGE.share(share) for share in contested)
        rows.append(GridRow(system.name, (system.differs or "-", *counted, *shares, *losing)))
    return Grid(columns, tuple(rows))


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


@dataclass(frozen=True)
class _Curve:
    """A chart to be drawn: its name, what to look for in it, and the columns of `training.jsonl` it shows."""

    name: str
    hint: str
    columns: tuple[str, ...]
    axis: str
    """What lies upwards, with its unit."""


_CURVES = (
    _Curve("Loss", "Should fall.", ("loss",), "loss"),
    _Curve("Reward", "Should rise.", ("reward",), "reward"),
    _Curve("Margin", "Should rise.", ("margin",), "margin"),
    _Curve("Accuracy", "Share of pairs ranked right.", ("accuracy",), "share ranked right"),
    _Curve(
        "Log-probability",
        "Mean over tokens. Both falling is SimPO's way to fail.",
        ("chosen_logp", "rejected_logp"),
        "nats a token",
    ),
)


def charts(round_: Round) -> Iterator[Chart]:
    """The training curves that were recorded."""
    steps = [_number(row["step"]) for row in round_.training]
    for curve in _CURVES:
        if not all(column in row for row in round_.training for column in curve.columns):
            continue
        series = [Series(c, tuple(_number(row[c]) for row in round_.training)) for c in curve.columns]
        ends = ", ".join(f"{words(s.name)} {s.values[0]:.3g} to {s.values[-1]:.3g}" for s in series)
        lines = tuple(column.removesuffix("_logp") for column in curve.columns)
        title = f"{curve.name} over {len(steps)} steps: {ends}"
        yield Chart(curve.name, curve.hint, lines, curves(steps, series, curve.axis, title))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
