"""Is a judge's word worth training on? Agreement with labelled answers, by objective, and a verdict.

Source: docs/judging.md. Knows the Judge protocol and labels; not how a judge works. Unrated answers are counted,
never read as a number. What follows from the verdict is decided by whoever asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from selfpriority.constitution import Constitution
from selfpriority.errors import InputError
from selfpriority.formats import counted
from selfpriority.intervals import Interval, bootstrap_auc, bootstrap_mean_interval, pair_wins, spearman
from selfpriority.judges.attacks import DISAVOWAL, Robustness, attacked, tries
from selfpriority.judges.bias import bias, calibration
from selfpriority.judges.labels import LabelledAnswer, Labels, anchors_as_labels, label_prompt, prompt_group
from selfpriority.judges.reports import JudgeReport, ObjectiveReport
from selfpriority.judges.said_back import said_back
from selfpriority.rating import Item, Judge
from selfpriority.records import Message, Prompt, Rating, Ratings, Response, Unrated

CHANCE = 0.5
CEILING = 9.95
LEAST = 20
"""Fewest rated answers (or pairs) that can speak for a judge; of each label, a quarter of that."""
MOST_UNRATED = 0.5

_Key = tuple[Prompt, str]
_Verdicts = dict[_Key, Ratings]


def check_judge(
    judge: Judge,
    reworded: Judge | None,
    constitution: Constitution,
    labels: Labels | None = None,
    disowning: bool = True,
) -> JudgeReport:
    """Measures a judge on labelled answers.

    Args:
        judge: who is measured.
        reworded: the same judge with the second wording of each question; None where there are no words.
        constitution: its anchors speak for every objective that `labels` does not label.
        labels: a user's own labelled answers.
        disowning: ask about bad answers again with suffixes that speak to the judge.

    Raises:
        InputError: `labels` has labels, but for none of the judge's objectives.
    """
    if labels is not None and not set(labels.objectives) & set(judge.objectives):
        raise InputError(f"labels: none for {', '.join(judge.objectives)}; they are for {', '.join(labels.objectives)}")
    chosen, keys = _asked(judge, constitution, labels)
    verdicts = _rate(judge, keys)
    other = None if reworded is None else _rate(reworded, keys)
    reports = [
        _measure(verdicts, other, own, k, name)
        for k, (name, own) in enumerate(zip(judge.objectives, chosen, strict=True))
    ]
    if disowning:  # the last objective is left out: a disowned answer may well be less helpful
        for k, report in enumerate(reports[:-1]):
            found = _attacked(judge, verdicts, chosen[k], k, report.threshold)
            flips = found.by_kind.get(DISAVOWAL) if found else None
            reports[k] = replace(report, disavowal_flips=flips, attacks=found)
    reports[-1] = replace(reports[-1], said_back=_above_what_was_asked(judge, constitution, verdicts))
    reasons = tuple(report.reason for report in reports if not report.usable)
    return JudgeReport(not reasons, judge.fingerprint, tuple(reports), reasons)


def ask_all(judge: Judge, reworded: Judge | None, constitution: Constitution, disowning: bool = True) -> None:
    """Asks what `check_judge` asks without labels, about disowned answers as if every bad one had been caught."""
    chosen, keys = _asked(judge, constitution, None)
    verdicts = _rate(judge, keys)
    if reworded is not None:
        _rate(reworded, keys)
    _above_what_was_asked(judge, constitution, verdicts)
    for labels in chosen[:-1] if disowning else ():
        bad = _bad(labels)
        _rated(judge, [(bad[at][0], f"{bad[at][1]} {attack.text}") for attack, at in tries(len(bad))])


def best_threshold(values: Sequence[float], labels: Sequence[bool]) -> float:
    """The rating from which an answer counts as good: the midpoint that gets most of both labels right.

    Balanced over the labels; of equally good midpoints the lowest. Values that do not vary are their own
    threshold.
    """
    distinct = np.unique(np.asarray(values, dtype=np.float64))
    midpoints = (distinct[:-1] + distinct[1:]) / 2.0 if len(distinct) > 1 else distinct
    good = np.sort([value for value, label in zip(values, labels, strict=True) if label])
    bad = np.sort([value for value, label in zip(values, labels, strict=True) if not label])
    right = np.searchsorted(bad, midpoints) / len(bad) - np.searchsorted(good, midpoints) / len(good)
    return float(midpoints[int(np.argmax(right))])


def _asked(judge: Judge, constitution: Constitution, labels: Labels | None) -> tuple[list[Labels], list[_Key]]:
    """The labels that speak for each objective, and all answers in them."""
    anchors = anchors_as_labels(constitution)
    chosen = [_labels_of(name, labels, anchors) for name in judge.objectives]
    return chosen, list(dict.fromkeys(key for own in chosen for key in _keys(own)))


def _labels_of(objective: str, labels: Labels | None, anchors: Labels) -> Labels:
    own = Labels((), ()) if labels is None else labels.of(objective)
    return own if own.answers or own.pairs else anchors.of(objective)


def _keys(labels: Labels) -> list[_Key]:
    singles = [(answer.prompt, answer.response) for answer in labels.answers]
    return [
        *singles,
        *((pair.prompt, text) for pair in labels.pairs for text in (pair.chosen, pair.rejected)),
    ]


def _rate(judge: Judge, keys: Sequence[_Key]) -> _Verdicts:
    return dict(zip(keys, _rated(judge, keys), strict=True))


def _rated(judge: Judge, keys: Sequence[_Key]) -> list[Ratings]:
    items = [
        Item(prompt, Response(f"{prompt.id}/{number}", prompt.id, text, stop="end", n_tokens=0))
        for number, (prompt, text) in enumerate(keys)
    ]
    return judge.rate(items)


def _measure(verdicts: _Verdicts, other: _Verdicts | None, labels: Labels, k: int, name: str) -> ObjectiveReport:
    keys = list(dict.fromkeys(_keys(labels)))
    ratings = {key: verdicts[key][k] for key in keys}
    values = {key: rating.value for key, rating in ratings.items() if isinstance(rating, Rating)}
    unrated = [rating.reason for rating in ratings.values() if isinstance(rating, Unrated)]
    rated = [answer for answer in labels.answers if (answer.prompt, answer.response) in values]
    auc, threshold = _separation(rated, values)
    pairs = _pairs(labels, values)
    second = {} if other is None else {key: other[key][k] for key in values}
    both = [(values[key], again.value) for key, again in second.items() if isinstance(again, Rating)]
    share = len(unrated) / len(keys) if keys else 0.0
    reasons = {reason: unrated.count(reason) for reason in sorted(set(unrated))}
    too_few = f"{share:.0%} of the answers got no rating ({counted(reasons)})" if share > MOST_UNRATED else ""
    problem = too_few or _problem(auc, pairs, rated)
    return ObjectiveReport(
        objective=name,
        source=labels.source,
        auc=auc,
        pair_accuracy=pairs,
        n=len(keys),
        at_ceiling=fmean(value >= CEILING for value in values.values()) if values else None,
        unrated=share,
        unrated_reasons=reasons,
        rank_correlation=spearman([a for a, _ in both], [b for _, b in both]),
        wording_shift=fmean(abs(a - b) for a, b in both) if both else None,
        threshold=threshold,
        disavowal_flips=None,
        attacks=None,
        calibration=calibration([(values[a.prompt, a.response], a.label) for a in rated]),
        bias=bias([(values[a.prompt, a.response], a.label, a.response) for a in rated], _texts(labels, values)),
        usable=not problem,
        reason=f"{name}: {problem or agreement(auc or pairs)}",
    )


def _separation(rated: Sequence[LabelledAnswer], values: dict[_Key, float]) -> tuple[Interval | None, float | None]:
    scores = [values[answer.prompt, answer.response] for answer in rated]
    labels = [answer.label for answer in rated]
    if len(set(labels)) < 2:
        return None, None
    return bootstrap_auc(scores, labels, [a.group for a in rated]), best_threshold(scores, labels)


def _pairs(labels: Labels, values: dict[_Key, float]) -> Interval | None:
    pairs = [p for p in labels.pairs if (p.prompt, p.chosen) in values and (p.prompt, p.rejected) in values]
    if not pairs:
        return None
    wins = pair_wins([values[p.prompt, p.chosen] for p in pairs], [values[p.prompt, p.rejected] for p in pairs])
    return bootstrap_mean_interval(wins, [p.group for p in pairs])


def _texts(labels: Labels, values: dict[_Key, float]) -> list[tuple[tuple[float, str], tuple[float, str]]]:
    """(rating, text) of the chosen and the rejected answer of each pair that is rated whole."""
    return [
        ((values[p.prompt, p.chosen], p.chosen), (values[p.prompt, p.rejected], p.rejected))
        for p in labels.pairs
        if (p.prompt, p.chosen) in values and (p.prompt, p.rejected) in values
    ]


def _above_what_was_asked(judge: Judge, constitution: Constitution, verdicts: _Verdicts) -> Interval | None:
    """Share of the anchors' good answers that the last objective rates above the question, said back; ties: a half."""
    prompts = [label_prompt([Message("user", anchor.prompt)]) for anchor in constitution.anchors]
    good = [(prompt, anchor.good) for prompt, anchor in zip(prompts, constitution.anchors, strict=True)]
    said = [(prompt, said_back(prompt, number)) for number, prompt in enumerate(prompts)]
    rated = verdicts | _rate(judge, [key for key in (*good, *said) if key not in verdicts])
    twos = [(rated[better][-1], rated[worse][-1]) for better, worse in zip(good, said, strict=True)]
    both = [
        (a.value, b.value, prompt_group(prompt))
        for prompt, (a, b) in zip(prompts, twos, strict=True)
        if isinstance(a, Rating) and isinstance(b, Rating)
    ]
    if not both:
        return None
    return bootstrap_mean_interval(pair_wins([a for a, _, _ in both], [b for _, b, _ in both]), [g for *_, g in both])


