"""Two processes train what one does, whichever engine holds the weights; a killed training continues on any number."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from selfpriority.recipe import Align
from selfpriority.training.align import Places, train

SCRIPT = """
import pickle, sys
from pathlib import Path
from selfpriority.training.align import train
train(*pickle.loads(Path(sys.argv[1]).read_bytes()))
"""
COMPARED = ("loss", "margin", "accuracy", "chosen_logp", "grad_norm", "n_pairs", "n_pools", "light_share")
TEXTS = ("No, that is not safe.", "Yes, go.", "The lazy dog.", "Here is something safe that you can do instead.")


def settings(**changes):
    # 70 tokens hold the small pools and not the large ones, which go through the model in pieces
    given = {"learning_rate": 1e-3, "dtype": "float32", "epochs": 2, "tokens_per_step": 200, "tokens_per_batch": 70}
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
        [sys.executable, *launcher, str(folder / "script.py"), str(folder / "arguments")],
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
        assert [together[name] for name in COMPARED] == pytest.approx([alone[name] for name in COMPARED], rel=1e-5)
    (file,) = [path.name for path in wanted.policy.glob("*.safetensors")]
    weights, others = load_file(wanted.policy / file), load_file(got.policy / file)
    assert weights.keys() == others.keys()
    assert max(float((weights[name] - others[name]).abs().max()) for name in weights) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_equal_one(tiny_model, paired_pool, tmp_path, parallel):
    one, two = places(tmp_path / "one"), places(tmp_path / "two")
    pools = pools_of(paired_pool)
    train(pools, tiny_model, settings(), 0, one)
    finished(started((pools, tiny_model, settings(parallel=parallel), 0, two), tmp_path / "two", 2))
    assert_same(two, one)
    assert type(AutoModelForCausalLM.from_pretrained(two.policy)).__name__ == "LlamaForCausalLM"
    assert json.loads((two.policy / "config.json").read_text()) == json.loads((one.policy / "config.json").read_text())
