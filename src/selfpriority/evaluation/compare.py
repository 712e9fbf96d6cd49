"""Verdicts of several systems on the same prompts to `summary.json` and its table.

Method.md 7: mean rating with bootstrap interval, HH_lambda, wins by prompt, paired differences, all of it
again by kind of prompt, and behaviour. Unrated is skipped and counted, never 0. Knows nothing of models or
files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median
from typing import Any

from selfpriority.evaluation.behaviour import boilerplate_share, is_refusal, largest_opening_share
from selfpriority.intervals import bootstrap_mean_interval, sign_flip_p
from selfpriority.judges.trust import CEILING
from selfpriority.recipe import Evaluate
from selfpriority.records import Rating, Ratings, Stop

OTHER_KIND = "other"
"""What prompts without a kind are called."""

Verdicts = Mapping[str, Sequence["Verdict"]]
Json = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One system's answer to one prompt, and the judge's ratings of it in priority order."""

    prompt_id: str
    kind: str
    text: str
    stop: Stop
    ratings: Ratings


def summarise(systems: Verdicts, objectives: Sequence[str], settings: Evaluate) -> Json:
    """Everything in `summary.json`; a mean of nothing is null.

    `systems` come with the one to compare against first (usually `vanilla`), `objectives` in priority order.

    - `systems.<name>.<objective>` = {mean, low, high, n, at_ceiling, unrated}, `systems.<name>.HH_<lambda>` =
      mean;
    - `pairwise.<a>_vs_<b>.<objective>` = {win, tie, lose, n, flip_rate}: shares of the prompts, a the later
      system. `flip_rate` is 0.0 by construction, as a rating sees one answer at a time and there is no order
      to flip;
    - `difference.<a>_vs_<b>.<objective or HH_<lambda>>` = {mean, low, high, p, n}: a minus b on prompts rated
      for both;
    - `by_kind.<kind>` = {systems, difference} of those prompts;
    - `behaviour.<name>` = {refusal: {kind: share}, n: {kind: count}, boilerplate, largest_opening, words,
      cut}.
    """
    summary: Json = {"objectives": list(objectives), **_scores(systems, objectives, settings)}
    if settings.pairwise:
        summary["pairwise"] = {
            f"{a}_vs_{b}": {
                objective: _wins(_paired(systems[a], systems[b], index), settings.tie)
                for index, objective in enumerate(objectives)
            }
            for a, b in _contests(systems)
        }
    kinds = dict.fromkeys(verdict.kind for verdicts in systems.values() for verdict in verdicts)
    summary["by_kind"] = {kind or OTHER_KIND: _scores(_of_kind(systems, kind), objectives, settings) for kind in kinds}
    summary["behaviour"] = {name: _behaviour(verdicts) for name, verdicts in systems.items()}
    return summary


def _scores(systems: Verdicts, objectives: Sequence[str], settings: Evaluate) -> Json:
    hh_names = [f"HH_{weight:g}" for weight in settings.lambdas] if len(objectives) > 1 else []
    means: Json = {}
    for name, verdicts in systems.items():
        means[name] = {objective: _mean(verdicts, index) for index, objective in enumerate(objectives)}
        for hh, weight in zip(hh_names, settings.lambdas, strict=False):
            values = list(_hh(verdicts, weight).values())
            means[name][hh] = fmean(values) if values else None
    differences: Json = {}
    for a, b in _contests(systems):
        row = {o: _difference(_paired(systems[a], systems[b], index)) for index, o in enumerate(objectives)}
        for hh, weight in zip(hh_names, settings.lambdas, strict=False):
            row[hh] = _difference(_shared(_hh(systems[a], weight), _hh(systems[b], weight)))
        differences[f"{a}_vs_{b}"] = row
    return {"systems": means, "difference": differences}


def _of_kind(systems: Verdicts, kind: str) -> Verdicts:
    return {name: [v for v in verdicts if v.kind == kind] for name, verdicts in systems.items()}


def _contests(systems: Verdicts) -> Iterator[tuple[str, str]]:
    """(later, earlier) for every two systems."""
    for earlier, later in combinations(systems, 2):
        yield later, earlier


def _rated(verdicts: Sequence[Verdict], objective: int) -> dict[str, float]:
    """Prompt id -> rating, unrated answers left out."""
    ratings = ((v.prompt_id, v.ratings[objective]) for v in verdicts)
    return {prompt_id: rating.value for prompt_id, rating in ratings if isinstance(rating, Rating)}


def _hh(verdicts: Sequence[Verdict], weight: float) -> dict[str, float]:
    """Prompt id -> HH_lambda = (lambda * primary + secondary) / (lambda + 1), where both are rated."""
    both = _shared(_rated(verdicts, 0), _rated(verdicts, 1))
    return {prompt: (weight * primary + secondary) / (weight + 1) for prompt, (primary, secondary) in both.items()}


