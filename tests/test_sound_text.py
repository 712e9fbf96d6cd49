"""Text from outside that is sound though it may not look so, and what is made of text that can be mended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from selfpriority import cli
from selfpriority.constitution import load_constitution
from selfpriority.inputs import check_inputs
from selfpriority.judges.labels import read_labels
from selfpriority.outside import mended_note, parse_json, parse_yaml
from selfpriority.personas import load_personas
from selfpriority.phases.questions import read_mt_bench
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.pipeline import start
from selfpriority.prompts import load_prompts
from selfpriority.recipe import Prompts, dump, load
from tests.test_outside import ANCHOR, GOOD, file, recipe


def test_marks_and_ends_of_lines_of_other_systems(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    questions = [{"question_id": n, "category": "a\x1b[1m", "turns": ["One?\u2028", "Two?"]} for n in (1, 2)]
    read = read_mt_bench(file(tmp_path / "q.jsonl", mark + "\r".join(map(json.dumps, questions)).encode()))
    assert [(question.id, question.category, question.turns[0]) for question in read] == [
        ("1", "a", "One?\u2028"),
        ("2", "a", "One?\u2028"),
    ]
    rows = [{"prompt": f"{n}?", "response": "b", "label": n % 2, "objective": "o\x07"} for n in (1, 2)]
    labels = read_labels(file(tmp_path / "l.jsonl", mark + "\r".join(map(json.dumps, rows)).encode()))
    assert [(answer.label, answer.objective) for answer in labels.answers] == [(True, "o"), (False, "o")]
    assert load(file(tmp_path / "r.yaml", mark + b"model: m\rprompts: demo\r")).model == "m"
    assert load_personas(str(file(tmp_path / "p.yaml", mark + b"- {name: a, text: b}\n")))[0].name == "a"
    for name, content in (
        ("t.txt", b"a\rb\r"),
        ("c.csv", b"prompt\ra\rb\r"),
        ("j.jsonl", b'{"prompt": "a"}\r{"prompt": "b"}'),
    ):
        loaded = load_prompts(Prompts(source=str(file(tmp_path / name, mark + content))), 0)
        assert [prompt.text for prompt in loaded.kept] == ["a", "b"], name


def test_an_anchor_may_hold_any_end_of_line(tmp_path: Path) -> None:
    file(tmp_path / "constitution.yaml", yaml.safe_dump(GOOD))
    anchor = {**ANCHOR, "prompt": "One\u2028two\x85three\x0cfour"}
    file(tmp_path / "anchors.jsonl", "\ufeff" + json.dumps(anchor, ensure_ascii=False) + "\r\n\n")
    assert load_constitution(str(tmp_path)).anchors[0].prompt == anchor["prompt"]


def test_cells_of_any_length(tmp_path: Path) -> None:
    long = "a" * 300_000
    loaded = load_prompts(Prompts(source=str(file(tmp_path / "p.csv", f"prompt\n{long}\n"))), 0)
    assert loaded.kept[0].text == long


@pytest.mark.usefixtures("own_cache")
def test_halves_in_labels_are_replaced_and_told_once(tmp_path: Path) -> None:
    row = {"prompt": "a\ud800", "chosen": "\udfff", "rejected": "b\U0001f600", "objective": "o"}
    labels = read_labels(file(tmp_path / "l.jsonl", json.dumps(row)))
    assert (labels.pairs[0].prompt.text, labels.pairs[0].chosen, labels.pairs[0].rejected) == (
        "a\ufffd",
        "\ufffd",
        "b\U0001f600",
    )
    assert mended_note(labels.source, labels.n_mended).endswith(
        ": 2 texts held halves of surrogate pairs; U+FFFD stands in their place"
    )


def test_aliases_and_merges_that_are_sane_and_dates_that_are_names(tmp_path: Path) -> None:
    content = "model: 2024-01-02\nx: &x {n: 4}\nsample: {<<: *x, n: 6}\nprompts: {source: demo, split: 2024-01-02}\n"
    assert parse_yaml(content, "r") == {
        "model": "2024-01-02",
        "x": {"n": 4},
        "sample": {"n": 6},
        "prompts": {"source": "demo", "split": "2024-01-02"},
    }
    found = load(file(tmp_path / "r.yaml", content.replace("x: &x {n: 4}\n", "").replace("<<: *x, ", "")))
    assert load(file(tmp_path / "again.yaml", dump(found))) == found


def test_the_name_of_a_link_tells_the_format(tiny_model: Path, tmp_path: Path) -> None:
    file(tmp_path / "blob", '{"prompt": "a"}\n{"prompt": "b"}\n')
    (tmp_path / "p.jsonl").symlink_to("blob")
    (tmp_path / "other").symlink_to(tmp_path)
    for source in ("p.jsonl", "other/p.jsonl", str(tmp_path / "p.jsonl")):
        meant = with_absolute_paths(load(recipe(tmp_path, prompts=source)), tmp_path)
        assert meant.prompts.source == str(tmp_path / "p.jsonl")
        assert len(load_prompts(meant.prompts, 0).kept) == 2


def test_a_note_tells_what_was_replaced(tiny_model: Path, tmp_path: Path) -> None:
    path = file(tmp_path / "p.jsonl", '{"prompt": "a\\ud800"}\n{"prompt": "b", "kind": "k\\u0007"}\n{"prompt": "c"}\n')
    held = file(tmp_path / "h.jsonl", '{"prompt": "\\udc00 d"}\n')
    written = recipe(tmp_path, tiny_model, prompts=str(path), evaluate={"prompts": {"source": str(held)}})
    told: list[str] = []

    class Ear(Reporter):
        def note(self, text: str) -> None:
            told.append(text)

    run, asked = start(written, [], tmp_path / "run")
    check_inputs(Resources(asked.recipe, run, Ear()))
    assert told == [
        "prompts: 1 text held halves of surrogate pairs; U+FFFD stands in their place",
        "prompts: 1 ids or kinds held control codes or ends of lines, which are left out",
        "evaluate.prompts: 1 text held halves of surrogate pairs; U+FFFD stands in their place",
    ]


def test_halves_in_labels_are_told_by_check_judge(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    row = {"prompt": "a\ud800", "response": "\udfff", "label": 1, "objective": "harmlessness"}
    labels = file(tmp_path / "l.jsonl", json.dumps(row))
    monkeypatch.setattr("sys.argv", ["spa", "check-judge", str(recipe(tmp_path, tiny_model)), "--labels", str(labels)])
    with pytest.raises(SystemExit):
        cli.main()
    told = [line for line in capfd.readouterr().err.splitlines() if "surrogate" in line]
    assert told == [f"labels: {labels}: 2 texts held halves of surrogate pairs; U+FFFD stands in their place"]


def test_nesting_that_is_sane_and_brackets_in_a_text() -> None:
    deep = "[" * 99 + "]" * 99
    assert parse_json(deep, "p").value == parse_yaml(deep, "p") == json.loads(deep)
    text = "[{" * 500 + '\\" ['
    assert parse_json(json.dumps([text, {text: text}]), "p").value == [text, {text: text}]
    assert parse_json(json.dumps([[]] * 500), "p").value == [[]] * 500
