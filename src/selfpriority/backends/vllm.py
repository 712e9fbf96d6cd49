"""vLLM as an engine of this program: answers Generate and Choose.

Knows requests and answers; the process that computes is behind `engine.py`. Every request of a call is with the engine
at once, which fills its batches as it likes, and every answer is handed on the moment it is there. What is drawn
depends on which requests happen to meet, so no seed is sent: what is kept of an answer is what it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from selfpriority.backends.choices import Ids, Speller
from selfpriority.backends.engine import Engine, LowRank, Question, Reply, Start, engine, vllm_version
from selfpriority.backends.written import begun, text_of, too_long
from selfpriority.chat_template import RefusedTurns
from selfpriority.language_model import Answer, Chances, Choice, Choose, Completion, Failure, Generate, Request
from selfpriority.models.served import Served, load_served
from selfpriority.models.trust import code_is_trusted
from selfpriority.recipe import VllmBackend

_NUMERICS = 1  # raise it when the same request would get another answer
_NUMERICS_OF_ADAPTERS = 2  # the same, for adapters: a second one was once answered by the first one's weights
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM reserves room for
_SEEDED_BY = 32
"""First batches that seed an engine, so that another call draws otherwise and the same one begins alike."""


@dataclass
class _Open:
    """A request some of whose questions are not answered."""

    number: int
    """Of its batch."""
    place: int
    """In its batch."""
    request: Request
    replies: list[Reply | None] = field(default_factory=list)


class VllmModel:
    """A causal language model, its adapter (where it is one) laid beside its base.

    Args:
        name: a hub id, a folder (of a model or an adapter) or an embedded name.
        settings: interpreter, arithmetic, share of the GPU.
        note: told in one line when the engine starts.

    Raises:
        InputError: the model cannot be used, or the interpreter has no vLLM; while answering, it does not start.
        WorkFailed: while answering, the engine died twice; what was answered has been yielded.
    """

    def __init__(self, name: str, settings: VllmBackend, note: Callable[[str], None] = lambda text: None) -> None:
        self._python = settings.python or sys.executable
        self._version = vllm_version(self._python)
        self._served, self._settings, self._note = load_served(name), settings, note
        self._speller = Speller(self._served.chat)
        self._engine: Engine | None = None

    @property
    def fingerprint(self) -> str:
        """Content of weights and tokenizer, arithmetic, version of vLLM and of this backend's numerics."""
        said = json.dumps(self._settings.engine, sort_keys=True) if self._settings.engine else ""
        numerics = _NUMERICS if self._served.adapter is None else _NUMERICS_OF_ADAPTERS
        return f"vllm-{numerics} {self._version} {self._served.content} {self._settings.dtype} {said}".strip()

    @property
    def busy_seconds(self) -> float:
        """That the engine has been computing since it was started."""
        return self._engine.busy_seconds if self._engine else 0.0

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Every request alone, so that each answer is kept as soon as it is there."""
        return [[i] for i in range(len(requests))]

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """Batches as they finish, all of them under way at once."""
        call = _Call(self._served, self._speller, self._context)
        found: list[dict[int, Answer]] = [{} for _ in batches]
        for number, place, answer in call.answers(batches, self._opened(batches)):
            found[number][place] = answer
            if len(found[number]) == len(batches[number]):
                yield number, [answer for _, answer in sorted(found[number].items())]

    @property
    def _context(self) -> int | None:
        own = self._settings.engine.get("max_model_len")
        return own if isinstance(own, int) else self._served.context

    def _opened(self, batches: Sequence[Sequence[Request]]) -> Engine:
        seed = int.from_bytes(hashlib.sha256(repr(batches[:_SEEDED_BY]).encode()).digest()[:3], "big")
        self._engine = engine(Start(self._python, self._arguments(), seed), self._note)
        return self._engine

    def _arguments(self) -> dict[str, Any]:
        settings, adapter = self._settings, self._served.adapter
        lora = {}
        if adapter is not None:
            room = next((rank for rank in _RANKS if rank >= adapter.rank), adapter.rank)
            lora = {"enable_lora": True, "max_lora_rank": room}
        return {
            "model": str(self._served.folder),
            "skip_tokenizer_init": True,  # token ids go there and come back
            "dtype": settings.dtype,
            "gpu_memory_utilization": settings.memory_share,
            "tensor_parallel_size": settings.tensor_parallel,
            "trust_remote_code": code_is_trusted(),
            "generation_config": "vllm",  # none of the model's own sampling settings
            "logprobs_mode": "raw_logprobs",  # of the model, before temperature
            "enable_prefix_caching": True,
            **lora,
            **settings.engine,
        }


class _Call:
    """One call of `answer`: requests as questions, and replies as answers."""

    def __init__(self, served: Served, speller: Speller, context: int | None) -> None:
        self._served, self._speller, self._context = served, speller, context
        self._asked: list[tuple[_Open, int]] = []
        """By question: of which request, and where in it."""
        self._done: list[tuple[int, int, Answer]] = []

    def answers(self, batches: Sequence[Sequence[Request]], runner: Engine) -> Iterator[tuple[int, int, Answer]]:
        """(batch, place in it, answer) as each is there."""
        for n, reply in runner.ask(self._questions(batches)):
            opened, part = self._asked[n]
            opened.replies[part] = reply
            if None not in opened.replies:
                self._finish(opened)
            yield from self._handed_on()
        yield from self._handed_on()

    def _handed_on(self) -> Iterator[tuple[int, int, Answer]]:
        while self._done:
            yield self._done.pop(0)

    def _questions(self, batches: Sequence[Sequence[Request]]) -> Iterator[Question]:
        for number, batch in enumerate(batches):
            for place, request in enumerate(batch):
                questions = self._put(request)
                if isinstance(questions, Failure):
                    self._done.append((number, place, questions))
                    continue
                opened = _Open(number, place, request, [None] * len(questions))
                for part, question in enumerate(questions):
                    self._asked.append((opened, part))
                    yield question

    def _put(self, request: Request) -> list[Question] | Failure:
        """What the engine is asked for a request, or why no model could answer it."""
        try:
            match request:
                case Generate():
                    return self._drawing(request)
                case Choose():
                    return self._reading(request)
                case _:
                    return Failure("unsupported", "vLLM shows no hidden states and classifies nothing here")
        except RefusedTurns as error:
            return Failure("turns", error.reason)

    def _drawing(self, request: Generate) -> list[Question] | Failure:
        ids = begun(self._served.chat, request)
        n = request.n if request.temperature else 1  # greedy draws are one
        ends = tuple(sorted(self._served.end_ids))
        question = Question(ids, n, request.temperature, request.top_p, request.max_new_tokens, ends, (), self._adapter)
        return too_long(len(ids), request.max_new_tokens, self._context) or [question]

    def _reading(self, request: Choose) -> list[Question] | Failure:
        """One question for each context and lead, in the order of `_rows`."""
        spelled = self._speller.spelled(request.choices)
        contexts = [spelled.before(self._served.chat.answered_ids(context)) for context in request.contexts]
        failure = too_long(max(map(len, contexts)), max(spelled.longest_lead, 1), self._context)
        return failure or [
            Question([*context, *lead], read=spelled.read_behind(lead), adapter=self._adapter)
            for context, lead in product(contexts, spelled.leads)
        ]

    @property
    def _adapter(self) -> LowRank | None:
        own = self._served.adapter
        return LowRank(str(own.folder), self._served.content) if own else None

    def _finish(self, opened: _Open) -> None:
        replies = [reply for reply in opened.replies if reply is not None]
        refused = next((reply.refused for reply in replies if reply.refused), "")
        answer = Failure("rejected", refused) if refused else self._answered(opened.request, replies)
        self._done.append((opened.number, opened.place, answer))

    def _answered(self, request: Request, replies: Sequence[Reply]) -> Answer:
        if isinstance(request, Generate):
            drawn = [text_of(self._served.chat, self._served.end_ids, request, ids) for ids in replies[0].drawn]
            return Completion(tuple(drawn if len(drawn) == request.n else drawn * request.n))
        assert isinstance(request, Choose)
        spelled = self._speller.spelled(request.choices)
        n = len(spelled.leads)
        rows = [replies[start : start + n] for start in range(0, len(replies), n)]
        read = [spelled.read_behind(lead) for lead in spelled.leads]
        return Choice.of([Chances(self._weighed(request.choices, read, row)) for row in rows])

    def _weighed(
        self, choices: tuple[str, ...], read: Sequence[tuple[int, ...]], row: Sequence[Reply]
    ) -> tuple[float, ...]:
        spelled = self._speller.spelled(choices)
        known: dict[tuple[Ids, int], float] = {}
        for lead, tokens, reply in zip(spelled.leads, read, row, strict=True):
            known |= {(lead, token): math.exp(p) for token, p in zip(tokens, reply.read, strict=True)}
        return spelled.weighed(lambda lead, token: known[lead, token])
