"""Code that comes with a model: every command refuses it at once and asks nobody; a recipe may allow it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from selfpriority.errors import InputError
from selfpriority.models.fingerprint import fingerprint
from selfpriority.models.loading import describe, load_causal
from selfpriority.models.trust import trust_code
from selfpriority.recipe import Align, HfBackend, Lora
from selfpriority.training.adapters import load_policy
from selfpriority.training.parameters import check_trainable
from tests.test_pipeline import write_recipe

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
(Path({trace!r}) / "ran").touch()
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
MAPS = {
    "config.json": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    "tokenizer_config.json": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
}


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of our own, for transformers copies code there; and nothing is trusted afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    yield
    trust_code(False)


@pytest.fixture
def own(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose code writes a file where it runs: one of a kind that transformers does not know."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "own"))
    (folder / "own.py").write_text(CODE.format(trace=str(tmp_path)))
    set_fields(folder / "config.json", model_type="own", auto_map=MAPS["config.json"])
    return folder


def set_fields(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refused(*arguments: object, cwd: Path) -> str:
    """The one line of a command that has somebody at its other end who says yes to everything."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "selfpriority", *map(str, arguments)],
        input="y\n" * 50,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 2, done.stderr
    assert (
        time.monotonic() - start < 120
    )  # transformers waits 15 s for an answer; a busy machine starts in half of that
    assert "[y/N]" not in done.stdout + done.stderr
    [line] = done.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize("command", ["plan", "run", "check-judge", "fit-judge", "doctor"])
def test_every_command_refuses_at_once(own: Path, finished_run: Path, tmp_path: Path, command: str) -> None:
    recipe = write_recipe(tmp_path, own)
    labels = tmp_path / "labels.jsonl"
    row = {"prompt": "Hi?", "response": "Hello.", "objective": "harmlessness"}
    labels.write_text("".join(json.dumps(row | {"prompt": f"{n}?", "label": n % 2}) + "\n" for n in range(40)))
    if command == "doctor":  # of a run that is followed on with other files in place of its model's
        resolved = finished_run / "run" / "resolved.yaml"
        resolved.write_text(yaml.safe_dump(yaml.safe_load(resolved.read_text()) | {"model": str(own)}))
    arguments = {
        "fit-judge": ("--labels", labels, "--model", own, "--to", tmp_path / "heads"),
        "doctor": (finished_run / "run",),
        "run": (recipe, "--out", tmp_path / "run"),
    }.get(command, (recipe,))
    line = refused(command, *arguments, cwd=tmp_path)
    assert str(own) in line
    assert "trust_remote_code: true" in line
    assert not (tmp_path / "ran").exists()


def ways_to_open(folder: Path):
    return (
        lambda: describe(str(folder)),
        lambda: load_causal(str(folder), HfBackend(device="cpu")),
        lambda: load_policy(folder, Align(), 0),
        lambda: check_trainable(str(folder), Lora()),
    )


@pytest.mark.parametrize("file", MAPS)
def test_whichever_file_names_code(tiny_model: Path, own: Path, tmp_path: Path, file: str) -> None:
    shutil.copyfile(tiny_model / "config.json", own / "config.json")
    set_fields(own / file, auto_map=MAPS[file])
    if file == "config.json":
        set_fields(own / file, model_type="own")
    else:
        set_fields(own / file, tokenizer_class="OwnTokenizer")
    for open_it in ways_to_open(own):
        with pytest.raises(InputError, match=f"{file} has auto_map.*trust_remote_code: true"):
            open_it()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", MAPS)
def test_a_model_that_transformers_knows_needs_no_code(tiny_model: Path, own: Path, tmp_path: Path, file: str) -> None:
    shutil.copyfile(tiny_model / "config.json", own / "config.json")
    set_fields(own / file, auto_map=MAPS[file])
    for open_it in ways_to_open(own):
        open_it()
    assert type(load_causal(str(own), HfBackend(device="cpu")).model).__name__ == "LlamaForCausalLM"
    assert not (tmp_path / "ran").exists()


def test_the_base_of_an_adapter_is_no_way_around(own: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    shutil.copyfile(own / "model.safetensors", adapter / "adapter_model.safetensors")
    config = {"base_model_name_or_path": "../own", "peft_type": "LORA", "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="trust_remote_code"):
        load_causal(str(adapter), HfBackend(device="cpu"))
    with pytest.raises(InputError, match="trust_remote_code"):
        describe(str(adapter))
    assert not (tmp_path / "ran").exists()


def test_what_is_trusted_runs_and_counts_as_content(own: Path, tmp_path: Path) -> None:
    unread = fingerprint(str(own))
    trust_code(True)
    loaded = load_causal(str(own), HfBackend(device="cpu", dtype="float32"))
    assert type(loaded.model).__name__ == "OwnModel"
    assert (tmp_path / "ran").exists()
    described = describe(str(own))
    assert described is not None
    assert type(described.config).__name__ == "OwnConfig"
    before = fingerprint(str(own))
    assert before != unread
    (own / "own.py").write_text((own / "own.py").read_text() + "\n# another\n")
    assert fingerprint(str(own)) != before


def test_trust_changes_no_key_of_a_model_without_code(tiny_model: Path) -> None:
    before = fingerprint(str(tiny_model))
    trust_code(True)
    assert fingerprint(str(tiny_model)) == before
