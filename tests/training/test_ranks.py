"""Two processes train what one does, whichever engine holds the weights; a killed training continues on any number."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from selfpriority.chat import Chat
from selfpriority.recipe import Align, Lora
from selfpriority.training.adapters import adapted
from selfpriority.training.align import Places, train
from selfpriority.training.encode import encode_all
from selfpriority.training.groups import plan_steps
from selfpriority.training.ranks import deal, in_pieces

pytestmark = pytest.mark.slow

SCRIPT = """
import os, pickle, sys
from pathlib import Path
from selfpriority.training.align import train
folder, rank = Path(sys.argv[1]), os.environ.get("RANK", "0")
(folder / f"process-{rank}").write_text(str(os.getpid()))
given = folder / f"arguments-{rank}"
trained = train(*pickle.loads((given if given.exists() else folder / "arguments").read_bytes()))
(folder / "resumed").write_text(str(trained.resumed_from))
if trained.survival:
    (folder / "survived").write_text(str(trained.survival.share))
"""
COMPARED = ("loss", "nll", "margin", "chosen_logp", "grad_norm", "n_pairs", "n_pools", "light_share")
DPO = {"method": "dpo", "beta": 0.1, "nll": 0.2, "gradient_checkpointing": True}
TEXTS = ("No, that is not safe.", "Yes, go.", "The lazy dog.", "Here is something safe that you can do instead.")


def settings(**changes):
    # 50 tokens hold the small pools and not the large ones, which go through the model in pieces;
    # the rate is small because Adam turns the rounding of a gradient near 0 into a share of it
    given = {"learning_rate": 1e-4, "dtype": "float32", "epochs": 2, "tokens_per_step": 200, "tokens_per_batch": 50}
    return Align(**{**given, **changes})


def places(folder):
    return Places(folder / "policy", folder / "log", folder / "checkpoints")


def pools_of(paired_pool):
    return [paired_pool(f"Question {n}?" + " a" * n, TEXTS[: 2 + n % 3]) for n in range(7)]


def started(arguments, folder, n_ranks):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "arguments").write_bytes(pickle.dumps(arguments))
    (folder / "script.py").write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_ranks}"] if n_ranks > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, *launcher, str(folder / "script.py"), str(folder)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process):
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 0, errors


def records(where):
    return [json.loads(line) for line in where.log.read_text().splitlines()]


def assert_same(got, wanted):
    assert len(records(got)) == len(records(wanted)) > 2
    for together, alone in zip(records(got), records(wanted), strict=True):
        # before the first step of DPO margins are rounding, of either sign
        names = COMPARED if abs(alone["margin"]) < 1e-3 else (*COMPARED, "accuracy")
        assert [together[name] for name in names] == pytest.approx([alone[name] for name in names], rel=1e-5, abs=1e-5)
    weights, others = weights_of(wanted.policy), weights_of(got.policy)
    assert weights.keys() == others.keys()
    assert max(float((weights[name] - others[name]).abs().max()) for name in weights) < 1e-5


def assert_moved(policy, start):
    """Weights went much farther than two trainings may be apart."""
    trained = weights_of(policy)
    if start is None:  # a fresh adapter's second factor is 0
        assert max(float(weight.abs().max()) for name, weight in trained.items() if "lora_B" in name) > 1e-4
    else:
        before = weights_of(start)
        assert max(float((trained[name] - before[name]).abs().max()) for name in trained) > 1e-4


def weights_of(folder):
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def tied(folder, like):
    """The tiny Llama with one tensor for embeddings and head."""
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(like, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(like).save_pretrained(folder)
    return folder


def adapter_of(base, folder):
    """An adapter of a model, beside it, that changes what the model says."""
    model = adapted(AutoModelForCausalLM.from_pretrained(base), Lora(r=4))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight.data, std=0.1)
    model.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "../base"}))
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def two_of(folder):
    """Folders of the training by one process, and of that by several."""
    return folder / "one", folder / "several"


def pieces_of(checkpoint):
    """Into how many pieces the largest tensor of a checkpoint is cut."""
    pieces = [load_file(path) for path in checkpoint.glob("states-*.safetensors")]
    n_values = Counter({name: 0 for piece in pieces for name in piece})
    for piece in pieces:
        n_values.update({name: tensor.numel() for name, tensor in piece.items()})
    [(largest, _)] = n_values.most_common(1)
    return sum(largest in piece for piece in pieces)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "is_tied"),
    [
        ({"parallel": "ddp"}, False),
        ({"parallel": "fsdp"}, False),
        ({"parallel": "fsdp"}, True),
        ({"parallel": "fsdp", "lora": Lora(r=4)}, False),
        ({"parallel": "ddp", "average": 0.5, **DPO}, False),
        ({"parallel": "fsdp", **DPO}, False),
        ({"parallel": "ddp", "method": "kto"}, False),
        ({"parallel": "fsdp", "lora": Lora(r=4), **DPO}, True),
    ],
    ids=[
        *("ddp", "fsdp", "fsdp, tied embeddings", "fsdp, adapters"),
        *("ddp, dpo, averaged", "fsdp, dpo", "ddp, kto", "fsdp, dpo of adapters, tied embeddings"),
    ],
)
def test_two_ranks_equal_one(tiny_model, paired_pool, tmp_path, changes, is_tied):
    one, two = places(tmp_path / "one"), places(tmp_path / "two")
    model, pools = tied(tmp_path / "tied", tiny_model) if is_tied else tiny_model, pools_of(paired_pool)
    train(pools, model, settings(**changes), 0, one)
    finished(started((pools, model, settings(**changes), 0, two), tmp_path / "two", 2))
    assert_same(two, one)
    assert_moved(two.policy, None if "lora" in changes else model)
    if "lora" not in changes:
        configs = [(where.policy / "config.json").read_text() for where in (one, two)]
        assert configs[0] == configs[1]
        assert type(AutoModelForCausalLM.from_pretrained(two.policy)).__name__ == "LlamaForCausalLM"


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"lora": Lora(r=4), **DPO}], ids=["full", "dpo of adapters"])
def test_four_ranks_on_two_nodes_equal_one(tiny_model, paired_pool, tmp_path, changes):
    align, one, four = settings(parallel="hsdp", nodes=2, processes=2, **changes), *map(places, two_of(tmp_path))
    model, pools = tied(tmp_path / "tied", tiny_model), pools_of(paired_pool)
    train(pools, model, align, 0, one)
    finished(started((pools, model, align, 0, four), four.policy.parent, 4))
    assert_same(four, one)
    assert_moved(four.policy, None if "lora" in changes else model)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["base", "adapter", "merged"])
def test_of_those_that_hold_shards_the_main_one_alone_reads_weights(tiny_model, paired_pool, tmp_path, start):
    """The other's files hold none: a model's own, or those of an adapter's base."""
    lora = {"lora": Lora(r=4)} if start == "adapter" else {}
    align, one, two = settings(parallel="fsdp", **lora), *map(places, two_of(tmp_path))
    full, bare = tmp_path / "full", tmp_path / "bare"
    tied(full / "base", tiny_model)
    adapter_of(full / "base", full / "adapter")
    shutil.copytree(full, bare)
    (bare / "base" / "model.safetensors").write_bytes(b"no weights")
    name, pools = "base" if start == "base" else "adapter", pools_of(paired_pool)
    train(pools, full / name, align, 0, one)
    two.policy.parent.mkdir()
    (two.policy.parent / "arguments-1").write_bytes(pickle.dumps((pools, bare / name, align, 0, two)))
    finished(started((pools, full / name, align, 0, two), two.policy.parent, 2))
    assert_same(two, one)


