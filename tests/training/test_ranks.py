"""Two processes train what one does: weights of the loss belong to the whole optimizer batch, all ranks."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from selfpriority.recipe import Align
from selfpriority.training.align import Places, train

SCRIPT = """
import pickle, sys
from pathlib import Path
from selfpriority.training.align import train
train(*pickle.loads(Path(sys.argv[1]).read_bytes()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"method": "dpo", "beta": 0.1, "nll": 0.2, "average": 0.9}], ids=["spa", "dpo"]
)
def test_two_ranks_equal_one(tiny_model, paired_pool, tmp_path, changes):
    texts = ("No, that is not safe.", "Yes, go.", "The lazy dog.")
    pools = [paired_pool(f"Question {number}?" + " a" * number, texts[: 2 + number % 2]) for number in range(7)]
    settings = Align(learning_rate=1e-3, dtype="float32", epochs=2, tokens_per_step=200, tokens_per_batch=70)
    settings = settings.model_copy(update=changes)
    one, two = (
        Places(tmp_path / name / "policy", tmp_path / name / "log", tmp_path / name / "checkpoints")
        for name in ("one", "two")
    )
    train(pools, tiny_model, settings, 0, one)
    (tmp_path / "arguments").write_bytes(pickle.dumps((pools, tiny_model, settings, 0, two)))
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [*launcher, str(tmp_path / "script.py"), str(tmp_path / "arguments")],
        env=environment,
        check=True,
        capture_output=True,
        timeout=300,
    )
    records = [[json.loads(line) for line in places.log.read_text().splitlines()] for places in (one, two)]
    assert len(records[0]) == len(records[1]) > 2
    for alone, together in zip(*records, strict=True):
        names = ["loss", "nll", "margin", "grad_norm", "n_pairs", "n_pools", "light_share"]
        if abs(alone["margin"]) > 1e-3:  # before the first step of DPO margins are rounding, of either sign
            names.append("accuracy")
        for name in names:
            assert together[name] == pytest.approx(alone[name], rel=1e-4, abs=1e-5)
    wanted, got = (load_file(places.policy / "model.safetensors") for places in (one, two))
    assert max(float((wanted[name] - got[name]).abs().max()) for name in wanted) < 1e-5
