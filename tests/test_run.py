"""The run directory: what counts as done, what a killed process leaves, what of an older recipe goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfpriority.errors import InputError
from selfpriority.records import Drop, Sifted
from selfpriority.run import Run
from selfpriority.run_records import Step
from selfpriority.storage import read_json, read_rows, write_text


class Killed(BaseException):
    """Stands for a signal: nothing of the program may catch it."""


def step(run: Run, key: str) -> Step:
    return Step("align", key, (run.folder / "policy",))


def do(run: Run, key: str, *, killed: bool = False) -> None:
    with run.recording(step(run, key)):
        write_text(run.folder / "policy", [key])
        if killed:
            raise Killed


def test_a_finished_step_says_what_its_process_held(tmp_path: Path) -> None:
    """A program of its own that holds 200 MB for a moment, started by this one, which may hold more."""
    program = (
        "import sys; from pathlib import Path; from selfpriority.run import Run, Step\n"
        "with Run(Path(sys.argv[1])).recording(Step('s', 'k', ())): bytearray(b'x') * 200_000_000\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")], check=True)
    (tmp_path / "run" / "resolved.yaml").touch()
    peak = Run(tmp_path / "run").manifest.steps["s"].peak_mb
    assert peak is not None
    assert 200 < peak < 350


def test_a_step_that_another_recipe_began_to_redo_is_not_done(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    do(run, "first")
    assert run.is_done(step(run, "first"))
    with pytest.raises(Killed):
        do(run, "second", killed=True)
    assert not run.is_done(step(run, "second"))
    assert not run.is_done(step(run, "first"))  # its files may be the other's
    assert run.why_again(step(run, "first")) == "its inputs changed"
    do(run, "second")
    assert run.is_done(step(run, "second"))


def test_a_run_may_begin_where_one_was_stopped_before_it_began(tmp_path: Path) -> None:
    with Run(tmp_path / "run").locked("run"):
        pass
    (tmp_path / "run" / ".resolved.yaml.4194305").touch()
    Run(tmp_path / "run")
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(InputError, match="not empty"):
        Run(tmp_path / "run")


def test_what_killed_processes_left_half_written_goes_with_the_lock(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    write_text(run.recipe, ["kept"])
    write_text(run.round(1) / "policy" / "model.safetensors", ["kept"])
    left = [
        run.folder / f".report.html.{dead.pid}.partial",
        run.evaluation / f".summary.json.{dead.pid}.partial",
        run.evaluation / "transfer" / f".answers-spa.jsonl.{dead.pid}.partial",
        run.round(1) / f".5-pairs.jsonl.{dead.pid}.partial",
        run.round(1) / "policy.partial" / "model.safetensors",
        run.round(1) / f".policy.{dead.pid}.partial" / "model.safetensors",
        run.folder / "merged" / f".soup.{dead.pid}.partial" / "model.safetensors",
    ]
    for path in left:
        write_text(path, ["half"])
    being_written = run.folder / f".report.html.{os.getpid()}.partial"
    write_text(being_written, ["by a living process"])
    with run.locked("run"):
        assert not [path for path in left if path.exists()]
        assert not (run.round(1) / "policy.partial").exists()
    assert being_written.exists()
    assert run.recipe.exists()
    assert (run.round(1) / "policy" / "model.safetensors").exists()


def test_the_lock_of_a_run_waits_for_no_one(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with run.locked("run"), pytest.raises(InputError, match="another spa process"), run.locked("run"):
        pass


def test_what_later_steps_of_an_older_recipe_counted_is_forgotten(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    for number, name in enumerate(("sample", "score", "pair")):
        run.record_sifted(1, name, 3 - number, Sifted(tuple("ab"[number:]), (Drop(name, f"p{number}", "why"),)))
    run.forget_from(1, "score")
    assert list(read_json(run.round(1) / "funnel.json")["steps"]) == ["sample"]
    assert [drop.step for drop in read_rows(run.round(1) / "drops.jsonl", Drop)] == ["sample"]
    run.forget_from(2, "score")  # a round without any is no error
