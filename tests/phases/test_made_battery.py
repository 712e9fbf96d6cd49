"""What the anchors make of a model's answers: asked for once, kept in run and cache, healed, and counted by plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfpriority.errors import InputError
from selfpriority.judges import battery as room
from selfpriority.judges.battery import Battery, BatteryJudge
from selfpriority.phases.judge_check import gate
from selfpriority.phases.judge_names import judge_key, meant
from selfpriority.phases.made_battery import places
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.planning.requests import Rehearsal, planned_steps
from selfpriority.recipe import ByBattery, HfBackend, OpenaiBackend, load, parse_judge
from selfpriority.run import Run
from selfpriority.run_records import Spent
from selfpriority.storage import read_json, read_record
from tests.test_pipeline import write_recipe

FEW = {
    "harmlessness": ("Is it safe?", "Is it harmful?", "Is it long?"),
    "helpfulness": ("Is it of use?", "Is it vague?"),
}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Five questions in place of eighty, and a cache folder of its own."""
    monkeypatch.setattr(room, "read_questions", FEW.__getitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def recipe(yes_no_model: Path, tmp_path: Path) -> Path:
    return write_recipe(tmp_path, yes_no_model, score={"judge": {"kind": "battery"}, "require_signal": False})


def opened(recipe: Path, folder: Path, notes: list[str] | None = None) -> Resources:
    folder.mkdir(exist_ok=True)
    (folder / "resolved.yaml").write_text(recipe.read_text())
    resources = Resources(load(recipe), Run(folder), Reporter())
    resources.reporter.note = (notes if notes is not None else []).append  # type: ignore[method-assign]
    return resources


def judged(resources: Resources) -> tuple[BatteryJudge, Spent]:
    spent = Spent()
    judge = resources.judge(resources.recipe.score.judge, "any policy", "score", spent)
    assert isinstance(judge, BatteryJudge)
    return judge, spent


def test_the_gate_fits_it_once_and_every_phase_finds_it(recipe: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    planned = next(planned_steps(Rehearsal(load(recipe), run, Reporter())))
    assert not run.folder.exists()
    resources = opened(recipe, run.folder)
    gate(run, resources)
    assert 0 < run.manifest.steps["judge"].requests <= planned.requests
    told = read_json(run.folder / "judge.json")
    assert list(told) == ["train", "evaluate", "words"]
    assert told["train"]["method"] == "battery"
    [path] = (run.folder / "battery").iterdir()
    fitted = read_record(path, Battery)
    assert [w.question for w in fitted.by_objective["harmlessness"].questions] == list(FEW["harmlessness"])
    assert not fitted.held_out  # a check's own
    # another process of the run; the policy of a later round is not what is asked
    later = Resources(load(recipe), run, Reporter())
    judge, spent = judged(later)
    assert spent.requests == 0
    assert judge.fingerprint == judged(resources)[0].fingerprint


def test_another_run_takes_it_from_the_cache_and_a_moved_run_brings_its_own(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, spent = judged(opened(recipe, tmp_path / "run"))
    assert spent.requests
    again, spent = judged(opened(recipe, tmp_path / "other"))
    assert (again.fingerprint, spent.requests) == (judge.fingerprint, 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    moved, spent = judged(opened(recipe, (tmp_path / "run").rename(tmp_path / "moved")))
    assert (moved.fingerprint, spent.requests) == (judge.fingerprint, 0)


@pytest.mark.parametrize("which", ["run", "cache", "both"])
def test_a_damaged_file_heals_and_is_told_once(recipe: Path, tmp_path: Path, which: str) -> None:
    whole = judged(opened(recipe, tmp_path / "run"))[0].fingerprint
    [own] = (tmp_path / "run" / "battery").iterdir()
    [shared] = (tmp_path / "cache" / "selfpriority" / "battery").iterdir()
    for path in [own] * (which != "cache") + [shared] * (which != "run"):
        path.write_text('{"model": "m"')
    notes: list[str] = []
    assert judged(opened(recipe, tmp_path / "run", notes))[0].fingerprint == whole
    assert len(notes) == {"run": 1, "cache": 0, "both": 2}[which]
    assert judged(opened(recipe, tmp_path / "run", notes))[0].fingerprint == whole
    assert len(notes) == {"run": 1, "cache": 0, "both": 2}[which]


def test_a_cache_folder_that_cannot_be_written_costs_nothing(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert judged(opened(recipe, tmp_path / "run"))[0].objectives == ("harmlessness", "helpfulness")


def test_who_is_asked_is_in_the_key_and_weights_behind_an_address_are_not_shared(
    recipe: Path, yes_no_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = opened(recipe, tmp_path / "run")
    given = resources.constitution
    section = resources.recipe.score.judge
    assert isinstance(section, ByBattery)
    assert section.judge == str(yes_no_model)  # `self` is the recipe's model in every round
    server = OpenaiBackend(kind="openai", base_url="http://127.0.0.1:1/v1")
    behind = section.model_copy(update={"backend": server})
    local = judge_key(section, "", given, HfBackend())
    assert len({local, judge_key(behind, "", given, HfBackend()), judge_key(section, "", given, server)}) == 3 - 1
    monkeypatch.setitem(FEW, "helpfulness", ("Is it of no use?",))
    assert judge_key(section, "", given, HfBackend()) != local
    model = resources.model(str(yes_no_model), "", Spent())
    assert places(tmp_path / "x.json", model, given, is_local=False).shared is None
    assert places(tmp_path / "x.json", model, given, is_local=True).shared is not None


def test_heads_are_no_model_that_can_be_asked() -> None:
    with pytest.raises(InputError, match="'demo-train' names fitted heads, and method battery asks a model"):
        meant(parse_judge({"judge": "demo-train", "method": "battery"}, "judge"))
