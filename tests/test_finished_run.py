"""A run directory that version 0.1.0 made, before its results were typed: it opens, reports and continues.

`fixtures/finished-run-0.1.0.tar.gz` holds a model, its prompts (our own text), a recipe and the finished run: scripted
answers, a real training, a further judge and a comparing one, MT-Bench, perplexity and tau.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest

from selfpriority.evaluation.records import (
    ComparisonRow,
    EvaluationFiles,
    read_summary,
    summary_as_json,
)
from selfpriority.evaluation.summary import Further, summarise
from selfpriority.evaluation.table import table
from selfpriority.evaluation.utility_records import read_utility, utility_as_json
from selfpriority.recipe import load
from selfpriority.run import Run, read_rows
from tests.test_pipeline import spa, steps

ARCHIVE = Path(__file__).parent / "fixtures" / "finished-run-0.1.0.tar.gz"
MADE_IN = "/tmp/fx/finished"


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder around the run, as if it had been made here."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "finished"
    resolved = folder / "run" / "resolved.yaml"
    resolved.write_text(resolved.read_text("utf-8").replace(MADE_IN, str(folder)), "utf-8")
    return folder


def asked(run: Path) -> list[Any]:
    with sqlite3.connect(run / "cache.sqlite") as store:
        return store.execute("SELECT key, times_asked FROM answers ORDER BY key").fetchall()


def test_nothing_is_done_again(finished: Path) -> None:
    run = finished / "run"
    before, answers = steps(run), asked(run)
    done = spa("run", finished / "recipe.yaml", f"--out={run}", cwd=finished)
    assert done.stderr.count("done before") == 4, done.stderr
    assert {name: entry for name, entry in steps(run).items() if name != "report"} == {
        name: entry for name, entry in before.items() if name != "report"
    }
    assert asked(run) == answers


def test_the_summary_is_what_it_was_when_made_anew(finished: Path) -> None:
    run = Run(finished / "run")
    files, recipe = EvaluationFiles(run.evaluation), load(run.recipe)
    old = read_summary(files.summary)
    judged = {
        judge: {name: files.judged(name, old.objectives, judge) for name in old.systems} for judge in ("", "written")
    }
    rows = {
        contest: [
            tuple(row.verdicts[name] for name in old.objectives)
            for row in read_rows(files.comparisons(contest), ComparisonRow)
        ]
        for contest in old.difference
    }
    new = summarise(judged[""], old.objectives, recipe.evaluate, Further(rows, {"written": judged["written"]}))
    made = summary_as_json(new)
    for name, part in json.loads(files.summary.read_text("utf-8")).items():
        if name not in ("judge", "prompts", "drops"):  # which do not rest on ratings
            assert without_nulls(json.loads(json.dumps(made[name]))) == without_nulls(part), name
    assert table(old) == files.table.read_text("utf-8")


def without_nulls(part: Any) -> Any:
    """A field that is null says no more than one that is not there."""
    if isinstance(part, dict):
        return {name: without_nulls(value) for name, value in part.items() if value is not None}
    return part


def test_utility_reads_and_is_written_as_it_was(finished: Path) -> None:
    path = finished / "run" / "evaluation" / "utility.json"
    found = read_utility(path)
    assert found.mt_bench is not None
    assert found.perplexity is not None
    assert without_nulls(json.loads(json.dumps(utility_as_json(found)))) == without_nulls(json.loads(path.read_text()))


def test_a_deleted_summary_is_that_step_alone(finished: Path) -> None:
    run = finished / "run"
    old, answers = (run / "evaluation" / "summary.json").read_text("utf-8"), asked(run)
    (run / "evaluation" / "summary.json").unlink()
    spa("run", finished / "recipe.yaml", f"--out={run}", cwd=finished)
    new = json.loads((run / "evaluation" / "summary.json").read_text("utf-8"))
    assert without_nulls(new) == without_nulls(json.loads(old))
    assert asked(run) == answers


def test_a_deleted_policy_is_trained_again_from_the_pairs_that_are_there(finished: Path) -> None:
    import shutil

    run = finished / "run"
    shutil.rmtree(run / "round-1" / "policy")
    answers = dict(asked(run))
    spa("run", finished / "recipe.yaml", f"--out={run}", cwd=finished)
    assert (run / "round-1" / "policy" / "model.safetensors").is_file()
    now = dict(asked(run))
    assert {key: now[key] for key in answers} == answers  # what was answered is not asked again


@pytest.mark.parametrize(
    "command",
    [("report",), ("show",), ("show", "--prompt", "w-02"), ("show", "--prompt", "h-01"), ("doctor",)],
    ids=" ".join,
)
def test_the_commands_that_show_a_run_open_it(finished: Path, command: tuple[str, ...]) -> None:
    run = finished / "run"
    name, *options = command
    assert spa(name, run, *options, cwd=finished).stdout


def test_its_page_says_what_its_table_says(finished: Path) -> None:
    run = finished / "run"
    (run / "report.html").unlink()
    spa("report", run, cwd=finished)
    page = (run / "report.html").read_text("utf-8")
    summary = read_summary(run / "evaluation" / "summary.json")
    for system, row in summary.systems.items():
        assert system in page
        assert f"{row['harmlessness'].mean:.2f}" in page
    assert "MT-Bench" in page


def test_its_pairs_are_exported(finished: Path, tmp_path: Path) -> None:
    spa("export", finished / "run", "--to", tmp_path / "pairs", cwd=finished)
    rows = (tmp_path / "pairs" / "pairs.jsonl").read_text("utf-8").splitlines()
    assert len(rows) == len((finished / "run" / "round-1" / "5-pairs.jsonl").read_text("utf-8").splitlines())
