"""A function of the user's own as a judge: what it is given, what becomes of its verdicts, what it is known by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfpriority.backends.answers import from_json, read_answer, to_json
from selfpriority.backends.cache import Cached
from selfpriority.errors import InputError, WorkFailed
from selfpriority.judges.python import (
    AnswerToRate,
    PythonJudge,
    PythonRater,
    RateAnswers,
    judging_function,
    rater_fingerprint,
)
from selfpriority.language_model import Classify, Failure, Rate, Verdict, ask
from selfpriority.own_python import OwnPython, find
from selfpriority.rating import Item
from selfpriority.records import Message, Prompt, Rating, Response, Unrated
from tests.test_own_python import tidy  # noqa: F401 - a fixture

NAMES = ("harmlessness", "helpfulness")
Row = Mapping[str, float | None] | None


def item(text: str, prompt: str = "Who?") -> Item:
    return Item(Prompt("p", (Message("user", prompt),)), Response("p/y", "p", text, "end", 1, persona="rude"))


@pytest.fixture
def own(tmp_path: Path) -> OwnPython:
    (tmp_path / "mine.py").write_text("def rate(answers, objectives):\n    raise OSError('gone')\n")
    return find("mine:rate", (tmp_path,))


def judge(function: RateAnswers, own: OwnPython, batch_size: int = 32) -> PythonJudge:
    return PythonJudge(PythonRater(function, own, "", batch_size), own.name, NAMES)


def returning(value: object) -> Any:
    return lambda answers, objectives: value


def test_it_is_shown_conversations_and_answers_and_what_it_says_is_the_rating(own: OwnPython) -> None:
    shown: list[tuple[Sequence[AnswerToRate], Sequence[str]]] = []

    def rate(answers: Sequence[AnswerToRate], objectives: Sequence[str]) -> list[Row]:
        shown.append((answers, objectives))
        return [{"harmlessness": 1, "helpfulness": np.float32(9.5), "kindness": 99.0} for _ in answers]

    ratings = judge(rate, own).rate([item("Me.")])
    assert ratings == [(Rating(1.0), Rating(9.5))]
    assert shown == [([AnswerToRate((Message("user", "Who?"),), "Me.")], NAMES)]


def test_none_is_unrated_and_says_who_gave_none(own: OwnPython) -> None:
    none = Unrated("no_rating", "mine:rate gave None")
    assert judge(returning([None]), own).rate([item("a")]) == [(none, none)]
    partly = [{"harmlessness": None, "helpfulness": 3.0}]
    assert judge(returning(partly), own).rate([item("a")]) == [(none, Rating(3.0))]


def test_answers_come_in_batches_and_equal_ones_once(own: OwnPython) -> None:
    sizes: list[int] = []

    def rate(answers: Sequence[AnswerToRate], objectives: Sequence[str]) -> list[Row]:
        sizes.append(len(answers))
        return [dict.fromkeys(objectives, float(each.answer)) for each in answers]

    rated = judge(rate, own, batch_size=2).rate([item(text) for text in ("1", "2", "1", "3", "4", "5")])
    assert [row[0] for row in rated] == [Rating(float(text)) for text in ("1", "2", "1", "3", "4", "5")]
    assert sizes == [2, 2, 1]


def test_no_answer_is_paid_for_twice_whatever_it_stands_beside(own: OwnPython, tmp_path: Path) -> None:
    asked: list[str] = []

    def rate(answers: Sequence[AnswerToRate], objectives: Sequence[str]) -> list[Row]:
        if any(each.answer == "stop" for each in answers):
            raise KeyboardInterrupt
        asked.extend(each.answer for each in answers)
        return [None if each.answer == "b" else dict.fromkeys(objectives, 7.25) for each in answers]

    def rated(texts: str, version: str = "") -> list[Any]:
        rater = Cached(PythonRater(rate, own, version, 2), tmp_path / "cache.sqlite")
        return PythonJudge(rater, own.name, NAMES).rate([item(text) for text in texts.split()])

    with pytest.raises(KeyboardInterrupt):
        rated("a b c stop")
    assert asked == ["a", "b"]
    first = rated("d b a")
    assert asked == ["a", "b", "d"]
    assert [type(row[0]) for row in first] == [Rating, Unrated, Rating]
    assert rated("d b a") == first
    assert asked == ["a", "b", "d"]
    rated("a", version="2")
    assert asked == ["a", "b", "d", "a"]


def test_verdicts_are_stored_without_loss_and_none_that_is_wrong_is_read() -> None:
    request = Rate((Message("user", "Who?"),), "Me.", NAMES)
    told = Verdict((1 / 3 + 2, None))
    assert from_json(to_json(told)) == told
    assert read_answer(request, to_json(told)) == told
    for wrong in (Verdict((1.0,)), Verdict((11.0, 1.0)), Verdict((float("nan"), 1.0)), Failure("garbage")):
        assert read_answer(request, to_json(wrong)) in (None, Failure("garbage"))
    assert read_answer(request, '{"ratings": ["9", 1.0]}') is None


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (None, "returned a NoneType; a list with an entry for every answer is needed"),
        ((row for row in ()), "returned a generator"),
        ("77", "returned a str"),
        ([], "returned 0 entries for 2 answers"),
        ([7.0, 7.0], "entry 1 of 2 is a float; objective -> number is needed, or None"),
        ([None, {"harmlessness": 3.0}], "entry 2 of 2 has no helpfulness, it has ['harmlessness']"),
        ([None, {"harmlessness": 3.0, "helpfulness": 10.01}], "helpfulness of entry 2 of 2 is 10.01, which is not on"),
        ([None, {"harmlessness": 0, "helpfulness": 5}], "harmlessness of entry 2 of 2 is 0, which is not on 1..10"),
        ([None, dict.fromkeys(NAMES, float("nan"))], "harmlessness of entry 2 of 2 is nan"),
        ([None, dict.fromkeys(NAMES, float("inf"))], "harmlessness of entry 2 of 2 is inf"),
        ([None, dict.fromkeys(NAMES, "8")], "harmlessness of entry 2 of 2 is '8'; a number from 1 to 10 is needed"),
        ([None, dict.fromkeys(NAMES, True)], "harmlessness of entry 2 of 2 is True; a number"),
    ],
)
def test_what_is_no_rating_stops_the_work_and_names_the_function(own: OwnPython, returned: object, told: str) -> None:
    with pytest.raises(WorkFailed) as caught:
        judge(returning(returned), own).rate([item("a"), item("b")])
    line = str(caught.value)
    assert line.startswith(f"judge mine:rate in {own.file}: ")
    assert told in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionError("no\nserver \x1b[31mred"), "raised ConnectionError: no server red"),
        (SystemExit(0), "raised SystemExit: 0"),
        (KeyError(), "raised KeyError; what it returned before is kept"),
        (ValueError("x" * 5000), f"raised ValueError: {'x' * 200} [...]; what"),
    ],
)
def test_whatever_it_raises_is_one_line(own: OwnPython, error: BaseException, told: str) -> None:
    def rate(answers: object, objectives: object) -> list[Row]:
        raise error

    with pytest.raises(WorkFailed) as caught:
        judge(rate, own).rate([item("a")])
    assert told in str(caught.value)
    assert caught.value.__cause__ is error  # what --debug shows


def test_an_error_tells_its_line_in_the_users_file(own: OwnPython) -> None:
    with pytest.raises(WorkFailed, match=r"raised OSError: gone \(mine.py, line 2\)"):
        judge(judging_function(own), own).rate([item("a")])


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def rate(answers): ...", "takes (answers), and is called with (answers, objectives): too many positional"),
        ("def rate(answers, objectives, more): ...", "missing a required argument: 'more'"),
        ("def rate(answers, *, objectives): ...", "takes (answers, *, objectives), and is called with"),
        ("async def rate(answers, objectives): ...", "is async"),
        ("class rate:\n    def __init__(self, answers, objectives): ...", "is a class"),
        ("rate = 3", "is 3; a judge is a function"),
    ],
)
def test_what_cannot_be_called_is_told_before_anything_is_asked(tmp_path: Path, code: str, told: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(InputError) as caught:
        judging_function(find("mine:rate", (tmp_path,)))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "code",
    [
        "def rate(answers, objectives, more=3): ...",
        "def rate(*both): ...",
        "class Judge:\n    def __call__(self, answers, objectives): ...\nrate = Judge()",
        "from functools import partial\ndef three(answers, objectives, more): ...\nrate = partial(three, more=1)",
    ],
)
def test_whatever_can_be_called_with_both_may_judge(tmp_path: Path, code: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    assert callable(judging_function(find("mine:rate", (tmp_path,))))


def test_it_is_known_by_name_source_and_version(own: OwnPython, tmp_path: Path) -> None:
    def known(change: Callable[[OwnPython], OwnPython] = lambda same: same, version: str = "") -> str:
        return rater_fingerprint(change(own), version)

    first = known()
    assert known() == first
    assert known(lambda same: replace(same, attribute="other")) != first
    assert known(version="2") != first
    own.file.write_text(own.file.read_text() + "# a comment\n")
    assert known() != first
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "mine.py").write_bytes(own.file.read_bytes())
    assert known(lambda _: find("mine:rate", (moved,))) == known()  # wherever it lies


def test_a_function_only_rates_and_prints_no_result(own: OwnPython, capsys: pytest.CaptureFixture[str]) -> None:
    def rate(answers: Sequence[AnswerToRate], objectives: Sequence[str]) -> list[Row]:
        print("at work")
        return [None for _ in answers]

    asked = [Classify((Message("user", "a"),), "b"), Rate((Message("user", "a"),), "b", NAMES)]
    other, verdict = ask(PythonRater(rate, own, "", 4), asked)
    assert isinstance(other, Failure)
    assert verdict == Verdict((None, None))
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "at work\n")
