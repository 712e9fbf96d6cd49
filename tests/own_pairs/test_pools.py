"""Files of preference data as pools: what is together, what counts once, what is told."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from selfpriority.errors import InputError
from selfpriority.own_pairs.pools import file_key, own_pairs
from selfpriority.recipe import Pairs, Prompts

ROWS = [
    {"prompt": "Why?", "chosen": "one", "rejected": "two"},
    {"prompt": "Who?", "chosen": "me", "rejected": "you"},
    {"prompt": "Why?", "chosen": "one", "rejected": "three"},
    {"prompt": "Why? ", "chosen": "two", "rejected": "three"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def read(path: Path, system: str | None = None, **fields: Any):
    return own_pairs(Pairs(source=str(path), **fields), Prompts(source=str(path), system=system))


def texts(found) -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected) of every pair."""
    answers = {pool.prompt.id: [each.response.text for each in pool.candidates] for pool in found.pools}
    prompts = {pool.prompt.id: pool.prompt.text for pool in found.pools}
    return [
        (prompts[name], answers[name][pair.chosen], answers[name][pair.rejected])
        for name, pairs in found.pairs.items()
        for pair in pairs
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_rows_of_one_prompt_are_one_pool_and_each_answer_is_there_once(tmp_path, suffix):
    found = read(write(tmp_path / f"d{suffix}", ROWS))
    assert [(pool.prompt.text, len(pool.candidates)) for pool in found.pools] == [("Why?", 3), ("Who?", 2)]
    why = [("Why?", "one", "two"), ("Why?", "one", "three"), ("Why?", "two", "three")]
    assert texts(found) == [*why, ("Who?", "me", "you")]
    assert {pair.gap for pairs in found.pairs.values() for pair in pairs} == {1.0}
    assert (found.objectives, found.is_rated) == (("preference",), False)
    assert found.prompts.remarks == (f"pairs: d{suffix}: 4 rows: 2 pools, 5 answers instead of 8",)
    assert found.prompts.dropped == ()


def test_json_lines_under_the_name_of_json(tmp_path):
    path = write(tmp_path / "d.jsonl", ROWS)
    assert texts(read(path.rename(tmp_path / "d.json"))) == texts(read(write(tmp_path / "e.json", ROWS)))


def test_scores_are_gaps_and_distances(tmp_path):
    scores = {"score_chosen_a": 8, "score_chosen_b": 2, "score_rejected_a": 5, "score_rejected_b": 6}
    turned = {"score_rejected_b": 6, "score_rejected_a": 5, "score_chosen_b": 2, "score_chosen_a": 8}
    other = {"prompt": "Why?", "chosen": "one", "rejected": "three"}
    found = read(write(tmp_path / "d.jsonl", [{**ROWS[0], **scores}, {**other, **turned}]))
    (first, second) = found.pairs[found.pools[0].prompt.id]
    assert (first.gap, first.distance, first.decided_by) == (1.0, 7.0, 0)
    assert (second.gap, second.distance) == (first.gap, first.distance)
    assert found.objectives == ("a", "b")
    assert [each.scores for each in found.pools[0].candidates] == [(8, 2), (5, 6), (5, 6)]
    unread = read(tmp_path / "d.jsonl", scores=False)
    assert (unread.objectives, unread.is_rated) == (("preference",), False)


def test_an_answer_with_two_scores_is_two_answers(tmp_path):
    rows = [
        {**ROWS[0], "score_chosen": 8, "score_rejected": 5},
        {**ROWS[2], "score_chosen": 7, "score_rejected": 5},
        {**ROWS[3], "score_chosen": 2, "score_rejected": 5},
    ]
    found = read(write(tmp_path / "d.jsonl", rows))
    assert [(each.response.text, *each.scores) for each in found.pools[0].candidates] == [
        ("one", 8),
        ("two", 5),
        ("one", 7),
        ("three", 5),
        ("two", 2),
    ]
    assert found.prompts.remarks[1:] == (
        "pairs: in 1 pair the chosen answer has the lower score; they train as they stand",
    )


def test_what_makes_no_pair_is_told_and_counted(tmp_path):
    rows = [
        *ROWS,
        {"prompt": "Why?", "chosen": "one", "rejected": "one "},
        {"prompt": "", "chosen": "x", "rejected": "y"},
        {"prompt": "", "chosen": "x", "rejected": "z"},
        {"prompt": "When?", "chosen": "now", "rejected": None},
        ROWS[0],
        {"prompt": "Who?", "chosen": "you", "rejected": "me"},
    ]
    path = write(tmp_path / "d.jsonl", rows)
    found = read(path)
    assert found.prompts.reasons == {"empty_prompt": 2, "no_rejected": 1}
    (lost,) = [drop for drop in found.prompts.dropped if drop.response_id]
    assert (lost.prompt_id, lost.reason, lost.response_id) == (found.pools[0].prompt.id, "identical", f"{path}:5")
    assert found.prompts.remarks == (
        "pairs: d.jsonl: 10 rows: 2 pools, 5 answers instead of 10",
        f"pairs: 2 rows left out: the prompt is empty ({path}:6, {path}:7)",
        f"pairs: 1 row left out: there is no rejected answer ({path}:8)",
        f"pairs: 1 row left out: chosen and rejected are the same text ({path}:5)",
        "pairs: 1 row left out: the same pair stands in an earlier row",
        "pairs: 1 pair in the file the other way round too; both train, as they stand",
    )


def test_rows_that_cannot_be_read_are_all_told_at_once(tmp_path):
    path = write(tmp_path / "d.jsonl", [ROWS[0], {"prompt": "a"}, {**ROWS[1], "prompt": 3}, {"prompt": "b"}])
    with pytest.raises(InputError) as told:
        read(path)
    first, second = told.value.lines
    assert first.startswith(f"{path}:2: no column 'chosen'; columns: prompt;")
    assert first.endswith(f"(so in 1 more row: {path}:4)")
    assert second == f"{path}:3: 'prompt' is a number; a prompt is text or a list of turns"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [ROWS[0], {**ROWS[1], "score_chosen": 1, "score_rejected": 0}],
            r":2: scores: score, but .*:1 has none; give all",
        ),
        (
            [ROWS[0], {"prompt": "a", "responses": ["x", "y"], "scores": [1, 2]}],
            r":2: a list of rated answers, but .*:1 is a",
        ),
        ([{**ROWS[0], "rejected": ""}], r"no pair is left of 1 rows \(1 no_rejected\)"),
    ],
)
def test_a_file_of_two_minds_is_refused(tmp_path, rows, told):
    with pytest.raises(InputError, match=told):
        read(write(tmp_path / "d.jsonl", rows))


