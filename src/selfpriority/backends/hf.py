"""transformers in this process: answers Generate, Choose and Embed (`HfModel`) or Classify (`HfClassifier`).

Knows requests and answers; tokens, caches and sampling are in `decoding`, hidden states in `hidden`,
opening a model in `loading`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from selfpriority.backends.batches import Cost, cut, n_shared, passes
from selfpriority.backends.choices import Spelled, Speller
from selfpriority.backends.decoding import Sampling, generate, next_token_logits
from selfpriority.backends.hidden_states import right_padded, span_means
from selfpriority.backends.written import begun, text_of, too_long
from selfpriority.chat_template import RefusedTurns
from selfpriority.language_model import (
    Answer,
    Choice,
    Choose,
    Classify,
    Completion,
    Embed,
    Failure,
    Generate,
    Rate,
    Request,
    Span,
    Text,
    Value,
    Vectors,
)
from selfpriority.models.loading import Loaded, load_causal, load_classifier
from selfpriority.recipe import HfBackend

_NUMERICS = 1  # raise it when the same request would get another answer, and not only another rounding
_NUMERICS_OF_LEADS = 2  # the same, for tokenizers whose choices were once read where a space piece stands


class HfModel:
    """A causal language model.

    Args:
        name: a hub id, a folder (of a model or an adapter) or an embedded name.
        settings: device, arithmetic and batch budgets.

    Raises:
        InputError: the model or the device cannot be used.
    """

    def __init__(self, name: str, settings: HfBackend) -> None:
        self._loaded = load_causal(name, settings)
        self._settings = settings
        self._speller = Speller(self._loaded.chat)

    @property
    def fingerprint(self) -> str:
        """Content of weights and tokenizer, arithmetic, and version of this backend's numerics."""
        return f"hf-{_NUMERICS if self._speller.is_plain else _NUMERICS_OF_LEADS} {self._loaded.fingerprint}"

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Batches by kind and sampling settings, of similar length, within the token budget."""
        costs = [self._cost(request) for request in requests]
        return cut(costs, self._settings.batch_tokens, self._settings.max_batch)

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """Each batch's answers depend on that batch alone: its draws are seeded by its content."""
        for number, batch in enumerate(batches):
            yield number, _by_group(batch, self._answer_group)

    def _cost(self, request: Request) -> Cost:
        n_sequences = 1
        if isinstance(request, Generate):
            n_sequences = request.n
        elif isinstance(request, Choose):
            n_sequences = len(request.contexts) * self._speller.spelled(request.choices).n_rows
        return Cost(_group(request), n_sequences, _total(self._lengths, request))

    def _lengths(self, request: Request) -> tuple[int, int]:
        """Tokens of the request's longest prompt, and tokens that follow it."""
        chat = self._loaded.chat
        match request:
            case Generate():
                return len(begun(self._loaded.chat, request)), request.max_new_tokens
            case Choose():
                n_longest = max(len(chat.answered_ids(context)) for context in request.contexts)
                return n_longest, self._speller.spelled(request.choices).longest_lead
            case Embed() | Classify():
                prompt, response = _encoded(self._loaded, request)
                return len(prompt), len(response)
            case Rate():  # it is refused, whatever its length
                return 0, 0

    def _answer_group(self, group: Sequence[Any]) -> list[Answer]:
        match group[0]:
            case Generate():
                return _answered(group, self._failure, self._generate)
            case Choose():
                return _answered(group, self._failure, self._choose)
            case Embed():
                return _answered(group, self._failure, self._embed)
            case _:
                return [Failure("unsupported", "a causal language model does not classify")] * len(group)

    def _failure(self, request: Request) -> Failure | None:
        return _impossible(self._loaded, request, self._lengths)

    def _generate(self, requests: Sequence[Generate]) -> list[Answer]:
        first = requests[0]  # the group shares its sampling settings
        sampling = Sampling(
            temperature=first.temperature,
            top_p=first.top_p,
            max_new_tokens=first.max_new_tokens,
            end_ids=self._loaded.end_ids,
            pad_id=self._loaded.pad_id,
            seed=_seed(requests),
        )
        prompts = [begun(self._loaded.chat, request) for request in requests]
        drawn = iter(generate(self._loaded.model, prompts, [request.n for request in requests], sampling))
        return [Completion(tuple(self._text(request, next(drawn)) for _ in range(request.n))) for request in requests]

    def _text(self, request: Generate, ids: list[int]) -> Text:
        return text_of(self._loaded.chat, self._loaded.end_ids, request, ids)

    def _choose(self, requests: Sequence[Choose]) -> list[Answer]:
        spelled = [self._speller.spelled(request.choices) for request in requests]
        prefixes, suffixes = [], []
        for request, spelling in zip(requests, spelled, strict=True):
            contexts = [spelling.before(self._loaded.chat.answered_ids(context)) for context in request.contexts]
            n_once = n_shared(contexts)
            prefixes.append(contexts[0][:n_once])
            suffixes.append([ids[n_once:] for ids in contexts])
        leads = [spelling.leads[1:] for spelling in spelled]
        most = self._settings.batch_tokens
        logits = next_token_logits(self._loaded.model, prefixes, suffixes, self._loaded.pad_id, leads, most)
        n_read = [len(group) * len(spelling.leads) for group, spelling in zip(suffixes, spelled, strict=True)]
        by_request = torch.split(torch.softmax(logits, dim=-1), n_read)
        return [_choice(spelling, rows) for spelling, rows in zip(spelled, by_request, strict=True)]

    def _embed(self, requests: Sequence[Embed]) -> list[Answer]:
        layers = sorted({layer for request in requests for layer in request.layers})
        spans = sorted({span for request in requests for span in request.spans})
        rows = [_with_spans(self._loaded, request, spans) for request in requests]
        means = span_means(self._loaded.model, rows, layers, self._loaded.pad_id)
        return [
            Vectors(
                tuple(
                    tuple(means[layer][row, spans.index(span)].tolist())
                    for span in request.spans
                    for layer in request.layers
                )
            )
            for row, request in enumerate(requests)
        ]


