"""One row of every form that preference data comes in, and rows of none."""

from __future__ import annotations

from typing import Any

import pytest

from selfpriority.errors import InputError
from selfpriority.own_pairs.forms import OwnAnswer, read_row
from selfpriority.own_pairs.turns import with_cells_read
from selfpriority.recipe import Pairs
from selfpriority.records import Message
from selfpriority.table_rows import TableRow

SYSTEM, ASKED = Message("system", "Be brief."), Message("user", "Why is the sky blue?")
EARLIER = (Message("user", "Hello"), Message("assistant", "Hi."))


def row(reads_scores: bool = True, names: dict[str, str] | None = None, **columns: Any):
    return read_row(
        TableRow("d.jsonl:7", 7, columns), Pairs(source="d.jsonl", scores=reads_scores, columns=names or {})
    )


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def said(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


USER, GOOD, BAD = turn("user", ASKED.content), turn("assistant", "Air scatters it."), turn("assistant", "No idea.")
TEXTS = {"chosen": "Air scatters it.", "rejected": "No idea."}


@pytest.mark.parametrize(
    ("columns", "prompt"),
    [
        ({"prompt": ASKED.content, **TEXTS}, (ASKED,)),
        ({"prompt": ASKED.content, "system": "Be brief.", **TEXTS}, (SYSTEM, ASKED)),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, (ASKED,)),
        ({"prompt": [turn("system", "Be brief."), USER], "chosen": [GOOD], "rejected": [BAD]}, (SYSTEM, ASKED)),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, (ASKED,)),
        ({"prompt": ASKED.content, "chosen": [USER, GOOD], "rejected": [USER, BAD]}, (ASKED,)),
        ({"prompt": "", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, (ASKED,)),
        (
            {
                "conversations": [said("human", "Hello"), said("gpt", "Hi."), said("human", ASKED.content)],
                "chosen": said("gpt", "Air scatters it."),
                "rejected": said("gpt", "No idea."),
            },
            (*EARLIER, ASKED),
        ),
        ({"instruction": ASKED.content, "input": "", **TEXTS}, (ASKED,)),
        ({"instruction": "Why so?", "input": "the sky", **TEXTS}, (Message("user", "Why so?\nthe sky"),)),
        (
            {"instruction": ASKED.content, "history": [["Hello", "Hi."]], "system": "Be brief.", **TEXTS},
            (SYSTEM, *EARLIER, ASKED),
        ),
    ],
    ids=[
        "plain",
        "plain with system",
        "messages",
        "messages with system",
        "implicit",
        "whole conversations beside a prompt",
        "whole conversations beside an empty prompt",
        "sharegpt",
        "alpaca",
        "alpaca with input",
        "alpaca with history",
    ],
)
def test_every_form_of_a_pair_is_the_same_pair(columns, prompt):
    found = row(**columns)
    assert found.prompt == prompt
    assert found.answers == (OwnAnswer("Air scatters it.", {}), OwnAnswer("No idea.", {}))
    assert found.flaw == ""


def test_scores_are_one_number_or_one_an_objective():
    one = row(prompt="a", **TEXTS, score_chosen=8, score_rejected="2.5")
    assert [answer.scores for answer in one.answers] == [{"score": 8.0}, {"score": 2.5}]
    ours = {"score_chosen": 9, "score_rejected": 3, "score_chosen_harm": 8, "score_rejected_harm": 1}
    named = row(prompt="a", **TEXTS, **ours, score_chosen_help=1, score_rejected_help=2, decided_by="harm")
    assert [answer.scores for answer in named.answers] == [{"harm": 8.0, "help": 1.0}, {"harm": 1.0, "help": 2.0}]
    assert named.decided_by == "harm"
    together = row(prompt="a", **TEXTS, chosen_scores={"harm": 8}, rejected_scores={"harm": 1}, chosen_stop="length")
    assert together.answers == (
        OwnAnswer("Air scatters it.", {"harm": 8.0}, "length"),
        OwnAnswer("No idea.", {"harm": 1.0}),
    )
    assert [
        a.scores for a in row(reads_scores=False, prompt="a", **TEXTS, score_chosen=8, score_rejected=2).answers
    ] == [
        {},
        {},
    ]
    assert [a.scores for a in row(prompt="a", **TEXTS, score_chosen=None, score_rejected="").answers] == [{}, {}]


@pytest.mark.parametrize(
    "columns",
    [
        {"completions": [{"response": "one", "overall_score": 8}, {"response": "two", "overall_score": 3.5}]},
        {"responses": ["one", "two"], "scores": [8, 3.5]},
        {"responses": [{"content": "one", "rating": "8"}, {"text": "two", "score": "3.5"}]},
        {"responses": [[USER, turn("assistant", "one")], [USER, turn("assistant", "two")]], "scores": [8, 3.5]},
    ],
)
def test_a_list_of_rated_answers(columns):
    found = row(prompt=ASKED.content, **columns)
    assert found.is_list
    assert found.answers == (OwnAnswer("one", {"score": 8.0}), OwnAnswer("two", {"score": 3.5}))


def test_answers_of_a_list_without_text_or_score_are_counted():
    entries = [{"text": "one", "score": 1}, {"text": "two", "score": None}, {"text": "", "score": 3}]
    found = row(prompt="a", completions=entries)
    assert (len(found.answers), found.n_lost, found.flaw) == (1, 2, "too_few_rated")


