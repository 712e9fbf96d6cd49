"""What may be stored, and what becomes of a stored answer that cannot be read: asked again once, with a note."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from selfpriority.backends.answers import to_json
from selfpriority.backends.cache import Cached
from selfpriority.backends.http import GREETING
from selfpriority.backends.openai import OpenaiModel
from selfpriority.backends.scripted import ScriptedModel
from selfpriority.errors import WorkFailed
from selfpriority.language_model import (
    Answer,
    Choice,
    Choose,
    Classify,
    Completion,
    Embed,
    Failure,
    Generate,
    Request,
    Text,
    Value,
    Vectors,
    ask,
)
from selfpriority.recipe import ScriptedBackend
from selfpriority.records import Message
from tests.backends.conftest import Reply, chat

HELLO = (Message("user", "hello"),)
WRITE = Generate(HELLO, n=1, temperature=1.0, top_p=1.0, max_new_tokens=20, seed=3)
WEIGH = Choose((HELLO,), ("A", "B"))
SHOW = Embed(HELLO, "hi", (1,))
CLASS = Classify(HELLO, "hi")


class Saying(ScriptedModel):
    """Says what it is told to, once for each time it is asked, and counts."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(ScriptedBackend(kind="scripted"))
        self.answers, self.n_asked = [*answers], 0

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        for number, batch in enumerate(batches):
            self.n_asked += len(batch)
            yield number, [self.answers.pop(0) for _ in batch]


def n_stored(path: Path) -> int:
    with sqlite3.connect(path) as store:
        return int(store.execute("SELECT count(*) FROM answers").fetchone()[0])


def one_text(text: str = "Hi.", n_tokens: object = 3, stop: object = "end", thinking: str = "") -> Completion:
    return Completion((Text(text, n_tokens, stop, thinking),))  # type: ignore[arg-type]


WRONG = [
    (WRITE, one_text("half \ud83d")),
    (WRITE, one_text(thinking="\udfff")),
    (WRITE, one_text(n_tokens=-1)),
    (WRITE, one_text(n_tokens=1.5)),
    (WRITE, one_text(n_tokens=10**400)),
    (WRITE, one_text(stop="whenever")),
    (WRITE, Completion(())),
    (WRITE, Completion((Text("a", 1, "end"), Text("b", 1, "end")))),
    (WRITE, Value(1.0)),
    (WEIGH, Choice(((math.nan, 0.1),))),
    (WEIGH, Choice(((math.inf, 0.1),))),
    (WEIGH, Choice(((-0.1, 0.1),))),
    (WEIGH, Choice(((1.1, 0.0),))),
    (WEIGH, Choice(((0.5,),))),
    (WEIGH, Choice(())),
    (SHOW, Vectors(((math.nan, 1.0),))),
    (SHOW, Vectors(((1.0, 2.0), (1.0, 2.0)))),
    (SHOW, Vectors(((),))),
    (CLASS, Value(-math.inf)),
    (CLASS, Failure("refused", "\ud800")),
]


@pytest.mark.parametrize(("request_", "wrong"), WRONG, ids=str)
def test_what_no_answer_can_be_is_garbage_and_is_not_stored(tmp_path: Path, request_: Request, wrong: Answer) -> None:
    (answer,) = ask(Cached(Saying(wrong), tmp_path / "a"), [request_])
    assert isinstance(answer, Failure)
    assert answer.reason == "garbage"
    assert answer.detail
    assert n_stored(tmp_path / "a") == 0


RIGHT = [
    (WRITE, one_text()),
    (WEIGH, Choice(((1.0 + 5e-7, 0.0),))),
    (SHOW, Vectors(((0.5, 1.0),))),
    (CLASS, Value(2.0)),
]
DAMAGED = [
    "", "{", "null", "7", "[]", "{}", '{"texts": 7}', '{"texts": [["a", 1]]}', '{"texts": [["a", 1, "end", "b", "c"]]}',
    '{"texts": [["\\ud83d", 1, "end"]]}', '{"texts": [["a", -1, "end"]]}', '{"texts": [["a", 1e400, "end"]]}',
    '{"texts": [["a", 1, "end"], ["b", 1, "end"]]}', '{"texts": [[null, 1, "end"]]}',
    '{"texts": [["a", 1, "end"]], "missing": [["cut"]]}', '{"probabilities": [[NaN, 0.1]]}',
    '{"probabilities": [["x", 0.1]]}', '{"probabilities": [[Infinity, 0]]}', '{"vectors": ["AAA"]}',
    '{"vectors": ["AAA="]}', '{"vectors": [7]}', '{"value": null}', '{"value": NaN}', '{"failure": "x"}',
    '{"failure": [1, 2]}', "[" * 100_000, "\x00\xff", b"\xff\xfe", 5, "9" * 5_000,
]  # fmt: skip