class HfClassifier:
    """A sequence-classification (reward) model with one label. Arguments and errors as `HfModel`."""

    def __init__(self, name: str, settings: HfBackend) -> None:
        self._loaded = load_classifier(name, settings)
        self._settings = settings

    @property
    def fingerprint(self) -> str:
        """Content of weights and tokenizer, arithmetic, and version of this backend's numerics."""
        return f"hf-classifier-{_NUMERICS} {self._loaded.fingerprint}"

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Batches of similar length within the token budget."""
        costs = [Cost(_group(request), 1, _total(self._lengths, request)) for request in requests]
        return cut(costs, self._settings.batch_tokens, self._settings.max_batch)

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """Forward passes over some rows of a batch each."""
        for number, batch in enumerate(batches):
            yield number, _by_group(batch, self._answer_group)

    def _lengths(self, request: Request) -> tuple[int, int]:
        """Tokens of the conversation, and of the response to it."""
        if not isinstance(request, Classify):
            return 0, 0
        prompt, response = _encoded(self._loaded, request)
        return len(prompt), len(response)

    def _answer_group(self, group: Sequence[Any]) -> list[Answer]:
        if not isinstance(group[0], Classify):
            return [Failure("unsupported", "a reward model only classifies")] * len(group)
        return _answered(group, self._failure, self._classify)

    def _failure(self, request: Classify) -> Failure | None:
        return _impossible(self._loaded, request, self._lengths)

    @torch.inference_mode()
    def _classify(self, requests: Sequence[Classify]) -> list[Answer]:
        rows = [[*prompt, *response] for prompt, response in (_encoded(self._loaded, r) for r in requests)]
        ids, mask = right_padded(rows, self._loaded.pad_id, self._loaded.model.device)
        lengths = [len(row) + 1 for row in rows]
        widths = [(part, max(lengths[part])) for part in passes(lengths)]
        logits = [
            self._loaded.model(input_ids=ids[part, :n], attention_mask=mask[part, :n]).logits for part, n in widths
        ]
        return [Value(float(value)) for value in torch.cat(logits)[:, 0].float().tolist()]


def _choice(spelled: Spelled, rows: Tensor) -> Choice:
    """From probabilities [contexts x leads, vocabulary]; a choice's is the sum over its spellings.

    A spelling with a lead is as probable as its tokens together. So a lead that the model would not write adds
    nothing, and a model that declines to choose is not made to.
    """
    n_leads = len(spelled.leads)
    by_lead = {lead: rows[number::n_leads] for number, lead in enumerate(spelled.leads)}
    columns = []
    for singles, led in zip(spelled.singles, spelled.led, strict=True):
        column = by_lead[()][:, list(singles)].sum(dim=1)
        for path in led:
            tokens = [by_lead[path[:n]][:, token] for n, token in enumerate(path)]
            column = column + torch.stack(tokens).prod(dim=0)
        columns.append(column.tolist())
    return Choice(tuple(zip(*columns, strict=True)))


def _by_group(batch: Sequence[Request], ask: Callable[[Sequence[Any]], list[Answer]]) -> list[Answer]:
    """Answers in the order of `batch`, asked group by group; a batch of `plan` is one group."""
    answers: dict[int, Answer] = {}
    for name in dict.fromkeys(map(_group, batch)):
        members = [i for i, request in enumerate(batch) if _group(request) == name]
        answers.update(zip(members, ask([batch[i] for i in members]), strict=True))
    return [answers[i] for i in range(len(batch))]


def _answered(
    requests: Sequence[Any],
    failure: Callable[[Any], Failure | None],
    ask: Callable[[Sequence[Any]], list[Answer]],
) -> list[Answer]:
    """Failures where they are known beforehand; the rest is asked together."""
    failures = [failure(request) for request in requests]
    possible = [request for request, failed in zip(requests, failures, strict=True) if failed is None]
    asked = iter(ask(possible) if possible else ())
    return [next(asked) if failed is None else failed for failed in failures]


def _group(request: Request) -> str:
    if isinstance(request, Generate):
        return f"Generate {request.temperature} {request.top_p} {request.max_new_tokens}"
    return type(request).__name__


_Lengths = Callable[[Request], tuple[int, int]]
"""Tokens of a request's longest prompt, and tokens that follow it."""


