"""Damaged model folders: doctor, training and answering say in one line what is wrong, and run nothing of it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from selfpriority.errors import InputError
from selfpriority.models import probed_chat
from selfpriority.models.loading import load_causal
from selfpriority.models.probed_chat import LONGEST
from selfpriority.recipe import Align, HfBackend
from selfpriority.training.adapters import load_policy
from tests.test_bad_input import run_cli
from tests.test_pipeline import spa, write_recipe

Damage = Callable[[Path], None]
SETTINGS = HfBackend(device="cpu", dtype="float32")
WEIGHTS = "model.safetensors"


class Planted:
    """What a pickle runs when it is read by who lets it: it makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def write(file: str, content: str | bytes) -> Damage:
    return lambda folder: (
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content) and None
    )


def fields(file: str, **changes: Any) -> Damage:
    """Sets fields of a JSON file; one that is None is taken away."""

    def damage(folder: Path) -> None:
        found = json.loads((folder / file).read_text()) | changes
        (folder / file).write_text(json.dumps({name: value for name, value in found.items() if value is not None}))

    return damage


def both(first: Damage, second: Damage) -> Damage:
    def damage(folder: Path) -> None:
        first(folder)
        second(folder)

    return damage


def template(text: str) -> Damage:
    return write("chat_template.jinja", text)


def index(weight_map: Any) -> Damage:
    """The weights under another name, and an index that leads to them."""

    def damage(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "part.safetensors")
        text = weight_map if isinstance(weight_map, str) else json.dumps({"metadata": {}, "weight_map": weight_map})
        (folder / f"{WEIGHTS}.index.json").write_text(text)

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / WEIGHTS, {"format": "pt"})

    return damage


def cut(file: str, size: int) -> Damage:
    return lambda folder: os.truncate(folder / file, size)


