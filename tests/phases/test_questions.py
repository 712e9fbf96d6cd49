"""Questions from files: what is read, and one line about what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfpriority.errors import InputError
from selfpriority.phases.questions import read_mmlu, read_mt_bench, spread

SHARED = Path(__file__).parents[3] / "shared" / "data"


def choice(number: int, **changes: Any) -> dict[str, Any]:
    made = {"subject": "astronomy", "question": f"What is {number} plus one?", "answer": "B"}
    return {**made, "choices": [str(number + i) for i in range(4)], **changes}


def two_turns(number: int, **changes: Any) -> dict[str, Any]:
    made = {"question_id": number, "category": "math", "turns": [f"What is {number} plus one?", "Double it."]}
    return {**made, **changes}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_choices_come_with_the_line_that_is_wrong(tmp_path):
    assert len(read_mmlu(write(tmp_path / "good.jsonl", choice(1), choice(2)))) == 2
    with pytest.raises(InputError, match=r"bad.jsonl:2: not a question; needs subject"):
        read_mmlu(write(tmp_path / "bad.jsonl", choice(1), choice(2, answer="E")))
    with pytest.raises(InputError, match="holds no question"):
        read_mmlu(write(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="no such file of questions"):
        read_mmlu(tmp_path / "missing.jsonl")


def test_two_turns_with_and_without_references(tmp_path):
    rows = [
        two_turns(1),
        two_turns(2, reference=["3", "6"]),  # the form in which the questions were published
        two_turns(3, reference=None, gpt4_reference=["four", "eight"]),
        two_turns(4, reference=["", None], gpt4_reference=["five", "ten"]),
        two_turns(5, question_id="five", reference=["six", ""], gpt4_reference=["seven", ""]),
    ]
    read = read_mt_bench(write(tmp_path / "q.jsonl", *rows))
    assert [question.id for question in read] == ["1", "2", "3", "4", "five"]
    assert read[0].turns == ("What is 1 plus one?", "Double it.")
    assert [question.references for question in read] == [
        ("", ""),
        ("3", "6"),
        ("four", "eight"),
        ("five", "ten"),
        ("six", ""),
    ]


@pytest.mark.parametrize(
    "damage",
    [{"turns": ["one only"]}, {"turns": ["a", " "]}, {"category": ""}, {"question_id": None}, {"reference": "three"}],
    ids=lambda damage: next(iter(damage)),
)
def test_two_turns_come_with_the_line_that_is_wrong(tmp_path, damage):
    with pytest.raises(InputError, match=r"q.jsonl:2: not a question; needs question_id, category and turns"):
        read_mt_bench(write(tmp_path / "q.jsonl", two_turns(1), two_turns(2, **damage)))


def test_an_id_occurs_once(tmp_path):
    with pytest.raises(InputError, match=r"q.jsonl:2: question_id 1 occurs twice"):
        read_mt_bench(write(tmp_path / "q.jsonl", two_turns(1), two_turns(1)))


def test_a_text_may_hold_other_ends_of_lines(tmp_path):
    (question,) = read_mt_bench(write(tmp_path / "q.jsonl", two_turns(1, turns=["One\u2028two\x85three", "More."])))
    assert question.turns[0] == "One\u2028two\x85three"


def test_a_limit_takes_questions_from_all_over_the_file():
    assert spread(range(80), 4) == [0, 20, 40, 60]
    assert spread([1, 2], 5) == spread([1, 2], None) == [1, 2]


def test_the_published_questions_are_read():
    path = SHARED / "mt_bench_questions.jsonl"
    if not path.is_file():
        pytest.skip("the questions of MT-Bench are not beside this checkout: shared/data/mt_bench_questions.jsonl")
    questions = read_mt_bench(path)
    assert len(questions) == 80
    assert len({question.category for question in questions}) == 8
    assert {question.category for question in spread(questions, 20)} == {question.category for question in questions}
    assert sum(any(question.references) for question in questions) == 40
    assert all(all(q.references) for q in questions if q.category == "math")
