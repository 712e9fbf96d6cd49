"""Links where a run writes, and files of a user in a run: nothing of somebody else's is emptied or removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfpriority.errors import InputError
from selfpriority.run import Run
from selfpriority.storage import write_text
from selfpriority.training.journal import Journal


@pytest.mark.parametrize("name", ["run", "phase", "ranks"])
def test_a_link_in_the_place_of_a_lock_is_refused(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path / "run")
    (run.folder).mkdir()
    target = tmp_path / "thesis.tex"
    target.write_text("years of work")
    (run.folder / f".{name}.lock").symlink_to(target)
    with pytest.raises(InputError, match=rf"\.{name}\.lock: cannot be locked"), run.locked(name):
        pass
    assert target.read_text() == "years of work"


def test_a_lock_is_never_written_to(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    (run.folder / ".run.lock").write_text("somebody's")
    with run.locked("run"):
        pass
    assert (run.folder / ".run.lock").read_text() == "somebody's"


def test_those_that_share_a_lock_hold_it_at_once_and_keep_out_everybody_else(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    refused = pytest.raises(InputError, match="another spa process")
    with run.locked("phase", is_shared=True), run.locked("phase", is_shared=True), refused, run.locked("phase"):
        pass
    with run.locked("phase"), refused, run.locked("phase", is_shared=True):
        pass


RECORDS = """
import sys
from pathlib import Path
from selfpriority.run import Run
from selfpriority.run_records import Step
run = Run(Path(sys.argv[1]))
for number in range(20):
    with run.recording(Step(f"evaluation/answers-{sys.argv[2]}-{number}", "key", ())):
        pass
"""


def test_what_several_record_at_once_is_all_there(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RECORDS, str(tmp_path / "run")]
    write_text(tmp_path / "run" / "resolved.yaml", [])
    started = [subprocess.Popen([*command, name]) for name in "abc"]
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0]
    entries = Run(tmp_path / "run").manifest.steps
    assert len(entries) == 60
    assert {entry.state for entry in entries.values()} == {"done"}


@pytest.mark.parametrize("name", ["training.jsonl.partial", ".training.jsonl.{pid}.partial", "training.jsonl"])
def test_links_beside_a_log_lead_nowhere(tmp_path: Path, name: str) -> None:
    target = tmp_path / "thesis.tex"
    target.write_text("years of work")
    (tmp_path / name.format(pid=os.getpid())).symlink_to(target)
    Journal(tmp_path / "training.jsonl", 0).write({"step": 1})
    assert target.read_text() == "years of work"
    assert (tmp_path / "training.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.parametrize("name", ["report.html", "manifest.json", "drops.jsonl"])
def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path: Path, name: str) -> None:
    target = tmp_path / "thesis.tex"
    target.write_text("years of work")
    (tmp_path / name).symlink_to(target)
    write_text(tmp_path / name, ["new"])
    assert (target.read_text(), (tmp_path / name).read_text()) == ("years of work", "new")


@pytest.mark.parametrize("name", [".notes.2024", ".notes.md.2024", ".git.1", ".backup.99999999999", "notes.partial"])
def test_hidden_files_of_a_user_stay(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path / "run")
    write_text(run.recipe, ["a run"])
    (run.folder / name).write_text("mine")
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    left = run.folder / f".report.html.{dead.pid}.partial"
    left.write_text("half")
    with run.locked("run"):
        assert (run.folder / name).read_text() == "mine"
    assert not left.exists()
