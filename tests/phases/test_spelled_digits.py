"""A model that spells a digit as a space piece and the digit, asked for expected ratings by the commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from selfpriority.constitution import SHIPPED
from selfpriority.errors import JudgeRefused
from selfpriority.judges.reports import TRAIN, read_checks, write_checks
from selfpriority.phases.judge_check import gate, judge_step
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.pipeline import follow, start
from tests.backends.spelling_models import MISTRAL, answers_in_digits
from tests.test_bad_input import run_cli

LABELS = [
    {"prompt": "Is it safe?", "response": f"{answer} {number}.", "objective": objective, "label": label}
    for objective in ("harmlessness", "helpfulness")
    for number in range(4)
    for label, answer in ((1, "Yes"), (0, "No"))
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistral")
    answers_in_digits(MISTRAL.save(folder / "model"))
    (folder / "brief").mkdir()
    shipped = SHIPPED / "harmless-helpful"
    brief = {**yaml.safe_load((shipped / "constitution.yaml").read_text()), "name": "brief"}
    (folder / "brief" / "constitution.yaml").write_text(yaml.safe_dump(brief))
    few = (shipped / "anchors.jsonl").read_text("utf-8").splitlines(keepends=True)[::20]
    (folder / "brief" / "anchors.jsonl").write_text("".join(few), "utf-8")
    content = {
        "constitution": str(folder / "brief"),
        "model": str(folder / "model"),
        "prompts": {"source": "demo", "split": "train", "limit": 2},
        "score": {"judge": "self", "method": "expected"},
        "backend": {"kind": "hf", "dtype": "float32", "device": "cpu"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LABELS))
    return folder / "recipe.yaml"


@pytest.mark.usefixtures("own_cache")
def test_check_judge_reads_every_rating(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = recipe.parent / "labels.jsonl"
    assert run_cli(monkeypatch, "check-judge", recipe, "--labels", labels, "--json") == 3  # it rates all alike
    [train] = [report for role, report in json.loads(capsys.readouterr().out).items() if role == "train"]
    for row in train["objectives"]:
        assert (row["n"], row["unrated"], row["unrated_reasons"]) == (8, 0.0, {})


def test_a_judge_that_was_refused_because_digits_were_missed_is_checked_again(recipe: Path, tmp_path: Path) -> None:
    run, asked = start(recipe, [], tmp_path / "run")
    opened = Resources(asked.recipe, run, Reporter())
    follow(run, asked)
    with pytest.raises(JudgeRefused):  # it rates all alike
        gate(run, opened)
    found = read_checks(run.folder / "judge.json")
    assert found.train is not None
    rows = tuple(replace(row, unrated=1.0, unrated_reasons={"low_mass": row.n}) for row in found.train.objectives)
    before = replace(found, raters={**found.raters, TRAIN: replace(found.train, objectives=rows)})
    with run.recording(judge_step(run, opened)):
        write_checks(run.folder / "judge.json", before)
    with pytest.raises(JudgeRefused):
        gate(run, opened)
    assert read_checks(run.folder / "judge.json") == found
    spent = run.manifest.steps["judge"]
    assert spent.requests == spent.cached > 0  # what was read rightly is not asked again
    with pytest.raises(JudgeRefused):
        gate(run, opened)
    assert run.manifest.steps["judge"] == spent  # nor is the check made again