def test_columns_by_other_names():
    found = row(names={"chosen": "better", "rejected": "worse"}, prompt="a", better="x", worse="y", chosen="not this")
    assert [answer.text for answer in found.answers] == ["x", "y"]
    swapped = row(names={"chosen": "rejected", "rejected": "chosen"}, prompt="a", **TEXTS)
    assert [answer.text for answer in swapped.answers] == ["No idea.", "Air scatters it."]


@pytest.mark.parametrize(
    ("columns", "flaw"),
    [
        ({"prompt": " ", **TEXTS}, "empty_prompt"),
        ({"prompt": "a", "chosen": "x", "rejected": None}, "no_rejected"),
        ({"prompt": "a", "chosen": "x", "rejected": []}, "no_rejected"),
        ({"prompt": "a", "chosen": " ", "rejected": "x"}, "no_chosen"),
        ({"prompt": "a", "chosen": "x", "rejected": " x\n"}, "identical"),
    ],
)
def test_a_row_that_makes_no_pair_has_a_flaw(columns, flaw):
    assert row(**columns).flaw == flaw


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"prompt": "a", "chosen": "x"}, r"no column 'rejected'; columns: prompt, chosen; name it with --columns rej"),
        ({**TEXTS}, r"no prompt: there is no column .*--columns prompt=NAME"),
        ({"prompt": 3, **TEXTS}, r"'prompt' is a number; a prompt is text or a list of turns"),
        ({"prompt": [GOOD], **TEXTS}, r"'prompt' ends with a turn of the assistant; it must end with the user's"),
        ({"prompt": "a", "chosen": [USER], "rejected": [BAD]}, r"'chosen' ends with a turn of the user; .* an answer"),
        ({"prompt": "a", "chosen": 3, "rejected": "x"}, r"'chosen' is a number; it must be text, a turn or a list"),
        ({"prompt": "a", "chosen": [turn("tool", "x")], "rejected": "x"}, r"'chosen' has a turn of 'tool'"),
        ({"prompt": "a", "chosen": [{"role": "assistant", "content": ["x"]}], "rejected": "x"}, r"content: a list"),
        ({"prompt": [USER, turn("system", "x")], **TEXTS}, r"a system turn behind another one; put it first"),
        ({"chosen": [USER, GOOD], "rejected": [turn("user", "b"), BAD]}, r"differ before their last turns"),
        ({"chosen": [USER, GOOD, GOOD], "rejected": [USER, GOOD, BAD]}, r"before the answer is the assistant's"),
        ({"prompt": "b", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, r"is not what the conversations .* ask"),
        ({"prompt": "a", **TEXTS, "score_chosen": 3}, r"one of the two answers has a score that the other lacks"),
        ({"prompt": "a", **TEXTS, "score_chosen": "high", "score_rejected": 1}, r"score_chosen is 'high', no number"),
        ({"prompt": "a", **TEXTS, "score_chosen": "nan", "score_rejected": 1}, r"score_chosen is 'nan', no number"),
        ({"prompt": "a", **TEXTS, "stop_chosen": "eos"}, r"'stop_chosen' is 'eos'; it must be 'end', or 'length'"),
        ({"prompt": "a", "completions": ["x", "y"]}, r"'completions' holds no scores, so nothing orders its answers"),
        ({"prompt": "a", "completions": [{"x": 1}]}, r"completions\[1\] has no answer; it holds x, known: response"),
        ({"prompt": "a", "responses": ["x", "y"], "scores": [1]}, r"a list as long as 'responses', which holds 2"),
        ({"instruction": "a", "input": 3, **TEXTS}, r"'input' is a number; it must be text"),
        ({"instruction": "a", "history": ["x"], **TEXTS}, r"a list of \[question, answer\] pairs, not of text"),
        ({"prompt": "a", "system": ["x"], **TEXTS}, r"'system' is a list; it must be text"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_with_its_place(columns, told):
    with pytest.raises(InputError, match=rf"^d\.jsonl:7: .*{told}"):
        row(**columns)


def test_what_no_score_can_order_is_told():
    with pytest.raises(InputError, match=r"ordered by its scores, so pairs.scores: false leaves no pair"):
        row(reads_scores=False, prompt="a", responses=["x", "y"])
    with pytest.raises(InputError, match=r"no column 'good', which pairs.columns names as chosen; columns: prompt"):
        row(names={"chosen": "good"}, prompt="a")


def test_conversations_in_csv_cells():
    cells = {
        "prompt": '[{"role": "user", "content": "a"}]',
        "chosen": "[1, 2]",
        "rejected": '{"from": "gpt", "value": "y"}',
    }
    found = with_cells_read(TableRow("d.csv:2", 1, cells)).columns
    assert found == {"prompt": [turn("user", "a")], "chosen": "[1, 2]", "rejected": said("gpt", "y")}
    with pytest.raises(InputError, match=r"d.csv:2: 'chosen' is a conversation as Python prints it, not JSON; save"):
        with_cells_read(TableRow("d.csv:2", 1, {"chosen": "[{'role': 'assistant', 'content': 'x'}]"}))