@pytest.mark.slow
def test_files_that_make_another_model_than_their_configuration_are_read_by_all(tiny_model, paired_pool, tmp_path):
    """It says that head and embeddings are one, and they are two."""
    model, (one, two) = tmp_path / "model", map(places, two_of(tmp_path))
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    align, pools = settings(parallel="fsdp"), pools_of(paired_pool)
    train(pools, model, align, 0, one)
    finished(started((pools, model, align, 0, two), two.policy.parent, 2))
    assert "lm_head.weight" in weights_of(two.policy)
    assert_same(two, one)


@pytest.mark.slow
def test_shards_are_saved_in_bfloat16_as_one_process_saves(tiny_model, paired_pool, tmp_path):
    """Weights that differ by the rounding of sums may be drawn to two neighbours, but hardly ever are."""
    align, one, two = settings(parallel="fsdp", save="bfloat16"), places(tmp_path / "one"), places(tmp_path / "two")
    pools, model = pools_of(paired_pool), tied(tmp_path / "tied", tiny_model)
    done = train(pools, model, align, 0, one)
    finished(started((pools, model, align, 0, two), tmp_path / "two", 2))
    assert done.survival is not None
    told = float((tmp_path / "two" / "survived").read_text())
    assert told == pytest.approx(done.survival.share, abs=0.02)
    weights, others = weights_of(one.policy), weights_of(two.policy)
    assert weights.keys() == others.keys()
    assert {weight.dtype for weight in others.values()} == {torch.bfloat16}
    n_other = sum(int((weights[name] != others[name]).sum()) for name in weights)
    assert n_other < 0.01 * sum(weight.numel() for weight in weights.values())
    configs = [json.loads((where.policy / "config.json").read_text()) for where in (one, two)]
    assert configs[0] == configs[1]
    assert configs[1]["dtype"] == "bfloat16"


