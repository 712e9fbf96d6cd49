"""A server that fails beside the answers, or amid them: nothing is measured otherwise, lost or waited for."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from selfpriority.backends.cache import Cached
from selfpriority.backends.ending import Ending
from selfpriority.backends.http import Address, Endpoint, Standing, time_in_all
from selfpriority.backends.openai import OpenaiModel
from selfpriority.backends.pace import Pace
from selfpriority.backends.transport import Reply, Unanswered
from selfpriority.backends.usage import Usage
from selfpriority.errors import WorkFailed
from selfpriority.language_model import Choice, Choose, Failure, Generate, ask
from selfpriority.recipe import OpenaiBackend
from selfpriority.records import Message
from tests.backends.busy import Busy, said

DIGITS = tuple("0123456789")
NAMES = {number: f"{' ' * (number >= 10)}{number % 10}" for number in range(20)}
HELD = {number: 0.5 if number == 8 else 0.3 if number == 9 else 0.01 for number in NAMES}


@pytest.fixture(autouse=True)
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Vllm(Busy):
    """Tells digits 8 and 9 only to whoever asks for them by number."""

    def __init__(self, **beside: Callable[[dict[str, Any]], Any]) -> None:
        listed = {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 8192}]}
        number = {text: number for number, text in NAMES.items()}
        pages = {
            "models": lambda body: listed,
            "tokenize": lambda body: {"tokens": [number[body["prompt"]]]},
            **beside,
        }
        super().__init__(respond, beside={"/v1/models": pages["models"], "/tokenize": pages["tokenize"]})
        self.listed = listed


def respond(body: dict[str, Any]) -> Any:
    asked = body.get("logprob_token_ids", range(8))
    reply = said("7")
    top = [{"token": NAMES[number], "logprob": math.log(HELD[number])} for number in asked]
    reply["choices"][0]["logprobs"] = {"content": [{"token": "7", "logprob": -1.0, "top_logprobs": top}]}
    return reply


def settings(server: Busy, **more: Any) -> OpenaiBackend:
    return OpenaiBackend.model_validate({"kind": "openai", "base_url": server.base_url, "backoff": 0.01, **more})


def weigh(*texts: str) -> list[Choose]:
    return [Choose(((Message("user", text),),), DIGITS) for text in texts]


def question(text: str) -> Generate:
    return Generate((Message("user", text),), 1, 0.7, 0.9, 8, 0)


def once(status: int, then: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """That status, and the next time what `then` says."""
    calls: list[int] = []

    def page(body: dict[str, Any]) -> Any:
        calls.append(1)
        return (status, {}) if len(calls) == 1 else then(body)

    return page


def read(answers: Iterator[tuple[int, Any]], came: list[int], then: Callable[[], None]) -> None:
    """Adds the numbers of what comes to `came`, and does `then` with the first in hand."""
    for number, _ in answers:
        came.append(number)
        if len(came) == 1:
            then()


def last_two(answer: object) -> list[float]:
    assert isinstance(answer, Choice)
    return [round(p, 6) for p in answer.probabilities[0][8:]]


@pytest.mark.parametrize("path", ["models", "tokenize"])
@pytest.mark.parametrize("status", [503, 429, 500])
def test_one_failed_side_question_changes_no_rating(path, status):
    with Vllm() as server:
        server.beside |= {
            page: once(status, reply) for page, reply in server.beside.items() if page.endswith(f"/{path}")
        }
        (answer,) = ask(OpenaiModel("m", settings(server)), weigh("a"))
    assert last_two(answer) == [0.51, 0.31]


@pytest.mark.parametrize("path", ["models", "tokenize"])
def test_a_side_question_that_always_fails_ends_the_work_and_is_asked_again_later(path):
    with Vllm() as server:
        good = dict(server.beside)
        server.beside |= {page: lambda body: (503, {}) for page in good if page.endswith(f"/{path}")}
        model = OpenaiModel("m", settings(server, retries=1))
        with pytest.raises(WorkFailed, match=rf"/{path} does not answer: HTTP 503 \(2 tries\)"):
            ask(model, weigh("a"))
        assert server.bodies == []
        server.beside |= good
        (answer,) = ask(model, weigh("a"))
    assert last_two(answer) == [0.51, 0.31]


@pytest.mark.parametrize("status", [404, 405, 401])
def test_a_server_that_says_no_is_asked_as_any_other(status):
    with Vllm(tokenize=lambda body: (status, {}) if body["prompt"] == " 3" else {"tokens": [1]}) as server:
        (answer,) = ask(OpenaiModel("m", settings(server)), weigh("a"))
    assert last_two(answer) == [0.0, 0.0]
    assert "logprob_token_ids" not in server.bodies[0]
    assert isinstance(answer, Choice)
    assert answer.unseen[0] == pytest.approx(0.02)


def test_ratings_that_an_older_version_read_never_stand_beside_exact_ones(tmp_path):
    """What is stored whole stays as it is, without a server; a call that goes on is read in one way."""
    with Vllm(models=lambda body: {"data": []}) as server:  # as if the server could not be told from any other
        settled = settings(server)
        ask(Cached(OpenaiModel("m", settled), tmp_path / "a"), weigh("a", "b"))
        server.beside["/v1/models"] = lambda body: server.listed
        n = len(server.bodies)
        old = ask(Cached(OpenaiModel("m", settled), tmp_path / "a"), weigh("a", "b"))
        assert len(server.bodies) == n
        new = ask(Cached(OpenaiModel("m", settled), tmp_path / "a"), weigh("a", "b", "c"))
        assert len(server.bodies) == n + 3
    assert [last_two(answer) for answer in old] == [[0.0, 0.0]] * 2
    assert [last_two(answer) for answer in new] == [[0.51, 0.31]] * 3
    gone = Cached(OpenaiModel("m", settled), tmp_path / "a")
    assert ask(gone, weigh("a", "b", "c")) == new
    assert ask(gone, weigh("a", "b")) == old


def test_an_error_that_ends_all_work_waits_for_no_pause():
    def reply(body: dict[str, Any]) -> Any:
        is_slow = body["messages"][0]["content"] == "slow"
        return (429, {"error": "slow down"} if is_slow else {"error": {"code": "insufficient_quota"}})

    with Busy(respond=reply, headers={"Retry-After": "25"}) as server:
        began = time.monotonic()
        with pytest.raises(WorkFailed, match="money or quota"):
            ask(OpenaiModel("m", settings(server)), [question("slow"), question("poor")])
        assert time.monotonic() - began < 5
        assert len(server.bodies) == 2  # and nothing is tried again


@pytest.mark.parametrize(
    ("given", "seconds"),
    [({}, 1800), ({"timeout": 3600}, 6 * 3600 + 300), ({"timeout": 3600, "timeout_in_all": 1800}, 1800)],
)
def test_each_try_has_its_whole_time_unless_the_recipe_says(given, seconds):
    told = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", **given}
    assert time_in_all(OpenaiBackend.model_validate(told)) == seconds


def test_no_try_begins_once_the_time_is_over(monkeypatch):
    """A sleep may last longer than it should; no seconds at all mean no limit to aiohttp."""
    limits: list[float] = []

    class Silent:
        async def post(self, body: bytes, seconds: float) -> Reply:
            limits.append(seconds)
            raise Unanswered("cut", "the connection was cut")

    async def oversleeps(self: Ending, seconds: float) -> None:
        await asyncio.sleep(seconds + 0.3)

    monkeypatch.setattr(Ending, "sleep", oversleeps)
    told = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "backoff": 0.01, "timeout_in_all": 0.2}
    given = OpenaiBackend.model_validate(told)

    async def posted() -> object:
        standing = Standing(Pace(1), Usage(), answered=1)
        endpoint = Endpoint(Address(given, "m", ""), Silent(), standing, Ending(lambda: False))  # type: ignore[arg-type]
        made: Awaitable[object] = endpoint.post({}, lambda reply: reply)
        return await made

    assert asyncio.run(posted()) == Failure("cut", "the connection was cut")
    assert len(limits) == 1


def test_an_interrupt_while_an_answer_is_being_kept_keeps_what_is_under_way(hears_interrupts, tmp_path):
    came: list[int] = []
    with Busy(seconds=0.02) as server:
        model = Cached(OpenaiModel("m", settings(server, concurrency=8)), tmp_path / "a")

        def interrupt() -> None:
            server.seconds = 0.5
            time.sleep(0.1)  # further ones are under way now
            os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            read(model.answer([[question(f"q{i}")] for i in range(30)]), came, interrupt)
        assert len(came) == len(server.bodies) < 30
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_does_not_wait(hears_interrupts):
    with Busy(seconds=0.02) as server:
        answers = OpenaiModel("m", settings(server)).answer([[question(f"q{i}")] for i in range(60)])
        next(answers)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        answers.close()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
