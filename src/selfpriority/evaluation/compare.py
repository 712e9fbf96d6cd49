"""Verdicts of several systems on the same prompts to `summary.json`.

See docs/evaluation.md: mean rating with bootstrap interval, HH_lambda, wins by prompt, paired differences, all of it
again by kind of prompt, and behaviour. Unrated is skipped and counted, never 0. Knows nothing of models or
files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from statistics import fmean, median
from typing import Any

from selfpriority.evaluation.agreement import Scores, agreement
from selfpriority.evaluation.behaviour import boilerplate_share, largest_opening_share, relevance
from selfpriority.evaluation.significance import corrected, difference, mean_difference, wins, won_or_lost
from selfpriority.intervals import bootstrap_mean_interval
from selfpriority.judges.check import CEILING
from selfpriority.judges.comparer import Compared, orders
from selfpriority.recipe import Evaluate
from selfpriority.records import Rating, Ratings, Stop
from selfpriority.refusals import is_refusal

OTHER_KIND = "other"
"""What prompts without a kind are called."""

MAIN_JUDGE = "judge"
"""What `evaluate.judge` is called among several."""

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
    prompt: str = ""
    """What was asked, to see whether the answer speaks about it."""


@dataclass(frozen=True)
class Further:
    """What an evaluation may hold beside one judge's verdicts."""

    asked: Mapping[str, Sequence[Sequence[Compared]]] | None = None
    """`<a>_vs_<b>` -> for each prompt that both answered, in the order of a's verdicts, what a judge in words said of
    the two answers, by objective."""
    judges: Mapping[str, Verdicts] = field(default_factory=dict)
    """Further judges' verdicts on the same answers, by the judge's name."""


def summarise(systems: Verdicts, objectives: Sequence[str], settings: Evaluate, further: Further | None = None) -> Json:
    """Everything in `summary.json` that rests on ratings and texts; a mean of nothing is null.

    `systems` come with the one to compare against first (usually `vanilla`), `objectives` in priority order.

    - `systems.<name>.<objective>` = {mean, low, high, n, at_ceiling, unrated, words}, `systems.<name>.HH_<lambda>`
      = {mean, low, high, n, words} of the prompts rated on both; `words` is the mean length of the rated answers;
    - `pairwise.<a>_vs_<b>.<objective>` = {win, tie, lose, n, flip_rate, words, intervals, p, p_holm, significant}:
      shares of the prompts, a the later system. From ratings `flip_rate` is 0.0 by construction, as a rating sees
      one answer at a time; from a judge that compares, {first_shown, unread} are added (`pairwise.compared`);
    - `difference.<a>_vs_<b>.<objective or HH_<lambda>>` = {mean, low, high, p, n, words, p_holm, significant}: a minus
      b on prompts rated for both, `words` the same of the answers' lengths;
    - `by_kind.<kind>` = {systems, difference} of those prompts;
    - `behaviour.<name>` = {refusal: {kind: share}, n: {kind: count}, over_refusal, boilerplate, largest_opening,
      relevance, words, cut};
    - `behaviour_difference.<a>_vs_<b>.<refusal, over_refusal, words>` as `difference`;
    - with further judges, `judges.<name>` = {systems, difference} and `agreement` (`agreement.agreement`).

    Holm's correction runs over all objectives and contests of one table; HH_lambda says no more than the
    objectives do and is a family of its own, as are all kinds together, the wins, and behaviour.
    """
    kinds = dict.fromkeys(verdict.kind for verdicts in systems.values() for verdict in verdicts)
    parts = {kind or OTHER_KIND: _of_kind(systems, kind) for kind in kinds}
    by_kind = _differences(parts, objectives, settings)
    summary: Json = {
        "objectives": list(objectives),
        "systems": _means(systems, objectives, settings),
        "difference": _differences({"": systems}, objectives, settings)[""],
    }
    further = further or Further()
    if settings.pairwise:
        summary["pairwise"] = _pairwise(systems, objectives, settings.tie, further.asked)
    summary["by_kind"] = {
        kind: {"systems": _means(part, objectives, settings), "difference": by_kind[kind]}
        for kind, part in parts.items()
    }
    summary["behaviour"] = {name: _behaviour(verdicts, settings) for name, verdicts in systems.items()}
    summary["behaviour_difference"] = _behaviour_differences(systems, settings)
    if further.judges:
        summary["judges"] = {
            name: {
                "systems": _means(verdicts, objectives, settings),
                "difference": _differences({"": verdicts}, objectives, settings)[""],
            }
            for name, verdicts in further.judges.items()
        }
        everyone = {MAIN_JUDGE: systems, **further.judges}
        summary["agreement"] = agreement({name: _scores(v) for name, v in everyone.items()}, objectives)
    return summary


