"""Named systems in one run: one that starts from another, one that is merged, and the table of them all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean

import pytest
import torch
import yaml
from safetensors.torch import load_file

from selfpriority.errors import InputError, WorkFailed
from selfpriority.evaluation.records import AnswerRow, System
from selfpriority.evaluation.summary_file import read_summary
from selfpriority.inputs import check_inputs
from selfpriority.inspection.comparison import comparison, comparison_text
from selfpriority.method.order import Order
from selfpriority.method.sample import sample
from selfpriority.phases.align import align, align_step
from selfpriority.phases.branches import branches, prepare
from selfpriority.phases.collect import collect
from selfpriority.phases.evaluate import evaluate
from selfpriority.phases.merges import merge, merge_steps, merges
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.systems import prompts_to, systems
from selfpriority.pipeline import Asked, follow, start
from selfpriority.planning.requests import Rehearsal, planned_steps
from selfpriority.rating import Item
from selfpriority.report.page import write_report
from selfpriority.run import Run
from selfpriority.run_records import Spent
from selfpriority.storage import read_rows
from tests.test_pipeline import SMALL, spa, write_recipe

STAGED = {"title": "DPO, then DPO", "source": "a test", "start": "stage", "train": {"align": {"learning_rate": 1e-30}}}
STAGE = {"title": "DPO with the order swapped", "source": "a test", "train": {"pair": {"order": "swapped"}}}
SOUP = {"title": "half and half", "source": "a test", "merge": {"spa": 0.5, "stage": 0.5}}
END = {"title": "all of the stage", "source": "a test", "merge": {"stage": 1.0}}
FILES = {"stage": STAGE, "staged": STAGED, "soup": SOUP, "end": END}
NAMED = "constitution,best_of_n,./staged.yaml,./soup.yaml,./end.yaml"
SHOWN = ["vanilla", "spa", "constitution", "best_of_n", "staged", "soup", "end"]
AS_FIELD = f"evaluate.systems=[{NAMED}]"


def recipe_for(folder: Path, model: Path) -> Path:
    for name, fields in FILES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(fields))
    evaluate_fields = {**SMALL["evaluate"], "safe_kinds": ["ordinary", "harmful"], "prompts": {
        "source": "demo", "split": "heldout", "limit": 11}}  # fmt: skip
    return write_recipe(folder, model, evaluate=evaluate_fields, align={"method": "dpo", "nll": 0.0})


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Resources]:
    """A finished comparison, made as `spa compare` makes it but in this process."""
    folder = tmp_path_factory.mktemp("compare")
    path = recipe_for(folder, tiny_model)
    run, asked = start(path, [AS_FIELD], folder / "run")
    resources = Resources(asked.recipe, run, Reporter())
    check_inputs(resources)
    follow(run, Asked(resources.recipe, asked.text))
    collect(run, resources, 1)
    align(run, resources, 1)
    for branch in branches(run, resources.recipe):
        align(branch.run, train_ready(branch, run, resources), 1)
    merge(run, resources)
    evaluate(run, resources)
    return path, resources


def train_ready(branch, run: Run, resources: Resources) -> Resources:
    theirs = prepare(branch, run, resources)
    collect(branch.run, theirs, 1)
    return theirs


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: weight.float() for name, weight in load_file(folder / "model.safetensors").items()}


def test_a_stage_starts_from_the_one_before_and_is_measured_against_it(made: tuple[Path, Resources]) -> None:
    run = made[1].run
    first, second = (weights(run.folder / "systems" / name / "round-1" / "policy") for name in ("stage", "staged"))
    assert all(torch.equal(first[name], second[name]) for name in first)  # at a rate of 1e-30 it stays where it began
    log = (run.folder / "systems" / "staged" / "round-1" / "training.jsonl").read_text().splitlines()
    assert json.loads(log[0])["margin"] == pytest.approx(0.0, abs=1e-5)  # which is also what it is measured against
    ours = weights(run.policy(1))
    assert any(not torch.equal(first[name], ours[name]) for name in first)


def test_a_merge_is_the_weighted_sum_and_its_end_points_are_the_policies(made: tuple[Path, Resources]) -> None:
    run = made[1].run
    ours, stage = weights(run.policy(1)), weights(run.folder / "systems" / "stage" / "round-1" / "policy")
    soup, end = weights(run.folder / "merged" / "soup"), weights(run.folder / "merged" / "end")
    assert all(torch.equal(end[name], stage[name]) for name in stage)
    for name in stage:
        torch.testing.assert_close(soup[name], (ours[name] + stage[name]) / 2, rtol=0, atol=1e-6)


def test_what_is_trained_for_others_alone_is_no_system(made: tuple[Path, Resources]) -> None:
    resources = made[1]
    names = [system.name for system in systems(resources.run, resources.recipe)]
    assert names == SHOWN
    summary = read_summary(resources.run.evaluation / "summary.json")
    assert list(summary.systems) == names
    assert summary.systems["end"]["helpfulness"] == summary.systems["staged"]["helpfulness"]  # the same weights
    assert len(resources.models) == 1  # a policy is closed when it has answered


def test_the_best_of_n_is_first_in_the_order_under_the_training_judge(made: tuple[Path, Resources]) -> None:
    resources = made[1]
    run, recipe = resources.run, resources.recipe
    rows = read_rows(run.evaluation / "answers-best_of_n.jsonl", AnswerRow)
    assert len(rows) == 11
    drawn = sample([row.prompt for row in rows], resources.model(recipe.model, "", Spent()), recipe.sample, (), 0)
    judge = resources.judge(recipe.score.judge, recipe.model, "", Spent())
    order, differs = Order.of(recipe.pair), 0
    for row, entry in zip(rows, drawn.kept, strict=True):
        rated = judge.rate([Item(row.prompt, response) for response in entry.responses])
        keys = [order.key([rating.value for rating in ratings]) for ratings in rated]
        assert len(keys) == recipe.sample.n
        assert row.response.text == entry.responses[keys.index(max(keys))].text
        differs += keys.index(max(keys)) > 0
    assert differs  # the first is not always the best
    answered = prompts_to(System("x", "m", how="best_of_n"), [rows[0].prompt], resources.constitution)
    assert answered == [rows[0].prompt]  # without the constitution


def test_a_change_of_what_one_starts_from_is_a_change_of_its_training(made: tuple[Path, Resources]) -> None:
    resources = made[1]
    by_name = {branch.name: branch for branch in branches(resources.run, resources.recipe)}
    assert list(by_name) == ["stage", "staged"]
    theirs = Resources(by_name["staged"].recipe, by_name["staged"].run, Reporter())
    before = align_step(by_name["staged"].run, theirs, 1).key
    moved = by_name["staged"].recipe.align.model_copy(update={"start": str(resources.run.policy(1))})
    theirs.recipe = theirs.recipe.model_copy(update={"align": moved})
    assert align_step(by_name["staged"].run, theirs, 1).key != before


def test_a_model_that_is_merged_otherwise_is_merged_again(made: tuple[Path, Resources]) -> None:
    resources = made[1]
    run, recipe = resources.run, resources.recipe
    assert all(run.is_done(step) for step in merge_steps(run, resources))
    soup = recipe.evaluate.more_systems["soup"].model_copy(update={"merge": {"spa": 0.4, "stage": 0.6}})
    others = {**recipe.evaluate.more_systems, "soup": soup}
    evaluate_fields = recipe.evaluate.model_copy(update={"more_systems": others})
    changed = Resources(recipe.model_copy(update={"evaluate": evaluate_fields}), run, Reporter())
    done = {step.name: run.is_done(step) for step in merge_steps(run, changed)}
    assert done == {"merged/soup": False, "merged/end": True}
    with pytest.raises(WorkFailed, match="merged/soup is not merged under the present recipe; `spa run`"):
        evaluate(run, changed)


def test_the_table_says_what_the_summary_says(made: tuple[Path, Resources]) -> None:
    run = made[1].run
    found, summary = comparison(run), read_summary(run.evaluation / "summary.json")
    columns = ["harmlessness", "helpfulness", "HH_5", "HH_10", "HH_20"]
    assert [(row.system, row.objective) for row in found.rows] == [(s, c) for s in summary.systems for c in columns]
    for row in found.rows:
        cell = summary.systems[row.system][row.objective]
        assert (row.mean, row.low, row.high, row.n, row.seed, row.set) == (
            cell.mean,
            cell.low,
            cell.high,
            cell.n,
            0,
            "main",
        )
        assert row.over_refusal == summary.behaviour[row.system].over_refusal is not None
        assert (row.gain is None) == (row.over_refusal_gain is None) == (row.system == "vanilla")
    rows = (run.evaluation / "verdicts-soup.jsonl").read_text().splitlines()
    given = sorted(json.loads(line)["ratings"]["helpfulness"]["value"] for line in rows)
    (worst,) = [row.worst_decile for row in found.rows if (row.system, row.objective) == ("soup", "helpfulness")]
    assert worst == pytest.approx(fmean(given[: math.ceil(len(given) / 10)]))
    assert found.titles["staged"] == "DPO, then DPO"
    lines = comparison_text(found).splitlines()
    (head,) = [line for line in lines if line.startswith("system")]
    assert head.split()[:6] == ["system", *columns]
    assert {line.split()[0] for line in lines if line.startswith(tuple(summary.systems))} == set(summary.systems)


def test_the_page_shows_all_of_them(made: tuple[Path, Resources]) -> None:
    page = write_report(made[1].run.folder).read_text()
    drawn = page[page.index('class="pareto"') :]
    for name in SHOWN:
        assert f">{name}</text>" in drawn
    assert "starts from: stage" in page


def test_a_plan_counts_what_is_compared(made: tuple[Path, Resources], tmp_path: Path) -> None:
    recipe = made[1].recipe
    planned = {step.name: step for step in planned_steps(Rehearsal(recipe, Run(tmp_path / "run"), Reporter()))}
    trained = planned["round-1/align"].trained_tokens
    assert {name: step.trained_tokens for name, step in planned.items() if step.trained_tokens} == {
        "round-1/align": trained, "systems/stage/round-1/align": trained, "systems/staged/round-1/align": trained,
    }  # fmt: skip
    assert planned["merged/soup"].requests == 0
    best = planned["evaluation/answers-best_of_n"]
    assert sum(asked.new_tokens for asked in best.asked) >= recipe.sample.n * 11 * recipe.evaluate.max_new_tokens
    assert planned["evaluation/answers-soup"].requests == planned["evaluation/answers-spa"].requests > 0
    assert "evaluation/answers-stage" not in planned


def test_the_command_continues_what_is_done_and_prints_one_table(made: tuple[Path, Resources]) -> None:
    path, resources = made
    run = resources.run
    before = {p: p.stat().st_mtime_ns for p in run.folder.rglob("*.safetensors")}
    assert len(before) == 5
    told = spa("compare", path, "--systems", NAMED, "--out", run.folder, "--json", cwd=path.parent)
    for phase in ("stage: align (round 1)", "staged: align (round 1)", "merge", "evaluate"):
        assert f"{phase}: done before" in told.stderr
    assert {p: p.stat().st_mtime_ns for p in run.folder.rglob("*.safetensors")} == before
    found = json.loads(told.stdout)
    assert {row["system"] for row in found["rows"]} == set(SHOWN)
    assert set(found["rows"][0]) == {
        "set", "system", "judge", "seed", "objective", "mean", "low", "high", "n", "worst_decile", "gain",
        "over_refusal", "over_refusal_gain",
    }  # fmt: skip


def test_without_held_out_prompts_nothing_is_compared(tiny_model: Path, tmp_path: Path) -> None:
    from selfpriority.cli.options import CompareOptions
    from selfpriority.cli.work import compared_fields

    path = write_recipe(tmp_path, tiny_model)
    named, all_of_them, varied = (
        CompareOptions(" sft, ./a.yaml"),
        CompareOptions(),
        CompareOptions(vary=["pair.margin=2"]),
    )
    margin = 'evaluate.more_systems.margin_2={"title": "pair.margin = 2", "train": {"pair": {"margin": 2}}}'
    assert compared_fields(path, [], all_of_them)[-1] == 'evaluate.systems=["all"]'
    assert compared_fields(path, ["evaluate.systems=[sum]"], all_of_them) == ["evaluate.systems=[sum]"]
    assert compared_fields(path, ["seed=1"], named) == ["seed=1", 'evaluate.systems=["sft", "./a.yaml"]']
    assert compared_fields(path, ["seed=1"], varied) == ["seed=1", margin]
    with pytest.raises(InputError, match=r"evaluate\.prompts: not set"):
        compared_fields(path, ["evaluate.prompts=null"], named)


def test_a_merge_waits_for_what_it_is_made_of(made: tuple[Path, Resources], tmp_path: Path) -> None:
    recipe = made[1].recipe
    assert [each.name for each in merges(Run(tmp_path / "run"), recipe)] == ["soup", "end"]
    with pytest.raises(WorkFailed, match="not done under the present recipe"):
        merge(Run(tmp_path / "run"), Resources(recipe, Run(tmp_path / "run"), Reporter()))
