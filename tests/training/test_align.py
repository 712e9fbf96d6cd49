"""Pools and a model in, a policy on disk out; stopped anywhere and continued."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfpriority.errors import InputError, WorkFailed
from selfpriority.recipe import Align, Lora
from selfpriority.training.align import Places, train
from selfpriority.training.checkpoints import MARKER, Checkpoints

FULL = Align(learning_rate=1e-3, dtype="float32", epochs=4, tokens_per_step=120, tokens_per_batch=80)
LORA = FULL.model_copy(update={"lora": Lora(r=4, alpha=8.0, dropout=0.2), "learning_rate": 1e-2})


@pytest.fixture
def pools(paired_pool):
    answers = ("No, that is not safe.", "Yes, go.", "The lazy dog.")
    return [paired_pool(f"Question {number}?", answers) for number in range(6)]


def places(folder: Path) -> Places:
    return Places(folder / "policy", folder / "training.jsonl", folder / "checkpoints")


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


def weights(policy: Path) -> dict[str, torch.Tensor]:
    return load_file(next(policy.glob("*.safetensors")))


def without_speed(records):
    return [{k: v for k, v in record.items() if k != "tokens_per_second"} for record in records]


class Killed(BaseException):
    """Stands for a signal: nothing of the program may catch it."""


def killer(at: int):
    def kill(record):
        if record["step"] == at:
            raise Killed

    return kill


def test_a_run_moves_the_margin_and_leaves_a_loadable_policy(tiny_model, pools, tmp_path):
    seen = []
    done = train(pools, tiny_model, FULL, 0, places(tmp_path), seen.append)
    records = log(tmp_path)
    assert records == seen
    assert records[-1]["margin"] > records[0]["margin"] + 0.5
    assert (done.n_steps, done.n_pairs, done.dropped, done.resumed_from) == (len(records), 18, (), 0)
    assert sum(record["n_pairs"] for record in records) == 4 * 18
    assert 0 <= done.padding < 0.3
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert model.dtype == torch.float32
    assert not torch.equal(model.lm_head.weight, AutoModelForCausalLM.from_pretrained(tiny_model).lm_head.weight)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_model).chat_template
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy", "training.jsonl"]
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "policy").iterdir()} == {usual}


def test_saved_configuration_is_that_of_the_source(tiny_model, pools, tmp_path):
    train(pools, tiny_model, FULL.model_copy(update={"epochs": 1}), 0, places(tmp_path))
    source, saved = (json.loads((folder / "config.json").read_text()) for folder in (tiny_model, tmp_path / "policy"))
    assert saved == source


@pytest.mark.parametrize(
    "settings",
    [
        FULL,
        LORA,
        LORA.model_copy(update={"method": "dpo", "beta": 0.1, "average": 0.5}),
        FULL.model_copy(update={"method": "ipo", "beta": 0.1}),
        FULL.model_copy(update={"method": "sft"}),
        FULL.model_copy(update={"weights": "bfloat16", "gradient_checkpointing": True}),
    ],
    ids=["full", "lora", "dpo of adapters, averaged", "ipo", "sft", "bfloat16 weights"],
)
def test_continues_after_a_kill_with_identical_losses_and_weights(tiny_model, pools, tmp_path, settings):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    whole = train(pools, tiny_model, settings, 0, places(straight))
    assert whole.n_tokens_here == whole.n_tokens
    often = settings.model_copy(update={"checkpoint_minutes": 1e-9})
    with pytest.raises(Killed):
        train(pools, tiny_model, often, 0, places(stopped), killer(at=4))
    assert not (stopped / "policy").exists()
    assert [record["step"] for record in log(stopped)] == [1, 2, 3, 4]  # 4 is logged and not in a checkpoint
    done = train(pools, tiny_model, often, 0, places(stopped))
    assert done.resumed_from == 3
    assert done.n_tokens == whole.n_tokens
    assert 0 < done.n_tokens_here < whole.n_tokens
    assert without_speed(log(stopped)) == without_speed(log(straight))
    wanted, got = weights(straight / "policy"), weights(stopped / "policy")
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


@pytest.fixture
def known_answers(tiny_model, paired_pool, tmp_path):
    """A model that has learned answers which are much alike, and pools of them: a large margin costs both sides."""
    texts = ("No, that is not safe.", "No, that is not good.", "No, that is not safe or.")
    pools = [paired_pool(f"Question {number}?", texts) for number in range(6)]
    learning = Align(method="sft", learn="chosen", learning_rate=1e-2, dtype="float32", epochs=20, tokens_per_step=300)
    train(pools, tiny_model, learning, 0, places(tmp_path / "learned"))
    return tmp_path / "learned" / "policy", pools


@pytest.mark.slow
def test_a_collapse_stops_and_keeps_the_last_checkpoint(known_answers, tmp_path):
    model, pools = known_answers
    watched = Align(
        learning_rate=2e-2, dtype="float32", epochs=8, tokens_per_step=300, gamma=20.0, warmup=0.0, max_grad_norm=100.0
    ).model_copy(update={"stop_on_collapse": 0.5, "checkpoint_minutes": 1e-9})
    with pytest.raises(
        WorkFailed, match=r"chosen answers lost .* and rejected ones .* stays in .*checkpoints"
    ) as first:
        train(pools, model, watched, 0, places(tmp_path))
    stopped = log(tmp_path)
    assert stopped[-1]["alarm"].endswith("collapse")
    assert not (tmp_path / "policy").exists()
    assert (tmp_path / "checkpoints" / f"checkpoint-{len(stopped) - 1}" / MARKER).is_file()
    with pytest.raises(WorkFailed) as second:  # a continued training comes to the same end
        train(pools, model, watched, 0, places(tmp_path))
    assert str(second.value) == str(first.value)
    assert without_speed(log(tmp_path)) == without_speed(stopped)
    unwatched = watched.model_copy(update={"stop_on_collapse": None})
    done = train(pools, model, unwatched, 0, places(tmp_path))
    assert done.resumed_from == len(stopped) - 1
    assert done.alarms["collapse"] == sum("collapse" in record.get("alarm", "") for record in log(tmp_path)) > 0


def test_half_written_checkpoints_are_skipped(tiny_model, pools, tmp_path):
    often = FULL.model_copy(update={"checkpoint_minutes": 1e-9})
    with pytest.raises(Killed):
        train(pools, tiny_model, often, 0, places(tmp_path), killer(at=4))
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["checkpoint-2", "checkpoint-3"]
    (tmp_path / "checkpoints" / "checkpoint-3" / MARKER).unlink()
    (tmp_path / "checkpoints" / "checkpoint-3" / "optimizer.pt").write_bytes(b"cut")
    assert train(pools, tiny_model, often, 0, places(tmp_path)).resumed_from == 2
    assert [record["step"] for record in log(tmp_path)] == [*range(1, len(log(tmp_path)) + 1)]


@contextlib.contextmanager
def small_files():
    """No file of this process grows over 16 KiB, as on a disk that is nearly full.

    Only within the test: pytest itself may be writing what it prints to a longer one.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_training_continues_from_the_last_checkpoint(tiny_model, pools, tmp_path):
    settings = FULL.model_copy(update={"checkpoint_minutes": 1e-6})
    with pytest.raises(Killed):
        train(pools, tiny_model, settings, 0, places(tmp_path), killer(4))
    told = r"cannot write: .*the last whole checkpoint, if there is one, is kept"
    with small_files(), pytest.raises(WorkFailed, match=told):
        train(pools, tiny_model, settings, 0, places(tmp_path))
    assert train(pools, tiny_model, settings, 0, places(tmp_path)).resumed_from > 0