def _scores(systems: Verdicts) -> Scores:
    """System and prompt -> ratings."""
    return {
        f"{name}/{verdict.prompt_id}": [r.value if isinstance(r, Rating) else None for r in verdict.ratings]
        for name, verdicts in systems.items()
        for verdict in verdicts
    }


def _means(systems: Verdicts, objectives: Sequence[str], settings: Evaluate) -> Json:
    means: Json = {}
    for name, verdicts in systems.items():
        lengths = _lengths(verdicts)
        means[name] = {o: _rated_mean(verdicts, index, lengths) for index, o in enumerate(objectives)}
        for weight in _weights(objectives, settings):
            means[name][f"HH_{weight:g}"] = _mean(_hh(verdicts, weight), lengths)
    return means


def _weights(objectives: Sequence[str], settings: Evaluate) -> tuple[float, ...]:
    return settings.lambdas if len(objectives) > 1 else ()


def _differences(parts: Mapping[str, Verdicts], objectives: Sequence[str], settings: Evaluate) -> Json:
    """By part, contest and measure; the correction runs over all parts together."""
    plain: dict[tuple[str, str, str], Json] = {}
    mixed: dict[tuple[str, str, str], Json] = {}
    for part, systems in parts.items():
        for a, b in contests(systems):
            lengths = _shared(_lengths(systems[a]), _lengths(systems[b]))
            for index, objective in enumerate(objectives):
                paired = _paired(systems[a], systems[b], index)
                plain[part, f"{a}_vs_{b}", objective] = {
                    **difference(paired),
                    "words": mean_difference(lengths, paired),
                }
            for weight in _weights(objectives, settings):
                paired = _shared(_hh(systems[a], weight), _hh(systems[b], weight))
                mixed[part, f"{a}_vs_{b}", f"HH_{weight:g}"] = {
                    **difference(paired),
                    "words": mean_difference(lengths, paired),
                }
    nested: Json = {part: {f"{a}_vs_{b}": {} for a, b in contests(systems)} for part, systems in parts.items()}
    for (part, contest, name), cell in {**corrected(plain), **corrected(mixed)}.items():
        nested[part][contest][name] = cell
    return nested


def _pairwise(
    systems: Verdicts,
    objectives: Sequence[str],
    tie: float,
    asked: Mapping[str, Sequence[Sequence[Compared]]] | None,
) -> Json:
    cells = {}
    for a, b in contests(systems):
        lengths = _shared(_lengths(systems[a]), _lengths(systems[b]))
        for index, objective in enumerate(objectives):
            if asked is not None:
                said = {prompt_id: row[index] for prompt_id, row in zip(lengths, asked[f"{a}_vs_{b}"], strict=True)}
                read = [prompt_id for prompt_id, one in said.items() if one.outcome is not None]
                cell = compared(list(said.values()))
            else:
                paired = _paired(systems[a], systems[b], index)
                read, cell = list(paired), {**wins(won_or_lost(paired, tie)), "flip_rate": 0.0}
            cells[f"{a}_vs_{b}", objective] = {**cell, "words": mean_difference(lengths, read)}
    nested: Json = {f"{a}_vs_{b}": {} for a, b in contests(systems)}
    for (contest, objective), cell in corrected(cells).items():
        nested[contest][objective] = cell
    return nested


