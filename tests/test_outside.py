"""Text from outside that is none, or of no sane form or size: one line and exit code 2, at once, in every file."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import save_file

from selfpriority import cli

SECONDS = 10  # far more than any takes, on a busy machine
DEEP = 100_000
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9))
ZEROS = gzip.compress(bytes(64 << 20)) * 9
HALF = "holds what is no text"
TWICE = "stands twice"
NESTED = "nested too deep"

# name, what follows `model` and `prompts` in a recipe, what is told
RECIPES: list[tuple[str, str | bytes, str]] = [
    (
        "key twice",
        "align: {beta: 1}\nseed: 1\nalign: {gamma: 2}\n",
        "recipe.yaml:5: not YAML: the key 'align' stands twice",
    ),
    ("key twice inside", "align:\n  beta: 1\n  beta: 2\n", "recipe.yaml:5: not YAML: the key 'beta' stands twice"),
    ("key twice in braces", "align: {beta: 1, beta: 2}\n", "the key 'beta' stands twice"),
    ("key twice, once quoted", 'seed: 1\n"seed": 2\n', "the key 'seed' stands twice"),
    ("merge twice", "x: {<<: {a: 1}, <<: {b: 1}}\n", TWICE),
    ("alias bomb", BOMB, "more than 50000 values, aliases written out"),
    ("alias of itself", "sample: &a {n: *a}\n", "an alias inside of what it stands for"),
    ("list of itself", "sample: &a [*a]\n", "an alias inside of what it stands for"),
    ("alias of nothing", "seed: *a\n", "found undefined alias"),
    ("many values", f"x: [{'1,' * 60_000}]\n", "more than 50000 values"),
    ("long file", f"x: '{'a' * (1 << 20)}'\n", "longer than 1 MiB"),
    ("25 MB of value", f"seed: {'a' * 25_000_000}\n", "longer than 1 MiB"),
    ("long value", f"seed: {'a' * 500_000}\n", "seed: Input should be a valid integer"),
    ("long name of a field", f"{'a' * 1000}: 1\n", "unknown field"),
    ("deep lists", f"x: {'[' * DEEP}\n", NESTED),
    ("deep mappings", f"x: {'{a: ' * 3000}\n", NESTED),
    ("deep blocks", f"x:\n  {'- ' * 3000}x\n", NESTED),
    ("date that is none", "seed: 2024-13-45\n", "seed: Input should be a valid integer"),
    ("date", "seed: 2024-01-02\n", "(got '2024-01-02')"),
    ("time that is none", "seed: 2024-01-02 99:99:99\n", "seed: Input should be a valid integer"),
    ("tagged date", "seed: !!timestamp 2024-13-45\n", "'2024-13-45' is no timestamp"),
    ("tagged number", "seed: !!int x\n", "'x' is no int"),
    ("tagged float", "seed: !!float x\n", "'x' is no float"),
    ("tagged truth", "seed: !!bool x\n", "'x' is no bool"),
    ("tagged binary", "constitution: !!binary \u00ff\n", "not YAML"),
    ("tag that runs code", "seed: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
    ("tag of nobody", "seed: !mine 3\n", "could not determine a constructor"),
    ("5,000 digits", f"seed: {'9' * 5000}\n", "is no int"),
    ("hexadecimal digits", f"seed: 0x{'f' * 9000}\n", "more than 64 bits"),
    ("binary digits", f"seed: 0b{'1' * 9000}\n", "more than 64 bits"),
    ("seed above 32 bits", "seed: 4294967296\n", "less than or equal to 4294967295"),
    ("seed below 0", "seed: -1\n", "greater than or equal to 0"),
    ("seed infinite", "seed: .inf\n", "finite number"),
    ("seed a mapping", "seed: {a: 1}\n", "seed: Input should be a valid integer"),
    ("half a pair", 'constitution: "\\ud800"\n', HALF),
    ("other half of a pair", 'sample: {personas: "a\\udfff"}\n', HALF),
    ("half a pair in a key", '"\\ud800": 1\n', HALF),
    ("NUL", 'constitution: "a\\0b"\n', HALF),
    ("control code", "constitution: a\x01b\n", "special characters are not allowed"),
    ("tab", "sample:\n\tn: 4\n", "recipe.yaml:4: not YAML"),
    ("not UTF-8", b"seed: \xff\n", "not UTF-8 (byte"),
    ("UTF-16", "seed: 1\n".encode("utf-16"), "not UTF-8 (byte"),
    ("two documents", "---\nseed: 1\n", "not YAML"),
    ("key a list", "? [a]\n: 1\n", "unhashable key"),
    ("key a number", "1: 2\n", "1: "),
    ("unknown version", "\n%YAML 9.9\n---\na: 1\n", "not YAML"),
    (
        "timeout of ages",
        "backend: {kind: openai, base_url: 'http://x/v1', timeout: 1e12}\n",
        "less than or equal to 86400",
    ),
    (
        "backoff of ages",
        "backend: {kind: openai, base_url: 'http://x/v1', backoff: 1.0e+12}\n",
        "less than or equal to 3600",
    ),
    ("delay of ages", "backend: {kind: scripted, delay: 1.0e+300}\n", "less than or equal to 3600"),
    (
        "weight near infinity",
        "evaluate: {lambdas: [1e308]}\n",
        "evaluate.lambdas.0: Input should be less than or equal to 1000000",
    ),
    ("weight that is none", "evaluate: {lambdas: [.nan]}\n", "finite number"),
    ("beta near infinity", "align: {beta: 1.0e+308}\n", "less than or equal to 1000000"),
    ("exponent too large", "align: {alpha: 400}\n", "less than or equal to 16"),
    ("epochs without end", "align: {epochs: 100000000000}\n", "less than or equal to 10000"),
    ("tokens above 31 bits", "sample: {max_new_tokens: 3000000000}\n", "less than or equal to 2147483647"),
    (
        "limit above 31 bits",
        "evaluate: {prompts: {source: demo, limit: 99999999999}}\n",
        "less than or equal to 2147483647",
    ),
    ("temperature near 0", "sample: {temperature: 1.0e-320}\n", "0 or at least 0.001"),
    ("greedy but not quite", "evaluate: {temperature: 1.0e-310}\n", "0 or at least 0.001"),
    ("grid too fine", "pair: {resolution: 1.0e-320}\n", "0 or at least 0.001"),
    ("module not text", "align: {lora: {targets: [1]}}\n", "align.lora.targets"),
    ("constitution of a long name", f"constitution: {'a' * 5000}\n", "File name too long"),
    ("personas of a long name", f"sample: {{personas: {'a' * 5000}}}\n", "File name too long"),
]

OVERRIDES: list[tuple[str, str]] = [
    ("a={b: 2024-13-45}", "a: unknown field"),
    ("seed=2024-13-45", "(got '2024-13-45')"),
    ("seed=!!timestamp 2024-13-45", "is no timestamp"),
    ("align={beta: 1, beta: 2}", "the key 'beta' stands twice"),
    ("seed=*a", "undefined alias"),
    ("sample=&a {n: *a}", "an alias inside"),
    ("seed=[", "not YAML"),
    ("seed=!!int x", "is no int"),
    (f"seed={'9' * 5000}", "is no int"),
    (f"seed=0x{'f' * 9000}", "more than 64 bits"),
    (f"align={'[' * 3000}", NESTED),
    (f"align={'{a: ' * 3000}", NESTED),
    ('model="\\ud800"', HALF),
    ('prompts="a\\0"', HALF),
    (f"seed={'a' * 1_100_000}", "longer than 1 MiB"),
    (f"seed={'a' * 100_000}", "Input should be a valid integer"),
    (f"{'a' * 100_000}=1", "unknown field"),
    (f"{'.'.join('a' * 20_000)}=1", "unknown field"),
    (f"model={'a' * 5000}", "File name too long"),
    (f"prompts={'a' * 5000}", "File name too long"),
    (f"prompts={'a/' * 5000}p.jsonl", "File name too long"),
    ("prompts.split=\x1b[31m", "special characters"),
    ("prompts=\udcff.jsonl", "not UTF-8"),
    ("=", "overrides are FIELD=VALUE"),
    ("..=1", "unknown field"),
]

# file name, content, what is told
PROMPTS: list[tuple[str, str | bytes, str]] = [
    (
        "digits.jsonl",
        f'{{"prompt": "a"}}\n{{"prompt": "b", "id": {"9" * 5000}}}\n',
        "digits.jsonl:2: not JSON that can be read",
    ),
    ("deep.jsonl", f'{{"prompt": {"[" * DEEP}', "deep.jsonl:1: not JSON that can be read: nested too deep"),
    ("deep objects.jsonl", '{"prompt":' * DEEP, NESTED),
    ("nan.jsonl", '{"prompt": "a", "x": NaN}\n', "NaN is no number"),
    ("infinity.jsonl", '{"prompt": "a", "x": -Infinity}\n', "-Infinity is no number"),
    ("twice.jsonl", '{"prompt": "a", "prompt": "b"}\n', "the key 'prompt' stands twice"),
    (
        "twice inside.jsonl",
        '{"prompt": [{"role": "user", "content": "a", "content": "b"}]}\n',
        "the key 'content' stands twice",
    ),
    ("a list.jsonl", '["a"]\n', "this is a list"),
    ("a number.jsonl", "7\n", "this is a number"),
    ("one half.jsonl", '{"prompt": "a\n', "not JSON"),
    ("latin.jsonl", b'{"prompt": "\xe9"}\n', "not UTF-8 (byte 12); save it as UTF-8"),
    ("utf16.jsonl", '{"prompt": "a"}\n'.encode("utf-16"), "not UTF-8"),
    ("raw half.jsonl", b'{"prompt": "\xed\xa0\x80"}\n', "not UTF-8"),
    ("id a list.jsonl", '{"prompt": "a", "id": []}\n', "'id' is a list"),
    (
        "same ids but for a code.jsonl",
        '{"prompt": "a", "id": "1"}\n{"prompt": "b", "id": "1\\u001b"}\n',
        "belongs to another prompt",
    ),
    ("no rows.jsonl", "\n\n", "holds no prompts"),
    ("only a mark.jsonl", b"\xef\xbb\xbf", "holds no prompts"),
    ("bomb.jsonl.gz", ZEROS, "more than 512 MiB once unpacked"),
    ("none.jsonl.gz", "x", "not gzip"),
    ("cut.jsonl.gz", gzip.compress(b'{"prompt": "a"}')[:-9], "not gzip, or cut short"),
    ("harmed.jsonl.gz", gzip.compress(b'{"prompt": "a"}')[:12] + b"xxxxxxxxxxxxxxxxxxx", "not gzip, or cut short"),
    ("deep.jsonl.gz", gzip.compress(b"[" * DEEP), NESTED),
    ("twice.csv", "prompt,kind,prompt\na,b,c\n", "twice.csv:1: two columns are called 'prompt'"),
    ("other twice.csv", "prompt,x,x\na,b,c\n", "two columns are called 'x'"),
    ("nameless twice.csv", "prompt,,\na,b,c\n", "two columns are called ''"),
    ("wide.csv", "prompt\na,b\n", "more fields than the header"),
    ("open.csv", 'prompt\n"a\n', "not CSV"),
    ("latin.csv", b"prompt\ncaf\xe9\n", "not UTF-8"),
    ("other.csv", "question\na\n", "no column 'prompt'"),
    ("latin.txt", b"caf\xe9\r", "not UTF-8"),
    ("blank.txt", "\r\r\r", "no prompt is left"),
    ("none.parquet", "PAR1", "not parquet"),
    ("harmed.parquet", b"PAR1" + bytes(40) + b"PAR1", "not parquet"),
    ("without a format", "a", "cannot tell its format"),
    ("unknown.xlsx", "a", "cannot tell its format"),
]

LABELS: list[tuple[str, str | bytes, str]] = [
    ("digits.jsonl", f'{{"label": {"9" * 5000}}}\n', "digits.jsonl:1: not JSON that can be read: a number of"),
    ("deep.jsonl", "[" * DEEP, NESTED),
    ("nan.jsonl", '{"weight": NaN}\n', "NaN is no number"),
    ("weight.jsonl", '{"prompt": "a", "response": "b", "label": 1, "objective": "o", "weight": 1e999}\n', "weight"),
    ("twice.jsonl", '{"label": 1, "label": 0}\n', "the key 'label' stands twice"),
    ("a list.jsonl", "[]\n", "a list.jsonl:1: "),
    ("null.jsonl", "null\n", "null.jsonl:1: "),
    ("latin.jsonl", b"\xe9", "not UTF-8"),
    ("empty.jsonl", "", "holds no labelled answers"),
    ("only a mark.jsonl", b"\xef\xbb\xbf\r\r", "holds no labelled answers"),
    ("bomb.jsonl.gz", ZEROS, "more than 512 MiB once unpacked"),
    ("none.jsonl.gz", "x", "not gzip"),
    ("cut.jsonl.gz", gzip.compress(b"{}")[:-3], "not gzip, or cut short"),
]

QUESTIONS: list[tuple[str, str | bytes, str]] = [
    ("digits.jsonl", f'{{"question_id": {"9" * 5000}}}\n', "digits.jsonl:1: not JSON that can be read: a number of"),
    ("deep.jsonl", "[" * DEEP, NESTED),
    ("twice.jsonl", '{"category": "a", "category": "b"}\n', "the key 'category' stands twice"),
    (
        "half.jsonl",
        '{"question_id": "\\ud800", "category": "a", "turns": ["a", "b"]}\n',
        "half.jsonl:1: holds half of a surrogate",
    ),
    ("infinity.jsonl", "Infinity\n", "Infinity is no number"),
    ("cut.jsonl", '{"question_id": 1\n', "cut.jsonl:1: not JSON"),
    ("one turn.jsonl", '{"question_id": 1, "category": "a", "turns": ["a"]}\n', "not a question"),
    ("latin.jsonl", b"\xe9", "not UTF-8"),
    ("empty.jsonl", b"\xef\xbb\xbf\n", "holds no question"),
]

PERSONAS: list[tuple[str, str | bytes, str]] = [
    ("key twice", "- {name: a, name: b, text: c}\n", "personas.yaml:1: not YAML: the key 'name' stands twice"),
    ("bomb", BOMB, "more than 50000 values"),
    ("deep", "[" * DEEP, NESTED),
    ("half", '- {name: "\\ud800", text: a}\n', HALF),
    ("digits", f"- {{name: {'9' * 5000}, text: a}}\n", "is no int"),
    ("latin", b"- {name: caf\xe9, text: a}\n", "not UTF-8"),
    ("no list", "a: b\n", "personas are a list"),
    ("no text", "- {name: a}\n", "persona 1 needs a name and a text or an opening"),
    ("no name", "- {opening: a}\n", "persona 1 needs a name and a text or an opening"),
    (
        "a near field",
        "- {name: a, text: b, openings: c}\n",
        "persona 1 has a field 'openings'; did you mean opening?",
    ),
    ("a number", "- {name: a, opening: 7}\n", "persona 1: its fields are texts"),
    ("no row", "- a\n", "persona 1 needs a name and a text or an opening"),
    ("names alike but for a code", '- {name: a, text: b}\n- {name: "a\\e", text: c}\n', "persona names must differ"),
    ("empty", "", "personas are a list"),
]

OBJECTIVE = {"definition": "d", "rubric": {1: "r"}, "question": "q", "question_reworded": "w"}
ANCHOR = {
    "id": "1",
    "domain": "d",
    "kind": "k",
    "violates": "a",
    "prompt": "p",
    "good": "g",
    "useless": "u",
    "bad": "b",
}
GOOD = {
    "name": "mine",
    "summary": "s",
    "objectives": [{"name": "a", **OBJECTIVE}, {"name": "b", **OBJECTIVE}],
    "anchors": ["anchors.jsonl"],
}

# the file that is wrong, its content, what is told
CONSTITUTIONS: list[tuple[str, str | bytes, str]] = [
    ("constitution.yaml", "name: a\nname: b\n", "constitution.yaml:2: not YAML: the key 'name' stands twice"),
    ("constitution.yaml", BOMB, "more than 50000 values"),
    ("constitution.yaml", "[" * DEEP, NESTED),
    ("constitution.yaml", 'name: "\\udc00"\n', HALF),
    ("constitution.yaml", b"name: caf\xe9\n", "not UTF-8"),
    ("constitution.yaml", yaml.safe_dump({**GOOD, "name": 2024}), "name: Input should be a valid string"),
    ("constitution.yaml", yaml.safe_dump({**GOOD, "anchors": ["no.jsonl"]}), "no such anchor file"),
    ("constitution.yaml", yaml.safe_dump({**GOOD, "anchors": ["/dev/zero"]}), "is a pipe or a device"),
    ("constitution.yaml", yaml.safe_dump({**GOOD, "anchors": ["."]}), "is a directory"),
    ("anchors.jsonl", "[" * DEEP, "anchors.jsonl:1: not JSON that can be read: nested too deep"),
    ("anchors.jsonl", f'{{"id": {"9" * 5000}}}\n', "a number of more than 4300 digits"),
    ("anchors.jsonl", '{"id": "1", "id": "2"}\n', "the key 'id' stands twice"),
    ("anchors.jsonl", json.dumps({**ANCHOR, "bad": "\ud800"}), "anchors.jsonl:1: holds half of a surrogate pair"),
    ("anchors.jsonl", '{"id": NaN}\n', "NaN is no number"),
    ("anchors.jsonl", "\n{}\n", "anchors.jsonl:2: not an anchor"),
    ("anchors.jsonl", b"caf\xe9\n", "not UTF-8"),
]


@pytest.fixture
def spa(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Spa:
    return Spa(monkeypatch, capfd)


class Spa:
    """The command line, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capfd = monkeypatch, capfd

    def refuses(self, told: str, *arguments: object) -> None:
        """One line says `told`, soon, and the exit code is 2."""
        self.monkeypatch.setattr(sys, "argv", ["spa", *map(str, arguments)])
        started = time.monotonic()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        seconds = time.monotonic() - started
        printed = self.capfd.readouterr()
        lines = printed.err.splitlines()
        assert stopped.value.code == 2, lines[-1][:500]
        assert len(lines) == 1, [line[:200] for line in lines[:5]]
        assert lines[0].startswith("spa: ")
        assert told in lines[0]
        assert not lines[0].startswith("spa: unexpected")
        assert len(lines[0]) < 1300
        assert not printed.out
        assert seconds < SECONDS