def test_a_disk_that_is_too_full_for_the_policy_is_one_line(tiny_model, pools, tmp_path):
    with small_files(), pytest.raises(WorkFailed, match=r"policy: cannot write: ") as caught:
        train(pools, tiny_model, FULL, 0, places(tmp_path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "policy").exists()


@pytest.mark.parametrize(("change", "seed"), [({"beta": 9.0}, 0), ({}, 1)], ids=["settings", "seed"])
def test_checkpoints_of_another_training_are_not_continued(tiny_model, pools, tmp_path, change, seed):
    often = FULL.model_copy(update={"checkpoint_minutes": 1e-9})
    with pytest.raises(Killed):
        train(pools, tiny_model, often, 0, places(tmp_path), killer(at=3))
    other = often.model_copy(update={**change, "epochs": 4})
    assert train(pools, tiny_model, other, seed, places(tmp_path)).resumed_from == 0
    assert log(tmp_path)[0]["step"] == 1


def test_a_checkpoint_knows_its_model_under_any_name(tiny_model, pools, tmp_path, monkeypatch):
    often = FULL.model_copy(update={"checkpoint_minutes": 1e-9})
    monkeypatch.chdir(tiny_model.parent)
    with pytest.raises(Killed):
        train(pools, tiny_model.name, often, 0, places(tmp_path / "a"), killer(at=3))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Killed):
        train(pools, tiny_model, often, 0, places(tmp_path / "a"), killer(at=4))
    assert [record["step"] for record in log(tmp_path / "a")] == [1, 2, 3, 4]

    moved = tmp_path / "moved"
    shutil.copytree(tiny_model, moved)
    known = replace(places(tmp_path / "b"), model_key="its content")
    with pytest.raises(Killed):
        train(pools, tiny_model, often, 0, known, killer(at=3))
    assert train(pools, moved, often, 0, known).resumed_from == 2