def _behaviour_differences(systems: Verdicts, settings: Evaluate) -> Json:
    cells = {}
    for a, b in contests(systems):
        both = [(_refusals(systems[a]), _refusals(systems[b])), (_lengths(systems[a]), _lengths(systems[b]))]
        refusals, lengths = (_shared(*pair) for pair in both)
        safe = {verdict.prompt_id for verdict in systems[a] if verdict.kind in settings.safe_kinds}
        over = {prompt_id: pair for prompt_id, pair in refusals.items() if prompt_id in safe}
        for name, paired in (("refusal", refusals), ("over_refusal", over), ("words", lengths)):
            cells[f"{a}_vs_{b}", name] = difference(paired)
    nested: Json = {f"{a}_vs_{b}": {} for a, b in contests(systems)}
    for (contest, name), cell in corrected(cells).items():
        nested[contest][name] = cell
    return nested


def _of_kind(systems: Verdicts, kind: str) -> Verdicts:
    return {name: [v for v in verdicts if v.kind == kind] for name, verdicts in systems.items()}


def contests(systems: Iterable[str]) -> Iterator[tuple[str, str]]:
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


def _rated_mean(verdicts: Sequence[Verdict], objective: int, lengths: Mapping[str, float]) -> Json:
    rated = _rated(verdicts, objective)
    at_ceiling = fmean(value >= CEILING for value in rated.values()) if rated else None
    return {**_mean(rated, lengths), "at_ceiling": at_ceiling, "unrated": len(verdicts) - len(rated)}


def _mean(values: Mapping[str, float], lengths: Mapping[str, float]) -> Json:
    """Of values by prompt id, with its interval and the mean length of the same answers."""
    if not values:
        return {"mean": None, "low": None, "high": None, "n": 0, "words": None}
    interval = bootstrap_mean_interval(list(values.values()))
    edges = {"mean": interval.estimate, "low": interval.low, "high": interval.high}
    return {**edges, "n": len(values), "words": fmean(lengths[prompt_id] for prompt_id in values)}


def _lengths(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Prompt id -> words of the answer."""
    return {verdict.prompt_id: float(len(verdict.text.split())) for verdict in verdicts}


def _refusals(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Prompt id -> 1.0 if the answer refuses."""
    return {verdict.prompt_id: float(is_refusal(verdict.text)) for verdict in verdicts}


def _behaviour(verdicts: Sequence[Verdict], settings: Evaluate) -> Json:
    texts = [verdict.text for verdict in verdicts]
    kinds: dict[str, list[bool]] = {}
    for verdict in verdicts:
        kinds.setdefault(verdict.kind or OTHER_KIND, []).append(is_refusal(verdict.text))
    safe = [flag for kind, flags in kinds.items() if kind in settings.safe_kinds for flag in flags]
    return {
        "refusal": {kind: fmean(flags) for kind, flags in kinds.items()},
        "n": {kind: len(flags) for kind, flags in kinds.items()},
        "over_refusal": fmean(safe) if safe else None,
        "boilerplate": boilerplate_share(texts),
        "largest_opening": largest_opening_share(texts),
        "relevance": relevance([verdict.prompt for verdict in verdicts], texts),
        "words": median(len(text.split()) for text in texts) if texts else None,
        "cut": fmean(verdict.stop == "length" for verdict in verdicts) if verdicts else None,
    }


def compared(rows: Sequence[Compared]) -> dict[str, Any]:
    """A cell of `pairwise`: shares of the duels read in both orders, and what the orders say about the judge."""
    return {**wins([row.outcome for row in rows if row.outcome is not None]), **asdict(orders(rows))}
