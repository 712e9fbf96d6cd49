"""The plan's requests are those of the run: counted on one side, asked on the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError
from selfpriority.inputs import check_inputs
from selfpriority.judges.attacks import attacks
from selfpriority.judges.comparer_check import MOST_PAIRS
from selfpriority.judges.labels import anchors_as_labels
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.round_inputs import round_prompts
from selfpriority.planning.requests import Rehearsal, planned_steps
from selfpriority.recipe import load
from selfpriority.run import Run

JUDGES = {
    "expected": {},
    "verbal": {"evaluate": {"method": "verbal"}},
    "others": {
        "evaluate": {
            "more_judges": {"other": {"judge": "self", "method": "verbal"}},
            "comparer": {"judge": "self", "method": "verbal"},
        }
    },
    "comparer": {"evaluate": {"comparer": {"judge": "self"}}},
    "systems": {
        "evaluate": {
            "more_systems": {"prompted": {"how": "constitution"}},
            "more_prompts": {"transfer": {"source": "demo", "split": "dev", "limit": 3}},
            "comparer": {"judge": "self"},
            "reference": "prompted",
        }
    },
}


def rehearsed(recipe, folder):
    return {step.name: step for step in planned_steps(Rehearsal(load(recipe), Run(folder), Reporter()))}


def those_asked_at_once(names):
    """A system answers all prompt sets in one step, and the steps of the others find what it answered."""
    together = {}
    for name in names:
        together.setdefault(name.split("/")[-1] if "/answers-" in name else name, []).append(name)
    return together.values()


@pytest.mark.parametrize("changes", JUDGES.values(), ids=JUDGES)
def test_planned_requests_are_those_of_the_run(changes, written, done, tmp_path):
    recipe = written(**changes)
    planned = rehearsed(recipe, tmp_path / "not-there")
    asked = done(recipe).manifest.steps
    with_model = {name for name in asked if asked[name].requests}
    assert with_model == {name for name, step in planned.items() if step.requests}
    for names in those_asked_at_once(with_model):
        n = max(asked[name].requests for name in names)  # the first of several asked for all of them
        steps = [planned[name] for name in names]
        n_planned = sum(step.requests for step in steps)
        assert n_planned == n if not any(step.is_bound for step in steps) else n <= n_planned, names
        tokens = sum(one.new_tokens for step in steps for one in step.asked)
        assert sum(asked[name].tokens for name in names) <= tokens, names
    assert {name for name in asked if "evaluation/" in name} - with_model <= {
        "evaluation/summary",
        "evaluation/transfer/summary",
    }
    contest = "evaluation/comparisons-prompted_vs_vanilla"  # whose answers differ, so that both orders are asked
    assert contest not in asked or planned[contest].requests == asked[contest].requests
    # nothing was lost in this run but what is rated twice, so that the bounds are met
    assert planned["round-1/score"].requests == asked["round-1/score"].requests
    assert planned["evaluation/verdicts-spa"].requests == asked["evaluation/verdicts-spa"].requests
    assert not (tmp_path / "not-there").exists()


def test_the_check_of_the_comparing_judge_is_planned(written, tmp_path):
    """Every pair of the anchors in both orders, and every suffix on some of them; with `expected` a request each."""
    without, with_it = (
        rehearsed(written(evaluate=changes), tmp_path / "run")["judge"].requests
        for changes in ({}, {"comparer": {"judge": "self"}})
    )
    anchors = anchors_as_labels(load_constitution("harmless-helpful"))
    assert with_it - without == 2 * (len(anchors.pairs) + len(attacks()) * MOST_PAIRS)


def test_every_round_is_planned_and_new_prompts_are_dealt_out(written, tmp_path):
    recipe = written(rounds=2, prompts_per_round="new")
    planned = rehearsed(recipe, tmp_path / "run")
    names = [f"round-{number}/{step}" for number in (1, 2) for step in ("sample", "score", "refine", "align")]
    assert set(names) < set(planned)
    assert planned["round-1/score"].requests == planned["round-2/score"].requests == 3 * 4


def test_what_no_server_has_is_planned_in_this_process(written, tmp_path):
    """A trained policy, its own judgement and both systems of the evaluation, as in the run itself."""
    server = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "served"}
    planned = rehearsed(written(rounds=2, backend=server), tmp_path / "run")
    kinds = {name: {asked.settings.kind for asked in step.asked} for name, step in planned.items() if step.asked}
    for step in ("sample", "score", "refine"):
        assert kinds[f"round-1/{step}"] == {"openai"}
        assert kinds[f"round-2/{step}"] == {"hf"}
    assert kinds["evaluation/answers-vanilla"] == kinds["evaluation/answers-spa"] == {"hf"}
    assert kinds["evaluation/verdicts-spa"] == {"openai"}  # the vanilla model judges, and the server has it


def test_trained_tokens_are_those_of_the_pools_that_may_be_kept(written, tmp_path):
    whole = rehearsed(written(align={"epochs": 3}), tmp_path / "run")["round-1/align"].trained_tokens
    half = rehearsed(written(denoise={"keep_lowest": 0.5}), tmp_path / "run")["round-1/align"].trained_tokens
    assert whole / 6 < half < whole / 3  # the longer half of the prompts, once
    answers = 6 * (4 * 12 + 10)
    assert answers < whole / 3 < answers + 6 * 512


def prompts(path: Path, texts: list[str]) -> dict[str, object]:
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return {"source": str(path), "split": None, "limit": None}


@pytest.mark.parametrize("n", [10, 300])
def test_trained_tokens_are_at_most_those_of_the_longest_pools(n, written, tmp_path):
    long = n * 3 // 10
    texts = [("word " * 60 if i % 10 < 3 else "hi ") + str(i) for i in range(n)]
    recipe = written(prompts=prompts(tmp_path / "p.jsonl", texts), denoise={"keep_lowest": 0.3})
    planned = rehearsed(recipe, tmp_path / "run")["round-1/align"]
    rehearsal = Rehearsal(load(recipe), Run(tmp_path / "run"), Reporter())
    ruler = rehearsal.ruler(rehearsal.recipe.model)
    lengths = sorted(ruler.conversation(p.messages) for p in round_prompts(rehearsal.recipe, 1).kept)
    answers = 4 * 12 + 10
    assert planned.trained_tokens == pytest.approx(sum(lengths[-long:]) + long * answers, rel=0 if n == 10 else 0.01)
    assert planned.pool_tokens == pytest.approx(lengths[-1] + answers, rel=0.01)


def test_a_round_without_prompts_is_told_as_the_run_tells_it(written, tmp_path):
    recipe = written(prompts={"limit": 1}, rounds=2, prompts_per_round="new")
    with pytest.raises(InputError, match="prompts: demo: no usable prompt") as planned:
        rehearsed(recipe, tmp_path / "run")
    with pytest.raises(InputError) as ran:
        check_inputs(Resources(load(recipe), Run(tmp_path / "run"), Reporter()))
    assert planned.value.lines == ran.value.lines
