"""Counts what would be asked without asking it: a stand-in that writes every answer as long as it may be.

The steps build their requests for it as for any model, so a plan cannot drift from the work. Tokens are counted with
the model's own tokenizer where there is one, and otherwise taken to be four characters each. Knows nothing of steps.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import TypeVar

from selfpriority.backends.batches import n_shared, rows_at_once
from selfpriority.backends.choices import Spelled, Speller
from selfpriority.backends.scripted import WORDS
from selfpriority.chat import Chat
from selfpriority.chat_template import RefusedTurns
from selfpriority.language_model import (
    Answer,
    Choose,
    Classify,
    Completion,
    Embed,
    Failure,
    Generate,
    Rate,
    Request,
    Text,
    Value,
)
from selfpriority.recipe import Backend, HfBackend, OpenaiBackend
from selfpriority.records import Message

R = TypeVar("R", bound=Request)
CHARACTERS_A_TOKEN = 4
MOST_COUNTED = 256
"""Requests of a call whose tokens are counted one by one; of more, so many spread evenly stand for all."""
MOST_CONTEXTS = 8
"""The same for the contexts of one choice, which differ at their end alone."""

REMEMBERED = 4096
"""Conversations whose tokens are kept, for the next that asks how long they are."""


@dataclass
class Asked:
    """What was asked of one model in one step. Tokens are at most so many: every answer is as long as it may be."""

    model: str
    settings: Backend | None
    """None: it is no model but a function of the user's own, which counts no tokens and holds no weights."""
    classifies: bool = False
    requests: int = 0
    prompt_tokens: int = 0
    """Of conversations that are answered in text, each once however many answers are drawn."""
    forward_tokens: int = 0
    """Computed in one pass for a probability, a hidden state or a class, without a new token."""
    new_tokens: int = 0
    shown_tokens: int = 0
    """Those of them that a server writes to show their probabilities: no answer, and a run's manifest counts none."""
    cache_tokens: int = 0
    """Most tokens whose keys and values are held at once; 0 behind an address."""


class Ruler:
    """Length of conversations and of texts in tokens; `chat` None means characters."""

    def __init__(self, chat: Chat | None) -> None:
        self._chat = chat
        self._speller = Speller(chat) if chat else None
        self._units = 1 if chat else CHARACTERS_A_TOKEN
        # further systems ask what the first has asked
        self._encoded = lru_cache(REMEMBERED)(self._encode)

    def conversation(self, messages: Sequence[Message]) -> int:
        """Tokens of a prompt."""
        return ceil(len(self._encoded(tuple(messages))) / self._units)

    def shared(self, request: Choose) -> int:
        """Tokens that a choice is read from: what all conversations begin with once, and what stands before choices."""
        encoded = [self._encoded(tuple(context)) for context in _some_contexts(request)]
        n_once, spelled = n_shared(encoded), self.spelled(request)
        n_leads = sum(map(len, spelled.leads)) if spelled else 0
        behind = sum(len(ids) - n_once + n_leads for ids in encoded) * len(request.contexts) / len(encoded)
        return ceil((n_once + behind) / self._units)

    def contexts(self, request: Choose) -> int:
        """Tokens of all conversations, each by itself."""
        some = _some_contexts(request)
        return ceil(sum(map(self.conversation, some)) * len(request.contexts) / len(some))

    def longest(self, request: Choose) -> int:
        """Tokens of the longest conversation."""
        return max(map(self.conversation, _some_contexts(request)))

    def spelled(self, request: Choose) -> Spelled | None:
        """How the choices are spelled, where there is a tokenizer."""
        return self._speller.spelled(request.choices) if self._speller else None

    def response(self, text: str) -> int:
        """Tokens of an answer, its end token included."""
        return len(self._chat.response_ids(text, "end")) if self._chat else ceil(len(text) / self._units) + 1

    def _encode(self, messages: tuple[Message, ...]) -> Sequence[object]:
        written = "".join(message.content for message in messages)
        try:
            return array("I", self._chat.prompt_ids(messages)) if self._chat else written
        except RefusedTurns:  # the run drops it, and a plan tells what is asked at most
            return written[::CHARACTERS_A_TOKEN]


