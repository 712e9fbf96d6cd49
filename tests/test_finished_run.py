"""A run directory that version 0.1.0 made, before its results were typed: it opens, reports and continues.

`fixtures/finished-run-0.1.0.tar.gz` holds a model, its prompts (our own text), a recipe and the finished run: scripted
answers, a real training, a further judge and a comparing one, MT-Bench, perplexity and tau.
"""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from selfpriority.evaluation.files import EvaluationFiles
from selfpriority.evaluation.summary_file import read_summary, write_summary
from selfpriority.evaluation.table import table
from selfpriority.evaluation.utility_records import read_utility, utility_as_json
from selfpriority.phases.evaluate import evaluate
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.recipe import load
from selfpriority.run import Run
from tests.test_pipeline import spa, steps


def asked(run: Path) -> list[Any]:
    with sqlite3.connect(run / "cache.sqlite") as store:
        return store.execute("SELECT key, times_asked FROM answers ORDER BY key").fetchall()


def test_nothing_is_done_again_but_the_summary(finished_run: Path) -> None:
    """Its key did not hold the names of systems and judges then; it is computed from the verdicts that are there."""
    run = finished_run / "run"
    before, answers = steps(run), asked(run)
    for n_done in (3, 4):
        done = spa("run", finished_run / "recipe.yaml", f"--out={run}", cwd=finished_run)
        assert done.stderr.count("done before") == n_done, done.stderr
    computed = {"report", "evaluation/summary"}
    assert {name: entry for name, entry in steps(run).items() if name not in computed} == {
        name: entry for name, entry in before.items() if name not in computed
    }
    assert asked(run) == answers


def test_the_summary_made_anew_is_the_same_and_what_is_counted_since(finished_run: Path) -> None:
    run = Run(finished_run / "run")
    files = EvaluationFiles(run.evaluation)
    before = files.summary.read_text("utf-8")
    files.summary.unlink()
    files.table.unlink()
    evaluate(run, Resources(load(run.recipe), run, Reporter()))
    assert rounded(known_then(files.summary.read_text("utf-8"))) == rounded(json.loads(before))
    assert "repetition" in files.table.read_text("utf-8")


def rounded(part: Any) -> Any:
    """Numbers to twelve digits: processors add up in another order, so the last ones differ between machines."""
    if isinstance(part, dict):
        return {name: rounded(value) for name, value in part.items()}
    if isinstance(part, list):
        return [rounded(value) for value in part]
    return float(f"{part:.12g}") if isinstance(part, float) else part


def known_then(summary: str) -> Any:
    """A summary without what version 0.1.0 did not count."""
    told = json.loads(summary)
    assert set(told.pop("models")) == set(told["systems"])
    for row in told["behaviour"].values():
        assert 0 <= row.pop("repetition") <= 1
    return told


def test_the_summary_read_and_written_is_the_same_to_the_byte(finished_run: Path) -> None:
    files = EvaluationFiles(finished_run / "run" / "evaluation")
    before, summary = files.summary.read_bytes(), read_summary(files.summary)
    write_summary(files.summary, summary)
    assert files.summary.read_bytes() == before
    assert table(summary) == re.sub(
        r" \[[^\]]*\]|won \d+% to \d+%, ", "", files.table.read_text("utf-8")
    )  # no interval of four prompts


def without_nulls(part: Any) -> Any:
    """A field that is null says no more than one that is not there."""
    if isinstance(part, dict):
        return {name: without_nulls(value) for name, value in part.items() if value is not None}
    return part


def test_utility_reads_and_is_written_as_it_was(finished_run: Path) -> None:
    path = finished_run / "run" / "evaluation" / "utility.json"
    found = read_utility(path)
    assert found.mt_bench is not None
    assert found.perplexity is not None
    assert without_nulls(json.loads(json.dumps(utility_as_json(found)))) == without_nulls(json.loads(path.read_text()))


def test_a_deleted_summary_is_that_step_alone(finished_run: Path) -> None:
    run = finished_run / "run"
    path = run / "evaluation" / "summary.json"
    old, before, answers = json.loads(path.read_bytes()), steps(run), asked(run)
    path.unlink()
    done = spa("run", finished_run / "recipe.yaml", f"--out={run}", cwd=finished_run)
    assert done.stderr.count("done before") == 3, done.stderr
    assert rounded(known_then(path.read_text("utf-8"))) == rounded(old)
    made_again = {"evaluation/summary", "report"}
    assert [name for name, entry in steps(run).items() if entry != before[name] and name not in made_again] == []
    assert asked(run) == answers


def test_a_deleted_policy_is_trained_again_from_the_pairs_that_are_there(finished_run: Path) -> None:
    import shutil

    run = finished_run / "run"
    shutil.rmtree(run / "round-1" / "policy")
    answers = dict(asked(run))
    spa("run", finished_run / "recipe.yaml", f"--out={run}", cwd=finished_run)
    assert (run / "round-1" / "policy" / "model.safetensors").is_file()
    now = dict(asked(run))
    assert {key: now[key] for key in answers} == answers  # what was answered is not asked again


@pytest.mark.parametrize(
    "command",
    [("report",), ("show",), ("show", "--prompt", "w-02"), ("show", "--prompt", "h-01"), ("doctor",)],
    ids=" ".join,
)
def test_the_commands_that_show_a_run_open_it(finished_run: Path, command: tuple[str, ...]) -> None:
    run = finished_run / "run"
    name, *options = command
    code = int(name == "doctor")  # its answers were cut, which is bad
    assert spa(name, run, *options, check=code, cwd=finished_run).stdout


def test_its_page_says_what_its_table_says(finished_run: Path) -> None:
    run = finished_run / "run"
    (run / "report.html").unlink()
    spa("report", run, cwd=finished_run)
    page = (run / "report.html").read_text("utf-8")
    summary = read_summary(run / "evaluation" / "summary.json")
    for system, row in summary.systems.items():
        assert system in page
        assert f"{row['harmlessness'].mean:.2f}" in page
    assert "MT-Bench" in page


def test_its_pairs_are_exported(finished_run: Path, tmp_path: Path) -> None:
    pairs = [json.loads(row) for row in (finished_run / "run" / "round-1" / "5-pairs.jsonl").read_text().splitlines()]
    whole = [pair for pair in pairs if "length" not in (pair["chosen_stop"], pair["rejected_stop"])]
    for options, expected in (([], whole), (["--keep-cut"], pairs)):
        folder = tmp_path / f"pairs{len(options)}"
        spa("export", finished_run / "run", "--to", folder, *options, cwd=finished_run)
        assert len((folder / "pairs.jsonl").read_text("utf-8").splitlines()) == len(expected) > 0