def _shared(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    return {prompt_id: (value, b[prompt_id]) for prompt_id, value in a.items() if prompt_id in b}


def _paired(a: Sequence[Verdict], b: Sequence[Verdict], objective: int) -> dict[str, tuple[float, float]]:
    """Prompt id -> the two systems' ratings, where both have one."""
    return _shared(_rated(a, objective), _rated(b, objective))


def _mean(verdicts: Sequence[Verdict], objective: int) -> Json:
    values = list(_rated(verdicts, objective).values())
    unrated = len(verdicts) - len(values)
    if not values:
        return {"mean": None, "low": None, "high": None, "n": 0, "at_ceiling": None, "unrated": unrated}
    interval = bootstrap_mean_interval(values)
    return {
        "mean": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "n": len(values),
        "at_ceiling": sum(value >= CEILING for value in values) / len(values),
        "unrated": unrated,
    }


def _difference(paired: Mapping[str, tuple[float, float]]) -> Json:
    """Mean of a - b over prompts, with the bootstrap interval over prompts and the sign-flip p."""
    if not paired:
        return {"mean": None, "low": None, "high": None, "p": None, "n": 0}
    differences = [a - b for a, b in paired.values()]
    interval = bootstrap_mean_interval(differences)
    return {
        "mean": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "p": sign_flip_p(differences),
        "n": len(differences),
    }


def _wins(paired: Mapping[str, tuple[float, float]], tie: float) -> Json:
    n = len(paired)
    if n == 0:
        return {"win": None, "tie": None, "lose": None, "n": 0, "flip_rate": 0.0}
    differences = [a - b for a, b in paired.values()]
    win, lose = sum(d > tie for d in differences), sum(d < -tie for d in differences)
    return {"win": win / n, "tie": (n - win - lose) / n, "lose": lose / n, "n": n, "flip_rate": 0.0}


def _behaviour(verdicts: Sequence[Verdict]) -> Json:
    texts = [verdict.text for verdict in verdicts]
    kinds: dict[str, list[bool]] = {}
    for verdict in verdicts:
        kinds.setdefault(verdict.kind or OTHER_KIND, []).append(is_refusal(verdict.text))
    return {
        "refusal": {kind: fmean(flags) for kind, flags in kinds.items()},
        "n": {kind: len(flags) for kind, flags in kinds.items()},
        "boilerplate": boilerplate_share(texts),
        "largest_opening": largest_opening_share(texts),
        "words": median(len(text.split()) for text in texts) if texts else None,
        "cut": fmean(verdict.stop == "length" for verdict in verdicts) if verdicts else None,
    }


def table(summary: Mapping[str, Any]) -> str:
    """The summary as Markdown: means, differences, behaviour. Raises ValueError without a system."""
    if not summary["systems"]:
        raise ValueError("no system was evaluated")
    columns = list(next(iter(summary["systems"].values())))
    means = [[name, *map(_cell, row.values())] for name, row in summary["systems"].items()]
    lines = _rows(["system", *columns], means)
    if summary["difference"]:
        contests = [[_versus(key), *map(_change, row.values())] for key, row in summary["difference"].items()]
        lines += ["", "Difference on the same prompts, 95 % interval:", "", *_rows(["", *columns], contests)]
    kinds = list(dict.fromkeys(kind for row in summary["behaviour"].values() for kind in row["refusal"]))
    heads = ["system", *(f"refusals, {kind}" for kind in kinds), "boilerplate", "words (median)", "cut"]
    behaviour = [
        [
            name,
            *(_percent(row["refusal"].get(kind)) for kind in kinds),
            _percent(row["boilerplate"]),
            "-" if row["words"] is None else f"{row['words']:g}",
            _percent(row["cut"]),
        ]
        for name, row in summary["behaviour"].items()
    ]
    return "\n".join([*lines, "", *_rows(heads, behaviour)]) + "\n"


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def _versus(key: str) -> str:
    return key.replace("_vs_", " against ")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _cell(value: Json | float | None) -> str:
    if not isinstance(value, dict):
        return "-" if value is None else f"{value:.2f}"
    if value["mean"] is None:
        return f"- (n = 0, {value['unrated']} unrated)"
    unrated = f", {value['unrated']} unrated" if value["unrated"] else ""
    return f"{value['mean']:.2f} [{value['low']:.2f}, {value['high']:.2f}] (n = {value['n']}{unrated})"


def _change(value: Json) -> str:
    if value["mean"] is None:
        return "-"
    p = "< 0.001" if value["p"] < 0.001 else f"= {value['p']:.3f}"
    return f"{value['mean']:+.2f} [{value['low']:+.2f}, {value['high']:+.2f}] (p {p})"
