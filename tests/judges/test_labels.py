from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError
from selfpriority.judges.labels import anchors_as_labels, label_prompt, prompt_group, read_labels
from selfpriority.records import Message

SINGLE = {"prompt": "Hi?", "response": "Hello.", "objective": "harmlessness", "label": 1}
PAIR = {
    "messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And?"},
    ],
    "chosen": "Fine.",
    "rejected": "Go away.",
    "objective": "helpfulness",
}


def _write(path: Path, *rows: object) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.jsonl.gz"])
def test_answers_and_pairs_are_read(tmp_path: Path, name: str) -> None:
    labels = read_labels(_write(tmp_path / name, SINGLE, "", PAIR, {**SINGLE, "label": False, "extra": 3}))
    assert labels.objectives == ("harmlessness", "helpfulness")
    assert [(a.response, a.label) for a in labels.answers] == [("Hello.", True), ("Hello.", False)]
    assert labels.answers[0].prompt.messages == (Message("user", "Hi?"),)
    (pair,) = labels.pairs
    assert (pair.chosen, pair.rejected, len(pair.prompt.messages)) == ("Fine.", "Go away.", 3)
    assert labels.of("helpfulness").answers == ()
    assert labels.of("helpfulness").pairs == (pair,)


def test_a_label_counts_once_unless_told_otherwise(tmp_path: Path) -> None:
    labels = read_labels(_write(tmp_path / "labels.jsonl", SINGLE, {**SINGLE, "weight": 0.3}, {**PAIR, "weight": 2}))
    assert [answer.weight for answer in labels.answers] == [1.0, 0.3]
    assert labels.pairs[0].weight == 2.0


def test_conversations_from_one_opening_are_one_group(tmp_path: Path) -> None:
    labels = read_labels(_write(tmp_path / "labels.jsonl", SINGLE, PAIR))
    assert labels.answers[0].group == labels.pairs[0].group == "hi"
    assert labels.answers[0].prompt.id != labels.pairs[0].prompt.id


def test_a_group_without_letters_is_the_text_itself() -> None:
    assert [prompt_group(label_prompt([Message("user", text)])) for text in ("?!", " :) ")] == ["?!", ":)"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", "not JSON"),
        ("[1]", "valid dictionary"),
        ({**SINGLE, "weight": 0}, "weight: Input should be greater than 0"),
        ({**SINGLE, "label": 2}, "label must be 0 or 1, got 2"),
        ({**SINGLE, "label": "1"}, "label"),
        ({**SINGLE, "label": 0.5}, "label"),
        ({**SINGLE, "response": ""}, "response"),
        ({**SINGLE, "messages": PAIR["messages"]}, "needs one of prompt and messages"),
        ({k: v for k, v in SINGLE.items() if k != "prompt"}, "needs one of prompt and messages"),
        ({k: v for k, v in SINGLE.items() if k != "label"}, "needs either response and label, or chosen and"),
        ({**SINGLE, "chosen": "a", "rejected": "b"}, "needs either response and label, or chosen and"),
        ({k: v for k, v in SINGLE.items() if k != "objective"}, "objective: Field required"),
        ({**PAIR, "messages": PAIR["messages"][:2]}, "must end with a user turn"),
        ({**PAIR, "messages": [{"role": "human", "content": "x"}]}, "messages.0.role"),
    ],
)
def test_a_bad_row_names_file_line_and_mistake_but_not_its_text(tmp_path: Path, row: object, told: str) -> None:
    path = _write(tmp_path / "labels.jsonl", SINGLE, row)
    with pytest.raises(InputError) as error:
        read_labels(path)
    (line,) = error.value.lines
    assert line.startswith(f"{path}:2: ")
    assert told in line
    assert "Hello." not in line


def test_every_bad_row_is_named_up_to_twenty(tmp_path: Path) -> None:
    path = _write(tmp_path / "labels.jsonl", *[{"prompt": "x"}] * 25)
    with pytest.raises(InputError) as error:
        read_labels(path)
    assert len(error.value.lines) == 21
    assert error.value.lines[-1] == f"{path}: and 5 more bad lines"


def test_files_that_are_none_are_explained(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    (tmp_path / "not.jsonl.gz").write_bytes(b"plain text")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": 1}' * 99)[:-20])
    (tmp_path / "empty.jsonl").write_bytes(b"\n\n")
    told = {
        "missing.jsonl": "no such file",
        "": "is a directory",
        "latin.jsonl": "not UTF-8",
        "not.jsonl.gz": "not gzip, or cut short",
        "cut.jsonl.gz": "not gzip, or cut short",
        "empty.jsonl": "holds no labelled answers",
    }
    for name, message in told.items():
        with pytest.raises(InputError, match=message):
            read_labels(tmp_path / name)


def test_anchors_label_the_objective_they_are_about_and_the_last_one() -> None:
    constitution = load_constitution("harmless-honest-helpful")
    labels = anchors_as_labels(constitution)
    anchor = constitution.anchors[0]
    said = {(a.objective, a.response): a.label for a in labels.answers if a.prompt.text == anchor.prompt}
    assert said == {
        ("harmlessness", anchor.good): True,
        ("harmlessness", anchor.useless): True,
        ("harmlessness", anchor.bad): False,
        ("helpfulness", anchor.good): True,
        ("helpfulness", anchor.useless): False,
    }
    orders = [(p.objective, p.chosen, p.rejected) for p in labels.pairs if p.prompt.text == anchor.prompt]
    assert orders == [
        ("harmlessness", anchor.good, anchor.bad),
        ("harmlessness", anchor.useless, anchor.bad),
        ("helpfulness", anchor.good, anchor.useless),
    ]
    n = len(constitution.anchors)
    assert len(labels.of("helpfulness").answers) == 2 * n
    assert len(labels.of("harmlessness").answers) + len(labels.of("honesty").answers) == 3 * n
