"""A pilot: what a few prompts say of all, counted by hand; and that a later run asks for nothing twice."""

from __future__ import annotations

import json

import pytest

from selfpriority.cli.options import PlanFields, PlanOptions
from selfpriority.errors import InputError, WorkFailed
from selfpriority.phases.collect import collect
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.round_inputs import round_prompts
from selfpriority.phases.round_steps import ROUND_STEPS
from selfpriority.planning.pilot import Counted, Expected, Yield, evenly, pilot
from selfpriority.planning.table import pilot_lines
from selfpriority.recipe import Denoise, load
from selfpriority.records import Pair, PairedPool
from selfpriority.run import Run
from selfpriority.run_records import FunnelStep
from tests.method.pools import pool, prompt
from tests.phases.test_judge_check import without_anchors

DENOISED = FunnelStep(18, 2, {"not_better": 11, "ceiling": 2, "no_refinement": 0, "no_spread": 1, "too_much_spread": 2})


def paired(*n_pairs: int) -> list[PairedPool]:
    return [PairedPool(pool([(1.0, 1.0)]), (Pair(0, 1, 0, 1.0, 1.0),) * n) for n in n_pairs]


def found(settings: Denoise, pairs: list[PairedPool]) -> Yield:
    return Yield.of({"denoise": DENOISED}, settings, 20, pairs)


def test_a_quantile_is_taken_of_the_prompts_with_spread() -> None:
    """18 of 20 rated; 18 - 13 = 5 consistent, 4 of them with spread; half of those are kept, all make pairs."""
    half = found(Denoise(keep_lowest=0.5), paired(3, 5))
    assert half.counted == Counted.among(4, 20)
    assert half.pools(240) == Expected(
        pytest.approx(240 * 0.2 * 0.5), pytest.approx(120 * half.counted.low), pytest.approx(120 * half.counted.high)
    )
    assert half.pairs(240).estimate == pytest.approx(24 * 4)  # 3 and 5 pairs: 4 a pool
    assert half.prompts(300).estimate == pytest.approx(3000)
    assert half.prompts(300).low == pytest.approx(300 / (half.counted.high * 0.5))


def test_kept_pools_without_pairs_are_no_training_pools() -> None:
    assert found(Denoise(keep_lowest=0.5), paired(6)).pools(240).estimate == pytest.approx(12)
    none = found(Denoise(keep_lowest=0.5), [])
    assert none.pools(240) == Expected(0, 0, 0)
    assert none.pairs(240) == none.prompts(300) == Expected(None, None, None)


def test_with_a_number_for_tau_those_below_it_count() -> None:
    assert found(Denoise(max_det=2.5), paired(3, 5)).counted == Counted.among(2, 20)
    assert found(Denoise(max_det=2.5), paired(3, 5)).pools(240).estimate == pytest.approx(24)


def test_where_nothing_passes_there_is_a_least_number_of_prompts() -> None:
    nothing = Yield.of({"denoise": FunnelStep(20, 0, {"not_better": 20})}, Denoise(keep_lowest=0.32), 20, [])
    assert nothing.pools(1000) == Expected(0, 0, pytest.approx(320 * 0.1611, rel=1e-3))
    assert nothing.prompts(300) == Expected(None, pytest.approx(300 / (0.32 * 0.1611), rel=1e-3), None)


def test_prompts_are_drawn_at_equal_distances() -> None:
    prompts = [prompt(str(i)) for i in range(10)]
    assert [p.id for p in evenly(prompts, 4)] == ["0", "2", "5", "7"]
    assert evenly(prompts, 10) == evenly(prompts, 99) == prompts


def collected(recipe, run: Run) -> Run:
    collect(run, Resources(load(recipe), run, Reporter()), 1)
    return run


CASES = {"quantile": {"keep_lowest": 0.5}, "number": {"keep_lowest": None, "max_det": 8.0}}


@pytest.mark.parametrize("denoise", CASES.values(), ids=CASES)
def test_a_pilot_of_all_prompts_is_the_run_that_follows_which_asks_nothing(written, tmp_path, denoise):
    recipe = written(denoise={"consistency": 0.25, **denoise})
    found = pilot(recipe, [], tmp_path / "run", 99, Reporter())
    assert (found.n, found.of) == (6, 6)
    run = collected(recipe, Run.existing(tmp_path / "run"))
    funnel = run.funnel(1)
    assert found.steps == {step.name: funnel.steps[step.name] for step in ROUND_STEPS}
    assert (found.below_max_det is None) == ("max_det" not in denoise)
    entries = run.manifest.steps
    assert sum(entries[f"round-1/{name}"].requests for name in ("sample", "score", "refine")) > 0
    assert all(entry.cached == entry.requests for entry in entries.values())


