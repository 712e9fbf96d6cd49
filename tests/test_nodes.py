"""Two nodes on loopback, each started by torchrun as on a cluster, leave what one process leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfpriority.phases.launch import node_command
from selfpriority.pipeline import follow, start
from selfpriority.recipe import Align
from tests.collected import collected as collected
from tests.collected import ready
from tests.test_pipeline import spa, steps
from tests.test_processes import eventually, told, trained_steps

pytestmark = pytest.mark.slow

COMPARED = ("step", "loss", "margin", "chosen_logp", "rejected_logp", "grad_norm", "learning_rate", "n_pairs")
LAYOUTS = {
    "ddp": ("align.nodes=2",),
    "fsdp": ("align.nodes=2", "align.parallel=fsdp"),
    "hsdp": ("align.nodes=2", "align.processes=2", "align.parallel=hsdp"),
}


@pytest.fixture(scope="module")
def alone(collected: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run trained by one process."""
    run = ready(collected, tmp_path_factory.mktemp("alone"))
    spa("align", run)
    return run


def nodes(run: Path, processes: int, n_nodes: int = 2) -> list[subprocess.Popen[str]]:
    """One torchrun a node, with the words of `node_command`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = node_command(Align(nodes=n_nodes, processes=processes), run).split()
    assert words[0] == "torchrun"
    words = [word.replace("HOST:29500", f"127.0.0.1:{port}") for word in words[1:]]
    command = [sys.executable, "-m", "torch.distributed.run", "--local-addr", "127.0.0.1", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "120"}
    return [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
        for _ in range(n_nodes)
    ]


def ended(started: list[subprocess.Popen[str]]) -> list[str]:
    """What each wrote, once all have ended."""
    try:
        return [node.communicate(timeout=240)[1] for node in started]
    finally:
        for node in started:
            node.kill()


def records(run: Path) -> list[list[float]]:
    rows = map(json.loads, (run / "round-1" / "training.jsonl").read_text().splitlines())
    return [[row[name] for name in COMPARED] for row in rows]


def assert_same(got: Path, wanted: Path) -> None:
    assert len(records(got)) == len(records(wanted)) > 2
    for ours, theirs in zip(records(got), records(wanted), strict=True):
        bound = max(1e-5, 1e-6 * theirs[COMPARED.index("step")])  # sums in another order: each step adds to the last
        assert ours == pytest.approx(theirs, rel=bound, abs=bound)
    assert steps(got)["round-1/align"]["key"] == steps(wanted)["round-1/align"]["key"]
    weights, others = (load_file(run / "round-1" / "policy" / "model.safetensors") for run in (got, wanted))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_nodes_leave_what_one_process_leaves(collected: Path, alone: Path, tmp_path: Path, layout: str) -> None:
    run = ready(collected, tmp_path, *LAYOUTS[layout])
    started = nodes(run, 2 if layout == "hsdp" else 1)
    errors = ended(started)
    assert [node.returncode for node in started] == [0, 0], errors
    assert_same(run, alone)
    assert sorted("round-1/align: 4 steps" in each for each in errors) == [False, True], "one process reports"
    assert not list(run.glob("round-1/checkpoints-*"))


@pytest.mark.slow
@pytest.mark.usefixtures("hears_interrupts")
def test_a_node_that_is_stopped_stops_all_behind_a_checkpoint(collected: Path, tmp_path: Path) -> None:
    long = "align.epochs=30"
    wanted = ready(collected, tmp_path / "alone", long)
    spa("align", wanted)
    run = ready(collected, tmp_path, *LAYOUTS["hsdp"], long)
    started = nodes(run, 2)
    eventually(lambda: bool(trained_steps(run)), started[0])
    started[1].send_signal(signal.SIGTERM)
    errors = ended(started)
    checkpoints = [path.parent for path in run.rglob("complete")]
    assert len(checkpoints) == 1, errors
    (checkpoint,) = checkpoints
    written = [load_file(path) for path in sorted(checkpoint.glob("states-*.safetensors"))]
    assert [bool(states) for states in written] == [True, True, False, False], "a copy of a shard is not written"
    assert 0 < len(records(run)) < len(records(wanted))
    follow(*start(collected / "recipe.yaml", [long], run))
    spa("align", run)
    assert_same(run, wanted)


@pytest.mark.slow
def test_another_number_of_processes_is_one_line(collected: Path, tmp_path: Path) -> None:
    run = ready(collected, tmp_path, "align.nodes=3")
    started = nodes(run, 1)
    errors = ended(started)
    assert [node.returncode for node in started] == [1, 1], "torchrun's own code"
    (line,) = [line for each in errors for line in each.splitlines() if line.startswith("spa: ")]
    assert line.startswith("spa: align.nodes: 3 times align.processes: 1 is 3, and 2 processes were started; run on")
    assert line.endswith(node_command(Align(nodes=3), run))
    assert all("exitcode  : 2 " in each for each in errors)


@pytest.mark.slow
def test_what_nobody_started_is_one_line(collected: Path, tmp_path: Path) -> None:
    run = ready(collected, tmp_path, *LAYOUTS["hsdp"])
    done = spa("align", run, check=2)
    assert told(done.stderr) == [
        "spa: align.nodes: 2: this program starts processes on its own node alone; run on every node: torchrun "
        f"--nnodes 2 --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m selfpriority align {run}"
    ]
    recipe = collected / "recipe.yaml"
    whole = spa("run", recipe, "align.nodes=2", "--out", tmp_path / "other", check=2)
    assert "the run stops before a training, until torchrun --nnodes 2" in whole.stderr
    assert [line[:19] for line in told(whole.stderr)] == ["spa: align.nodes: 2"]
    assert steps(tmp_path / "other")["round-1/pair"]["state"] == "done"


SLURM = """
scontrol() { echo 127.0.0.1; }
srun() { for node in 1 2; do "$@" & done; wait -n && wait -n; }
export -f scontrol srun
exec bash "$@"
"""
"""Stands for Slurm, which is not here: both nodes are this machine."""


@pytest.mark.slow
def test_the_job_of_slurm_trains(collected: Path, alone: Path, tmp_path: Path) -> None:
    run = ready(collected, tmp_path, *LAYOUTS["fsdp"])
    job = Path(__file__).parent.parent / "examples" / "two-nodes.sbatch"
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "SLURM_JOB_NODELIST": "here",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "1",
    }
    command = ["bash", "-c", SLURM, "bash", str(job), str(run)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert_same(run, alone)