@pytest.mark.parametrize("stored", DAMAGED, ids=lambda stored: str(stored)[:40])
@pytest.mark.parametrize(("request_", "right"), RIGHT, ids=lambda x: type(x).__name__)
def test_what_is_stored_and_cannot_be_read_is_asked_again_once(
    tmp_path: Path, stored: object, request_: Request, right: Answer
) -> None:
    path = tmp_path / "cache.sqlite"
    ask(Cached(Saying(right), path), [request_])
    with sqlite3.connect(path) as store:
        store.execute("UPDATE answers SET answer = ?", (stored,))
    notes: list[str] = []
    model = Saying(right)
    cached = Cached(model, path, notes.append)
    assert ask(cached, [request_]) == [right]
    assert notes == ["cache.sqlite: 1 of the stored answers cannot be read and is asked again"]
    assert ask(cached, [request_]) == [right]
    assert model.n_asked == 1
    assert len(notes) == 1


def test_one_note_for_all_and_the_others_of_a_batch_are_not_asked(tmp_path: Path) -> None:
    path, asked = tmp_path / "cache.sqlite", [Classify(HELLO, str(i)) for i in range(8)]  # two batches
    ask(Cached(Saying(*(Value(float(i)) for i in range(8))), path), asked)
    with sqlite3.connect(path) as store:
        store.execute("UPDATE answers SET answer = 'broken' WHERE answer LIKE '%1.0}' OR answer LIKE '%2.0}'")
        store.execute("UPDATE answers SET answer = 'broken' WHERE answer LIKE '%7.0}'")
    notes: list[str] = []
    model = Saying(Value(1.0), Value(2.0), Value(7.0))
    assert ask(Cached(model, path, notes.append), asked) == [Value(float(i)) for i in range(8)]
    assert notes == ["cache.sqlite: 3 of the stored answers cannot be read and are asked again"]
    assert model.n_asked == 3


def test_what_is_asked_again_in_vain_is_asked_by_the_next_command_too(tmp_path: Path) -> None:
    path = tmp_path / "a"
    ask(Cached(Saying(Value(1.0)), path), [CLASS])
    with sqlite3.connect(path) as store:
        store.execute("UPDATE answers SET answer = 'broken'")
    assert ask(Cached(Saying(Value(math.nan)), path), [CLASS])[0].reason == "garbage"  # type: ignore[union-attr]
    assert ask(Cached(Saying(Value(2.0)), path), [CLASS]) == [Value(2.0)]


def test_answers_without_thinking_are_written_as_before_and_old_ones_are_read(tmp_path: Path) -> None:
    assert to_json(one_text()) == '{"texts": [["Hi.", 3, "end"]]}'
    assert to_json(one_text(thinking="Hm.")) == '{"texts": [["Hi.", 3, "end", "Hm."]]}'
    ask(Cached(Saying(one_text("x")), tmp_path / "a"), [WRITE])
    with sqlite3.connect(tmp_path / "a") as store:  # as a version stored it that knew no thinking
        store.execute("UPDATE answers SET answer = ?", (json.dumps({"texts": [["<think>Hm.</think>Hi.", 9, "end"]]}),))
    assert ask(Cached(Saying(), tmp_path / "a"), [WRITE]) == [one_text("Hi.", 9, thinking="Hm.")]


def draws(n: int = 4) -> Generate:
    return Generate(HELLO, n=n, temperature=0.7, top_p=0.9, max_new_tokens=20, seed=5)