def _attacked(judge: Judge, verdicts: _Verdicts, labels: Labels, k: int, threshold: float | None) -> Robustness | None:
    """None where there is nothing to attack: no bad answer with a threshold, and no pair whose chosen one is rated."""
    bars = {} if threshold is None else dict.fromkeys(_bad(labels), threshold)
    for pair in labels.pairs:
        better = verdicts[pair.prompt, pair.chosen][k]
        if isinstance(better, Rating):
            bars.setdefault((pair.prompt, pair.rejected), better.value)
    rated = [(*key, verdicts[key][k], bar) for key, bar in bars.items()]
    caught = [(prompt, text, r.value, bar) for prompt, text, r, bar in rated if isinstance(r, Rating) and r.value < bar]
    return attacked(caught, lambda keys: _rated(judge, keys), k) if bars else None


def _bad(labels: Labels) -> list[_Key]:
    return list(dict.fromkeys((answer.prompt, answer.response) for answer in labels.answers if not answer.label))


def _problem(auc: Interval | None, pairs: Interval | None, rated: Sequence[LabelledAnswer]) -> str:
    measured = auc or pairs
    if measured is None:
        return "no labelled answers of both kinds were rated"
    n_rarer = min(sum(a.label for a in rated), sum(not a.label for a in rated)) if auc else measured.n
    if measured.n < LEAST or n_rarer < LEAST // 4:
        return f"{measured.n} rated answers ({n_rarer} of the rarer label) are too few, {LEAST} are needed"
    return doubt(measured)


def doubt(measured: Interval) -> str:
    """What an agreement with labels leaves to doubt, in words; empty where it is better than chance."""
    if measured.high < CHANCE:
        return f"{agreement(measured)}; it is inverted, it prefers the worse answers"
    if not measured.low > CHANCE:
        return f"{agreement(measured)}; that may be chance (0.50)"
    return ""


def agreement(measured: Interval | None) -> str:
    """An agreement that was measured, in words."""
    assert measured is not None
    return (
        f"agrees with the labels on {measured.estimate:.2f} of the comparisons "
        f"(95 % interval {measured.low:.2f} to {measured.high:.2f}, {measured.n} rated)"
    )
