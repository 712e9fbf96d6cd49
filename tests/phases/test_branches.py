"""Further systems that a run trains on its own answers: swapped objectives, another loss."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfpriority.errors import InputError
from selfpriority.inputs import check_inputs
from selfpriority.phases.align import align_step
from selfpriority.phases.branches import branches, prepare
from selfpriority.phases.collect import collect_steps
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.round_inputs import start_of_training
from selfpriority.pipeline import start
from selfpriority.planning.plan import plan
from selfpriority.planning.requests import Rehearsal, planned_steps
from selfpriority.recipe import dump, load
from selfpriority.recipe.branch import branch_of
from selfpriority.recipe.named import SHIPPED, read_system
from selfpriority.run import Run
from selfpriority.storage import write_text
from tests.scripts import opened
from tests.test_pipeline import SMALL, spa, steps, write_recipe

SYSTEMS = {"swapped": {"train": {"pair": {"order": "swapped"}}}, "dpo": {"train": {"align": {"method": "dpo"}}}}


def recipe_with(folder: Path, model: Path, systems: object) -> Path:
    evaluate = {**SMALL["evaluate"], "more_systems": systems}
    return write_recipe(folder, model, refine={"n": 2, "max_new_tokens": 12}, evaluate=evaluate)


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("branches")
    recipe = recipe_with(folder, tiny_model, SYSTEMS)
    spa("run", recipe, "--out", folder / "run", "evaluate.at_once=2")
    return recipe, folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("options", [("evaluate.at_once=1",), ("evaluate.at_once=3",)], ids=["one by one", "at once"])
def test_a_system_that_cannot_be_trained_holds_up_no_other(
    tiny_model: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    hopeless = {"train": {"pair": {"margin": 18.0}}}
    behind = {"train": {"align": {"method": "dpo"}}, "start": "hopeless"}
    systems = {"hopeless": hopeless, "behind": behind, "swapped": SYSTEMS["swapped"]}
    run = tmp_path / "run"
    told = spa("run", recipe_with(tmp_path, tiny_model, systems), "--out", run, *options, check=1).stderr
    assert "systems/hopeless/round-1/pair: no prompt is left" in told
    whose = re.findall(r"(\S*)round-1/align: \d+ steps over", told)
    assert whose == ["", "systems/swapped/"], "of several trainings each says whose it is"
    assert "not trained: hopeless, behind (see above); every other system is." in told
    assert (run / "systems" / "swapped" / "round-1" / "policy").is_dir()
    assert not (run / "systems" / "behind" / "round-1" / "policy").exists()
    assert not (run / "evaluation" / "summary.json").exists()
    again = spa("run", recipe_with(tmp_path, tiny_model, {"swapped": SYSTEMS["swapped"]}), "--out", run).stderr
    assert "swapped: align (round 1): done before" in again
    assert (run / "evaluation" / "summary.json").is_file()


@pytest.mark.slow
def test_systems_that_train_at_once_are_those_that_train_one_by_one(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, run = finished
    alone = tmp_path / "run"
    shutil.copytree(run, alone, ignore=shutil.ignore_patterns("systems", "evaluation"))
    told = spa("run", recipe, "--out", alone, "evaluate.at_once=1").stderr
    assert "swapped: align (round 1): done before" not in told
    for name in SYSTEMS:
        policies = (folder / "systems" / name / "round-1" / "policy" / "model.safetensors" for folder in (run, alone))
        ours, theirs = map(load_file, policies)
        for part, weight in ours.items():
            torch.testing.assert_close(weight, theirs[part], atol=1e-6, rtol=0)
    kept, anew = (
        {name: entry for name, entry in steps(folder).items() if name.startswith("evaluation/")}
        for folder in (run, alone)
    )
    assert kept.keys() == anew.keys()
    assert {entry["state"] for entry in kept.values()} == {"done"}
    assert {name: entry["requests"] for name, entry in kept.items()} == {
        name: entry["requests"] for name, entry in anew.items()
    }
    drawn = [entry["cached"] for name, entry in kept.items() if "/answers-" in name]
    assert drawn == [0] * 4, "who asked counted what it took"


def times_asked(run: Path) -> list[int]:
    with sqlite3.connect(run / "cache.sqlite") as cache:
        return [n for (n,) in cache.execute("SELECT DISTINCT times_asked FROM answers")]


@pytest.mark.slow
def test_a_branch_is_a_run_on_the_same_answers_that_asks_nothing_again(finished: tuple[Path, Path]) -> None:
    _, run = finished
    for name in SYSTEMS:
        branch = run / "systems" / name
        for file in ("1-candidates.jsonl", "2-scored.jsonl"):
            assert (branch / "round-1" / file).read_bytes() == (run / "round-1" / file).read_bytes()
        assert not (branch / "cache.sqlite").exists()
        counted = json.loads((branch / "round-1" / "funnel.json").read_text())["steps"]
        ours = json.loads((run / "round-1" / "funnel.json").read_text())["steps"]
        assert {k: counted[k] for k in ("prompts", "sample", "score")} == {
            k: ours[k] for k in ("prompts", "sample", "score")
        }
    assert times_asked(run) == [1]
    shown = spa("show", run).stdout
    assert shown.count("trained on the same answers") == 2
    assert shown.count("decided by harmlessness") == 3
    page = (run / "report.html").read_text()
    assert "What the systems were trained on" in page
    assert "pair.order: swapped" in page


def test_every_branch_trains_by_its_own_rules_and_is_compared(finished: tuple[Path, Path]) -> None:
    _, run = finished
    policies = [run / "round-1", *(run / "systems" / name / "round-1" for name in SYSTEMS)]
    weights = {(folder / "policy" / "model.safetensors").read_bytes() for folder in policies}
    assert len(weights) == 3
    chosen = [
        [json.loads(line)["chosen"] for line in (folder / "5-pairs.jsonl").read_text().splitlines()]
        for folder in policies
    ]
    assert chosen[0] != chosen[1]  # the objectives swapped
    assert chosen[0] == chosen[2]  # another loss over the same pairs
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    assert {"vanilla", "spa", *SYSTEMS} <= set(summary["systems"])
    for name in SYSTEMS:
        card = (run / "systems" / name / "round-1" / "policy" / "README.md").read_text()
        assert f"`{name}` is this model" in card
        assert "cannot be told" not in card
        assert "It was not" not in card


@pytest.mark.slow
def test_what_is_done_stays_done_and_a_change_trains_the_branch_alone(finished: tuple[Path, Path]) -> None:
    recipe, run = finished
    before = {name: entry["key"] for name, entry in steps(run).items()}
    again = spa("run", recipe, "--out", run).stderr
    assert "swapped: align (round 1): done before" in again
    trained = (run / "systems" / "swapped" / "round-1" / "training.jsonl").stat().st_mtime_ns
    changed = "evaluate.more_systems={swapped: {train: {pair: {order: swapped}}}, dpo: {train: {align: {method: ipo}}}}"
    told = spa("run", recipe, "--out", run, changed).stderr
    assert "align (round 1): done before" in told
    assert "swapped: align (round 1): done before" in told
    assert "dpo: align (round 1): done before" not in told
    assert (run / "systems" / "swapped" / "round-1" / "training.jsonl").stat().st_mtime_ns == trained
    assert steps(run)["round-1/align"]["key"] == before["round-1/align"]
    assert times_asked(run) == [1]


def test_the_table_over_runs_holds_what_a_run_found(finished: tuple[Path, Path], tmp_path: Path) -> None:
    order = opened("benchmarks/order.py")
    _, run = finished
    rows = order.found(run, "demo", 0)
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    ours = {(row.system, row.objective): row.mean for row in rows if row.judge}
    assert ours["swapped", "harmlessness"] == summary["difference"]["swapped_vs_vanilla"]["harmlessness"]["mean"]
    shares = [row.mean for row in rows if row.system == "swapped" and row.objective.startswith("decided by")]
    assert sum(shares) == pytest.approx(1.0)
    record = tmp_path / "order.json"
    for seed in (0, 1, 0):  # the third takes the place of the first
        order.keep(record, [replace(row, seed=seed, mean=row.mean + seed) for row in rows])
    kept = [order.Row(**row) for row in json.loads(record.read_text())]
    assert len(kept) == 2 * len(rows)
    assert order.over_runs([1.0, 2.0, 3.0]) == "+2.00 (-0.48 to +4.48, 3 runs)"  # 4.303 * 1 / sqrt(3)
    (line,) = [line for line in order.lines(kept) if "| refusal of harmful |" in line]
    assert "2 runs" in line


def test_an_evaluation_without_the_branch_says_who_trains_it(finished: tuple[Path, Path]) -> None:
    _, run = finished
    policy = run / "systems" / "swapped" / "round-1" / "policy"
    policy.rename(policy.with_name("away"))
    told = spa("evaluate", run, check=1).stderr
    policy.with_name("away").rename(policy)
    assert "systems/swapped is not trained under the present recipe; `spa run`" in told
    assert told.count("\n") <= 3


def test_a_plan_counts_what_branches_train(tiny_model: Path, tmp_path: Path) -> None:
    recipe = load(recipe_with(tmp_path, tiny_model, SYSTEMS))
    planned = {step.name: step for step in planned_steps(Rehearsal(recipe, Run(tmp_path / "run"), Reporter()))}
    ours = planned["round-1/align"].trained_tokens
    assert ours > 0
    deep = {"deep": {"train": {"align": {"epochs": 12, "lora": {"r": 4}}}}}
    alone, beside = (plan(recipe_with(tmp_path, tiny_model, systems), (), None) for systems in ({}, deep))
    assert beside.training == alone.training
    for name in SYSTEMS:
        assert planned[f"systems/{name}/round-1/align"].trained_tokens == ours
        assert f"systems/{name}/round-1/sample" not in planned
        assert planned[f"evaluation/answers-{name}"].requests == 4


def test_beta_belongs_to_the_method(tiny_model: Path, tmp_path: Path) -> None:
    recipe = load(write_recipe(tmp_path, tiny_model, align={"beta": 3.0}))
    assert branch_of(recipe, {"align": {"method": "dpo"}}, "here").align.beta == 0.1
    assert branch_of(recipe, {"align": {"method": "dpo", "beta": 0.2}}, "here").align.beta == 0.2
    assert branch_of(recipe, {"align": {"method": "simpo"}}, "here").align.beta == 3.0
    assert branch_of(recipe, {"pair": {"order": "sum"}}, "here").align.beta == 3.0


def test_a_system_that_is_trained_as_another_is_told(tiny_model: Path, tmp_path: Path) -> None:
    """The tests' recipe denoises nothing, so leaving denoising out is no ablation of it."""
    twins = {"off": {"train": {"denoise": {"consistency": "off"}}}, "swapped": SYSTEMS["swapped"]}
    twins["twin"] = SYSTEMS["swapped"]
    told: list[str] = []

    class Heard(Reporter):
        def note(self, text: str) -> None:
            told.append(text)

    run, asked = start(recipe_with(tmp_path, tiny_model, twins), [], tmp_path / "run")
    check_inputs(Resources(asked.recipe, run, Heard()))
    assert [line for line in told if "is trained as" in line] == [
        "evaluate.more_systems.off: under this recipe it is trained as spa is; leave it out",
        "evaluate.more_systems.twin: under this recipe it is trained as swapped is; leave it out",
    ]


