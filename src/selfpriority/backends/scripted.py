"""Deterministic stand-in for a model, for tests of all around it: every answer is a hash of the request."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Literal

from selfpriority.language_model import (
    Answer,
    Choice,
    Choose,
    Classify,
    Completion,
    Embed,
    Generate,
    Rate,
    Request,
    Span,
    Text,
    Value,
    Vectors,
    Verdict,
)
from selfpriority.recipe import ScriptedBackend

_BATCH = 4
_HIDDEN_SIZE = 8
_LONGEST = 24  # words
_CUT_SHARE = 1 / 8
WORDS = """
a about again answer ask begin better both but call can careful clear come day each early find first follow
for friend from give good great hand help here home how if in it keep kind know learn light like little look
make many more most need new next no not now of often on one open other our out part people place plan please
read right safe say see short show simple small so some start step still take tell thank that the then there
thing think this time to together try turn two under use very wait walk want water way we well what when why
with word work write yes you your
""".split()  # noqa: SIM905 - a list of one word a line hides the file


class ScriptedModel:
    """Answers every kind of request.

    Args:
        settings: how long a batch takes.
        name: models of different names answer differently, as a trained policy does.
    """

    def __init__(self, settings: ScriptedBackend, name: str = "") -> None:
        self._delay = settings.delay
        self._name = name

    @property
    def fingerprint(self) -> str:
        """The name; there is nothing else an answer depends on but the request."""
        return f"scripted-1 {self._name}"

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Four at a time, in order."""
        return [list(range(i, min(i + _BATCH, len(requests)))) for i in range(0, len(requests), _BATCH)]

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """Each batch after the delay."""
        for number, batch in enumerate(batches):
            time.sleep(self._delay)
            yield number, [self._answer(request) for request in batch]

    def _answer(self, request: Request) -> Answer:
        match request:
            case Generate():
                return Completion(tuple(self._text(request, i) for i in range(request.n)))
            case Choose():
                return Choice(tuple(self._spread(request, i) for i in range(len(request.contexts))))
            case Embed():
                each = ((span, layer) for span in request.spans for layer in request.layers)
                return Vectors(tuple(self._vector(request, span, layer) for span, layer in each))
            case Classify():
                return Value(2 * self._fraction(request) - 1)
            case Rate():
                return Verdict(tuple(1 + 9 * self._fraction(request, name) for name in request.objectives))

    def _text(self, request: Generate, index: int) -> Text:
        wanted = 3 + int(self._fraction(request, index, "length") * (_LONGEST - 3))
        n_words = min(wanted, request.max_new_tokens)
        words = [WORDS[int(self._fraction(request, index, i) * len(WORDS))] for i in range(n_words)]
        begun = request.opening.split()
        is_cut = wanted >= request.max_new_tokens or self._fraction(request, index, "cut") < _CUT_SHARE
        stop: Literal["end", "length"] = "length" if is_cut else "end"
        return Text(" ".join([*begun, *words]), len(begun) + n_words + (not is_cut), stop)

    def _spread(self, request: Choose, index: int) -> tuple[float, ...]:
        """A peak at one choice and little elsewhere; 0.95 in all."""
        peak = self._fraction(request, index, "peak") * (len(request.choices) - 1)
        weights = [1 / (1 + (i - peak) ** 2) for i in range(len(request.choices))]
        return tuple(0.95 * weight / sum(weights) for weight in weights)

    def _vector(self, request: Embed, span: Span, layer: int) -> tuple[float, ...]:
        """Multiples of 1/256 in [-1, 1]: exact in float32."""
        told = (request.messages, request.response) if span == "response" else (request.messages,)
        numbers = (self._fraction(*told, layer, i) for i in range(_HIDDEN_SIZE))
        return tuple(round((2 * number - 1) * 256) / 256 for number in numbers)

    def _fraction(self, *content: object) -> float:
        """A number in [0, 1), uniform over contents."""
        digest = hashlib.sha256(repr((self._name, *content)).encode()).digest()
        return int.from_bytes(digest[:6], "big") / 2**48
