"""A judge that is not asked: fitted heads on a model's hidden states, one forward pass for all objectives.

For models too small to judge in words (docs/judging.md). Knows neither how heads are fitted nor how
states are made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np

from selfpriority.errors import InputError
from selfpriority.judges.heads import SPANS, Floats, Head, Heads
from selfpriority.language_model import Answer, Embed, Failure, LanguageModel, Vectors, ask
from selfpriority.rating import Item
from selfpriority.records import Rating, Ratings, Unrated

FAR = 1.5
"""Mean distance from which answers lie far from what a head was fitted on.

Measured with `demo-train`: anchors 0.7 to 1.1; boiling an egg 1.5 to 1.8; German, Spanish, French and Chinese 1.7 to
2.3; sums 2.0 to 2.8, code 2.2 to 3.8 (docs/judging.md).
"""
READING = 2
"""Raise it when the same heads would rate the same answer otherwise. 2: a cut answer without an end token."""


class ProbeJudge:
    """Rates by the projection of an answer's mean hidden states.

    Args:
        model: whose hidden states; the model the heads were fitted on, or one trained from it.
        heads: fitted heads.
        objectives: what to rate, in priority order.

    Raises:
        InputError: an objective has no head.

    Examples:
        >>> judge = ProbeJudge(open_model("my-model"), read_heads("my-heads"), ("harmlessness", "helpfulness"))
        >>> prompt = Prompt("q", (Message("user", "How do I bake bread?"),))
        >>> [[harmless, helpful]] = judge.rate([Item(prompt, Response("q/y", "q", "Mix, wait, bake.", "end", 6))])
        >>> 1 < harmless.value < 10
        True
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
        self._layers = tuple(sorted({layer for head in self._chosen for layer in head.layers}))
        self._passed = np.zeros(len(objectives))
        self._n_passed = 0
        self._spans = max((SPANS[head.pooling] for head in self._chosen), key=len)

    @property
    def fingerprint(self) -> str:
        """Hash of model, heads and objectives."""
        parts = (READING, self._model.fingerprint, self._heads.fingerprint, self._objectives)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def objectives(self) -> tuple[str, ...]:
        """What it rates, in priority order."""
        return self._objectives

    @property
    def distances(self) -> dict[str, float]:
        """Objective -> how far all that it has rated lies from what its head was fitted on, in the mean; 1 is near.

        Empty: nothing is rated yet.
        """
        return (
            dict(zip(self._objectives, (self._passed / self._n_passed).tolist(), strict=True)) if self._n_passed else {}
        )

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        """One tuple of K verdicts per item.

        Raises:
            InputError: the heads were fitted on another hidden size.
        """
        return [self._read(answer) for answer in ask(self._model, list(map(self._request, items)))]

    def _request(self, item: Item) -> Embed:
        """As heads are fitted (`fit.Reads.request`): on finished answers, each with the end token that it ends in."""
        response = item.response
        return Embed(item.prompt.messages, response.text, self._layers, self._spans, response.stop)

    def _read(self, answer: Answer) -> Ratings:
        if isinstance(answer, Failure):
            return tuple(Unrated(answer.reason, answer.detail) for _ in self._chosen)
        assert isinstance(answer, Vectors)
        places = ((span, layer) for span in self._spans for layer in self._layers)
        states = dict(zip(places, answer.vectors, strict=True))
        vectors = [
            self._vector(head, [states[span, layer] for span in SPANS[head.pooling] for layer in head.layers])
            for head in self._chosen
        ]
        self._passed += [head.distance(vector) for head, vector in zip(self._chosen, vectors, strict=True)]
        self._n_passed += 1
        return tuple(Rating(head.rating(vector)) for head, vector in zip(self._chosen, vectors, strict=True))

    def _vector(self, head: Head, vectors: Sequence[Sequence[float]]) -> Floats:
        if sum(map(len, vectors)) != len(head.weights):
            raise InputError(
                f"score.judge: the head for {head.objective} was fitted on {self._heads.model}, hidden size "
                f"{len(head.weights) // len(vectors)}; this model has {len(vectors[0])}; `spa fit-judge` fits heads "
                f"for it"
            )
        return np.concatenate(vectors)


def far_from_fitted(distances: Mapping[str, float]) -> str:
    """A line where answers lie far from what heads were fitted on; empty where they do not."""
    far = [f"{name} ({distance:.1f})" for name, distance in distances.items() if distance >= FAR]
    if not far:
        return ""
    return (
        f"these answers lie far from what the heads were fitted on, of {' and '.join(far)}: about 1 is near, {FAR:g} "
        f"far, and far off a rating may mean little; `spa check-judge RECIPE --own-prompts 40` shows where it is right"
    )
