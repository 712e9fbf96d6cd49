"""Damage to every file of a finished run: read, it is one line that says where; continued, it is made anew.

What cannot be made anew (the manifest, the recipe it follows, what people said) is named with what to do about it.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from selfpriority.phases.align import align
from selfpriority.phases.collect import collect
from selfpriority.phases.evaluate import evaluate
from selfpriority.phases.judge_check import gate
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.pipeline import report
from selfpriority.recipe import load
from selfpriority.review.reviews import Review
from selfpriority.run import Run
from selfpriority.storage import Damaged, content_of, write_rows
from tests.test_bad_input import run_cli
from tests.test_pipeline import spa, write_recipe

Damage = Callable[[bytes], bytes]

DAMAGES: dict[str, Damage] = {
    "garbage in the middle": lambda was: was[: len(was) // 2] + b"\x00\xff}{" + was[len(was) // 2 :],
    "cut short": lambda was: was[: len(was) // 2],
    "empty": lambda was: b"",
    "another type": lambda was: b"[[7]]\n",
    "nested without end": lambda was: b"[" * 100_000 + b"\n",
    "a line gone": lambda was: b"".join(was.splitlines(keepends=True)[1:]),
}
MADE_ANEW = (
    "round-1/1-candidates.jsonl",
    "round-1/2-scored.jsonl",
    "round-1/3-refined.jsonl",
    "round-1/4-pools.jsonl",
    "round-1/5-pairs.jsonl",
    "round-1/drops.jsonl",
    "round-1/funnel.json",
    "evaluation/answers-vanilla.jsonl",
    "evaluation/answers-spa.jsonl",
    "evaluation/drops-spa.jsonl",
    "evaluation/verdicts-vanilla.jsonl",
    "evaluation/verdicts-spa.jsonl",
    "evaluation/summary.json",
    "evaluation/table.md",
    "judge.json",
    "report.html",
)
NOT_MADE_ANEW = ("manifest.json", "resolved.yaml", "round-1/training.jsonl", "evaluation/reviews-ann.jsonl")


class Notes(Reporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        if not text.startswith("training on a judge"):
            self.said.append(text)


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    spa("run", write_recipe(folder, tiny_model), "--out", folder / "run")
    review = Review("ann", "rate", "k", "p", ("spa",), ("d",), {"harmlessness": 7}, 1.0, "2026-01-01T00:00:00")
    write_rows(folder / "run" / "evaluation" / "reviews-ann.jsonl", [review], Review)
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    shutil.copytree(finished, tmp_path / "run")
    return Run.existing(tmp_path / "run")


def go_on(run: Run) -> list[str]:
    """All phases in this process; what was said."""
    notes = Notes()
    resources = Resources(load(run.recipe), run, notes)
    gate(run, resources)
    collect(run, resources, 1)
    align(run, resources, 1)
    evaluate(run, resources)
    report(run)
    return notes.said


def files(run: Run) -> dict[str, str]:
    """Content of all that does not tell of times."""
    kept = [path for path in run.folder.rglob("*.*") if path.name not in ("manifest.json", "report.html")]
    return {str(path.relative_to(run.folder)): content_of(path).sha256 for path in kept if "cache" not in path.name}


@pytest.mark.parametrize("name", [*MADE_ANEW, *NOT_MADE_ANEW])
def test_a_damaged_file_is_told_in_one_line(
    name: str,
    finished: Path,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = run.folder / name
    was = path.read_bytes()
    prompt = json.loads((finished / "round-1" / "1-candidates.jsonl").read_text().splitlines()[1])["prompt"]["id"]
    commands: list[list[object]] = [
        ["show", run.folder],
        ["show", run.folder, "--prompt", prompt],
        ["report", run.folder],
        ["export", run.folder, "--to", tmp_path / "out"],
    ]
    for damage, command in itertools.product(DAMAGES.values(), commands):
        path.write_bytes(damage(was))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        code = run_cli(monkeypatch, *command)
        told = capfd.readouterr().err.splitlines()
        assert code in (0, 2), told
        assert "unexpected" not in "".join(told)
        assert code == 0 or (len(told) == 1 and (path.name in told[0] or "has no prompt" in told[0])), told


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE_ANEW)
@pytest.mark.parametrize("damage", [*DAMAGES, "gone"])
def test_a_damaged_file_is_made_anew(name: str, damage: str, run: Run) -> None:
    before, path = files(run), run.folder / name
    was = path.read_bytes()
    if damage == "gone" and not was:
        return  # nobody was dropped: nothing is lost
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(DAMAGES[damage](was))
    said, counts = go_on(run), "round-1/funnel.json"
    after = files(run)
    if name == counts:  # those of the training, which is not done again, go with the file
        assert after.pop(counts)
        before.pop(counts)
        card = "round-1/policy/README.md"  # tells how many pairs were trained
        assert after.pop(card) != before.pop(card) or path.read_bytes() == was
        assert list(run.funnel(1).steps) == ["prompts", "sample", "score", "refine", "denoise", "pair"]
    assert after == before
    if name != "report.html" and path.read_bytes() != was:
        assert any(path.name in line for line in said)
    assert not any("align" in line for line in said), "nothing is trained again for it"
    assert go_on(run) == []


def test_a_lost_line_is_counted(run: Run) -> None:
    path = run.round(1) / "1-candidates.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    (run.round(1) / "2-scored.jsonl").unlink()
    said = go_on(run)
    assert "round-1/sample: round-1/1-candidates.jsonl is not what was written (5 rows, 6 were written)" in said[0]
    assert [step.out for step in run.funnel(1).steps.values()][1] == 6


def test_a_deleted_policy_is_trained_again(run: Run) -> None:
    before = content_of(run.policy(1) / "adapter_model.safetensors") if _is_adapter(run) else None
    shutil.rmtree(run.policy(1))
    assert any("round-1/policy is gone" in line for line in go_on(run))
    if before is not None:
        assert content_of(run.policy(1) / "adapter_model.safetensors") == before


def test_a_changed_weight_of_a_policy_is_trained_again(run: Run) -> None:
    path = next(run.policy(1).glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert any("round-1/policy is not what was written" in line for line in go_on(run))
    assert bytes(content) != path.read_bytes()


def test_a_damaged_manifest_says_what_deleting_it_means(run: Run) -> None:
    path, before = run.folder / "manifest.json", files(run)
    path.write_text("{")
    with pytest.raises(Damaged, match="answers come from the cache, training is done anew"):
        go_on(run)
    path.unlink()
    go_on(run)
    after = files(run)
    assert {name for name in before if before[name] != after[name]} <= {"round-1/training.jsonl"}  # holds speeds


def test_rows_made_otherwise_take_what_followed_with_them(run: Run) -> None:
    """Without the cache a damaged file may come out differently: what was made of the old rows is not kept."""
    path = run.round(1) / "2-scored.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["candidates"][0]["ratings"][0]["value"] = 5.5
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = json.loads((run.folder / "manifest.json").read_text())
    manifest["steps"]["round-1/score"]["files"]["round-1/2-scored.jsonl"]["sha256"] = "of another time"
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    behind = [f"round-1/{name}" for name in ("refine", "denoise", "pair", "align")]
    told = go_on(run)
    assert "round-1/align: round-1/score found other rows than before, so it is done again" in told
    assert list(run.manifest.steps)[-len(behind) :] == behind, "they were taken out, the training too, and done again"


def _is_adapter(run: Run) -> bool:
    return (run.policy(1) / "adapter_config.json").is_file()
