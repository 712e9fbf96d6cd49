"""Many requests at a server that keeps connections, is full, is interrupted, or can do more than others."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from selfpriority.backends.cache import Cached
from selfpriority.backends.ending import Ending
from selfpriority.backends.openai import PROBED_FROM, OpenaiModel
from selfpriority.errors import InputError, WorkFailed
from selfpriority.language_model import Answer, Chances, Choice, Choose, Completion, Failure, Generate, ask
from selfpriority.recipe import OpenaiBackend, Prices
from selfpriority.records import Message
from tests.backends.busy import Busy, said

DIGITS = tuple("0123456789")


@pytest.fixture(autouse=True)
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def questions(n: int, draws: int = 1) -> list[Generate]:
    return [Generate((Message("user", f"q{i}"),), draws, 0.7, 0.9, 8, i) for i in range(n)]


def weigh(*texts: str) -> Choose:
    return Choose(tuple((Message("user", text),) for text in texts), DIGITS)


def settings(server: Busy, **more: Any) -> OpenaiBackend:
    return OpenaiBackend.model_validate({"kind": "openai", "base_url": server.base_url, "backoff": 0.02, **more})


def weighed(**chances: float) -> dict[str, Any]:
    top = [{"token": token, "logprob": math.log(p)} for token, p in chances.items()]
    reply = said("7")
    reply["choices"][0]["logprobs"] = {"content": [{"token": "7", "logprob": -1.0, "top_logprobs": top}]}
    return reply


def text_of(body: dict[str, Any]) -> str:
    return body["messages"][0]["content"]


def test_a_server_that_takes_forty_answers_two_thousand():
    """vLLM with `--max-num-queued-reqs`: 503 without a word of when to come again."""
    with Busy(queue=40, seconds=0.002) as server:
        model = OpenaiModel("m", settings(server, concurrency=256))
        answers = ask(model, questions(2000))
    assert all(isinstance(answer, Completion) for answer in answers)
    assert server.most_under_way <= 40
    assert server.refused < 300
    assert len(server.connections) <= 256


def test_connections_are_kept_and_no_more_than_allowed():
    with Busy(seconds=0.02) as server:
        ask(OpenaiModel("m", settings(server, concurrency=16)), questions(200))
    assert 8 <= server.most_under_way <= 16
    assert len(server.connections) <= 16


def test_all_tries_have_a_time_together():
    with Busy(respond=lambda body: (500, {})) as server:
        began = time.monotonic()
        (answer,) = ask(OpenaiModel("m", settings(server, retries=20, timeout_in_all=0.3)), questions(1))
        assert answer == Failure("server_error", "HTTP 500")
        assert 1 < len(server.bodies) < 20
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("headers", "most"),
    [({"Retry-After": "100"}, 100), ({"Retry-After": "5000"}, 60), ({"x-ratelimit-reset-requests": "100s"}, 60)],
    ids=["as asked", "longer than all tries may take", "read off a limit"],
)
def test_how_long_a_pause_is(monkeypatch, headers, most):
    """Nobody waits here: the pauses are only written down."""
    pauses: list[float] = []

    async def sleep(self: Ending, seconds: float) -> None:
        pauses.append(seconds)

    with Busy(respond=lambda body: (429, {}), headers=headers) as server:
        monkeypatch.setattr(Ending, "sleep", sleep)
        (answer,) = ask(OpenaiModel("m", settings(server, retries=1)), questions(1))
    assert answer == Failure("rate_limited", "too many requests (HTTP 429)")
    assert pauses == [pytest.approx(most)]


def test_a_server_that_speaks_no_tls_is_told_in_the_systems_words():
    with Busy() as server:
        secure = settings(server, retries=0, base_url=server.base_url.replace("http:", "https:"))
        with pytest.raises(InputError, match=r"cannot be reached: .*SSL.*is base_url right"):
            ask(OpenaiModel("m", secure), questions(1))


def test_contexts_of_one_request_are_asked_side_by_side():
    with Busy(respond=lambda body: weighed(**{"7": 0.9}), seconds=0.05) as server:
        (answer,) = ask(OpenaiModel("m", settings(server)), [weigh("a", "b", "c", "d")])
    assert isinstance(answer, Choice)
    assert server.most_under_way == 4
    assert [row[7] for row in answer.probabilities] == [pytest.approx(0.9)] * 4


def test_a_context_that_fails_loses_none_that_came(tmp_path):
    """The second of four fails while the others are under way: they are paid for, kept, and not asked again."""
    broken = [True]

    def respond(body: dict[str, Any]) -> Any:
        is_bad = broken and text_of(body) == "b"
        return (500, {}) if is_bad else weighed(**{"7": 0.5 + "abcd".index(text_of(body)) / 10})

    with Busy(respond=respond, seconds=0.02) as server:
        asked = [weigh("a", "b", "c", "d")]
        (first,) = ask(Cached(OpenaiModel("m", settings(server, retries=0)), tmp_path / "a"), asked)
        assert isinstance(first, Choice)
        assert [isinstance(found, Chances) for found in first.by_context] == [True, False, True, True]
        broken.clear()
        model = Cached(OpenaiModel("m", settings(server, retries=0)), tmp_path / "a")
        (second,) = ask(model, asked)
        assert ask(model, asked) == [second]
    assert isinstance(second, Choice)
    assert [row[7] for row in second.probabilities] == [pytest.approx(p) for p in (0.5, 0.6, 0.7, 0.8)]
    assert second.missing == ()
    assert sorted(map(text_of, server.bodies)) == ["a", "b", "b", "c", "d"]


@pytest.mark.parametrize("refused", ["a", "b"])
def test_a_refused_context_is_no_answer_to_one_that_failed(tmp_path, refused):
    """The one is final and not asked again, the other is."""
    broken = [True]

    def respond(body: dict[str, Any]) -> Any:
        if text_of(body) not in "ab":
            return weighed(**{"7": 0.9})  # the greeting
        if text_of(body) == refused:
            return (403, {"error": "Your input was flagged by moderation"})
        return (500, {}) if broken else weighed(**{"7": 0.9})

    with Busy(respond=respond, seconds=0.02) as server:
        asked = [weigh("a", "b")]
        first = ask(Cached(OpenaiModel("m", settings(server, retries=0)), tmp_path / "a"), asked)[0]
        broken.clear()
        second = ask(Cached(OpenaiModel("m", settings(server, retries=0)), tmp_path / "a"), asked)[0]
    assert [failure.reason for failure in first.missing] == [
        "refused" if text == refused else "server_error" for text in "ab"
    ]
    assert [getattr(found, "reason", "answered") for found in second.by_context] == [
        "refused" if text == refused else "answered" for text in "ab"
    ]
    assert len([body for body in server.bodies if text_of(body) == refused]) == 1


def test_what_the_server_does_not_name_is_missing_mass():
    told = {"7": 0.6, "8": 0.3, "The": 0.01, "I": 0.01}
    lines: list[str] = []
    with Busy(respond=lambda body: weighed(**told)) as server:
        model = OpenaiModel("m", settings(server), lines.append)
        answers = ask(model, [weigh(f"{i}") for i in range(PROBED_FROM)])
    (unseen,) = {answer.unseen[0] for answer in answers}
    assert unseen == pytest.approx(0.08)  # eight digits of at most 0.01 each; all that is not told holds 0.08
    assert f"in {PROBED_FROM} of {PROBED_FROM} contexts it did not name every choice" in lines[-1]
    assert "0.08 in one: missing mass" in lines[-1]


def test_of_vllm_exactly_the_choices_are_asked(tmp_path):
    ids = {**{digit: [10 + i] for i, digit in enumerate(DIGITS)}, **{f" {digit}": [30, 40] for digit in DIGITS}}
    names = {tokens[0]: text for text, tokens in ids.items() if len(tokens) == 1}
    beside = {
        "/v1/models": lambda body: {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 8192}]},
        "/tokenize": lambda body: {"tokens": ids[body["prompt"]]},
    }

    def respond(body: dict[str, Any]) -> Any:
        if "logprobs" not in body:
            return said("Yes.")
        return weighed(**{names[token]: 0.01 * (token - 9) for token in body["logprob_token_ids"]})

    lines: list[str] = []
    with Busy(respond=respond, beside=beside) as server:
        model = OpenaiModel("m", settings(server), lines.append)
        (answer,) = ask(model, [weigh("Rate it.")])
        ask(model, questions(PROBED_FROM))
    assert answer == Choice((tuple(pytest.approx(0.01 * (1 + i)) for i in range(10)),))
    assert answer.unseen == ()  # nothing is left out
    assert server.bodies[0]["logprob_token_ids"] == list(range(10, 20))
    (line,) = [line for line in lines if "contexts of" in line]
    assert "it is vllm, contexts of 8,192 tokens, one draw a request" in line
    assert "probabilities of exactly the asked tokens, at most 64 requests at once" in line


def test_what_a_server_can_do_is_told_in_one_line():
    def respond(body: dict[str, Any]) -> Any:
        refused = body["n"] > 1 and "logprobs" in body
        return (400, {"error": {"message": "no"}}) if refused else said(*["Hi."] * body["n"])

    lines: list[str] = []
    with Busy(respond=respond, headers={"x-ratelimit-limit-requests": "500"}, seconds=0.01) as server:
        model = OpenaiModel("m", settings(server), lines.append)
        ask(model, questions(2 * PROBED_FROM))
        ask(model, questions(PROBED_FROM))
    (line,) = [line for line in lines if "at once" in line]
    assert "several draws a request, no probabilities of tokens" in line
    assert "a limit of 500 requests" in line


@pytest.mark.parametrize(
    ("usage", "prices", "told"),
    [
        ({"prompt_tokens": 1000, "completion_tokens": 100}, Prices(read=2, written=10), "cost 0.096"),
        ({"prompt_tokens": 1000, "completion_tokens": 100}, None, r"cost unknown \(no backend.prices\)"),
        ({}, Prices(read=2, written=10), r"cost unknown \(not every reply counted"),
        ({"prompt_tokens": 1000, "completion_tokens": 100, "cost": 0.5}, None, "cost 16"),
        (
            {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 800}},
            Prices(read=2, written=10, known=1),
            "cost 0.0704",
        ),
    ],
    ids=["by the recipe", "no price", "no count", "by the server", "from its cache"],
)
def test_tokens_and_cost_are_the_servers(usage, prices, told):
    lines: list[str] = []
    with Busy(respond=lambda body: said("Hi.", **usage) if body["n"] == 1 else (500, {})) as server:
        ask(OpenaiModel("m", settings(server, prices=prices), lines.append), questions(PROBED_FROM))
    (line,) = [line for line in lines if "so far 32 requests" in line]
    assert re.search(told, line), line


def until_it_ends(model: OpenaiModel, requests: list[Generate], came: list[int]) -> None:
    """Adds the numbers of what is yielded to `came`, whatever ends it."""
    for number, _ in model.answer([[request] for request in requests]):
        came.append(number)


@contextmanager
def interrupted_once(server: Busy, n_asked: int) -> Iterator[None]:
    """Ctrl-C as soon as the server was asked so many requests; holds that it comes out."""

    def interrupt() -> None:
        while len(server.bodies) < n_asked:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        yield


def test_an_interrupt_keeps_what_is_under_way_and_begins_nothing(hears_interrupts):
    came: list[int] = []
    with Busy(seconds=1.0) as server:
        with interrupted_once(server, 4):
            until_it_ends(OpenaiModel("m", settings(server, concurrency=4)), questions(20), came)
        assert len(came) == len(server.bodies) == 4


def test_an_interrupt_does_not_wait_for_silence(hears_interrupts):
    came: list[int] = []
    with Busy(seconds=30.0) as server:
        began = time.monotonic()
        with interrupted_once(server, 4):
            until_it_ends(OpenaiModel("m", settings(server, concurrency=4)), questions(20), came)
        assert came == []
        assert time.monotonic() - began < 15


def test_whoever_stops_reading_stops_the_work():
    with Busy(seconds=0.05) as server:
        answers = OpenaiModel("m", settings(server, concurrency=2)).answer([[request] for request in questions(200)])
        next(answers)
        answers.close()
        time.sleep(0.1)  # what was on its way arrives
        n = len(server.bodies)
        time.sleep(0.3)
        assert len(server.bodies) == n < 20


def test_an_error_that_ends_all_work_comes_after_what_was_under_way():
    def respond(body: dict[str, Any]) -> Any:
        return (402, {"error": "no credits"}) if text_of(body) == "q3" else said("Yes.")

    came: list[Answer] = []
    with Busy(respond=respond, seconds=0.02) as server:
        answers = OpenaiModel("m", settings(server, concurrency=4)).answer([[request] for request in questions(20)])
        with pytest.raises(WorkFailed, match="money or quota"):
            came.extend(answer for _, batch in answers for answer in batch)
    given = [answer for answer in came if not isinstance(answer, Failure)]
    assert len(given) == server.answered
    # the stopped one too, and any that was begun and not yet sent: nothing of them is taken for an answer
    assert {answer.reason for answer in came if isinstance(answer, Failure)} == {"cut"}
    assert len(server.bodies) < 15