class Counting:
    """Meets every request with nothing behind it.

    Args:
        asked: where it is counted.
        ruler: how long a conversation is.
    """

    def __init__(self, asked: Asked, ruler: Ruler) -> None:
        self._asked, self._ruler = asked, ruler
        self._n_written = 0

    @property
    def fingerprint(self) -> str:
        """Nothing depends on it: no answer is kept."""
        return "counting"

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """All together."""
        return [list(range(len(requests)))] if requests else []

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """Counts, and answers with text only where text was asked for."""
        for number, batch in enumerate(batches):
            self._count(batch)
            yield number, [self._answer(request) for request in batch]

    def _count(self, requests: Sequence[Request]) -> None:
        asked = self._asked
        asked.requests += len(requests)
        asked.new_tokens += sum(map(self._n_new, requests))
        asked.shown_tokens += sum(self._n_new(request) for request in requests if isinstance(request, Choose))
        written = [request for request in requests if isinstance(request, Generate)]
        read = [request for request in requests if not isinstance(request, Generate)]
        asked.prompt_tokens += estimated_sum(written, self._n_read)
        asked.forward_tokens += estimated_sum(read, self._n_read)
        asked.cache_tokens = max(asked.cache_tokens, self._cache(requests))

    def _n_new(self, request: Request) -> int:
        if isinstance(request, Generate):
            return request.n * request.max_new_tokens
        is_behind_address = isinstance(self._asked.settings, OpenaiBackend)
        return len(request.contexts) if is_behind_address and isinstance(request, Choose) else 0

    def _n_read(self, request: Request) -> int:
        ruler = self._ruler
        match request:
            case Generate():
                n_begun = ruler.response(request.opening) if request.opening else 0
                return ruler.conversation(request.messages) + n_begun
            case Choose():
                if isinstance(self._asked.settings, OpenaiBackend):  # a server is asked about each context anew
                    return ruler.contexts(request)
                return ruler.shared(request)
            case Embed(opening=opening):
                return ruler.conversation(request.messages) + ruler.response(opening + request.response)
            case Classify():
                return ruler.conversation(request.messages) + ruler.response(request.response)
            case Rate():  # a function of the user's own reads no tokens
                return 0

    def _cache(self, requests: Sequence[Request]) -> int:
        """The largest batch that `batches.cut` may make of them: padded sequences, new tokens included."""
        settings = self._asked.settings
        written = [request for request in requests if isinstance(request, Generate | Choose)]
        if not written or not isinstance(settings, HfBackend):
            return 0
        sizes = [self._size(request) for request in _spread(written)]
        largest = self._size(max(written, key=_characters))  # one long request makes a batch alone, wherever it stands
        longest = max(length for _, length in [*sizes, largest])
        n_sequences = max(1, round(sum(n for n, _ in sizes) * len(written) / len(sizes)))
        most = min(settings.batch_tokens, min(settings.max_batch, n_sequences) * longest)
        return max(most, *(n * length for n, length in [*sizes, largest]))

    def _size(self, request: Generate | Choose) -> tuple[int, int]:
        """Sequences that are held at once, and tokens of the longest."""
        if isinstance(request, Generate):
            return request.n, self._n_read(request) + request.max_new_tokens
        spelled = self._ruler.spelled(request)
        n_rows, n_lead = (spelled.n_rows, spelled.longest_lead) if spelled else (1, 0)
        length = self._ruler.longest(request) + n_lead
        assert isinstance(self._asked.settings, HfBackend)
        return n_rows * rows_at_once(len(request.contexts), n_rows * length, self._asked.settings.batch_tokens), length

    def _answer(self, request: Request) -> Answer:
        match request:
            case Generate():
                return Completion(tuple(self._text(request) for _ in range(request.n)))
            case Classify():
                self._n_written += 1
                return Value(float(self._n_written))  # no two alike: a judge makes its scale of them
            case _:
                return Failure("unsupported", "nothing is asked for a plan")

    def _text(self, request: Generate) -> Text:
        """An answer of common words, one token each; the first ones count, so that no two answers are alike."""
        n_words = request.max_new_tokens
        words: list[str] = []
        number = self._n_written
        while number and len(words) < n_words:
            number, digit = divmod(number, len(WORDS))
            words.append(WORDS[digit])
        self._n_written += 1
        begun = [request.opening] if request.opening else []
        n_begun = self._ruler.response(request.opening) if begun else 0
        return Text(" ".join([*begun, *words, *WORDS[:1] * (n_words - len(words))]), n_begun + n_words, "end")


def estimated_sum(requests: Sequence[Request], length: Callable[[Request], int]) -> int:
    """Sum of the lengths; of many requests, of some of them times what all of them hold in characters."""
    some = _spread(requests)
    counted = sum(map(length, some))
    if len(some) == len(requests):
        return counted
    return round(counted * sum(map(_characters, requests)) / max(1, sum(map(_characters, some))))


def longest_sum(requests: Sequence[Request], length: Callable[[Request], int], n: int) -> int:
    """Sum of the `n` largest lengths; of many requests, of those with most characters."""
    if len(requests) <= MOST_COUNTED:
        return sum(sorted(map(length, requests))[-n:])
    return estimated_sum(sorted(requests, key=_characters)[-n:], length)


def _some_contexts(request: Choose) -> Sequence[tuple[Message, ...]]:
    """All of them, or some spread evenly with the longest."""
    contexts = request.contexts
    if len(contexts) <= MOST_CONTEXTS:
        return contexts
    longest = max(contexts, key=lambda context: sum(len(message.content) for message in context))
    return [*contexts[:: ceil(len(contexts) / (MOST_CONTEXTS - 1))], longest]


def _spread(requests: Sequence[R]) -> Sequence[R]:
    return requests[:: ceil(len(requests) / MOST_COUNTED)] if requests else ()


def _characters(request: Request) -> int:
    contexts = request.contexts if isinstance(request, Choose) else (request.messages,)
    n_response = len(request.response) if isinstance(request, Embed | Classify | Rate) else 0
    return n_response + sum(len(message.content) for context in contexts for message in context)
