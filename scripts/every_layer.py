"""A model that is asked once for all hidden states that several heads read, whichever of them asks first.

For scripts that compare or fit many heads on the same answers; knows no head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from selfpriority.language_model import Answer, Embed, LanguageModel, Request, Span, Vectors

_SPANS: tuple[Span, ...] = ("response", "prompt")


class EveryLayer:
    """`model` (best behind a cache), asked for `layers` and both spans whenever it is asked for hidden states."""

    def __init__(self, model: LanguageModel, layers: Iterable[int]) -> None:
        self._model, self._layers = model, frozenset(layers)

    @property
    def fingerprint(self) -> str:
        """The model's."""
        return self._model.fingerprint

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """The model's plan of the wider requests."""
        return self._model.plan([self._widened(request) for request in requests])

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """The states asked for, out of all."""
        wide = [[self._widened(request) for request in batch] for batch in batches]
        for number, answers in self._model.answer(wide):
            yield number, [self._narrowed(*both) for both in zip(batches[number], answers, strict=True)]

    def _widened(self, request: Request) -> Request:
        if not isinstance(request, Embed):
            return request
        return replace(request, layers=self._all(request), spans=_SPANS)

    def _narrowed(self, request: Request, answer: Answer) -> Answer:
        if not isinstance(request, Embed) or not isinstance(answer, Vectors):
            return answer
        places = [(span, layer) for span in _SPANS for layer in self._all(request)]
        states = dict(zip(places, answer.vectors, strict=True))
        return Vectors(tuple(states[span, layer] for span in request.spans for layer in request.layers))

    def _all(self, request: Embed) -> tuple[int, ...]:
        return tuple(sorted({*self._layers, *request.layers}))