def file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def recipe(folder: Path, model: object = "nowhere", **fields: object) -> Path:
    data = {"model": str(model), "prompts": {"source": "demo", "limit": 4}, "backend": {"kind": "scripted"}, **fields}
    return file(folder / "recipe.yaml", yaml.safe_dump(data))


@pytest.mark.parametrize(("content", "told"), [row[1:] for row in RECIPES], ids=[row[0] for row in RECIPES])
def test_recipes(content: str | bytes, told: str, tmp_path: Path, spa: Spa) -> None:
    path = file(tmp_path / "recipe.yaml", content)
    path.write_bytes(b"prompts: demo\nmodel: nowhere\n" + path.read_bytes())
    spa.refuses(told, "run", path, "--out", tmp_path / "run")


@pytest.mark.parametrize(("override", "told"), OVERRIDES, ids=[ascii(row[0])[:30] for row in OVERRIDES])
def test_overrides(override: str, told: str, tmp_path: Path, spa: Spa) -> None:
    spa.refuses(told, "run", recipe(tmp_path), override, "--out", tmp_path / "run")


@pytest.mark.parametrize(("name", "content", "told"), PROMPTS, ids=[row[0] for row in PROMPTS])
def test_prompts(name: str, content: str | bytes, told: str, tiny_model: Path, tmp_path: Path, spa: Spa) -> None:
    prompts = {"source": str(file(tmp_path / name, content))}
    spa.refuses(told, "run", recipe(tmp_path, tiny_model, prompts=prompts), "--out", tmp_path / "run")
    path = recipe(tmp_path, tiny_model, evaluate={"prompts": prompts})
    spa.refuses(told, "run", path, "--out", tmp_path / "run")


