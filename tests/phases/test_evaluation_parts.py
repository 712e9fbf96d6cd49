"""An evaluation in parts that are done at once."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from selfpriority import pipeline
from selfpriority.errors import WorkFailed
from selfpriority.phases.evaluate import evaluate, unfinished_systems
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.stages import Phase, announced
from selfpriority.storage import read_json
from tests.phases.test_evaluate import opened, seeing, work


class Heard(Reporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("first", [["spa"], ["vanilla", "spa"]])
def test_a_part_evaluates_its_systems_and_leaves_the_rest(tiny_model: Path, tmp_path: Path, first: list[str]) -> None:
    given = opened(tmp_path / "run", tiny_model, comparer={"judge": "self"})
    seen: list[str] = []
    given.run.recording = seeing(given.run.recording, seen)  # type: ignore[method-assign]
    assert [system.name for system in unfinished_systems(given.run, given)] == ["vanilla", "spa"]
    evaluate(given.run, given, first)
    assert seen == [f"evaluation/{what}-{name}" for name in first for what in ("answers", "verdicts")]
    others = [name for name in ("vanilla", "spa") if name not in first]
    assert [system.name for system in unfinished_systems(given.run, given)] == others
    seen.clear()
    work(given)
    left = [f"{what}-{name}" for name in others for what in ("answers", "verdicts")]
    assert seen == [f"evaluation/{each}" for each in (*left, "comparisons-spa_vs_vanilla", "summary")]


def test_what_a_part_makes_otherwise_is_compared_and_summed_up_anew(tiny_model: Path, tmp_path: Path) -> None:
    given = opened(tmp_path / "run", tiny_model, comparer={"judge": "self"})
    work(given)
    manifest = read_json(given.run.folder / "manifest.json")
    manifest["steps"]["evaluation/answers-spa"]["files"]["evaluation/answers-spa.jsonl"]["sha256"] = "of another time"
    (given.run.folder / "manifest.json").write_text(json.dumps(manifest))
    seen: list[str] = []
    given.run.recording = seeing(given.run.recording, seen)  # type: ignore[method-assign]
    evaluate(given.run, given, ["spa"])
    assert seen == ["evaluation/answers-spa", "evaluation/verdicts-spa"]
    work(given)
    assert seen[2:] == ["evaluation/comparisons-spa_vs_vanilla", "evaluation/summary"]


def test_every_part_has_its_systems_and_one_that_is_killed_holds_up_no_other(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {"best": {"model": "self", "how": "best_of_n"}, "told": {"model": "self", "how": "constitution"}}
    given = opened(tmp_path / "run", tiny_model, at_once=2, more_systems=others)
    begun: dict[str, tuple[str, ...]] = {}
    met = threading.Barrier(2)

    def child(course: Any, phase: Phase) -> int:
        met.wait(timeout=60)  # both at once
        begun[phase.title] = phase.only
        if phase.part == 1:
            raise WorkFailed(f"{phase.title}: its process was killed by signal 9; the same command continues")
        return 0

    monkeypatch.setattr(pipeline, "_child", child)
    reporter = Heard()
    course = pipeline._Course(given.run, Resources(given.recipe, given.run, reporter), False)
    assert [
        part.title for part in announced(given.run, given, pipeline._n_parts(given.run, given)) if part.is_part
    ] == [
        "evaluate (part 1)",
        "evaluate (part 2)",
    ]
    assert pipeline._evaluate_in_parts(course) == WorkFailed.exit_code
    assert begun == {"evaluate (part 1)": ("best",), "evaluate (part 2)": ("vanilla", "spa", "told")}
    (told,) = reporter.notes
    assert told.endswith(
        "killed by signal 9; the same command continues; evaluate.at_once: 1 evaluates one system after the other"
    )
    evaluate(given.run, given, ["vanilla", "spa", "told"])
    begun.clear()
    assert pipeline._evaluate_in_parts(course) == 0, "one system is left, and needs no part"
    assert begun == {}
