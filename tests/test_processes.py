"""`spa align` on two processes: what one does, written and told once; a failure is one line and nobody is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selfpriority.pipeline import follow, start
from tests.collected import collected as collected
from tests.collected import ready
from tests.test_pipeline import spa, steps

pytestmark = pytest.mark.slow


def aligning(run: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "selfpriority", "align", str(run)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_of(run: Path) -> dict[int, str | None]:
    """Every process that works on a run, with its rank."""
    found: dict[int, str | None] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended, or is not ours
        if str(run).encode() in words:
            ranks = [variable[5:].decode() for variable in variables if variable.startswith(b"RANK=")]
            found[int(folder.name)] = next(iter(ranks), None)
    return found


def eventually(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not holds():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def told(errors: str) -> list[str]:
    assert "Traceback" not in errors
    return [line for line in errors.splitlines() if line.startswith("spa: ")]


def trained_steps(run: Path) -> list[int]:
    """Steps that are in the log, which is there before the first of them, and before signals wait for one's end."""
    log = run / "round-1" / "training.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_leave_what_one_leaves(collected: Path, tmp_path: Path, parallel: str) -> None:
    import torch
    from safetensors.torch import load_file

    run = ready(collected, tmp_path, "align.processes=2", f"align.parallel={parallel}")
    alone = ready(collected, tmp_path / "alone")
    done = spa("align", run)
    wanted = spa("align", alone)
    assert [line for line in done.stderr.splitlines() if "round-1/align" in line] == [
        line for line in wanted.stderr.splitlines() if "round-1/align" in line
    ]
    assert {path.relative_to(run) for path in run.rglob("*")} == {
        path.relative_to(alone) for path in alone.rglob("*")
    } | {Path(".ranks.lock")}
    assert (run / "round-1" / "funnel.json").read_text() == (alone / "round-1" / "funnel.json").read_text()
    assert steps(run)["round-1/align"]["key"] == steps(alone)["round-1/align"]["key"]
    got, expected = (load_file(each / "round-1" / "policy" / "model.safetensors") for each in (run, alone))
    for name, weights in expected.items():
        torch.testing.assert_close(got[name], weights, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_killed_process_is_told_in_one_line_and_training_continues_with_one(collected: Path, tmp_path: Path) -> None:
    changes = ("align.processes=2", "align.epochs=60", "align.checkpoint_minutes=0.001")
    run = ready(collected, tmp_path, *changes)
    with aligning(run) as process:
        eventually(lambda: bool(list(run.glob("round-1/checkpoints-*/checkpoint-*/complete"))), process)
        victims = [pid for pid, rank in processes_of(run).items() if rank == "1"]
        os.kill(victims[0], signal.SIGKILL)
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 1
    assert told(errors) == ["spa: align (round 1): process 1 was killed by SIGKILL; the same command continues"]
    assert processes_of(run) == {}
    saved = max(int(path.parent.name.rpartition("-")[2]) for path in run.rglob("complete"))
    written = (run / "round-1" / "training.jsonl").read_text().splitlines()[:saved]
    follow(*start(collected / "recipe.yaml", [*changes[1:2], "align.processes=1"], run))
    spa("align", run)
    assert (run / "round-1" / "training.jsonl").read_text().splitlines()[:saved] == written
    assert trained_steps(run) == list(range(1, len(trained_steps(run)) + 1))


@pytest.mark.slow
@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupt_stops_all_processes(collected: Path, tmp_path: Path) -> None:
    run = ready(collected, tmp_path, "align.processes=2", "align.epochs=300")
    with aligning(run) as process:
        eventually(lambda: bool(trained_steps(run)), process)
        assert sorted(map(str, processes_of(run).values())) == ["0", "1", "None"]
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 130
    assert told(errors) == ["spa: interrupted; what is done is kept and the same command continues"]
    assert processes_of(run) == {}
    saved = [int(path.parent.name.rpartition("-")[2]) for path in run.rglob("complete")]
    assert saved == trained_steps(run)[-1:], "the last step is in a checkpoint"


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(collected: Path, tmp_path: Path) -> None:
    run = ready(collected, tmp_path, "align.processes=2", "align.epochs=300")
    with aligning(run) as process:
        eventually(lambda: bool(trained_steps(run)), process)
        process.kill()
        process.communicate(timeout=300)
    deadline = time.monotonic() + 60
    while processes_of(run):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_an_error_of_all_processes_is_told_once(collected: Path, tmp_path: Path) -> None:
    run = ready(collected, tmp_path, "align.processes=2", "align.max_length=8")
    done = spa("align", run, check=1)
    (line,) = told(done.stderr)
    assert line.startswith("spa: no pool is left to train on (too_long: ")