def test_fields_without_effect_are_told_of_systems_that_somebody_wrote(tiny_model: Path, tmp_path: Path) -> None:
    shipped = read_system(SHIPPED / "kto.yaml", ("harmlessness", "helpfulness")).train
    own = {"align": {**shipped["align"], "gamma": 0.3}}
    told: list[str] = []

    class Heard(Reporter):
        def note(self, text: str) -> None:
            told.append(text)

    systems = {"kto": {"train": shipped}, "mine": {"train": own}}
    run, asked = start(recipe_with(tmp_path, tiny_model, systems), [], tmp_path / "run")
    check_inputs(Resources(asked.recipe, run, Heard()))
    assert [line for line in told if "not used" in line] == [
        "evaluate.more_systems.mine.train: align.gamma: 0.3 is not used by method kto",
        "evaluate.more_systems.mine.train: align.alpha: 0.0 is not used by method kto",
    ]


def test_tau_is_read_one_way_in_a_branch(tiny_model: Path, tmp_path: Path) -> None:
    recipe = load(write_recipe(tmp_path, tiny_model, denoise={"keep_lowest": 0.5}))
    by_number = branch_of(recipe, {"denoise": {"max_det": 2.0}}, "here")
    assert (by_number.denoise.max_det, by_number.denoise.keep_lowest) == (2.0, None)
    back = branch_of(by_number, {"denoise": {"keep_lowest": 0.3}}, "here")
    assert (back.denoise.max_det, back.denoise.keep_lowest) == (None, 0.3)


