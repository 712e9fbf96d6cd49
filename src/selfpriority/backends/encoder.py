"""An encoder (BERT, MPNet) in this process: answers Embed, and nothing else. It reads plain text, no chat template.

What it reads is the pair of the last user turn and a piece of the answer. Knows requests; tokens of spans are averaged
in `hidden_states`, opening a model is in `loading`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfpriority.backends.batches import Cost, cut
from selfpriority.backends.hidden_states import span_means
from selfpriority.errors import InputError
from selfpriority.language_model import Answer, Embed, Failure, Request, Span, Vectors
from selfpriority.models.loading import load_encoder
from selfpriority.recipe import HfBackend

_NUMERICS = 1  # raise it when the same request would get another answer
_PROMPT, _PIECE = 96, 156
"""Most tokens of the prompt (its last ones) and of a piece of the answer: these models were made on short texts."""
_FIRST, _SECOND = "a", "b"


@dataclass(frozen=True)
class _Frame:
    """The special tokens of a pair of texts."""

    opening: tuple[int, ...]
    between: tuple[int, ...]
    closing: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any, name: str) -> _Frame:
        """What the tokenizer puts around two texts, read off an example.

        Raises:
            InputError: it does not write two texts one after the other.
        """
        pair = list(tokenizer(_FIRST, _SECOND)["input_ids"])
        first, second = (_tokens(tokenizer, text) for text in (_FIRST, _SECOND))
        starts = [i for i in range(len(pair)) if pair[i : i + len(first)] == first]
        ends = [i for i in range(len(pair)) if pair[i : i + len(second)] == second]
        if not first or not second or not starts or not ends or starts[0] + len(first) > ends[-1]:
            raise InputError(
                f"model: {name}: its tokenizer does not write pairs of texts; use an encoder that reads them"
            )
        a, b = starts[0], ends[-1]
        return cls(tuple(pair[:a]), tuple(pair[a + len(first) : b]), tuple(pair[b + len(second) :]))

    @property
    def size(self) -> int:
        """Tokens of the frame."""
        return len(self.opening) + len(self.between) + len(self.closing)


@dataclass(frozen=True)
class _Piece:
    """A piece of an answer behind its prompt."""

    ids: tuple[int, ...]
    where: Mapping[Span, range]
    """Positions of each span; never empty."""


class HfEncoder:
    """An encoder whose hidden states fitted heads read.

    Args:
        name: a hub id, a folder or an embedded name.
        settings: device and batch budgets; the arithmetic is float32.

    Raises:
        InputError: the model or the device cannot be used.
    """

    def __init__(self, name: str, settings: HfBackend) -> None:
        self._loaded = load_encoder(name, settings)
        self._settings = settings
        self._frame = _Frame.of(self._loaded.tokenizer, name)
        self._most_prompt = min(_PROMPT, (self._loaded.context - self._frame.size) // 2)
        self._most_piece = min(_PIECE, self._loaded.context - self._frame.size - self._most_prompt)

    @property
    def fingerprint(self) -> str:
        """Content of weights and tokenizer, and version of this backend's numerics."""
        return f"hf-encoder-{_NUMERICS} {self._loaded.fingerprint}"

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Batches of similar length within the token budget."""
        costs = []
        for request in requests:
            pieces = self._pieces(request) if isinstance(request, Embed) else []
            longest = max((len(piece.ids) for piece in pieces), default=0)
            costs.append(Cost(type(request).__name__, len(pieces), longest))
        return cut(costs, self._settings.batch_tokens, self._settings.max_batch)

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """The mean over all tokens of an answer, whatever number of pieces it is read in."""
        for number, batch in enumerate(batches):
            yield number, self._embed(batch)

    def _embed(self, batch: Sequence[Request]) -> list[Answer]:
        read = {i: (r, self._pieces(r)) for i, r in enumerate(batch) if isinstance(r, Embed) and not r.opening}
        asked = [request for request, pieces in read.values() if pieces]
        layers = sorted({layer for request in asked for layer in request.layers})
        spans = sorted({span for request in asked for span in request.spans})
        rows = [(piece.ids, [piece.where[s] for s in spans]) for _, pieces in read.values() for piece in pieces]
        means = span_means(self._loaded.model, rows, layers, self._loaded.tokenizer.pad_token_id) if rows else {}
        answers: list[Answer] = []
        first = 0
        for i in range(len(batch)):
            if i not in read:
                answers.append(Failure("unsupported", "an encoder only shows hidden states, and of whole answers"))
                continue
            request, pieces = read[i]
            if not pieces:
                answers.append(Failure("empty", "the response is empty"))
                continue
            lengths = torch.tensor([float(len(piece.where["response"])) for piece in pieces])
            mine = {layer: means[layer][first : first + len(pieces)] for layer in layers}
            answers.append(_vectors(request, mine, lengths / lengths.sum(), spans))
            first += len(pieces)
        return answers

    def _pieces(self, request: Embed) -> list[_Piece]:
        """The answer cut into pieces, each behind the same prompt; none of an answer without tokens."""
        prompt = _tokens(self._loaded.tokenizer, request.messages[-1].content)[-self._most_prompt :]
        response = _tokens(self._loaded.tokenizer, request.response)
        n_pieces = -(-len(response) // self._most_piece)
        size = -(-len(response) // max(1, n_pieces))  # of nearly equal length: a rest of a few tokens says little
        return [self._piece(prompt, response[i : i + size]) for i in range(0, len(response), max(1, size))]

    def _piece(self, prompt: Sequence[int], response: Sequence[int]) -> _Piece:
        frame = self._frame
        before = (*frame.opening, *prompt)
        start = len(before) + len(frame.between)
        said = range(len(frame.opening), len(before)) if prompt else range(0, 1)  # of no prompt what stands before it
        ids = (*before, *frame.between, *response, *frame.closing)
        return _Piece(ids, {"prompt": said, "response": range(start, start + len(response))})


def _vectors(request: Embed, means: Mapping[int, Tensor], shares: Tensor, spans: Sequence[Span]) -> Vectors:
    """Of one request, from the means [pieces, spans, hidden size] by layer."""
    whole = {layer: torch.einsum("p,psh->sh", shares, each) for layer, each in means.items()}
    return Vectors(
        tuple(tuple(whole[layer][spans.index(span)].tolist()) for span in request.spans for layer in request.layers)
    )


def _tokens(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text alone; one that spells out a special token means its letters."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"])
