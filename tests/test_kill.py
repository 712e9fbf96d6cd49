"""`spa run` killed at random moments and started again ends where an undisturbed run ends, asking nothing twice."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfpriority.run import Run
from tests.test_damaged_run import go_on
from tests.test_pipeline import spa, steps, write_recipe

pytestmark = pytest.mark.slow

N_KILLS = 10


def outcome(run: Path) -> dict[str, str]:
    """All that must not depend on being killed."""
    names = ("1-candidates.jsonl", "3-refined.jsonl", "4-pools.jsonl", "5-pairs.jsonl", "drops.jsonl")
    return {name: (run / "round-1" / name).read_text() for name in names}


def n_noted(run: Path) -> int:
    """Steps that the manifest knows, begun or done."""
    manifest = run / "manifest.json"
    return len(json.loads(manifest.read_text())["steps"]) if manifest.is_file() else 0


@pytest.mark.slow
def test_killed_at_ten_random_moments(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path, tiny_model, backend={"kind": "scripted", "delay": 0.15}, align={"checkpoint_minutes": 0.001}
    )
    spa("run", recipe, "--out", tmp_path / "undisturbed")
    n_steps = len(steps(tmp_path / "undisturbed"))
    run, moments = tmp_path / "killed", random.Random(7)
    reached = set()
    for number in range(N_KILLS):
        # by what is done and not by the clock: on a machine of any speed the kills spread over all phases
        wanted = number * n_steps // N_KILLS
        with subprocess.Popen(
            [sys.executable, "-m", "selfpriority", "run", str(recipe), "--out", str(run)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        ) as process:
            while process.poll() is None and n_noted(run) < wanted:
                time.sleep(0.01)
            try:
                process.wait(timeout=moments.uniform(0.0, 1.0))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        reached.add(n_noted(run))
    spa("run", recipe, "--out", run)
    assert len(reached) >= N_KILLS // 2, "the kills all hit the same phase"
    assert outcome(run) == outcome(tmp_path / "undisturbed")
    with sqlite3.connect(run / "cache.sqlite") as cache:
        most, n = cache.execute("SELECT max(times_asked), count(*) FROM answers").fetchone()
    assert most == 1
    assert n > 50
    lines = [json.loads(line)["step"] for line in (run / "round-1" / "training.jsonl").read_text().splitlines()]
    assert lines == list(range(1, len(lines) + 1))


def work_on(folder: Path) -> None:
    """All that is left of a run, as `spa run` does it, in this process."""
    import torch

    torch.set_num_threads(1)
    run = Run.existing(folder)
    with run.locked("run"):
        go_on(run)


@pytest.mark.slow
def test_killed_at_many_moments_of_all_phases(tiny_model: Path, tmp_path: Path) -> None:
    """Processes that are forked with all modules loaded, so that the moments fall into the work: SPA_KILLS of them."""
    backend, align = {"kind": "scripted", "delay": 0.01}, {"checkpoint_minutes": 0.0001, "epochs": 2}
    recipe = write_recipe(tmp_path, tiny_model, backend=backend, align=align)
    spa("run", recipe, "--out", tmp_path / "undisturbed")
    run, moments = tmp_path / "killed", random.Random(11)
    run.mkdir()
    for name in ("recipe.yaml", "resolved.yaml"):
        shutil.copy(tmp_path / "undisturbed" / name, run)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.test_kill", "selfpriority.training.align", "selfpriority.backends.hf"])
    killed_in: Counter[str] = Counter()
    n_kills, n_whole = int(os.environ.get("SPA_KILLS", "25")), 0
    targets = itertools.cycle(steps(tmp_path / "undisturbed"))  # by what is under way and not by the clock
    while sum(killed_in.values()) < n_kills:
        target = next(targets)
        process = processes.Process(target=work_on, args=(run,))
        process.start()
        while process.exitcode is None and steps_of(run).get(target, {}).get("state") != "running":
            process.join(timeout=0.002)
        process.join(timeout=moments.uniform(0.0, 0.3))
        if process.exitcode is None:
            process.kill()
            process.join()
            under_way = [name for name, entry in steps_of(run).items() if entry["state"] == "running"]
            killed_in[under_way[-1] if under_way else "between steps"] += 1
            continue
        assert process.exitcode == 0
        n_whole += 1
        assert_same(run, tmp_path / "undisturbed")
        shutil.rmtree(run / "evaluation")  # and over again, from another place each time
        if n_whole % 2:
            shutil.rmtree(run / "round-1")
    spa("run", recipe, "--out", run)
    assert_same(run, tmp_path / "undisturbed")
    assert len(killed_in) >= min(5, n_kills // 5), killed_in
    print(f"{n_kills} kills: {dict(killed_in)}; finished {n_whole + 1} times")


def assert_same(run: Path, undisturbed: Path) -> None:
    assert outcome(run) == outcome(undisturbed)
    for name in ("round-1/policy/model.safetensors", "evaluation/summary.json"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()
    with sqlite3.connect(run / "cache.sqlite") as cache, sqlite3.connect(undisturbed / "cache.sqlite") as other:
        asked = "SELECT key, times_asked FROM answers ORDER BY key"
        assert cache.execute(asked).fetchall() == other.execute(asked).fetchall()


def steps_of(run: Path) -> dict[str, Any]:
    return steps(run) if (run / "manifest.json").is_file() else {}


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize(
    ("send", "number", "code", "how"),
    [
        (os.killpg, signal.SIGINT, 130, "interrupted"),
        (os.kill, signal.SIGINT, 130, "interrupted"),
        (os.kill, signal.SIGTERM, 143, "stopped by SIGTERM"),
        (os.kill, signal.SIGHUP, 129, "stopped by SIGHUP"),
    ],
    ids=["Ctrl-C", "kill -INT of the one process", "kill", "the terminal is closed"],
)
def test_an_interrupt_is_told_in_one_line(
    tiny_model: Path, tmp_path: Path, send: Callable[[int, int], None], number: int, code: int, how: str
) -> None:
    slow = {"kind": "scripted", "delay": 20.0}  # longer than an interrupted phase may still take
    recipe = write_recipe(tmp_path, tiny_model, backend=slow)
    with subprocess.Popen(
        [sys.executable, "-m", "selfpriority", "run", str(recipe), "--out", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "check of" in line:
                break
        send(process.pid, number)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == code
    told = [line for line in rest.splitlines() if "what is done is kept" in line]
    assert told == [f"spa: {how}; what is done is kept and the same command continues"]
    assert "Traceback" not in rest
    assert "judge" not in steps_done(tmp_path / "run")


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_training_says_where_it_continues(tiny_model: Path, tmp_path: Path, number: int) -> None:
    recipe = write_recipe(tmp_path, tiny_model, align={"epochs": 25, "tokens_per_step": 200})
    run, command = tmp_path / "run", [sys.executable, "-m", "selfpriority", "run", str(recipe)]
    with subprocess.Popen(
        [*command, "--out", str(run)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if ": training 1/" in line:
                break
        process.send_signal(number)
        rest = process.stderr.read()
        process.wait(timeout=60)
    found = re.search(r"checkpoint-(\d+) holds what is trained; the same command continues there", rest)
    assert found, rest
    kept = (run / "round-1" / "training.jsonl").read_text().splitlines()
    assert int(found[1]) == len(kept) >= 1
    spa("run", recipe, "--out", run)
    assert (run / "round-1" / "training.jsonl").read_text().splitlines()[: len(kept)] == kept


def steps_done(run: Path) -> set[str]:
    return {name for name, entry in steps(run).items() if entry["state"] == "done"}


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_python_tidies_up_says_nothing(number: int) -> None:
    code = (
        "import atexit, os, sys, time\n"
        "from selfpriority.cli import main\n"
        f"atexit.register(lambda: (os.kill(os.getpid(), {int(number)}), time.sleep(5)))\n"
        "sys.argv = ['spa', 'recipes', '--no-such-option']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.returncode == -number


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_between_the_work_and_the_last_word_is_told_in_one_line(number: int) -> None:
    code = (
        "import os, sys, time\n"
        "from selfpriority.cli import entry\n"
        "real = entry.hear_no_more\n"
        "def late():\n"
        "    entry.hear_no_more = real\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    time.sleep(5)\n"
        "entry.hear_no_more = late\n"
        "sys.argv = ['spa', 'recipes']\n"
        "entry.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "what is done is kept and the same command continues" in done.stderr
    assert done.returncode == 128 + number