class Planted:
    """Unpickled, it leaves a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_a_pickle_in_a_checkpoint_is_never_called(tiny_model, pools, tmp_path):
    often = FULL.model_copy(update={"checkpoint_minutes": 1e-9})
    with pytest.raises(Killed):
        train(pools, tiny_model, often, 0, places(tmp_path), killer(at=3))
    hostile, called = pickle.dumps(Planted(tmp_path / "called")), tmp_path / "called"
    pickle.loads(hostile)
    assert called.exists()  # it would
    called.unlink()
    checkpoint = tmp_path / "checkpoints" / "checkpoint-2"
    former = ("rng_state.pth", "scheduler.pt", "optimizer.pt", "training_args.bin", "states/.metadata")
    present = [path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.name != MARKER]
    (checkpoint / "states").mkdir()
    for name in former:
        (checkpoint / name).write_bytes(hostile)
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "kept")
    assert train(pools, tiny_model, often, 0, places(tmp_path)).resumed_from == 2
    assert len(present) >= 3
    for name in present:
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        shutil.copytree(tmp_path / "kept", tmp_path / "checkpoints")
        (checkpoint / name).write_bytes(hostile)
        mark, _, _ = (checkpoint / MARKER).read_text().partition("\n")
        Checkpoints(tmp_path / "checkpoints", mark).complete(checkpoint)  # as if nobody had touched it
        with pytest.raises(WorkFailed, match=r"checkpoint-2: unreadable .*remove it and run the same command"):
            train(pools, tiny_model, often, 0, places(tmp_path))
    assert not called.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01"[path.read_bytes()[-1] == 0 :][:1]),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["emptied", "cut", "one byte", "gone", "a folder"],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tiny_model, pools, tmp_path, damage):
    often = FULL.model_copy(update={"checkpoint_minutes": 1e-9})
    with pytest.raises(Killed):
        train(pools, tiny_model, often, 0, places(tmp_path), killer(at=4))
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "kept")
    names = sorted(path.name for path in (tmp_path / "kept" / "checkpoint-3").iterdir() if path.name != MARKER)
    train(pools, tiny_model, often, 0, places(tmp_path / "straight"))
    for name in names:
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        shutil.copytree(tmp_path / "kept", tmp_path / "checkpoints")
        damage(tmp_path / "checkpoints" / "checkpoint-3" / name)
        done = train(pools, tiny_model, often, 0, places(tmp_path))
        assert (done.resumed_from, done.damaged) == (2, ("checkpoint-3",))
        assert without_speed(log(tmp_path)) == without_speed(log(tmp_path / "straight"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_the_step_and_leaves_a_checkpoint(tiny_model, pools, tmp_path, number):
    handler = signal.signal(number, signal.default_int_handler)  # also where who runs the tests has it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            train(pools, tiny_model, LORA, 0, places(tmp_path), lambda row: os.kill(os.getpid(), number))
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, handler)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-1"]
    done = train(pools, tiny_model, LORA, 0, places(tmp_path))
    train(pools, tiny_model, LORA, 0, places(tmp_path / "straight"))
    assert done.resumed_from == 1
    assert without_speed(log(tmp_path)) == without_speed(log(tmp_path / "straight"))


def test_a_second_interrupt_does_not_wait(tiny_model, pools, tmp_path):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(pools, tiny_model, FULL, 0, places(tmp_path), lambda row: [signal.raise_signal(2) for _ in range(2)])
    finally:
        signal.signal(signal.SIGINT, handler)
    assert not (tmp_path / "checkpoints").exists()


def test_a_caller_may_keep_the_checkpoints_until_it_has_noted_the_end(tiny_model, pools, tmp_path):
    often = FULL.model_copy(update={"checkpoint_minutes": 1e-9})
    kept = replace(places(tmp_path), keeps_checkpoints=True)
    done = train(pools, tiny_model, often, 0, kept)
    again = train(pools, tiny_model, often, 0, kept)
    assert again.resumed_from >= done.n_steps - 1
    train(pools, tiny_model, often, 0, places(tmp_path))
    assert not kept.checkpoints.exists()


def test_memory_settings_may_change_between_stop_and_continuation(tiny_model, pools, tmp_path):
    often = FULL.model_copy(update={"checkpoint_minutes": 1e-9})
    with pytest.raises(Killed):
        train(pools, tiny_model, often, 0, places(tmp_path), killer(at=3))
    smaller = often.model_copy(
        update={"tokens_per_batch": 40, "checkpoint_minutes": 5.0, "gradient_checkpointing": True}
    )
    assert train(pools, tiny_model, smaller, 0, places(tmp_path)).resumed_from == 2


def test_same_seed_same_policy_and_a_new_policy_replaces_the_old(tiny_model, pools, tmp_path):
    once = FULL.model_copy(update={"epochs": 1})
    policies = []
    for seed in (0, 1, 0):
        train(pools, tiny_model, once, seed, places(tmp_path))
        policies.append(weights(tmp_path / "policy")["lm_head.weight"])
    assert torch.equal(policies[0], policies[2])
    assert not torch.equal(policies[0], policies[1])


def test_over_long_pools_are_dropped_with_a_reason_and_nothing_turns_nan(tiny_model, pools, paired_pool, tmp_path):
    long = paired_pool("The quick brown fox " * 200)
    done = train([long, *pools], tiny_model, FULL, 0, places(tmp_path))
    assert [(drop.prompt_id, drop.reason) for drop in done.dropped] == [(long.pool.prompt.id, "too_long")]
    assert "at most 512" in done.dropped[0].detail  # the model's context is shorter than max_length
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "policy").values())


def test_nothing_left_to_train_on_is_an_error_that_says_why(tiny_model, paired_pool, tmp_path):
    with pytest.raises(WorkFailed, match=r"no pool is left to train on \(too_long: 1\)"):
        train([paired_pool("word " * 500)], tiny_model, FULL, 0, places(tmp_path))
    with pytest.raises(WorkFailed, match="none came in"):
        train([], tiny_model, FULL, 0, places(tmp_path))
    assert not (tmp_path / "policy").exists()


def test_a_missing_model_is_the_users_mistake(pools, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty has no config\.json; a model folder holds config\.json"):
        train(pools, tmp_path / "empty", FULL, 0, places(tmp_path))


def test_lora_saves_an_adapter_that_the_next_round_continues(tiny_model, pools, tmp_path):
    train(pools, tiny_model, LORA, 0, places(tmp_path / "1"))
    policy = tmp_path / "1" / "policy"
    assert (policy / "adapter_model.safetensors").is_file()
    assert not (policy / "model.safetensors").exists()
    AutoModelForCausalLM.from_pretrained(policy)
    records = log(tmp_path / "1")
    assert records[-1]["margin"] > records[0]["margin"]
    train(pools, policy, LORA, 0, places(tmp_path / "2"))
    assert weights(tmp_path / "2" / "policy").keys() == weights(policy).keys()
    second = log(tmp_path / "2")
    assert second[0]["margin"] > records[0]["margin"] + 0.5 * (records[-1]["margin"] - records[0]["margin"])


def test_an_adapter_is_merged_for_full_fine_tuning(tiny_model, pools, tmp_path):
    train(pools, tiny_model, LORA, 0, places(tmp_path / "1"))
    train(pools, tmp_path / "1" / "policy", FULL, 0, places(tmp_path / "2"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "2" / "policy")
    assert not isinstance(merged, PeftModel)
    assert log(tmp_path / "2")[0]["margin"] > log(tmp_path / "1")[0]["margin"]