@pytest.mark.parametrize("lost", [0, 1, 3])
@pytest.mark.parametrize("bad", [Reply("", 503), Reply("", 429), Reply("{"), Reply("", cut=True)], ids=repr)
def test_of_several_draws_only_those_that_did_not_come_are_asked_again(serving, tmp_path, lost, bad):
    """A server that gives one choice a reply."""
    broken = [True]

    def respond(body, number):
        is_lost = body["messages"] != GREETING and body["seed"] == 5 + lost
        return bad if broken and is_lost else chat(f"seed {body['seed']}, n {body['n']}")

    server = serving(respond)
    settings = server.settings(retries=0, concurrency=1)
    (first,) = ask(Cached(OpenaiModel("m", settings), tmp_path / "a"), [draws()])
    whole = [f"seed {5 + i}, n {4 - i}" for i in range(4)]
    assert [text.text for text in getattr(first, "texts", ())] == whole[:lost]
    broken.clear()
    cached = Cached(OpenaiModel("m", settings), tmp_path / "a")
    (second,) = ask(cached, [draws()])
    assert [text.text for text in second.texts] == whole
    assert second.missing == ()
    asked = [body["seed"] for body in server.bodies if body["messages"] != GREETING]
    assert asked == [*range(5, 5 + lost + 1), *range(5 + lost, 9)]
    assert ask(cached, [draws()]) == [second]
    assert len([body for body in server.bodies if body["messages"] != GREETING]) == len(asked)


def test_draws_that_came_before_the_account_was_used_up_are_kept(serving, tmp_path):
    paid = []
    server = serving(
        lambda body, n: chat(f"{body['seed']}") if body["seed"] < 7 or paid else Reply({"error": "no credits"}, 402)
    )
    settings = server.settings(concurrency=1)
    with pytest.raises(WorkFailed, match="money or quota"):
        ask(Cached(OpenaiModel("m", settings), tmp_path / "a"), [draws()])
    paid.append(True)
    (answer,) = ask(Cached(OpenaiModel("m", settings), tmp_path / "a"), [draws()])
    assert [text.text for text in answer.texts] == ["5", "6", "7", "8"]
    assert [body["seed"] for body in server.bodies] == [5, 6, 7, 7, 8]


def test_a_refused_draw_is_no_draw_that_did_not_come(serving, tmp_path):
    filtered = Reply({"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]})
    server = serving(lambda body, n: filtered if body["seed"] == 6 else chat(f"{body['seed']}"))
    (first,) = ask(Cached(OpenaiModel("m", server.settings()), tmp_path / "a"), [draws()])
    (second,) = ask(Cached(OpenaiModel("m", server.settings()), tmp_path / "a"), [draws()])
    assert first == second
    assert [text.text for text in first.texts] == ["5", "7", "8"]
    assert len(server.bodies) == 4


def rated(body):
    top = [{"token": "A", "logprob": -float(body["messages"][0]["content"])}]
    return chat("A", logprobs={"content": [{"token": "A", "logprob": -1.0, "top_logprobs": top}]})


@pytest.mark.parametrize(
    "bad", [Reply("", 503), Reply({"error": "no credits"}, 402), Reply("{")], ids=["503", "402", "{"]
)
def test_of_several_contexts_only_those_that_did_not_come_are_asked_again(serving, tmp_path, bad):
    """The objectives of one answer: each is a request of its own at a server."""
    broken = [True]
    server = serving(lambda body, n: bad if broken and body["messages"][0]["content"] == "2" else rated(body))
    settings = server.settings(retries=0, concurrency=1)
    weigh = Choose(tuple((Message("user", str(i)),) for i in range(4)), ("A",))
    if bad.status == 402:
        with pytest.raises(WorkFailed, match="money or quota"):
            ask(Cached(OpenaiModel("m", settings), tmp_path / "a"), [weigh])
    else:
        (first,) = ask(Cached(OpenaiModel("m", settings), tmp_path / "a"), [weigh])
        assert first.probabilities == ((1.0,), (math.exp(-1.0),))
        assert len(first.missing) == 2
    broken.clear()
    for _ in range(2):
        (whole,) = ask(Cached(OpenaiModel("m", settings), tmp_path / "a"), [weigh])
        assert whole == Choice(tuple((math.exp(-float(i)),) for i in range(4)))
    assert [body["messages"][0]["content"] for body in server.bodies] == ["0", "1", "2", "2", "3"]
