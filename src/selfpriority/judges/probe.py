"""A judge that is not asked: fitted heads on a model's hidden states, one forward pass for all objectives.

For models too small to judge in words (method.md 5). Knows neither how heads are fitted nor how
states are made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from selfpriority.errors import InputError
from selfpriority.judges.heads import Head, Heads
from selfpriority.language_model import Answer, Embed, Failure, LanguageModel, Vectors, ask
from selfpriority.rating import Item
from selfpriority.records import Rating, Ratings, Unrated


class ProbeJudge:
    """Rates by the projection of an answer's mean hidden state.

    Args:
        model: whose hidden states; the model the heads were fitted on, or one trained from it.
        heads: fitted heads.
        objectives: what to rate, in priority order.

    Raises:
        InputError: an objective has no head.
    """

    def __init__(self, model: LanguageModel, heads: Heads, objectives: tuple[str, ...]) -> None:
        missing = [name for name in objectives if name not in heads.by_objective]
        if missing:
            raise InputError(
                f"score.judge: no fitted head for {', '.join(missing)}; there are heads for "
                f"{', '.join(heads.by_objective) or 'nothing'}; `spa fit-judge` fits them to labelled answers"
            )
        self._model, self._heads, self._objectives = model, heads, objectives
        self._chosen = [heads.by_objective[name] for name in objectives]
        self._layers = tuple(sorted({head.layer for head in self._chosen}))

    @property
    def fingerprint(self) -> str:
        """Hash of model, heads and objectives."""
        parts = (self._model.fingerprint, self._heads.fingerprint, self._objectives)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def objectives(self) -> tuple[str, ...]:
        """What it rates, in priority order."""
        return self._objectives

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        """One tuple of K verdicts per item.

        Raises:
            InputError: the heads were fitted on another hidden size.
        """
        requests = [Embed(item.prompt.messages, item.response.text, self._layers) for item in items]
        return [self._read(answer) for answer in ask(self._model, requests)]

    def _read(self, answer: Answer) -> Ratings:
        if isinstance(answer, Failure):
            return tuple(Unrated(answer.reason, answer.detail) for _ in self._chosen)
        assert isinstance(answer, Vectors)
        by_layer = dict(zip(self._layers, answer.vectors, strict=True))
        return tuple(self._verdict(head, by_layer[head.layer]) for head in self._chosen)

    def _verdict(self, head: Head, vector: Sequence[float]) -> Rating:
        if len(vector) != len(head.weights):
            raise InputError(
                f"score.judge: the head for {head.objective} was fitted on {self._heads.model}, hidden size "
                f"{len(head.weights)}; this model has {len(vector)}; `spa fit-judge` fits heads for it"
            )
        return Rating(head.rating(vector))