@pytest.mark.parametrize(("name", "content", "told"), LABELS, ids=[row[0] for row in LABELS])
def test_labels(name: str, content: str | bytes, told: str, tmp_path: Path, spa: Spa) -> None:
    spa.refuses(told, "check-judge", recipe(tmp_path), "--labels", file(tmp_path / name, content))


@pytest.mark.parametrize("option", ["--mt-bench", "--mmlu"])
@pytest.mark.parametrize(("name", "content", "told"), QUESTIONS, ids=[row[0] for row in QUESTIONS])
def test_questions(option: str, name: str, content: str | bytes, told: str, finished_run: Path, spa: Spa) -> None:
    spa.refuses(told, "utility", finished_run / "run", option, file(finished_run / name, content))


@pytest.mark.parametrize(("content", "told"), [row[1:] for row in PERSONAS], ids=[row[0] for row in PERSONAS])
def test_personas(content: str | bytes, told: str, tiny_model: Path, tmp_path: Path, spa: Spa) -> None:
    sample = {"personas": str(file(tmp_path / "personas.yaml", content))}
    spa.refuses(told, "run", recipe(tmp_path, tiny_model, sample=sample), "--out", tmp_path / "run")


@pytest.mark.parametrize(("name", "content", "told"), CONSTITUTIONS, ids=[row[2][:30] for row in CONSTITUTIONS])
def test_constitutions(name: str, content: str | bytes, told: str, tmp_path: Path, spa: Spa) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    file(folder / "constitution.yaml", yaml.safe_dump(GOOD))
    file(folder / "anchors.jsonl", json.dumps(ANCHOR))
    file(folder / name, content)
    spa.refuses(told, "run", recipe(tmp_path, constitution=str(folder)), "--out", tmp_path / "run")