def test_a_branch_that_cannot_train_is_refused_before_any_work(tiny_model: Path, tmp_path: Path) -> None:
    wrong = {"odd": {"train": {"align": {"lora": {"targets": ["nonsense"]}}}}}
    told = spa("run", recipe_with(tmp_path, tiny_model, wrong), "--out", tmp_path / "run", check=2).stderr
    assert told.startswith("spa: evaluate.more_systems.odd.train: align.lora.targets: ")
    assert not (tmp_path / "run" / "cache.sqlite").exists()


def test_answers_that_were_drawn_anew_are_those_of_the_branches_too(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    _, folder = finished
    run = Run(shutil.copytree(folder, tmp_path / "run"))
    resources = Resources(load(run.recipe), run, Reporter())
    candidates = run.round(1) / "1-candidates.jsonl"
    rows = candidates.read_text()
    with run.recording(collect_steps(run, resources, 1)[0]):
        candidates.write_text("".join(reversed(rows.splitlines(keepends=True))))
    assert candidates.read_text() != rows
    for branch in branches(run, resources.recipe):
        theirs = prepare(branch, run, resources)
        assert (branch.run.round(1) / candidates.name).read_bytes() == candidates.read_bytes()
        assert not branch.run.is_done(align_step(branch.run, theirs, 1))


def test_a_branch_shares_the_cache_from_within_its_folder(
    finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = finished
    monkeypatch.chdir(run / "systems" / "dpo")
    assert Run(Path()).cache == run / "cache.sqlite"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sample": {"n": 2}}, "here: 'sample' may not differ between systems of one run; denoise, pair, align may"),
        ({"pair.order": "sum"}, "here: 'pair.order' may not differ"),
        ({"pair": {"order": "upwards"}}, "here: pair.order"),
        ({"pair": {"ordre": "sum"}}, "here: pair.ordre"),
        ({"align": 3}, "here: align"),
    ],
)
def test_what_may_not_differ_is_told_with_its_place(tiny_model: Path, tmp_path: Path, changes, told) -> None:
    with pytest.raises(InputError) as caught:
        branch_of(load(write_recipe(tmp_path, tiny_model)), changes, "here")
    assert str(caught.value).startswith(told)


def test_what_a_system_starts_from_is_found_where_the_run_was_moved_to(tiny_model: Path, tmp_path: Path) -> None:
    systems = {**SYSTEMS, "behind": {"train": {"align": {"method": "dpo"}}, "start": "swapped"}}
    run, asked = start(recipe_with(tmp_path, tiny_model, systems), [], tmp_path / "run")
    branch = next(each for each in branches(run, asked.recipe) if each.name == "behind")
    write_text(branch.run.recipe, [dump(branch.recipe)])
    assert str(tmp_path / "run") not in branch.run.recipe.read_text("utf-8")
    moved = Run((tmp_path / "run").rename(tmp_path / "elsewhere") / "systems" / "behind")
    found = start_of_training(moved, load(moved.recipe), 1)
    assert found == str(tmp_path / "elsewhere" / "systems" / "swapped" / "round-1" / "policy")