def test_files_that_are_none(tmp_path):
    for name, content, told in (
        ("d.jsonl", "", "is empty"),
        ("d.json", "[]", "holds no rows"),
        ("d.json", "[3]", "row 1: a row is an object with chosen and rejected answers, this is a number"),
        ("d.jsonl", "{", "d.jsonl:1: not JSON"),
        ("d.xml", "x", "cannot tell its format from its name; known: .jsonl"),
    ):
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(InputError, match=told):
            read(path)
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="is a directory"):
        read(tmp_path)


def test_ids_and_system_prompts(tmp_path):
    rows = [{**ROWS[0], "prompt_id": "q1", "kind": "harmful"}, {**ROWS[1], "prompt_id": "q1"}, ROWS[2]]
    path = write(tmp_path / "d.jsonl", rows)
    found = read(path, system="Be brief.")
    first, second = (pool.prompt for pool in found.pools)
    assert (first.id, first.kind, first.messages[0].content) == ("q1", "harmful", "Be brief.")
    assert second.id.startswith("p-")  # q1 is another prompt's
    assert found.places == {"q1": f"{path}:1", second.id: f"{path}:2"}


def test_the_key_follows_the_content_and_not_the_place(tmp_path):
    def key(path: Path, **fields: Any) -> object:
        return file_key(Pairs(source=str(path), **fields), Prompts(source=str(path)))

    path = write(tmp_path / "d.jsonl", ROWS)
    before = key(path)
    assert key(path.rename(tmp_path / "e.jsonl")) == before
    assert key(tmp_path / "e.jsonl", scores=False) != before
    assert key(write(tmp_path / "d.jsonl", ROWS[:3])) != before
