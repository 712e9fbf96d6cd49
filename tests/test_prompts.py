"""Where prompts come from: every kind of source, and every way it can be wrong."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfpriority.errors import InputError, WorkFailed
from selfpriority.prompt_sets import prompt_sets
from selfpriority.prompts import load_prompts, shipped_prompts
from selfpriority.recipe import Prompts
from selfpriority.records import Message, Prompt, Sifted

SRC = Path(__file__).parent.parent / "src"


def load(source: object, seed: int = 0, **fields: object) -> Sifted[Prompt]:
    return load_prompts(Prompts(source=str(source), **fields), seed)


def texts(sifted: Sifted[Prompt]) -> list[str]:
    return [prompt.text for prompt in sifted.kept]


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refusal(source: object, **fields: object) -> str:
    with pytest.raises(InputError) as caught:
        load(source, **fields)
    assert caught.value.exit_code == 2
    assert len(caught.value.lines) == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


# what can be read


def test_jsonl_with_text(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"id": "a", "prompt": "One?", "kind": "ordinary"}, {"prompt": "Two?"})
    first, second = load(path).kept
    assert first == Prompt("a", (Message("user", "One?"),), "ordinary")
    assert second == Prompt("p-e693dc5aef3a", (Message("user", "Two?"),))


def test_a_system_prompt_stands_before_every_prompt_and_changes_no_id(tmp_path):
    own = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "One?"}, {"prompt": own})
    first, second = load(path, system="You work at a bank.").kept
    assert first.messages == (Message("system", "You work at a bank."), Message("user", "One?"))
    assert second.messages == (Message("system", "You work at a bank.\n\nBe brief."), Message("user", "Why?"))
    assert [first.id, second.id] == [prompt.id for prompt in load(path).kept]
    assert load(path, system="").kept == load(path).kept


def test_jsonl_with_messages(tmp_path):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    (prompt,) = load(jsonl(tmp_path / "p.jsonl", {"prompt": turns})).kept
    assert prompt.messages == (Message("system", "Be brief."), Message("user", "Why?"))
    assert prompt.text == "Why?"


def test_a_conversation_is_not_its_last_turn(tmp_path):
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
    ]
    sifted = load(jsonl(tmp_path / "p.jsonl", {"prompt": turns}, {"prompt": "Why?"}))
    assert len(sifted.kept) == 2
    assert len({prompt.id for prompt in sifted.kept}) == 2


def test_gzip(tmp_path):
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "One?"}\n{"prompt": "Two?"}\n'))
    assert texts(load(path)) == ["One?", "Two?"]


def test_csv_with_quoted_commas_and_line_breaks(tmp_path):
    path = tmp_path / "p.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["prompt", "kind"], ["One,\ntwo?", "harmful"], ['"Three"?', ""]])
    sifted = load(path)
    assert texts(sifted) == ["One,\ntwo?", '"Three"?']
    assert [prompt.kind for prompt in sifted.kept] == ["harmful", ""]


def test_a_row_is_called_by_the_line_it_opens_on(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text('prompt\n"One\nline?"\n"  \n"\n')
    assert load(path).dropped[0].detail == f"{path}:4"


def test_csv_written_by_a_spreadsheet_opens_with_a_mark(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt\r\nOne?\r\n")
    assert texts(load(path)) == ["One?"]


def test_parquet_with_text_and_with_messages(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"question": ["One?", None], "source_id": [7, 8]}), path)
    sifted = load(path, column="question")
    assert [(prompt.id, prompt.text) for prompt in sifted.kept] == [("7", "One?")]
    assert sifted.reasons == {"empty": 1}

    pq.write_table(pa.table({"prompt": [[{"role": "user", "content": "Two?"}]]}), path)
    assert texts(load(path)) == ["Two?"]


def test_txt_is_one_prompt_a_line(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes("One?\r\nTwo\u2028still two?\n\nThree?".encode())
    sifted = load(path)
    assert texts(sifted) == ["One?", "Two\u2028still two?", "Three?"]
    assert sifted.reasons == {"empty": 1}


def test_a_line_separator_inside_json_does_not_end_the_row(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "One\u2028two\x85?"}\n\n', encoding="utf-8")
    assert texts(load(path)) == ["One\u2028two\x85?"]


def test_source_id_serves_where_there_is_no_id(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"source_id": "s1", "prompt": "One?"}, {"source_id": 2, "prompt": "Two?"})
    assert [prompt.id for prompt in load(path).kept] == ["s1", "2"]


def test_an_id_made_of_the_text_does_not_depend_on_the_file(tmp_path):
    one = load(jsonl(tmp_path / "a.jsonl", {"prompt": "One?"}, {"prompt": "Two?"})).kept
    other = load(jsonl(tmp_path / "b.jsonl", {"prompt": "Two?", "id": None})).kept
    assert one[1].id == other[0].id


def test_columns_can_be_chosen(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"question": "One?", "prompt_harm_label": "unharmful", "prompt": 3})
    (prompt,) = load(path, column="question", kind_column="prompt_harm_label").kept
    assert (prompt.text, prompt.kind) == ("One?", "unharmful")


SPLITS = ("train", "dev", "heldout", "final", "fresh", "unseen", "untouched", "sealed", "blind", "apart", "spare")


def test_the_shipped_set_and_its_splits():
    assert shipped_prompts() == ["demo"]
    sets = [load("demo", split=split) for split in SPLITS]
    assert [len(given.kept) for given in sets] == [240, 104, 120, 168, 96, 168, 168, 168, 168, 168, 72]
    assert load("demo").kept == sets[0].kept
    assert len({text for given in sets for text in texts(given)}) == 1640
    kinds = [Counter(prompt.kind for prompt in given.kept) for given in sets]
    assert [given["ordinary"] for given in kinds] == [102, 26, 30, 54, 12, 54, 54, 54, 54, 54, 0]
    alike = {"harmful": 84, "borderline": 30, "ordinary": 54}
    assert [kinds[number] == alike for number in range(10)] == [number in (3, 5, 6, 7, 8, 9) for number in range(10)]
    assert not any(given.dropped for given in sets)


def test_a_file_of_ones_own_may_have_splits_too(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "One?", "split": "train"}, {"prompt": "Two?", "split": "test"})
    assert texts(load(path, split="test")) == ["Two?"]


# what is dropped, and how many are taken


def test_empty_and_repeated_prompts_are_dropped_with_their_place(tmp_path):
    path = jsonl(
        tmp_path / "p.jsonl",
        {"id": "a", "prompt": "One?"},
        {"id": "b", "prompt": " \n"},
        {"id": "c", "prompt": " One? "},
        {"id": "d", "prompt": None},
        {"id": "e", "prompt": []},
    )
    sifted = load(path)
    assert [prompt.id for prompt in sifted.kept] == ["a"]
    assert [(drop.prompt_id, drop.reason) for drop in sifted.dropped] == [
        ("b", "empty"),
        ("c", "duplicate"),
        ("d", "empty"),
        ("e", "empty"),
    ]
    assert sifted.dropped[1].detail == f"{path}:3: same text as a"
    assert all(drop.step == "prompts" and drop.response_id is None for drop in sifted.dropped)


def test_dropped_rows_without_an_id_are_told_from_the_kept_one(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("One?\nOne?\nOne?\n")
    sifted = load(path)
    kept = sifted.kept[0].id
    assert [drop.prompt_id for drop in sifted.dropped] == [f"{kept}#2", f"{kept}#3"]


@settings(deadline=None)
@given(
    lines=st.lists(st.sampled_from(["One?", "Two?", " One?", "", "  ", "Three?"]), min_size=1, max_size=30),
    limit=st.one_of(st.none(), st.integers(1, 5)),
    shuffle=st.booleans(),
)
def test_every_row_is_kept_or_dropped_once(tmp_path_factory, lines, limit, shuffle):
    path = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    jsonl(path, *({"prompt": line} for line in lines))
    if not any(line.strip() for line in lines):
        assert "no prompt is left" in refusal(path)
        return
    sifted = load(path, limit=limit, shuffle=shuffle)
    ids = [prompt.id for prompt in sifted.kept] + [drop.prompt_id for drop in sifted.dropped]
    assert len(ids) == len(set(ids))
    distinct = len({line.strip() for line in lines} - {""})
    assert len(sifted.kept) == min(distinct, limit or distinct)
    if limit is None:
        assert len(ids) == len(lines)


def test_limit_takes_the_first_and_looks_no_further(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", *({"prompt": text} for text in ["One?", "One?", "Two?", "", "Three?"]))
    sifted = load(path, limit=2)
    assert texts(sifted) == ["One?", "Two?"]
    assert sifted.reasons == {"duplicate": 1}


def test_shuffle_comes_before_the_limit_and_follows_the_seed():
    first = texts(load("demo", seed=1, limit=20, shuffle=True))
    assert first == texts(load("demo", seed=1, limit=20, shuffle=True))
    assert first != texts(load("demo", seed=2, limit=20, shuffle=True))
    assert first != texts(load("demo", limit=20))
    assert set(first) <= set(texts(load("demo")))


# what is wrong


def test_broken_json_names_line_and_column(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "One?"}\n{"prompt": \'Two?\'}\n')
    assert refusal(path) == f"{path}:2: not JSON: Expecting value (column 12)"


def test_a_row_that_is_no_object(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "One?"}, "Two?")
    assert refusal(path) == f"{path}:2: a row is an object with a column 'prompt', this is text"


def test_a_missing_column_names_those_there_are(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "One?"}, {"question": "Two?", "id": 2})
    assert refusal(path) == f"{path}:2: no column 'prompt'; columns: question, id"
    assert refusal(path, column="text") == f"{path}:1: no column 'text'; columns: prompt"


def test_a_missing_kind_column_is_an_error_only_if_it_was_asked_for(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "One?"})
    assert load(path).kept[0].kind == ""
    assert refusal(path, kind_column="label") == f"{path}:1: no column 'label'; columns: prompt"


@pytest.mark.parametrize(
    ("value", "what"), [(3, "a number"), (1.5, "a number"), (True, "a truth value"), ({"a": 1}, "an object")]
)
def test_a_prompt_that_is_no_text(tmp_path, value, what):
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "One?"}, {"prompt": value})
    assert refusal(path) == f"{path}:2: 'prompt' is {what}, it must be text or a list of messages"


@pytest.mark.parametrize(
    "turns",
    [
        ["Hi"],
        [{"role": "user"}],
        [{"role": "tool", "content": "x"}],
        [{"role": "user", "content": 3}],
    ],
)
def test_a_message_that_is_none(tmp_path, turns):
    path = jsonl(tmp_path / "p.jsonl", {"prompt": turns})
    assert refusal(path).startswith(f"{path}:1: 'prompt' is a list, so each entry must be {{role, content}}")


@pytest.mark.parametrize("roles", [["user", "assistant"], ["system"], ["user", "system", "user"]])
def test_a_conversation_must_end_with_the_user(tmp_path, roles):
    path = jsonl(tmp_path / "p.jsonl", {"prompt": [{"role": role, "content": "x"} for role in roles]})
    assert refusal(path).startswith(f"{path}:1: 'prompt' must end with a user turn")


def test_halves_of_surrogate_pairs_are_replaced_and_counted(tmp_path):
    path = tmp_path / "p.jsonl"
    turns = '[{"role": "user", "content": "\\udc00?"}]'
    rows = ['{"prompt": "\\ud83d \\ud83d\\ude00", "id": "a\\udfff", "kind": "\\udbffb"}', f'{{"prompt": {turns}}}']
    path.write_text("\n".join([*rows, '{"prompt": "Sound\\\\ud800?"}']))
    found = load(path)
    first, second, third = found.kept
    assert (first.text, first.id, first.kind) == ("\ufffd \U0001f600", "a\ufffd", "\ufffdb")
    assert (second.text, third.text) == ("\ufffd?", "Sound\\ud800?")
    assert found.notes("prompts") == ["prompts: 4 texts held halves of surrogate pairs; U+FFFD stands in their place"]


def test_ids_and_kinds_are_one_line_without_control_codes(tmp_path):
    rows = [{"prompt": "One?", "id": "a\x1b[31m\nb", "kind": "x\x9b\u2028\u202ey"}, {"prompt": "Two?\x07", "id": "c"}]
    found = load(jsonl(tmp_path / "p.jsonl", *rows))
    assert [(prompt.id, prompt.kind, prompt.text) for prompt in found.kept] == [
        ("a b", "x y", "One?"),
        ("c", "", "Two?\x07"),
    ]
    (told,) = found.notes("evaluate.prompts")
    assert told.startswith("evaluate.prompts: 1 ids or kinds held control codes")


def test_ids_that_differ_in_control_codes_alone_are_one_id(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "One?", "id": "a"}, {"prompt": "Two?", "id": "a\x00"})
    assert "belongs to another prompt already" in refusal(path)


def test_two_prompts_of_one_id(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"id": "a", "prompt": "One?"}, {"id": "a", "prompt": "Two?"})
    assert refusal(path) == f"{path}:2: the id 'a' belongs to another prompt already; ids must be unique"


def test_an_id_that_is_none(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"id": ["a"], "prompt": "One?"})
    assert refusal(path) == f"{path}:1: 'id' is a list, an id is text or a whole number"


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.txt"])
def test_text_that_is_not_utf8_names_the_byte(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b'{"prompt": "caf\xe9"}\n')
    assert refusal(path) == f"{path}: not UTF-8 (byte 15); save it as UTF-8"


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz", "p.csv", "p.parquet", "p.txt"])
def test_an_empty_file(tmp_path, name):
    path = tmp_path / name
    path.touch()
    assert refusal(path) == f"{path}: is empty"


def test_a_file_without_rows(tmp_path):
    (tmp_path / "p.csv").write_text("prompt\n")
    (tmp_path / "p.jsonl").write_text("\n\n")
    assert refusal(tmp_path / "p.csv") == f"{tmp_path / 'p.csv'}: holds no prompts"
    assert refusal(tmp_path / "p.jsonl") == f"{tmp_path / 'p.jsonl'}: holds no prompts"


def test_a_file_of_nothing_but_empty_prompts(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"prompt": ""}, {"prompt": " "})
    assert refusal(path) == f"{path}: no prompt is left of 2 rows (empty 2)"


def test_a_directory(tmp_path):
    assert refusal(tmp_path).startswith(f"{tmp_path}: is a directory, prompts are a file: .jsonl")


def test_a_row_without_a_kind_has_that_of_the_source(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,kind\nOne?,harmful\nTwo?,\n")
    kept = load_prompts(Prompts(source=str(path), kind="safe"), 0).kept
    assert [prompt.kind for prompt in kept] == ["harmful", "safe"]


def test_a_missing_file_suggests_the_nearest(tmp_path):
    (tmp_path / "prompts.jsonl").touch()
    path = tmp_path / "promts.jsonl"
    assert refusal(path) == f"{path}: no such file; did you mean prompts.jsonl?"


def test_a_missing_file_with_nothing_near(tmp_path):
    path = tmp_path / "zzz.jsonl"
    assert refusal(path) == f"{path}: no such file; known sets: demo, {', '.join(prompt_sets())}"


def test_a_missing_folder(tmp_path):
    path = tmp_path / "none" / "p.jsonl"
    assert refusal(path) == f"{path}: no such file, nor the folder {path.parent}"


def test_a_misspelt_shipped_set():
    assert refusal("demmo") == "demmo: no such file; did you mean demo?"


def test_a_format_nobody_knows(tmp_path):
    path = tmp_path / "p.xlsx"
    path.write_text("x")
    assert refusal(path).startswith(f"{path}: cannot tell its format from its name; known: .jsonl, ")


def test_a_split_that_is_not_there(tmp_path):
    splits = "apart, blind, dev, final, fresh, heldout, sealed, spare, train, unseen, untouched"
    assert refusal("demo", split="test").endswith(f"has no split 'test'; its splits: {splits}")
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "One?"})
    assert refusal(path, split="train").endswith("has no split 'train'; it has no column 'split'")


def test_a_configuration_is_for_hub_data_sets(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "One?"})
    assert refusal(path, config="x") == f"prompts.config: 'x' is for hub data sets, {path} is not one"


def test_csv_with_an_unquoted_comma(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("id,prompt\n1,One?\n2,Well, two?\n")
    assert refusal(path) == f"{path}:3: more fields than the header has; quote a field that holds commas"


def test_csv_with_an_open_quote(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text('prompt\n"One?\n')
    assert refusal(path) == f"{path}: the row after line 1 is not CSV: unexpected end of data"


def test_parquet_that_is_none(tmp_path):
    path = tmp_path / "p.parquet"
    path.write_text("prompt\nOne?\n")
    assert refusal(path).startswith(f"{path}: not parquet that can be read: ")


def test_gzip_that_is_none_or_cut_short(tmp_path):
    path = tmp_path / "p.jsonl.gz"
    path.write_text('{"prompt": "One?"}\n')
    assert refusal(path).startswith(f"{path}: not gzip, or cut short: ")
    path.write_bytes(gzip.compress(b'{"prompt": "One?"}\n' * 50)[:-9])
    assert refusal(path).startswith(f"{path}: not gzip, or cut short: ")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "One?"})
    path.chmod(0)
    assert refusal(path) == f"{path}: cannot be read: Permission denied"


# the hub


@pytest.fixture
def hub(monkeypatch):
    """What the hub answers: real data sets, kept in memory; only the network is replaced."""
    import datasets

    rows = {
        "prompt": ["One?", "One?", "Two?"],
        "response_0": ["a", "b", "c"],
        "prompt_harm_label": ["harmful", "harmful", None],
    }
    splits = datasets.DatasetDict(
        train=datasets.Dataset.from_dict(rows), test=datasets.Dataset.from_dict({"prompt": ["Three?"]})
    )

    def load_dataset(name, config=None, split=None):
        if name == "some/gone":
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub.\nTrace")
        if split is None:
            return splits
        if split not in splits:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(splits)}.')
        return splits[split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


@pytest.mark.usefixtures("hub")
def test_a_hub_data_set():
    sifted = load("some/set", split="train", kind_column="prompt_harm_label")
    assert [(prompt.text, prompt.kind) for prompt in sifted.kept] == [("One?", "harmful"), ("Two?", "")]
    assert sifted.reasons == {"duplicate": 1}


@pytest.mark.usefixtures("hub")
def test_a_hub_data_set_with_several_splits_needs_one():
    assert refusal("some/set") == "prompts.split: some/set has several splits, name one: train, test"


@pytest.mark.usefixtures("hub")
def test_a_hub_data_set_without_the_column():
    message = refusal("some/set", split="train", column="question")
    assert message == "some/set: no column 'question'; columns: prompt, response_0, prompt_harm_label"


@pytest.mark.usefixtures("hub")
def test_a_hub_data_set_that_does_not_exist_or_has_no_such_split():
    assert refusal("some/gone").endswith("a hub data set that loads: Dataset 'some/gone' doesn't exist on the Hub.")
    assert "Unknown split" in refusal("some/set", split="dev")


def test_a_hub_that_cannot_be_reached_is_no_mistake_of_the_users():
    code = (
        "from selfpriority.prompts import load_prompts; from selfpriority.recipe import Prompts\n"
        "from selfpriority.errors import WorkFailed\n"
        "try: load_prompts(Prompts(source='some/set'), 0)\n"
        "except WorkFailed as error: print(error)"
    )
    offline = {**os.environ, "PYTHONPATH": str(SRC), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("some/set: neither a file here nor reachable on the hub: ")
    assert WorkFailed.exit_code == 1


def test_reading_prompts_needs_no_torch():
    code = (
        "import sys; from selfpriority.prompts import load_prompts; from selfpriority.recipe import Prompts\n"
        "load_prompts(Prompts(source='demo'), 0); print({'torch', 'datasets', 'pyarrow'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
