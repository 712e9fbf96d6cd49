"""Wrong recipes, prompt files and models: each prints one line that names value, place and remedy, and exits with 2."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from selfpriority import cli
from selfpriority.phases.align import align_step
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.pipeline import follow, start

Damage = Callable[[Path, dict[str, object]], None]
"""Makes the folder or the recipe wrong."""


def field(path: str, value: object) -> Damage:
    def damage(_: Path, recipe: dict[str, object]) -> None:
        *parents, last = path.split(".")
        section = recipe
        for parent in parents:
            section = section.setdefault(parent, {})  # type: ignore[assignment]
        section[last] = value

    return damage


def prompts(name: str, content: bytes, column: str = "prompt") -> Damage:
    def damage(folder: Path, recipe: dict[str, object]) -> None:
        (folder / name).write_bytes(content)
        recipe["prompts"] = {"source": str(folder / name), "column": column}

    return damage


def prompt_folder(folder: Path, recipe: dict[str, object]) -> None:
    (folder / "data").mkdir()
    recipe["prompts"] = str(folder / "data")


def model_without(name: str) -> Damage:
    def damage(folder: Path, recipe: dict[str, object]) -> None:
        (folder / "model" / name).unlink()

    return damage


def without_template(folder: Path, recipe: dict[str, object]) -> None:
    (folder / "model" / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "model" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("chat_template", None)
    path.write_text(json.dumps(config))


def template(text: str) -> Damage:
    def damage(folder: Path, recipe: dict[str, object]) -> None:
        without_template(folder, recipe)
        (folder / "model" / "chat_template.jinja").write_text(text)

    return damage


def turns(content: str, end: str = "{{ eos_token }}", opening: str = "[assistant] ") -> str:
    return "{% for m in messages %}[{{ m.role }}] " + content + end + "\n{% endfor %}" + opening


def heldout_is_training(folder: Path, recipe: dict[str, object]) -> None:
    recipe["evaluate"] = {"prompts": recipe["prompts"]}


def judged_by(**fields: object) -> Damage:
    return field("evaluate", {"prompts": {"source": "demo", "split": "heldout", "limit": 4}, **fields})


ROWS: list[tuple[str, Damage, str]] = [
    ("unknown field", field("align.betta", 2.5), "align.betta: unknown field; did you mean beta?"),
    ("initials of a field", field("align.lr", 1e-4), "align.lr: unknown field; did you mean learning_rate?"),
    ("unknown section", field("smaple", {"n": 8}), "smaple: unknown field; did you mean sample?"),
    ("wrong type", field("sample.n", "eight"), "sample.n: Input should be a valid integer"),
    ("below its bound", field("sample.temperature", -1), "sample.temperature: Input should be greater than 0 (got -1)"),
    ("above its bound", field("pair.threshold", 11), "pair.threshold: Input should be less than or equal to 10"),
    ("not a number", field("align.learning_rate", ".nan"), "align.learning_rate"),
    ("unknown choice", field("score.method", "telepathy"), "score.method: Input should be 'expected'"),
    ("unknown backend", field("backend.kind", "abacus"), "backend"),
    ("two readings of tau", field("denoise", {"max_det": 2.0, "keep_lowest": 0.3}), "set max_det or keep_lowest"),
    ("too few candidates", field("sample.n", 2), "2 candidates cannot span 2 objectives"),
    ("no model", field("model", None), "model: Input should be a valid string"),
    ("unknown constitution", field("constitution", "harmles-helpful"), "did you mean harmless-helpful?"),
    ("unknown personas", field("sample.personas", "pirates"), "sample.personas: 'pirates' is no file"),
    ("heads that are missing", field("score", {"judge": "no-such", "method": "probe"}), "holds no fitted heads"),
    ("reward model missing", field("score", {"method": "reward"}), "score.rewards: no model for harmlessness"),
    ("prompt file missing", field("prompts", "nowhere/prompts.jsonl"), "nowhere/prompts.jsonl"),
    ("prompt file a directory", prompt_folder, "is a directory"),
    ("prompt file empty", prompts("p.jsonl", b""), "p.jsonl"),
    ("malformed JSON", prompts("p.jsonl", b'{"prompt": "a"}\n{"prompt": \n'), "p.jsonl:2:"),
    ("missing column", prompts("p.jsonl", b'{"question": "a"}\n'), "question"),
    ("not UTF-8", prompts("p.jsonl", b'{"prompt": "\xff"}\n'), "UTF-8"),
    ("prompt not text", prompts("p.jsonl", b'{"prompt": 7}\n'), "p.jsonl:1:"),
    ("only empty prompts", prompts("p.jsonl", b'{"prompt": "  "}\n'), "empty"),
    ("model folder without weights", model_without("model.safetensors"), "weights"),
    ("model folder without config", model_without("config.json"), "config.json"),
    ("unknown embedded model", field("model", "smollm2-136m"), "smollm2-135m"),
    ("no chat template", without_template, "has no chat template"),
    ("no end-of-turn token", template(turns("{{ m.content }}", end="")), "end-of-sequence token"),
    (
        "template without an opened turn",
        template(turns("{{ m.content }}", opening="")),
        "ignores add_generation_prompt",
    ),
    ("template that is not one", template(turns("{{ m.content")), "its chat template fails (expected token"),
    (
        "comparer that cannot compare",
        judged_by(comparer={"judge": "demo-eval", "method": "probe"}),
        "evaluate.comparer: 'demo-eval' rates, it cannot compare",
    ),
    (
        "one of several judges unknown",
        judged_by(more_judges={"other": {"judge": "smollm2-136m"}}),
        "evaluate.more_judges.other.judge: 'smollm2-136m' is no folder",
    ),
    (
        "a judge without its reward models",
        judged_by(more_judges={"other": {"judge": "r", "method": "reward"}}),
        "evaluate.more_judges.other.rewards: no model for harmlessness",
    ),
    ("held-out prompts that train", heldout_is_training, "no prompt is left that training never saw"),
    ("no model to start training from", field("align.start", "nowhere"), "align.start: 'nowhere' is no folder"),
    ("pairs by an objective that there is not", field("pair.order", "only:beauty"), "beauty"),
    ("rows of nobody", field("align.rows", "nobody"), "align.rows"),
    ("a further prompt set missing", judged_by(more_prompts={"other": "nowhere.jsonl"}), "nowhere.jsonl"),
    ("a further system of an unknown model", judged_by(more_systems={"big": {"model": "big"}}), "big.model: 'big' is"),
    (
        "a further system that orders by what there is not",
        judged_by(more_systems={"other": {"train": {"pair": {"order": "only:beauty"}}}}),
        "evaluate.more_systems.other.train: ",
    ),
    (
        "a merge of what is not trained",
        judged_by(more_systems={"both": {"merge": {"spa": 0.5, "dpo": 0.5}}}),
        "evaluate.more_systems.both",
    ),
]


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["spa", *map(str, arguments)])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "model")
    return tmp_path


@pytest.mark.parametrize(("damage", "told"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_wrong_input_is_one_line_and_exit_code_2(
    damage: Damage, told: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe: dict[str, object] = {
        "model": str(folder / "model"),
        "prompts": {"source": "demo", "limit": 4},
        "sample": {"n": 4, "max_new_tokens": 4},
        "score": {"require_signal": False},
        "backend": {"kind": "hf"},
    }
    damage(folder, recipe)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    code = run_cli(monkeypatch, "run", path, "--out", folder / "run")
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("spa: ")]
    assert code == 2, lines
    assert len(lines) == 1, lines
    assert told in lines[0]
    assert run_cli(monkeypatch, "plan", path, "--out", folder / "run") == 2
    planned = [line for line in capfd.readouterr().err.splitlines() if line.startswith("spa: ")]
    assert planned == lines, "a plan refuses what a run would, in the same words"
    assert not (folder / "run" / "round-1" / "1-candidates.jsonl").exists()


COMMANDS: list[tuple[list[str], str]] = [
    (["run", "nowhere.yaml"], "no such recipe"),
    (["show", "nowhere"], "is no run directory"),
    (["recipes", "dmeo"], "did you mean demo?"),
    (["constitutions", "honest"], "did you mean honest-helpful?"),
    (["frobnicate"], "No such command"),
    (["run"], "Missing argument"),
    (["run", "demo", "align.beta"], "overrides are FIELD=VALUE"),
]


@pytest.mark.parametrize(("arguments", "told"), COMMANDS, ids=[" ".join(row[0]) for row in COMMANDS])
def test_wrong_command(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, *arguments) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: [", "recipe.yaml:"),
        ("", "the recipe is empty"),
        ("- a\n- b\n", "a recipe is a mapping of fields, this is list"),
        ("prompts: demo\n", "model: required field is missing"),
    ],
)
def test_a_recipe_that_is_none(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    assert run_cli(monkeypatch, "run", tmp_path / "recipe.yaml") == 2
    assert told in capsys.readouterr().err


def test_nothing_from_a_data_set_speaks_to_the_terminal_or_breaks_the_table(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    kind = "a|b\x1b[31m\u200f\u202e\x9b2J\nc"
    rows = [{"prompt": f"Question {number}?", "kind": kind} for number in range(4)]
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "model": str(tiny_model),
        "prompts": {"source": "demo", "limit": 4},
        "evaluate": {"prompts": {"source": str(tmp_path / "held.jsonl")}, "max_new_tokens": 4},
        "backend": {"kind": "scripted"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run, asked = start(tmp_path / "recipe.yaml", [], tmp_path / "run")
    run.round(1).mkdir(parents=True)
    follow(run, asked)
    run.policy(1).symlink_to(tiny_model)
    with run.recording(align_step(run, Resources(asked.recipe, run, Reporter()), 1)):
        (run.round(1) / "training.jsonl").touch()
    assert run_cli(monkeypatch, "evaluate", run.folder) == 0
    table = capfd.readouterr().out
    assert run_cli(monkeypatch, "evaluate", run.folder, "--json") == 0
    printed = table + capfd.readouterr().out
    assert not set(printed) & set("\x1b\x9b\u200f\u202e")
    heads, under, *_ = [line for line in table.splitlines() if line.startswith("|")][-4:]
    assert heads.replace("\\|", "").count("|") == under.count("|")

    assert run_cli(monkeypatch, "show", tmp_path / "no\x1b[31mrun") == 2
    assert "\x1b" not in capfd.readouterr().err


def test_an_error_of_the_system_without_a_file_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("selfpriority.cli.entry.app", full)
    assert run_cli(monkeypatch, "recipes") == 1
    assert capsys.readouterr().err == "spa: No space left on device\n"
