"""Makes `report.html` of a run: the verdict in words, figures and tables, in one file that needs no network.

Reads the run directory only. Everything that came from a model or a data set is escaped and freed of control
codes.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from selfpriority.rating import HIGHEST, LOWEST
from selfpriority.report.figures import Series, curves, scatter, shares, whisker
from selfpriority.report.rows import JudgeCard, Round, View, read_view
from selfpriority.run import Run, write_text

DASH = "\N{EN DASH}"
SMALL = 100
"""Below this many held-out prompts the page says that the sample is small."""
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?", re.DOTALL)
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
    environment = Environment(
        loader=PackageLoader("selfpriority", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clean": clean, "percent": percent, "words": _words}
    script = _own("report.js")
    return environment.get_template("report.html.j2").render(
        view=view,
        headline=headline(view),
        cautions=list(cautions(view)),
        contests=list(contests(view)),
        charts=charts,
        scatter_of=scatter_of,
        mean_whisker=mean_whisker,
        agreement_whisker=agreement_whisker,
        style=Markup(_own("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _own(name: str) -> str:
    """Our own style or script; the only text that enters the page unescaped."""
    return (files("selfpriority") / "report" / name).read_text(encoding="utf-8").strip()


def clean(text: str) -> str:
    """The text without terminal control codes, and without marks that reorder what a reader sees."""
    text = _ESCAPE_SEQUENCE.sub("", text)
    reordering = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return "".join(c for c in text if c in "\n\t" or (unicodedata.category(c) != "Cc" and c not in reordering))


def percent(share: float | None) -> str:
    """A share as a whole percentage."""
    return DASH if share is None else f"{share:.0%}".replace("%", "\u2009%")


def _words(name: str) -> str:
    """A name from a file as a reader would write it."""
    if name.startswith("HH_"):
        return f"HH, \N{GREEK SMALL LETTER LAMDA}\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{name.removeprefix('HH_')}"
    return name.replace("_", " ")


def headline(view: View) -> str:
    """What came out, in one sentence that claims no more than the intervals do."""
    if view.summary is None:
        return "This run has no evaluation yet, so nothing can be said about who is better."
    contest = main_contest(view)
    if contest is None:
        return "Only one system was evaluated, so there is nothing to compare it with."
    system, baseline = contest.split("_vs_")
    changes = view.summary["difference"][contest]
    parts = [f"{objective} {_change(changes[objective])}" for objective in view.objectives]
    n = max(changes[objective]["n"] for objective in view.objectives)
    doubt = "" if _evaluation_is_trusted(view) else ", by a judge not shown to be better than chance"
    return f"On {n} held-out prompts, {system} against {baseline}{doubt}: {'; '.join(parts)}."


def _evaluation_is_trusted(view: View) -> bool:
    return all(judge.report["usable"] for judge in view.judges if judge.role == "evaluate")


def _change(change: Json) -> str:
    if change["mean"] is None:
        return "could not be rated"
    interval = f"95\u2009% interval {_signed(change['low'])} to {_signed(change['high'])}"
    if change["low"] > 0:
        return f"rose by {change['mean']:.2f} ({interval})"
    if change["high"] < 0:
        return f"fell by {-change['mean']:.2f} ({interval})"
    return f"shows no clear change ({_signed(change['mean'])}, {interval} includes 0)"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\u2212")


def main_contest(view: View) -> str | None:
    """The comparison the page leads with: spa, or else the last system, against the first."""
    names = list((view.summary or {}).get("systems", {}))
    others = names[1:]
    return f"{'spa' if 'spa' in others else others[-1]}_vs_{names[0]}" if others else None


def cautions(view: View) -> Iterator[str]:
    """What a reader must know before believing the numbers."""
    roles = {judge.role: judge for judge in view.judges}
    for role, word in (("evaluate", "evaluation"), ("train", "training")):
        if role in roles and not roles[role].report["usable"]:
            yield f"The {word} judge could not be shown to be better than chance. {_consequence(role)}"
    if view.summary is None:
        return
    same = {"train", "evaluate"} <= roles.keys() and _identity(roles["train"]) == _identity(roles["evaluate"])
    if same and main_contest(view):
        yield "The evaluation judge is also the one that was trained on: expect it to be too kind."
    prompts = max((row["n"] for system in view.summary["systems"].values() for row in _means(system)), default=0)
    if 0 < prompts < SMALL:
        yield f"{prompts} prompts are a small sample: only large differences can show."
    yield from _refusals(view)


def _identity(judge: JudgeCard) -> tuple[str, str]:
    return judge.name, judge.method


def _consequence(role: str) -> str:
    if role == "evaluate":
        return "Its ratings below may be noise."
    return "What the run learned from it may be noise."


def _means(system: Json) -> Iterator[Json]:
    return (value for value in system.values() if isinstance(value, Mapping))


def _refusals(view: View) -> Iterator[str]:
    """Refusals of each kind of prompt, where they moved by ten points or more."""
    contest = main_contest(view)
    if contest is None or view.summary is None:
        return
    system, baseline = contest.split("_vs_")
    behaviour = view.summary["behaviour"]
    before, after = behaviour[baseline]["refusal"], behaviour[system]["refusal"]
    for kind in before:
        if kind in after and abs(after[kind] - before[kind]) >= 0.1:
            verb = "rose" if after[kind] > before[kind] else "fell"
            yield f"Refusals of {kind} prompts {verb} from {percent(before[kind])} to {percent(after[kind])}."


def contests(view: View) -> Iterator[Json]:
    """One row for every system but the first, kind of prompt and objective: difference, interval, wins."""
    summary = view.summary
    if summary is None:
        return
    groups = {"all": summary} | (summary["by_kind"] if len(summary["by_kind"]) > 1 else {})
    first = next(iter(summary["systems"]), "")
    keys = [key for key in summary["difference"] if key.endswith(f"_vs_{first}")]
    rated = [row for group in groups.values() for key in keys for row in group["difference"][key].values()]
    reach = max([1.0, *(abs(row[edge]) for row in rated if row["mean"] is not None for edge in ("low", "high"))])
    for key in keys:
        for kind, group in groups.items():
            for name, row in group["difference"][key].items():
                if kind != "all" and name not in view.objectives:
                    continue
                wins = summary.get("pairwise", {}).get(key, {}).get(name) if kind == "all" else None
                yield _contest(key, kind, name, row, reach) | {"wins": wins, "bar": _win_bar(name, wins)}


def _contest(key: str, kind: str, name: str, row: Json, reach: float) -> dict[str, Any]:
    system, baseline = key.split("_vs_")
    title = f"{name}, {system} minus {baseline}, {kind} prompts: {_change(row)}"
    drawn = row["mean"] is not None
    return {
        "system": system,
        "baseline": baseline,
        "kind": kind,
        "name": name,
        "n": row["n"],
        "mean": _signed(row["mean"]) if drawn else DASH,
        "interval": f"{_signed(row['low'])} to {_signed(row['high'])}" if drawn else "",
        "p": _p(row["p"]) if drawn else "",
        "clear": drawn and (row["low"] > 0 or row["high"] < 0),
        "figure": whisker((row["mean"], row["low"], row["high"]), (-reach, reach), 0.0, title) if drawn else "",
    }


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _win_bar(name: str, wins: Json | None) -> Markup | str:
    if not wins or wins["n"] == 0:
        return ""
    parts = [(part, wins[part]) for part in ("win", "tie", "lose")]
    title = ", ".join(f"{part} {share:.0%}" for part, share in parts)
    return shares(parts, f"{name}: {title} of {wins['n']} prompts")


def mean_whisker(name: str, row: Json) -> Markup:
    """A mean rating on the full scale."""
    title = f"{name}: {row['mean']:.2f}, interval {row['low']:.2f} to {row['high']:.2f}, scale 1 to 10"
    return whisker((row["mean"], row["low"], row["high"]), (LOWEST, HIGHEST), None, title)


def agreement_whisker(name: str, row: Json) -> Markup:
    """An agreement with labels on 0..1, chance marked."""
    title = f"{name}: {row['estimate']:.2f}, interval {row['low']:.2f} to {row['high']:.2f}, chance 0.5"
    return whisker((row["estimate"], row["low"], row["high"]), (0.0, 1.0), 0.5, title)


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
        ends = ", ".join(f"{_words(s.name)} {s.values[0]:.3g} to {s.values[-1]:.3g}" for s in series)
        lines = tuple(field.removesuffix("_logp") for field in fields)
        yield Chart(name, hint, lines, curves(steps, series, f"{name} over {len(steps)} steps: {ends}"))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