def _total(lengths: _Lengths, request: Request) -> int:
    try:
        return sum(lengths(request))
    except RefusedTurns:  # fails when it is answered
        return 0


def _impossible(loaded: Loaded, request: Request, lengths: _Lengths) -> Failure | None:
    """Why no model could answer the request; None if it can be asked."""
    if isinstance(request, Embed | Classify) and not request.response.strip():
        return Failure("empty", "the response is empty")
    try:
        n_prompt, n_after = lengths(request)
    except RefusedTurns as error:
        return Failure("turns", error.reason)
    if isinstance(request, Embed) and not n_after:  # cut, and nothing but an end token's letters
        return Failure("empty", "the response has no tokens")
    return too_long(n_prompt, n_after, loaded.context)


def _encoded(loaded: Loaded, request: Embed | Classify) -> tuple[list[int], list[int]]:
    """Token ids of prompt and response, with what it goes on from; the end token is read where the response has one.

    A reward model always reads it: most take their value at that token.
    """
    stop, opening = (request.stop, request.opening) if isinstance(request, Embed) else ("end", "")
    response = [*loaded.chat.response_ids(opening, "length"), *loaded.chat.response_ids(request.response, stop)]
    return loaded.chat.answered_ids(request.messages), response


def _with_spans(loaded: Loaded, request: Embed, spans: Sequence[Span]) -> tuple[list[int], list[range]]:
    """Token ids of prompt and response, and where each span lies in them."""
    prompt, response = _encoded(loaded, request)
    ids = [*prompt, *response]
    n_before = len(prompt) + len(loaded.chat.response_ids(request.opening, "length"))
    where = {"response": range(n_before, len(ids))}
    if "prompt" in spans:
        where["prompt"] = loaded.chat.last_turn(request.messages)
    return ids, [where[span] for span in spans]


def _seed(requests: Sequence[Generate]) -> int:
    openings = "".join(request.opening for request in requests)
    return int.from_bytes(hashlib.sha256(f"{list(requests)!r}{openings}".encode()).digest()[:7], "big")
