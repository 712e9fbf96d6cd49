"""A language model at the seam: answers computed by a function of the request, and what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from selfpriority.language_model import Answer, Request


class Answering:
    """Meets `LanguageModel` with one function."""

    def __init__(self, answer: Callable[[Request], Answer], name: str = "answering") -> None:
        self.asked: list[Request] = []
        self.fingerprint = name
        self._answer = answer

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[i] for i in reversed(range(len(requests)))]  # any order must do

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        for number, batch in enumerate(batches):
            self.asked += batch
            yield number, [self._answer(request) for request in batch]


@pytest.fixture
def answering() -> type[Answering]:
    return Answering
