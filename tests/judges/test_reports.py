"""The file of the checks: read and written again it is the same, and what is not there reads as not measured."""

from __future__ import annotations

import tarfile
from pathlib import Path

from selfpriority.judges.reports import JudgeChecks, JudgeReport, read_checks, write_checks
from selfpriority.storage import write_json

FINISHED = Path(__file__).parent.parent / "fixtures" / "finished-run-0.1.0.tar.gz"


def test_what_version_0_1_0_wrote_is_written_again_to_the_letter(tmp_path: Path) -> None:
    with tarfile.open(FINISHED) as archive:
        archive.extract("finished/run/judge.json", tmp_path, filter="data")
    path = tmp_path / "finished" / "run" / "judge.json"
    checks = read_checks(path)
    assert [*checks.by_role()] == ["train", "evaluate", "more_judges.written", "comparer"]
    assert checks.train is not None
    assert checks.of_key(checks.train.key) is checks.train
    assert checks.of_key("another") is None
    write_checks(tmp_path / "again.json", checks)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_without_checks_there_are_none(tmp_path: Path) -> None:
    assert read_checks(tmp_path / "judge.json") == JudgeChecks()
    write_checks(tmp_path / "judge.json", JudgeChecks())
    assert (tmp_path / "judge.json").read_text() == "{}\n"
    assert read_checks(tmp_path / "judge.json").train is None


def test_what_an_older_file_left_out_is_not_measured(tmp_path: Path) -> None:
    row = {"objective": "harmlessness", "n": 3, "unrated": 0.0}
    told = {"train": {"usable": False, "judge": "big", "objectives": [row], "reasons": ["why"]}, "evaluate": None}
    write_json(tmp_path / "judge.json", told)
    checks = read_checks(tmp_path / "judge.json")
    assert isinstance(checks.train, JudgeReport)
    assert [*checks.by_role()] == ["train"]
    (found,) = checks.train.objectives
    assert (found.auc, found.attacks, found.bias, found.calibration) == (None, None, None, ())
