import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from selfpriority.backends import progress
from selfpriority.backends.answers import from_json, key_of, to_json
from selfpriority.backends.cache import Cached
from selfpriority.backends.progress import Progress, Watched
from selfpriority.backends.pulse import beat
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

HELLO = (Message("user", "hello"),)


def requests(n: int) -> list[Generate]:
    return [Generate(HELLO, n=2, temperature=1.0, top_p=1.0, max_new_tokens=20, seed=i) for i in range(n)]


class Recording(ScriptedModel):
    """Keeps what it was asked."""

    def __init__(self, name: str = "") -> None:
        super().__init__(ScriptedBackend(kind="scripted"), name)
        self.asked: list[list[Request]] = []

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        for number, batch in enumerate(batches):
            self.asked.append([*batch])
            yield number, next(super().answer([batch]))[1]


def times_asked(path: Path) -> list[int]:
    with sqlite3.connect(path) as store:
        return [count for (count,) in store.execute("SELECT times_asked FROM answers")]


@pytest.mark.parametrize(
    "answer",
    [
        Completion((Text("ünïcode \ud83d \x1b[0m", 5, "end"), Text("", 0, "length"))),
        Choice(((0.1, 1e-300), (1 / 3, 0.0))),
        Vectors(((1.5, -0.25), (2.0**-100, 3.0))),
        Value(-1.25),
        Failure("too_long", "900 tokens"),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_answers_survive_storing(answer: Answer) -> None:
    assert from_json(to_json(answer)) == answer


def test_garbage_is_no_answer() -> None:
    with pytest.raises(ValueError, match="not an answer"):
        from_json('{"texts_": 1}')


def test_keys_tell_kinds_fields_and_models_apart() -> None:
    [generate] = requests(1)
    embed, classify = Embed(HELLO, "hi", (1,)), Classify(HELLO, "hi")
    keys = {key_of("m", request) for request in (generate, embed, classify, Embed(HELLO, "hi", (2,)))}
    assert len(keys | {key_of("other", generate)}) == 5


def test_the_states_of_a_finished_answer_keep_the_key_they_always_had_and_those_of_a_cut_one_get_another():
    finished, cut = (Embed((Message("user", "Hi"),), "Yes.", (1, 2), stop=stop) for stop in ("end", "length"))
    assert key_of("m", finished) == "496086afa3ba598d9c139d239908264d4625b6c16aa1f3a904e3e77d228f267e"
    assert key_of("m", cut) != key_of("m", finished)


def test_second_call_is_answered_from_disk(tmp_path: Path) -> None:
    first = ask(Cached(Recording(), tmp_path / "answers.sqlite"), requests(10))
    model = Recording()
    cached = Cached(model, tmp_path / "answers.sqlite")
    assert ask(cached, requests(10)) == first == ask(Recording(), requests(10))
    assert model.asked == []
    assert cached.reused.requests == 10
    assert cached.reused.tokens == sum(text.n_tokens for answer in first for text in answer.texts)


def test_all_kinds_come_back_equal(tmp_path: Path) -> None:
    asked = [Choose((HELLO, HELLO), ("0", "1")), Embed(HELLO, "hi", (0, 3)), Classify(HELLO, "hi")]
    plain = ask(Recording(), asked)
    assert ask(Cached(Recording(), tmp_path / "a"), asked) == plain
    assert ask(Cached(Recording(), tmp_path / "a"), asked) == plain


def test_partly_stored_batch_asks_only_what_is_missing(tmp_path: Path) -> None:
    ask(Cached(Recording(), tmp_path / "a"), requests(2))
    model = Recording()
    answers = ask(Cached(model, tmp_path / "a"), requests(6))
    assert model.asked == [requests(6)[2:4], requests(6)[4:]]
    assert answers == ask(Recording(), requests(6))
    assert times_asked(tmp_path / "a") == [1] * 6


def test_models_share_a_file_but_no_answers(tmp_path: Path) -> None:
    one = ask(Cached(Recording("one"), tmp_path / "a"), requests(3))
    two = ask(Cached(Recording("two"), tmp_path / "a"), requests(3))
    assert one != two
    assert times_asked(tmp_path / "a") == [1] * 6


def test_plan_is_over_all_requests(tmp_path: Path) -> None:
    cached = Cached(Recording(), tmp_path / "a")
    before = cached.plan(requests(9))
    ask(cached, requests(5))
    assert cached.plan(requests(9)) == before


class Failing(ScriptedModel):
    reason = "refused"

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        for number, batch in enumerate(batches):
            yield number, [Failure(self.reason)] * len(batch)


def test_failures_are_kept_unless_unsupported(tmp_path: Path) -> None:
    model = Failing(ScriptedBackend(kind="scripted"))
    cached = Cached(model, tmp_path / "a")
    ask(cached, requests(2))
    assert ask(cached, requests(2)) == [Failure("refused")] * 2
    assert cached.reused.requests == 2
    model.reason = "unsupported"
    assert ask(cached, requests(4)[2:]) == [Failure("unsupported")] * 2
    assert len(times_asked(tmp_path / "a")) == 2


def test_full_disk_is_one_line_and_keeps_what_is_done(tmp_path: Path) -> None:
    cached = Cached(Recording(), tmp_path / "a")
    ask(cached, requests(4))
    pages = cached._store.execute("PRAGMA page_count").fetchone()[0]
    cached._store.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(WorkFailed, match="disk is full; all answers so far are kept") as caught:
        ask(cached, requests(400))
    assert "\n" not in str(caught.value)
    assert len(times_asked(tmp_path / "a")) >= 4


def test_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"this is not a database, but it is long enough to be one" * 100)
    with pytest.raises(WorkFailed, match="damaged"):
        Cached(Recording(), tmp_path / "a")


RUN = """
import sys
from pathlib import Path
from selfpriority.backends.cache import Cached
from selfpriority.backends.scripted import ScriptedModel
from selfpriority.language_model import Generate, ask
from selfpriority.recipe import ScriptedBackend
from selfpriority.records import Message
model = ScriptedModel(ScriptedBackend(kind="scripted", delay=0.05))
hello = (Message("user", "hello"),)
requests = [Generate(hello, n=2, temperature=1.0, top_p=1.0, max_new_tokens=20, seed=i) for i in range(60)]
print(ask(Cached(model, Path(sys.argv[1])), requests))
"""


def test_killed_run_asks_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "a"
    command = [sys.executable, "-c", RUN, str(path)]
    n_stored = 0
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            _wait_for_rows(path, n_stored + 8)
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        n_stored = len(times_asked(path))
    assert 16 <= n_stored < 60
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert times_asked(path) == [1] * 60
    assert finished.stdout.strip() == str(ask(ScriptedModel(ScriptedBackend(kind="scripted")), requests(60)))


def _wait_for_rows(path: Path, n: int) -> None:
    for _ in range(600):
        try:
            if len(times_asked(path)) >= n:
                return
        except sqlite3.OperationalError:  # no table yet
            pass
        time.sleep(0.02)
    raise AssertionError(f"{n} answers were not stored in time")


def test_progress_counts_answers_from_disk_apart(tmp_path: Path) -> None:
    ask(Cached(Recording(), tmp_path / "a"), requests(6))
    seen: list[Progress] = []
    answers = ask(Watched(Cached(Recording(), tmp_path / "a"), seen.append), requests(10))
    assert [(p.done, p.cached) for p in seen] == [(0, 0), (4, 4), (8, 6), (10, 6)]
    assert {p.total for p in seen} == {10}
    assert [p.tokens for p in seen][:2] == [0, 0]
    assert seen[-1].tokens == sum(text.n_tokens for answer in answers[6:] for text in answer.texts)
    assert 0 <= seen[1].seconds <= seen[-1].seconds


class Slow:
    """Tells after every token of a batch how many of its answers are finished."""

    fingerprint = "slow"

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        return [list(range(len(requests)))]

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        for number, batch in enumerate(batches):
            for finished in (0, 1, 3, 99):
                beat(finished, 10 * finished)
            yield number, next(iter(Recording("x").answer([batch])))[1]


def test_progress_counts_the_answers_of_the_batch_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BEAT_EVERY", 0.0)
    seen: list[Progress] = []
    ask(Watched(Slow(), seen.append), requests(3))  # of two answers each
    assert [(p.answers, p.tokens_in_hand) for p in seen] == [(0, 0), (0, 0), (1, 10), (3, 30), (6, 990), (6, 0)]
    assert [p.done for p in seen] == [0, 0, 0, 0, 0, 3], "a request is done with its batch"
    assert {p.n_answers for p in seen} == {6}
    beat(5, 5)  # nobody listens any more
    assert len(seen) == 6


def test_progress_of_a_bare_model() -> None:
    seen: list[Progress] = []
    watched = Watched(Recording("x"), seen.append)
    assert ask(watched, requests(5)) == ask(Recording("x"), requests(5))
    assert [(p.done, p.total, p.cached) for p in seen] == [(0, 5, 0), (4, 5, 0), (5, 5, 0)]
    assert watched.fingerprint == Recording("x").fingerprint