CARD = '{"model": "m", "objectives": {"harmlessness": {"layers": %s, "pooling": "mean"}}}'

CARDS: list[tuple[str | bytes, str]] = [
    ("[" * DEEP, "card.json: not JSON that can be read: nested too deep"),
    (CARD % ("9" * 5000), "a number of more than 4300 digits"),
    (CARD % "[NaN]", "NaN is no number"),
    (CARD % "[1e999]", "not a card of fitted heads"),
    (CARD % "[-1]", "not a card of fitted heads"),
    (CARD % "[]", "not a card of fitted heads"),
    (CARD % '["x"]', "not a card of fitted heads"),
    (CARD % "[1]", "tensors mean, scale, weights, line are missing"),
    ('{"model": "a", "model": "b"}', "the key 'model' stands twice"),
    ('{"model": 7, "objectives": {}}', "model must be a name"),
    ("null", "not a card of fitted heads"),
    (b'{"model": "\xe9"}', "not UTF-8"),
]


@pytest.mark.parametrize(("content", "told"), CARDS, ids=[row[1] for row in CARDS])
def test_cards_of_heads(content: str | bytes, told: str, tiny_model: Path, tmp_path: Path, spa: Spa) -> None:
    (tmp_path / "heads").mkdir()
    save_file({"x": np.zeros(1, dtype=np.float32)}, tmp_path / "heads" / "heads.safetensors")
    file(tmp_path / "heads" / "card.json", content)
    judge = {"kind": "probe", "judge": str(tmp_path / "heads")}
    held = {"prompts": {"source": "demo", "split": "heldout", "limit": 4}, "judge": judge}
    for fields in ({"score": {"judge": judge}}, {"evaluate": held}):
        spa.refuses(told, "run", recipe(tmp_path, tiny_model, **fields), "--out", tmp_path / "run")