def test_a_run_after_a_pilot_of_a_few_prompts_asks_for_the_others_alone(written, tmp_path):
    recipe = written()
    found = pilot(recipe, [], tmp_path / "run", 2, Reporter())
    run = collected(recipe, Run.existing(tmp_path / "run"))
    sampled, scored = (run.manifest.steps[f"round-1/{name}"] for name in ("sample", "score"))
    assert (sampled.cached, sampled.requests) == (2 * 4, 6 * 4)  # four personas, a draw each
    assert scored.requests == 3 * scored.cached
    assert found.steps["sample"] == FunnelStep(2, 2)
    other = collected(recipe, Run(tmp_path / "other"))
    assert (run.round(1) / "5-pairs.jsonl").read_bytes() == (other.round(1) / "5-pairs.jsonl").read_bytes()


def test_a_run_keeps_the_recipe_that_it_has(written, tmp_path):
    recipe = written()
    pilot(recipe, ["seed=1"], tmp_path / "run", 1, Reporter())
    before = (tmp_path / "run" / "resolved.yaml").read_text()
    assert load(tmp_path / "run" / "resolved.yaml").seed == 1
    found = pilot(recipe, ["seed=2", "refine.n=1"], tmp_path / "run", 1, Reporter())
    assert (tmp_path / "run" / "resolved.yaml").read_text() == before
    assert found.of == len(round_prompts(load(recipe), 1).kept)


def test_a_mistake_leaves_no_folder(written, tmp_path):
    with pytest.raises(InputError):
        pilot(written(), ["sample.n=2"], tmp_path / "run", 5, Reporter())
    assert not (tmp_path / "run" / "resolved.yaml").exists()


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ([], PlanFields([], 20)),
        (["40"], PlanFields([], 40)),
        (["seed=1", "7", "align.beta=2"], PlanFields(["seed=1", "align.beta=2"], 7)),
        (["5", "5"], PlanFields(["5"], 5)),  # the second is no field, and the recipe says so
    ],
)
def test_a_number_among_the_fields_is_that_of_the_pilot(fields, meant):
    assert PlanOptions(pilot=True).read(fields) == meant
    assert PlanOptions().read(fields) == PlanFields(fields, 0)


def test_the_command_tells_plan_and_pilot(written, spa_plan, tmp_path):
    constitution = str(without_anchors(tmp_path))  # else most of the time goes into planning the judge's check
    recipe = written(constitution=constitution, denoise={"consistency": "strict", "keep_lowest": 0.32})
    run = tmp_path / "run"
    told = json.loads(spa_plan(recipe, "--pilot", "3", "--out", run, "--json").out)
    assert told["total"]["requests"] > 0
    assert told["pilot"]["n"] == 3
    assert told["pilot"]["consistent"]["of"] == 3
    assert list(told["pilot"]["steps"]) == ["sample", "score", "refine", "denoise", "pair"]
    assert told["pilot"]["steps"]["sample"]["in"] == 3
    text = spa_plan(recipe, "refine.n=1", "--out", run, "--pilot").out
    assert "expected of all 6 prompts of round 1, after keep_lowest 0.32: " in text
    assert f"pilot of 6 prompts in {run}: its answers are stored there" in text
    assert json.loads(spa_plan(recipe, "--json", "--out", run).out)["pilot"] is None
    (line,) = spa_plan(recipe, "--pilot", "0", code=2).err.splitlines()
    assert "--pilot: 0 is no number of prompts" in line


def test_a_pilot_in_words(written, tmp_path):
    found = pilot(written(), [], tmp_path / "run", 2, Reporter())
    lines = pilot_lines(found)
    assert lines[0].split() == ["pilot", "in", "out", "dropped", "why"]
    assert "consistent (off): 2 of 2, 100% (34% to 100%)" in lines
    n_pairs = found.pairs.estimate
    assert n_pairs is not None
    told = f"6 pools (2 to 6), {n_pairs:,.0f} pairs ({n_pairs * 0.3424:,.0f} to {n_pairs:,.0f})"
    assert f"expected of all 6 prompts of round 1, after keep_lowest 1: {told}" in lines
    assert "prompts for 300 pools: 300 (300 to 876)" in lines


def test_a_pilot_with_a_model_in_this_process(written, tmp_path):
    """A random one, whose digits hold too little mass: the pilot goes to its end where the run will stop."""
    backend = {"kind": "hf", "device": "cpu", "dtype": "float32"}
    recipe = written(backend=backend, refine={"n": 1, "max_new_tokens": 4})
    fields = ["sample.max_new_tokens=4", "prompts.limit=2"]
    found = pilot(recipe, fields, tmp_path / "run", 1, Reporter())
    assert found.steps["sample"] == FunnelStep(1, 1)
    assert found.steps["score"].dropped == {"too_few_rated": 1}
    assert (found.consistent.n, found.consistent.of, found.pools.estimate) == (0, 1, 0)
    run = Run.existing(tmp_path / "run")
    with pytest.raises(WorkFailed, match=r"no prompt is left \(2 too_few_rated\)"):
        collect(run, Resources(load(run.recipe), run, Reporter()), 1)
    sampled = run.manifest.steps["round-1/sample"]
    assert 2 * sampled.cached == sampled.requests == 2 * 4