def pickled(name: str, protocol: int | None = None) -> Damage:
    """Weights as a pickle that calls a function, in the form of today (an archive) or of before."""

    def damage(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        content = {"lm_head.weight": Planted(folder / "ran")}
        if protocol is None:
            torch.save(content, folder / name)
        else:
            (folder / name).write_bytes(pickle.dumps(content, protocol))

    return damage


def adapter(base: str, **changes: Any) -> Damage:
    """An adapter in place of the model, on `base`; its weights are none of it."""

    def damage(folder: Path) -> None:
        (folder / "config.json").unlink()
        (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"]}
        (folder / "adapter_config.json").write_text(
            json.dumps(config | {"base_model_name_or_path": base.format(folder=folder)} | changes)
        )

    return damage


def chain(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "other")
    adapter(str(folder))(folder.parent / "other")
    adapter("../other")(folder)


def pipe(file: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return damage


CLOSED = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
DAMAGES: dict[str, Damage] = {
    "config: no JSON": write("config.json", "{"),
    "config: empty": write("config.json", ""),
    "config: a list": write("config.json", "[]"),
    "config: a number": write("config.json", "1"),
    "config: not UTF-8": write("config.json", b"\xff\xfe{}"),
    "config: nested without end": write("config.json", "[" * 100_000),
    "config: a number of 5,000 digits": write("config.json", '{"vocab_size": ' + "9" * 5000 + "}"),
    "config: a pipe": pipe("config.json"),
    "config: no kind": fields("config.json", model_type=None),
    "config: unknown kind": fields("config.json", model_type="nosuch"),
    "config: kind that is no text": fields("config.json", model_type=7),
    "config: a kind without language": fields("config.json", model_type="vit"),
    "config: negative size": fields("config.json", hidden_size=-32),
    "config: no size": fields("config.json", hidden_size=0),
    "config: size in words": fields("config.json", hidden_size="many"),
    "config: size with a fraction": fields("config.json", hidden_size=32.5),
    "config: no heads": fields("config.json", num_attention_heads=0),
    "config: heads that do not divide": fields("config.json", num_attention_heads=5, head_dim=None),
    "config: negative layers": fields("config.json", num_hidden_layers=-1),
    "config: wider than its weights": fields("config.json", hidden_size=64, head_dim=None),
    "config: more layers than weights": fields("config.json", num_hidden_layers=3),
    "config: more tokens than weights": fields("config.json", vocab_size=500),
    "config: fewer tokens than weights": fields("config.json", vocab_size=100),
    "config: unknown activation": fields("config.json", hidden_act="nosuch"),
    "config: unknown type of number": fields("config.json", dtype="nosuch"),
    "config: unknown attention": fields("config.json", attn_implementation="nosuch", _attn_implementation="nosuch"),
    "config: fewer layers than weights": fields("config.json", num_hidden_layers=1),
    "config: unknown positions": fields("config.json", rope_parameters={"rope_type": "nosuch", "rope_theta": 1.0}),
    "config: code": fields("config.json", model_type="own", auto_map={"AutoModelForCausalLM": "own.Model"}),
    "weights: empty": write(WEIGHTS, b""),
    "weights: a header alone": write(WEIGHTS, b"\x02\0\0\0\0\0\0\0{}"),
    "weights: a header without end": write(WEIGHTS, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
    "weights: a header that is no JSON": write(WEIGHTS, b"\x08\0\0\0\0\0\0\0no json!"),
    "weights: cut in the numbers": cut(WEIGHTS, 20_000),
    "weights: cut in the header": cut(WEIGHTS, 100),
    "weights: one lost": tensors(lambda found: found.pop("model.norm.weight")),
    "weights: one of another shape": tensors(lambda found: found.update({"model.norm.weight": torch.ones(31)})),
    "weights: one turned": tensors(
        lambda found: found.update({"lm_head.weight": found["lm_head.weight"].T.contiguous()})
    ),
    "weights: others' names": tensors(lambda found: [found.update({f"x.{n}": found.pop(n)}) for n in list(found)]),
    "weights: text": write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    "weights: pickled": pickled("pytorch_model.bin"),
    "weights: pickled of old": pickled("pytorch_model.bin", 2),
    "weights: pickled, latest protocol": pickled("pytorch_model.bin", 5),
    "weights: pickled under the name of others": pickled(WEIGHTS, 2),
    "index: no JSON": index("{"),
    "index: a list": index("[]"),
    "index: no map": index('{"metadata": {}}'),
    "index: a map of numbers": index({"lm_head.weight": 1}),
    "index: names a lost file": index({"lm_head.weight": "lost.safetensors"}),
    "index: leads outside": index({"lm_head.weight": "../part.safetensors"}),
    "index: leads anywhere": index({"lm_head.weight": "/etc/passwd"}),
    "tokenizer: no JSON": write("tokenizer.json", "{"),
    "tokenizer: empty object": write("tokenizer.json", "{}"),
    "tokenizer: a list": write("tokenizer.json", "[]"),
    "tokenizer: unknown kind": fields("tokenizer.json", model={"type": "nosuch"}),
    "tokenizer: merges of unknown tokens": fields(
        "tokenizer.json", model={"type": "BPE", "vocab": {"a": 0}, "merges": [["x", "y"]]}
    ),
    "tokenizer: lost": lambda folder: (folder / "tokenizer.json").unlink(),
    "tokenizer: config no JSON": write("tokenizer_config.json", "{"),
    "tokenizer: config a list": write("tokenizer_config.json", "[]"),
    "tokenizer: unknown class": fields("tokenizer_config.json", tokenizer_class=7),
    "tokenizer: end token a number": fields("tokenizer_config.json", eos_token=5),
    "tokenizer: no end token": both(
        fields("tokenizer_config.json", eos_token=None),
        both(fields("config.json", eos_token_id=None), fields("generation_config.json", eos_token_id=None)),
    ),
    "tokenizer: more tokens than rows": fields("tokenizer_config.json", additional_special_tokens=["<|new|>"]),
    "tokenizer: code": fields(
        "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Tokenizer", None]}
    ),
    "generation: no JSON": write("generation_config.json", "{"),
    "generation: end token in words": fields("generation_config.json", eos_token_id="end"),
    "generation: a list": write("generation_config.json", "[]"),
    "template: lost": lambda folder: (folder / "chat_template.jinja").unlink(),
    "template: wrong syntax": template("{% for m in messages %}{{ m['content'] }}"),
    "template: unknown filter": template("{{ messages | nosuch }}"),
    "template: always refuses": template("{{ raise_exception('no') }}"),
    "template: divides by nothing": template("{{ 1 // 0 }}"),
    "template: counts too far": template("{% for i in range(10**12) %}x{% endfor %}"),
    "template: loops in loops": template(
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "template: takes all memory": template("{{ messages[0]['content'][:1] * 10**10 }}"),
    "template: takes all memory in a list": template("{{ ([messages] * 10**10) | length }}"),
    "template: calls itself": template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    "template: reaches for the system": template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "template: huge": template(CLOSED + "{# " + "x" * LONGEST + " #}"),
    "template: never ends a turn": template("{% for m in messages %}{{ m['content'] }}{% endfor %}"),
    "adapter: no JSON": both(adapter("x"), write("adapter_config.json", "{")),
    "adapter: a list": both(adapter("x"), write("adapter_config.json", "[]")),
    "adapter: names no base": adapter(""),
    "adapter: its base is a number": adapter("x", base_model_name_or_path=7),
    "adapter: its base is not here": adapter("../nosuch"),
    "adapter: itself": adapter("."),
    "adapter: itself by its whole path": adapter("{folder}"),
    "adapter: of an adapter": chain,
    "adapter: code": adapter("x", megatron_config={"a": 1}, megatron_core="own"),
}


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(probed_chat, "SECONDS", 2)
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def refusal(opens: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        opens()
    [line] = caught.value.lines
    assert "\n" not in line
    assert line.startswith(("model: ", "/"))
    return line


def trained_on(folder: Path) -> None:
    """As training and `doctor` open it."""
    policy = load_policy(folder, Align(dtype="float32"), seed=0)
    probed_chat.probed_chat(policy.tokenizer, policy.end_ids, str(folder))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_folder_is_one_line_and_runs_nothing(
    model: Path, damage: Damage, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(model)
    assert str(model) in refusal(lambda: trained_on(model))
    assert str(model) in refusal(lambda: load_causal(str(model), SETTINGS))
    assert not (model / "ran").exists()
    assert "Traceback" not in capfd.readouterr().err


def test_a_template_that_does_not_end_is_told_as_such(model: Path) -> None:
    DAMAGES["template: loops in loops"](model)
    assert "its chat template did not end within 2 seconds" in refusal(lambda: load_causal(str(model), SETTINGS))


IN_TRAINING = (
    "config: unknown kind",
    "config: negative size",
    "config: wider than its weights",
    "config: code",
    "weights: cut in the numbers",
    "weights: pickled",
    "weights: one turned",
    "index: leads anywhere",
    "tokenizer: empty object",
    "generation: no JSON",
    "template: wrong syntax",
    "template: loops in loops",
    "adapter: itself",
)


@pytest.mark.parametrize("name", IN_TRAINING)
def test_doctor_of_a_run_on_a_damaged_folder(
    finished_run: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(finished_run / "cache"))
    monkeypatch.setattr(probed_chat, "SECONDS", 2)
    DAMAGES[name](finished_run / "model")
    assert run_cli(monkeypatch, "doctor", finished_run / "run") == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert str(finished_run / "model") in line


@pytest.mark.slow
@pytest.mark.parametrize("served", [False, True], ids=["here", "at a server"])
@pytest.mark.parametrize("name", ["config: wider than its weights", "index: leads anywhere", "template: wrong syntax"])
def test_a_run_on_a_damaged_folder(
    model: Path, tmp_path: Path, name: str, served: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """A server that answers for the folder costs nothing until its files are found sound; nobody listens there."""
    DAMAGES[name](model)
    backend = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"} if served else {"kind": "hf", "device": "cpu"}
    recipe = write_recipe(tmp_path, model)
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"backend": backend}))
    done = spa("run", recipe, "--out", tmp_path / "run", check=2)
    [line] = [line for line in done.stderr.splitlines() if line.startswith("spa: ")]
    assert str(model) in line
    assert not (tmp_path / "run" / "round-1").exists()