def test_tables_of_parquet(tiny_model: Path, tmp_path: Path, spa: Spa) -> None:
    path = tmp_path / "p.parquet"
    columns = [pa.array(["a"]), pa.array(["b"])]
    many = pa.nulls(6_000_000, pa.string())
    long = pa.DictionaryArray.from_arrays(pa.array(bytes(10_000), pa.int8()), pa.array(["a" * 100_000]))
    no_text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    for table, told in (
        (pa.Table.from_arrays(columns, ["prompt", "prompt"]), "two columns are called 'prompt'"),
        (pa.table({"prompt": many}), "more than 5000000 rows"),
        (pa.table({"prompt": long}), "more than 512 MiB"),
        (pa.table({"prompt": no_text}), "not parquet that can be read"),
    ):
        pq.write_table(table, path)
        written = recipe(tmp_path, tiny_model, prompts={"source": str(path)})
        spa.refuses(told, "run", written, "--out", tmp_path / "run")


# what is no regular file, where one is read


@pytest.mark.parametrize("which", ["pipe", "device", "folder", "nothing", "circle"])
@pytest.mark.parametrize("reader", ["recipe", "prompts", "labels", "mt-bench", "mmlu", "anchors"])
def test_what_is_no_regular_file(which: str, reader: str, finished_run: Path, tiny_model: Path, spa: Spa) -> None:
    folder = finished_run
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "device.jsonl").symlink_to("/dev/zero")
    (folder / "folder.jsonl").mkdir()
    (folder / "circle.jsonl").symlink_to("circle.jsonl")
    path = folder / f"{which}.jsonl"
    (folder / "mine").mkdir()
    file(folder / "mine" / "constitution.yaml", yaml.safe_dump({**GOOD, "anchors": [str(path)]}))
    run = ("--out", folder / "out")
    commands = {
        "recipe": ["run", path, *run],
        "prompts": ["run", recipe(folder, tiny_model, prompts=str(path)), *run],
        "labels": ["check-judge", recipe(folder), "--labels", path],
        "mt-bench": ["utility", finished_run / "run", "--mt-bench", path],
        "mmlu": ["utility", finished_run / "run", "--mmlu", path],
        "anchors": ["run", recipe(folder, constitution=str(folder / "mine")), *run],
    }
    spa.refuses(f"{which}.jsonl: ", *commands[reader])


OUTS = ["a\udcff", "\udc80/b", "x" * 300, "x/" * 3000, "recipe.yaml", "recipe.yaml/run", "circle/run"]


@pytest.mark.parametrize("out", OUTS, ids=[ascii(name)[:20] for name in OUTS])
def test_run_directories_that_cannot_be(out: str, tmp_path: Path, spa: Spa) -> None:
    (tmp_path / "circle").symlink_to("circle")
    spa.refuses("", "run", recipe(tmp_path), "--out", f"{tmp_path}/{out}")


@pytest.mark.parametrize("link", [True, False])
def test_a_name_that_is_not_utf8_behind_one_that_is(link: bool, tmp_path: Path, spa: Spa) -> None:
    folder = tmp_path / "m\udcff"
    folder.mkdir()
    (tmp_path / "linked").symlink_to(folder)
    spa.monkeypatch.chdir(tmp_path if link else folder)
    (folder / "here").mkdir()
    spa.refuses("is not UTF-8; rename it", "run", recipe(tmp_path, "linked/here" if link else "here"), "--out", "run")
