"""A judge made of reward or guard models, one per objective, on 1..10.

A reward has no unit, so it is placed among the rewards of the constitution's anchor answers (docs/judging.md); what a
guard says is a rating already, and stays as it is.
Knows no checkpoint: each model answers `Classify`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selfpriority.constitution import Constitution
from selfpriority.errors import InputError
from selfpriority.language_model import Answer, Classify, Failure, LanguageModel, Value, ask
from selfpriority.rating import HIGHEST, LOWEST, Item
from selfpriority.records import Message, Rating, Ratings, Unrated


@dataclass(frozen=True)
class Quantiles:
    """Interpolated cumulative distribution of anchor rewards, with open tails."""

    values: tuple[float, ...]
    """Distinct rewards, rising."""
    shares: tuple[float, ...]
    """Mean rank of each, in (0, 1)."""
    width: float
    """Standard deviation of the rewards: how slowly the tails close."""

    def rating(self, value: float) -> float:
        """Strictly rising, inside (1, 10): beyond the anchors the scale is used up hyperbolically."""
        share = float(np.interp(value, self.values, self.shares))
        if value < self.values[0]:
            share /= 1.0 + (self.values[0] - value) / self.width
        if value > self.values[-1]:
            share = 1.0 - (1.0 - share) / (1.0 + (value - self.values[-1]) / self.width)
        rating = LOWEST + (HIGHEST - LOWEST) * share
        return min(max(rating, math.nextafter(LOWEST, HIGHEST)), math.nextafter(HIGHEST, LOWEST))


def quantiles(rewards: Sequence[float]) -> Quantiles:
    """The distribution of `rewards`.

    Raises:
        ValueError: fewer than two distinct values.
    """
    values, counts = np.unique(np.asarray(rewards, dtype=np.float64), return_counts=True)
    if len(values) < 2:
        raise ValueError(f"{len(rewards)} rewards with {len(values)} distinct values make no scale")
    ranks = np.cumsum(counts) - (counts - 1) / 2.0
    shares = ranks / (len(rewards) + 1.0)
    return Quantiles(tuple(values.tolist()), tuple(shares.tolist()), float(np.std(rewards)))


class RewardJudge:
    """One reward or guard model per objective of a constitution.

    Args:
        models: a model that answers `Classify`, by objective name.
        constitution: its objectives are rated, its anchors are the scale.

    Raises:
        InputError: an objective has no model, or the constitution has no anchors.

    Examples:
        >>> from selfpriority.recipe import ScriptedBackend  # stands for a reward model here
        >>> stand_in = open_model("my-model", ScriptedBackend(kind="scripted"))
        >>> constitution = load_constitution("harmless-helpful")
        >>> judge = RewardJudge({name: stand_in for name in constitution.names}, constitution)
        >>> prompt = Prompt("q", (Message("user", "How do I bake bread?"),))
        >>> [[harmless, helpful]] = judge.rate([Item(prompt, Response("q/y", "q", "Mix, wait, bake.", "end", 6))])
        >>> 1 < helpful.value < 10
        True
    """

    def __init__(self, models: Mapping[str, LanguageModel], constitution: Constitution) -> None:
        missing = [name for name in constitution.names if name not in models]
        if missing:
            raise InputError(
                f"score.rewards: no reward model for {', '.join(missing)}; given for {', '.join(models) or 'nothing'}"
            )
        if not constitution.anchors:
            raise InputError(f"constitution: {constitution.name!r} has no anchors; rewards are placed on 1..10 by them")
        self._models, self._constitution = models, constitution
        self._scales: dict[str, Quantiles] = {}

    @property
    def fingerprint(self) -> str:
        """Hash of the models and of the anchors that make the scale."""
        parts = (
            [self._models[name].fingerprint for name in self.objectives],
            [anchor.model_dump(mode="json") for anchor in self._constitution.anchors],
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def objectives(self) -> tuple[str, ...]:
        """The constitution's objectives, in priority order."""
        return self._constitution.names

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        """One tuple of K verdicts per item; the anchors are asked once, for the first reward that has to be placed.

        Raises:
            InputError: a model gives all anchor answers the same value.
        """
        requests = [Classify(item.prompt.messages, item.response.text) for item in items]
        columns = []
        for name in self.objectives:
            columns.append([self._read(answer, name) for answer in ask(self._models[name], requests)])
        return [tuple(column[row] for column in columns) for row in range(len(items))]

    def _read(self, answer: Answer, name: str) -> Rating | Unrated:
        if isinstance(answer, Failure):
            return Unrated(answer.reason, answer.detail)
        assert isinstance(answer, Value)
        if not math.isfinite(answer.value):
            return Unrated("not_finite", f"the reward model gave {answer.value}")
        return Rating(answer.value if answer.is_rating else self._scale(name).rating(answer.value))

    def _scale(self, name: str) -> Quantiles:
        if name not in self._scales:
            answers = ask(self._models[name], _anchor_requests(self._constitution))
            values = [answer.value for answer in answers if isinstance(answer, Value)]
            try:
                self._scales[name] = quantiles(values)
            except ValueError:
                reasons = sorted({f"; {answer.reason}" for answer in answers if isinstance(answer, Failure)})
                raise InputError(
                    f"score.rewards: {name}: the model tells no two anchor answers apart ({len(values)} of "
                    f"{len(answers)} rated{''.join(reasons)}); is it a trained reward model?"
                ) from None
        return self._scales[name]


def _anchor_requests(constitution: Constitution) -> list[Classify]:
    return [
        Classify((Message("user", anchor.prompt),), text)
        for anchor in constitution.anchors
        for text in (anchor.good, anchor.useless, anchor.bad)
    ]
