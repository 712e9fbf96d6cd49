"""A guard model in this process: answers Classify with a rating, read from the words that it would write.

The rating is the mean of what its words are worth (`text/guards/`) under their probabilities at the place of the
verdict. Knows requests and answers; what a guard is asked is in `models/guards.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from selfpriority.backends.batches import Cost, cut
from selfpriority.backends.decoding import next_token_logits
from selfpriority.language_model import Answer, Classify, Failure, Request, Value
from selfpriority.models.loading import load_guard
from selfpriority.recipe import HfBackend

_NUMERICS = 1  # raise it when the same request would get another answer
VERDICT = 64
"""Tokens that no guard's verdict is longer than, up to the word that is read."""
MASS_FLOOR = 0.5
"""Where a line's words hold less of the probability, the model gives no verdict."""


class HfGuard:
    """A guard model.

    Args:
        name: a hub id or a folder.
        settings: device, arithmetic and batch budgets.

    Raises:
        InputError: the model or the device cannot be used, or it is no guard of a known kind.
    """

    def __init__(self, name: str, settings: HfBackend) -> None:
        self._loaded, self._settings = load_guard(name, settings), settings
        self._words = self._loaded.guard.word_ids(self._loaded.tokenizer)

    @property
    def fingerprint(self) -> str:
        """Content of weights and tokenizer, the kind of guard, arithmetic, and version of this backend's numerics."""
        return f"hf-guard-{_NUMERICS} {self._loaded.fingerprint} {self._loaded.guard.model_dump_json()}"

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Batches of similar length within the token budget."""
        costs = [Cost(type(request).__name__, 1, len(self._asked(request))) for request in requests]
        return cut(costs, self._settings.batch_tokens, self._settings.max_batch)

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """A forward pass a line of the verdict."""
        for number, batch in enumerate(batches):
            yield number, self._of_batch(batch)

    def _of_batch(self, batch: Sequence[Request]) -> list[Answer]:
        asked = [self._asked(request) for request in batch]
        failures = [self._failure(request, len(ids)) for request, ids in zip(batch, asked, strict=True)]
        rows = [ids for ids, failed in zip(asked, failures, strict=True) if failed is None]
        read = iter(self._read(rows) if rows else ())
        return [next(read) if failed is None else failed for failed in failures]

    def _asked(self, request: Request) -> list[int]:
        if not isinstance(request, Classify):
            return []
        text = self._loaded.guard.asked(self._loaded.tokenizer, request.messages, request.response)
        return list(self._loaded.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _failure(self, request: Request, n: int) -> Failure | None:
        """Why a request of so many tokens gets no verdict."""
        if not isinstance(request, Classify):
            return Failure("unsupported", "a guard only classifies")
        if not request.response.strip():
            return Failure("empty", "the response is empty")
        context = self._loaded.context
        if context is not None and n + VERDICT > context:
            return Failure("too_long", f"{n} tokens and a verdict exceed the guard's context of {context}")
        return None

    def _read(self, rows: list[list[int]]) -> list[Answer]:
        """The verdict on every row; what a guard would write before it is written for it."""
        lines, lost = self._loaded.guard.lines, [False] * len(rows)
        chances: list[list[float]] = []
        for line, words in zip(lines, self._words, strict=True):
            lead = list(self._loaded.tokenizer(line.lead, add_special_tokens=False)["input_ids"])
            rows = [[*row, *lead] for row in rows]
            chances = self._next(rows)[:, words].tolist()
            lost = [before or sum(row) < MASS_FLOOR for before, row in zip(lost, chances, strict=True)]
            written = [words[of_row.index(max(of_row))] for of_row in chances]
            rows = [[*row, word] for row, word in zip(rows, written, strict=True)]
        points = list(lines[-1].points.values())
        return [
            Failure("low_mass", "the guard would write no verdict") if is_lost else _rating(row, points)
            for row, is_lost in zip(chances, lost, strict=True)
        ]

    def _next(self, rows: Sequence[list[int]]) -> Tensor:
        """Probabilities of every token behind each row, [rows, vocabulary]."""
        before, last = [row[:-1] for row in rows], [[row[-1:]] for row in rows]
        logits = next_token_logits(self._loaded.model, before, last, self._loaded.pad_id)
        return torch.softmax(logits, dim=-1).cpu()


def _rating(chances: Sequence[float], points: Sequence[float]) -> Value:
    mean = sum(c * p for c, p in zip(chances, points, strict=True)) / sum(chances)
    return Value(mean, is_rating=True)