@pytest.mark.slow
def test_two_ranks_train_bfloat16_weights(tiny_model, paired_pool, tmp_path):
    """Gradients are summed in bfloat16 and in another order, so the ranks follow one process and do not equal it."""
    align = settings(weights="bfloat16", dtype="auto", learning_rate=1e-3, epochs=4)
    one, two = places(tmp_path / "one"), places(tmp_path / "two")
    train(pools_of(paired_pool), tiny_model, align, 0, one)
    finished(started((pools_of(paired_pool), tiny_model, align, 0, two), tmp_path / "two", 2))
    (first, last), together = (records(one)[0], records(one)[-1]), records(two)[-1]
    assert last["margin"] > first["margin"] + 0.3
    assert together["margin"] == pytest.approx(last["margin"], rel=0.05)
    assert together["loss"] == pytest.approx(last["loss"], rel=0.05)


def test_pools_in_pieces_fall_to_one_rank(tiny_model, paired_pool):
    """What the tests here train on holds the uneven case: one rank has a pool in pieces and the other none."""
    chat = Chat(AutoTokenizer.from_pretrained(tiny_model), [2], "tiny")
    pools = encode_all(pools_of(paired_pool), chat, 512, Align()).kept
    uneven = 0
    for step in plan_steps(pools, settings(), 0).steps:
        shares = deal(step.pools, pools, settings(), True, 2)
        n_looks = [
            sum(n for n in (len(in_pieces(part, settings())) for part in parts) if n > 1)
            for parts in ([[pools[index] for index in part] for part in share.micro_batches] for share in shares)
        ]
        uneven += n_looks[0] != n_looks[1]
    assert uneven > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "processes"),
    [
        ({"parallel": "ddp"}, (2, 1)),
        ({"parallel": "ddp"}, (1, 2)),
        ({"parallel": "fsdp"}, (2, 1)),
        ({"parallel": "fsdp"}, (1, 2)),
        ({"parallel": "fsdp", "lora": Lora(r=4)}, (2, 1)),
        ({"parallel": "ddp", "average": 0.5, **DPO}, (2, 1)),
        ({"parallel": "fsdp", **DPO}, (1, 2)),
    ],
    ids=[
        *("ddp, 2 to 1", "ddp, 1 to 2", "fsdp, 2 to 1", "fsdp, 1 to 2", "fsdp, adapters"),
        *("ddp, dpo, averaged", "fsdp, dpo"),
    ],
)
def test_a_killed_training_continues_on_another_number_of_processes(
    tiny_model, paired_pool, tmp_path, changes, processes
):
    before, after = processes
    pools = pools_of(paired_pool)
    many = settings(epochs=12, **changes)
    often = many.model_copy(update={"checkpoint_minutes": 0.002})
    one, other = places(tmp_path / "one"), places(tmp_path / "other")
    train(pools, tiny_model, many, 0, one)
    process = started((pools, tiny_model, often, 0, other), tmp_path / "other", before)
    wait_for(lambda: next(other.checkpoints.glob("checkpoint-*/complete"), None), process)
    victim = tmp_path / "other" / f"process-{before - 1}"
    os.kill(int(victim.read_text()), signal.SIGKILL)
    process.communicate(timeout=300)
    assert process.returncode != 0
    assert not other.policy.exists()
    complete = [path.parent for path in other.checkpoints.glob("checkpoint-*/complete")]
    assert pieces_of(complete[0]) == (before if many.parallel == "fsdp" else 1)
    finished(started((pools, tiny_model, many, 0, other), tmp_path / "other", after))
    resumed_from = int((tmp_path / "other" / "resumed").read_text())
    assert resumed_from == max(int(path.name.rpartition("-")[2]) for path in complete) > 0
    assert_same(other, one)


def wait_for(what, process):
    deadline = time.monotonic() + 120
    while not (found := what()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found
