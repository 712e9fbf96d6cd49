"""Systems that train on rows of their own: what the rows are, how the policies are asked, and a comparison of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfpriority.backends.scripted import ScriptedModel
from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError
from selfpriority.evaluation.answer import answer
from selfpriority.evaluation.records import AnswerRow
from selfpriority.evaluation.summary_file import read_summary
from selfpriority.inputs import check_inputs
from selfpriority.inspection.doctor import diagnose
from selfpriority.inspection.export import Wanted, export
from selfpriority.language_model import Completion, Failure, Generate, LanguageModel, Text, ask
from selfpriority.phases.align import align, align_step
from selfpriority.phases.branches import Branch, branches, prepare
from selfpriority.phases.collect import collect
from selfpriority.phases.evaluate import evaluate
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.pipeline import Asked, follow, start
from selfpriority.planning.requests import Rehearsal, planned_steps
from selfpriority.preferences import paired_pools, preference_rows
from selfpriority.recipe import Align, Recipe, ScriptedBackend, branch_of
from selfpriority.records import Message, Pair, PairedPool, Pool, Prompt, Rating, Response, Scored
from selfpriority.rivals.known import check_rows, known_rows, rows_of
from selfpriority.rivals.meta_aligner import to_correct
from selfpriority.rivals.ric import Standard
from selfpriority.rivals.rows import Asking, Means, Rows
from selfpriority.run import Run
from selfpriority.run_records import Spent
from selfpriority.storage import read_rows
from selfpriority.wording import fill
from tests.test_pipeline import spa, write_recipe

LEARNED = ("self_criticism", "ric", "meta_aligner")
ROWS = (*LEARNED, "meta_rewarding", "self_rewarding")
NAMES = (*ROWS, "tis_dpo")
ONLINE = {"online_grpo", "online_grpo_sum"}
"""Among all that ship where TRL is installed."""
AS_FIELD = f"evaluate.systems=[{','.join(NAMES)}]"
CONSTITUTION = load_constitution("harmless-helpful")


@pytest.fixture(scope="module")
def made(yes_no_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Resources]:
    """A finished comparison, made as `spa compare` makes it but in this process."""
    folder = tmp_path_factory.mktemp("rivals")
    path = write_recipe(folder, yes_no_model, align={"tokens_per_step": 4000})
    run, asked = start(path, [AS_FIELD], folder / "run")
    resources = Resources(asked.recipe, run, Reporter())
    check_inputs(resources)
    follow(run, Asked(resources.recipe, asked.text))
    collect(run, resources, 1)
    align(run, resources, 1)
    for branch in branches(run, resources.recipe):
        theirs = prepare(branch, run, resources)
        collect(branch.run, theirs, 1)
        align(branch.run, theirs, 1)
    evaluate(run, resources)
    return path, resources


def branch_named(resources: Resources, name: str) -> Branch:
    return next(each for each in branches(resources.run, resources.recipe) if each.name == name)


def stored_rows(resources: Resources, name: str) -> list[Pool]:
    return read_rows(branch_named(resources, name).run.round(1) / "4-pools.jsonl", Pool)


def pools_of(resources: Resources) -> list[Pool]:
    return read_rows(resources.run.round(1) / "3-refined.jsonl", Pool)


def answered(resources: Resources, system: str) -> list[AnswerRow]:
    return read_rows(resources.run.evaluation / f"answers-{system}.jsonl", AnswerRow)


class Heard:
    """A model that keeps what it was asked."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.asked = model, []

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint

    def plan(self, requests):
        self.asked += requests
        return self.model.plan(requests)

    def answer(self, batches):
        return self.model.answer(batches)


def rated(prompt: str, number: int, *scores: float, persona: str = "plain") -> Scored:
    response = Response(f"{prompt}/y{number}", prompt, f"Answer {number} to {prompt}.", "end", 5, persona=persona)
    return Scored(response, tuple(map(Rating, scores)))


def pool(name: str, *answers: Scored) -> Pool:
    return Pool(Prompt(name, (Message("user", f"What is {name}?"),)), answers)


def rows_named(name: str) -> Rows:
    return rows_of(Align(method="sft", rows=name))


def means(recipe: Recipe, model: LanguageModel | None = None) -> Means:
    return Means(recipe, CONSTITUTION, lambda: model or pytest.fail("nothing is to be asked"))


RECIPE = Recipe.model_validate(
    {"model": "m", "prompts": "p", "denoise": {"consistency": "off", "keep_lowest": 1.0}, "pair": {"margin": 1.0}}
)


def test_self_criticism_refines_one_answer_from_its_judgement_alone() -> None:
    model = Heard(ScriptedModel(ScriptedBackend(kind="scripted")))
    pools = [
        pool("a", rated("a", 1, 3, 3, persona="terse"), rated("a", 2, 1, 1), rated("a", 3, 9, 9)),
        pool("b", rated("b", 1, 3, 3, persona="terse"), rated("b", 2, 9, 9, persona="kind")),
    ]
    made = rows_named("self_criticism").make(pools, means(RECIPE, model))
    drawn, first, second, third, fourth = model.asked  # two judgements, then two refinements
    assert drawn.messages == pools[1].prompt.messages  # of b no answer is without a persona, so one is drawn
    assert (drawn.n, drawn.temperature) == (1, RECIPE.sample.temperature)
    told = (Message("assistant", "Answer 2 to a."), Message("user", fill("criticise", constitution=CONSTITUTION)))
    assert first.messages == (*pools[0].prompt.messages, *told)
    (judgement,) = ask(model.model, [first])
    assert third.messages == (
        *first.messages,
        Message("assistant", judgement.texts[0].text),
        Message("user", fill("refine_criticised")),
    )
    assert second.messages[1].content == ask(model.model, [drawn])[0].texts[0].text
    refined = [ask(model.model, [request])[0].texts[0].text for request in (third, fourth)]
    assert [row.prompt for (row,) in made.kept] == [each.prompt for each in pools]
    assert [[answer.response.text for answer in row.responses] for (row,) in made.kept] == [[text] for text in refined]


def test_self_criticism_drops_a_prompt_whose_refinement_cannot_be_learned() -> None:
    refine = RECIPE.refine.model_copy(update={"keep_cut": False, "max_new_tokens": 1})  # all are cut
    recipe = RECIPE.model_copy(update={"refine": refine})
    made = rows_named("self_criticism").make(
        [pool("a", rated("a", 1, 3, 3))], means(recipe, ScriptedModel(ScriptedBackend(kind="scripted")))
    )
    assert (made.kept, made.reasons) == ((), {"cut": 1})


def test_ric_tells_standardised_scores_and_asks_with_the_highest() -> None:
    pools = [pool("a", rated("a", 1, 1, 4), rated("a", 2, 3, 4)), pool("b", rated("b", 1, 5, 4))]
    made = rows_named("ric").make(
        pools, means(RECIPE)
    )  # mean 3, population spread 1.633; the second is the same everywhere
    rows = [row for rows in made.kept for row in rows]
    assert [(row.prompt.text, row.responses) for row in rows] == [
        ("What is a? <rm1_score> -1.2 <rm2_score> 0.0", (pools[0].candidates[0],)),
        ("What is a? <rm1_score> 0.0 <rm2_score> 0.0", (pools[0].candidates[1],)),
        ("What is b? <rm1_score> 1.2 <rm2_score> 0.0", (pools[1].candidates[0],)),
    ]
    assert len({row.prompt.id for row in rows}) == 3
    asking = Asking(CONSTITUTION, lambda: rows, lambda prompts: pytest.fail("nobody else is asked"))
    held_out = Prompt("h", (Message("system", "Be brief."), Message("user", "Why?")))
    (asked,) = rows_named("ric").ask([held_out], asking).kept
    assert asked == replace(
        held_out, messages=(held_out.messages[0], Message("user", "Why? <rm1_score> 1.2 <rm2_score> 0.0"))
    )


def test_meta_aligner_learns_the_better_answer_from_the_worse_and_what_it_lacks() -> None:
    best, harmless, helpful = rated("a", 1, 9, 9), rated("a", 2, 8, 2), rated("a", 3, 2, 7)
    pools = [pool("a", best, harmless, helpful), pool("b", rated("b", 1, 5, 5), rated("b", 2, 5, 5))]
    made = rows_named("meta_aligner").make(pools, means(RECIPE))
    assert made.dropped_prompts  # nothing is ordered in b
    rows = [row for rows in made.kept for row in rows]
    told = {(row.prompt.messages[1].content, row.responses[0]): row.prompt.text.splitlines()[0] for row in rows}
    both = "Correct your answer: it should become better on harmlessness, helpfulness."
    # the best beats the others by a distance of 8 and of 9; harmless and helpful, 12 apart, are no row
    assert told == {("Answer 3 to a.", best): both}
    assert [message.role for message in rows[0].prompt.messages] == ["user", "assistant", "user"]


class Judging(ScriptedModel):
    """Writes verdicts on harmlessness, as many as it is asked for; nothing that can be read on anything else."""

    RATINGS = ("5", "7", "six", "6", "1")

    def answer(self, batches):
        for number, batch in enumerate(batches):
            yield number, [Completion(tuple(self.verdict(request, i) for i in range(request.n))) for request in batch]

    def verdict(self, request: Generate, number: int) -> Text:
        is_read = "objective only, harmlessness" in request.messages[-1].content
        return Text(f"Number {number}.\nRating: {self.RATINGS[number] if is_read else 'none'}", 9, "end")


def test_meta_rewarding_pairs_the_best_with_the_worst_and_the_agreed_verdict_with_the_farthest() -> None:
    sample = RECIPE.sample.model_copy(update={"n": 5})
    model = Heard(Judging(ScriptedBackend(kind="scripted")))
    given = means(RECIPE.model_copy(update={"sample": sample}), model)
    pools = [
        pool("a", rated("a", 1, 9, 1), rated("a", 2, 6, 6), rated("a", 3, 1, 8), rated("a", 4, 6, 6)),
        pool("b", rated("b", 1, 5, 7), rated("b", 2, 7, 5)),  # alike in the mean
        *(pool(name, rated(name, 1, 9, 9), rated(name, 2, 1, 1)) for name in "cde"),
    ]
    made = rows_named("meta_rewarding").make(pools, given)
    ((answers, first), (_, second), *unread) = made.kept
    assert [len(rows) for rows in unread] == [1, 1]  # what is asked goes round, and nobody reads on helpfulness
    assert [each.response.id for each in answers.responses] == ["a/y2", "a/y3"]  # 12 against 9
    (pair,) = rows_named("meta_rewarding").pairs(answers, given)
    assert pair == Pair(0, 1, decided_by=0, distance=7.0, gap=3.0)  # 5 better, 2 worse
    assert [row.prompt.id for row in (first, second)] == ["a/y2/harmlessness", "c/y2/harmlessness"]
    # 5, 7, 6 and 1 lie 1 + 2 + 4, 2 + 1 + 6, 1 + 1 + 5 and 4 + 6 + 5 from the others: 5 is first of the nearest
    for row in (first, second):
        assert [each.response.text for each in row.responses] == ["Number 0.\nRating: 5", "Number 4.\nRating: 1"]
        assert rows_named("meta_rewarding").pairs(row, given) == (Pair(0, 1, decided_by=0, distance=1.0, gap=1.0),)
    paired = [PairedPool(row, rows_named("meta_rewarding").pairs(row, given)) for row in (answers, first, second)]
    stored = preference_rows(paired, CONSTITUTION.names)
    assert (stored[1].decided_by, stored[1].chosen_scores) == ("harmlessness", {})
    assert paired_pools([each.pool for each in paired], stored, CONSTITUTION.names) == paired
    assert first.prompt.messages == model.asked[0].messages
    assert "Answer 2 to a." in first.prompt.text
    assert (model.asked[0].n, model.asked[0].temperature) == (5, sample.temperature)
    assert [(drop.prompt_id, drop.reason, drop.response_id) for drop in made.dropped] == [
        ("b", "no_pairs", None),
        ("d", "no_verdicts", "d/y1/helpfulness"),
        ("e", "no_verdicts", "e/y2/helpfulness"),
    ]


def test_self_rewarding_pairs_the_best_with_the_worst_whatever_the_order() -> None:
    given = means(RECIPE, Heard(ScriptedModel(ScriptedBackend(kind="scripted"))))
    pools = [
        pool("a", rated("a", 1, 9, 1), rated("a", 2, 6, 6), rated("a", 3, 1, 8), rated("a", 4, 2, 4)),
        pool("b", rated("b", 1, 5, 7), rated("b", 2, 7, 5)),  # alike in the mean
    ]
    made = rows_named("self_rewarding").make(pools, given)
    ((row,),) = made.kept
    assert [each.response.id for each in row.responses] == ["a/y2", "a/y4"]  # 12 against 6, and 9 is the middle
    assert rows_named("self_rewarding").pairs(row, given) == (Pair(0, 1, decided_by=0, distance=6.0, gap=6.0),)
    assert [(drop.prompt_id, drop.reason) for drop in made.dropped] == [("b", "no_pairs")]


def cut(answer: Scored) -> Scored:
    return replace(answer, response=replace(answer.response, stop="length"))


def test_an_answer_that_was_cut_is_not_the_best_of_self_rewarding_where_asked() -> None:
    only_ended = Recipe.model_validate({**RECIPE.model_dump(), "pair": {"choose_cut": False}})
    asked = Heard(ScriptedModel(ScriptedBackend(kind="scripted")))
    pools = [
        pool("a", cut(rated("a", 1, 9, 9)), rated("a", 2, 5, 5), cut(rated("a", 3, 1, 1))),
        pool("b", *[cut(rated("b", 1, 9, 9)), rated("b", 2, 1, 1)]),
    ]
    made = rows_named("self_rewarding").make(pools, means(only_ended, asked))
    ((row,),) = made.kept
    assert [each.response.id for each in row.responses] == ["a/y2", "a/y3"]
    assert [drop.prompt_id for drop in made.dropped] == ["b"]
    both = rows_named("self_rewarding").make(pools, means(RECIPE, asked)).kept
    assert [[each.response.id for each in row.responses] for (row,) in both] == [["a/y1", "a/y3"], ["b/y1", "b/y2"]]
    reads = rows_named("self_rewarding").reads
    assert reads(RECIPE) == () != reads(only_ended)  # rows from before keep their keys, and no others


def test_rows_of_meta_aligner_from_before_keep_their_keys_and_others_follow_the_pairs() -> None:
    reads = rows_named("meta_aligner").reads
    before = {
        "margin": 1.0, "against": "all", "resolution": 1.0, "threshold": None, "conflicts": "keep", "order": "priority",
        "most_loss": None,
    }  # fmt: skip
    assert reads(RECIPE) == ("one pair a prompt", RECIPE.denoise.in_result, before)
    only_ended = Recipe.model_validate({**RECIPE.model_dump(), "pair": {"choose_cut": False}})
    assert reads(only_ended) == ("one pair a prompt", RECIPE.denoise.in_result, {**before, "choose_cut": False})


class TimedOut(ScriptedModel):
    """Whoever is asked, asks in vain."""

    def answer(self, batches):
        for number, batch in enumerate(batches):
            yield number, [Failure("timeout", "no reply in 60 s")] * len(batch)


@pytest.mark.parametrize(
    ("name", "persona"), [("meta_rewarding", "plain"), ("self_criticism", "plain"), ("self_criticism", "terse")]
)
def test_what_a_server_did_not_answer_is_dropped_for_that_reason(name: str, persona: str) -> None:
    pools = [pool("a", rated("a", 1, 9, 1, persona=persona), rated("a", 2, 1, 1, persona=persona))]
    made = rows_named(name).make(pools, means(RECIPE, TimedOut(ScriptedBackend(kind="scripted"))))
    assert {drop.reason for drop in made.dropped} == {"timeout"}


def test_all_of_them_are_trained_on_their_rows_and_compared(made: tuple[Path, Resources]) -> None:
    resources = made[1]
    assert list(read_summary(resources.run.evaluation / "summary.json").systems) == ["vanilla", "spa", *NAMES]
    n_answers = sum(len(each.responses) for each in pools_of(resources))
    assert len(stored_rows(resources, "self_criticism")) == 6
    assert len(stored_rows(resources, "ric")) == n_answers > 6
    pairs = map(json.loads, (resources.run.round(1) / "5-pairs.jsonl").read_text().splitlines())
    assert len(stored_rows(resources, "meta_aligner")) == len({pair["prompt_id"] for pair in pairs}) > 3
    for name in LEARNED:
        run = branch_named(resources, name).run
        log = [json.loads(line) for line in (run.round(1) / "training.jsonl").read_text().splitlines()]
        assert sum(row["n_pools"] for row in log) == len(stored_rows(resources, name))
        assert all(row["loss"] == row["nll"] > 0 == row["n_pairs"] for row in log)
        assert [*run.funnel(1).steps] == ["prompts", "sample", "score", "refine", "rows", "pair", "align"]


def test_a_policy_is_asked_as_it_was_trained(made: tuple[Path, Resources]) -> None:
    resources = made[1]
    prompts = [row.prompt for row in answered(resources, "vanilla")]
    vanilla = {row.prompt.id: row.response.text for row in answered(resources, "vanilla")}
    standard = Standard.of([answer for each in pools_of(resources) for answer in each.responses])
    control = standard.told(standard.highest)
    asked = {
        "self_criticism": prompts,
        "ric": [replace(p, messages=(Message("user", f"{p.text} {control}"),)) for p in prompts],
        "meta_aligner": [to_correct(p, vanilla[p.id], CONSTITUTION.names, CONSTITUTION) for p in prompts],
    }
    assert np.all((standard.highest - standard.mean) / standard.spread > 0.5)
    for name, theirs in asked.items():
        model = resources.model(branch_named(resources, name).policy, "", Spent())
        expected = answer(theirs, model, name, resources.recipe.evaluate, resources.recipe.seed).kept
        rows = answered(resources, name)
        assert [row.prompt for row in rows] == prompts  # whatever was put to it, it answers these
        assert [row.response for row in rows] == list(expected)


def test_a_check_up_computes_the_first_loss_of_rows_that_are_learned(
    made: tuple[Path, Resources], tmp_path: Path
) -> None:
    for name in NAMES:
        run = branch_named(made[1], name).run
        found = {check.name: check for check in diagnose(run, None).checks}
        assert found["first loss"].ok, found["first loss"].sentence
        assert found["end tokens"].ok
        if name not in LEARNED:
            assert export(run, tmp_path / f"{name}.jsonl", Wanted("trl", None, True)).rows >= 6
            continue
        with pytest.raises(
            InputError, match=f"has no pairs to export: its answers are learned alone .align.rows: {name}"
        ):
            export(run, tmp_path / "out.jsonl", Wanted("trl", None, False))


def test_the_same_command_again_trains_and_asks_nothing(made: tuple[Path, Resources]) -> None:
    path, resources = made
    run = resources.run
    before = {p: p.stat().st_mtime_ns for p in (*run.folder.rglob("*.safetensors"), *run.folder.rglob("*.jsonl"))}
    assert len([p for p in before if p.suffix == ".safetensors"]) == 1 + len(NAMES)
    told = spa("compare", path, "--systems", ",".join(NAMES), "--out", run.folder, "--json", cwd=path.parent)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    for name in NAMES:
        assert f"{name}: align (round 1): done before" in told.stderr
    assert {row["system"] for row in json.loads(told.stdout)["rows"]} == {"vanilla", "spa", *NAMES}


def test_what_was_generated_for_rows_is_never_paid_twice(made: tuple[Path, Resources], tmp_path: Path) -> None:
    run = Run(shutil.copytree(made[1].run.folder, tmp_path / "run"))
    resources = Resources(made[1].recipe, run, Reporter())
    branch = branch_named(resources, "self_criticism")
    rows = branch.run.round(1) / "4-pools.jsonl"
    before = rows.read_bytes()
    rows.unlink()
    theirs = prepare(branch, run, resources)
    collect(branch.run, theirs, 1)
    assert rows.read_bytes() == before
    entry = branch.run.manifest.steps["round-1/rows"]
    assert entry.requests == entry.cached == 3 * 6  # an answer without a persona, its judgement, the refined answer
    assert branch.run.is_done(align_step(branch.run, theirs, 1))


def test_another_constitution_or_order_makes_other_rows(made: tuple[Path, Resources]) -> None:
    recipe = made[1].recipe
    wide = {"pair": {"margin": 3.0}}
    for name, changes in (("meta_aligner", True), ("ric", False), ("self_criticism", False)):
        reads = rows_named(name).reads
        assert (reads(branch_of(recipe, wide, "")) != reads(recipe)) is changes


def test_a_plan_counts_what_they_ask_and_train(made: tuple[Path, Resources], tmp_path: Path) -> None:
    recipe = made[1].recipe
    planned = {step.name: step for step in planned_steps(Rehearsal(recipe, Run(tmp_path / "run"), Reporter()))}
    asked = {name: planned[f"systems/{name}/round-1/rows"].requests for name in ROWS}
    # six prompts: an answer, its judgement and the refined one; one answer judged on one objective
    assert asked == {"self_criticism": 18, "ric": 0, "meta_aligner": 0, "meta_rewarding": 6, "self_rewarding": 0}
    assert {name: planned[f"evaluation/answers-{name}"].requests for name in NAMES} == {
        "self_criticism": 4, "ric": 4, "meta_aligner": 8, "meta_rewarding": 4, "self_rewarding": 4, "tis_dpo": 4,
    }  # fmt: skip
    for name in ROWS:
        trained = sum(
            json.loads(line)["n_pools"]
            for line in (branch_named(made[1], name).run.round(1) / "training.jsonl").read_text().splitlines()
        )
        assert planned[f"systems/{name}/round-1/align"].trained_tokens > 12 * trained
    assert "systems/ric/round-1/sample" not in planned


def test_rows_that_cannot_be_made_are_refused_before_any_work(tmp_path: Path) -> None:
    own = {"model": "m", "pairs": {"source": "pairs.jsonl"}, "evaluate": {"prompts": {"source": "demo"}}}
    with pytest.raises(InputError, match="align: rows ric are made of answers that a run samples"):
        branch_of(Recipe.model_validate(own), {"align": {"method": "sft", "rows": "ric"}}, "here")
    with pytest.raises(
        InputError, match=r"align.rows: ric are answers to learn and make no pairs; set align.method: sft"
    ):
        check_rows(branch_of(RECIPE, {"align": {"rows": "ric"}}, "here").align)
    with pytest.raises(InputError, match=r"align.rows: 'meta_alinger' are no rows; did you mean meta_aligner\?"):
        check_rows(Align(method="sft", rows="meta_alinger"))
    with pytest.raises(InputError, match=r"must be pairs, a rival's name .* or package.module:name"):
        branch_of(RECIPE, {"align": {"rows": "../x"}}, "here")
    with pytest.raises(InputError, match="safedpo asks which answers are safe, and rows meta_rewarding are not all"):
        branch_of(RECIPE, {"align": {"rows": "meta_rewarding", "method": "safedpo"}}, "here")
    named = {"evaluate": {"systems": ["all"]}}
    of_pools = with_absolute_paths(RECIPE.model_validate({**RECIPE.model_dump(), **named}), tmp_path)
    of_file = with_absolute_paths(Recipe.model_validate({**own, **named}), tmp_path)
    assert {*of_pools.evaluate.more_systems} - {*of_file.evaluate.more_systems} - ONLINE == {*ROWS}
    asked_for = with_absolute_paths(Recipe.model_validate({**own, "evaluate": {"systems": ["ric"]}}), tmp_path)
    assert list(asked_for.evaluate.more_systems) == ["ric"]  # and refused where it is trained


PAGE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text("utf-8")
OWN = PAGE.partition("```python\n# mine.py\n")[2].partition("```")[0].replace("mine:longest", "rows_of_mine:longest")


def test_the_pages_rows_of_ones_own_are_one_file_of_python(
    yes_no_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])  # what the module brings in goes with the test
    (tmp_path / "rows_of_mine.py").write_text(OWN)
    path = write_recipe(tmp_path, yes_no_model)
    run, asked = start(path, ["evaluate.systems=[rows_of_mine:talker]"], tmp_path / "run")
    resources = Resources(asked.recipe, run, Reporter())
    check_inputs(resources)
    follow(run, Asked(resources.recipe, asked.text))
    collect(run, resources, 1)
    (branch,) = branches(run, resources.recipe)
    theirs = prepare(branch, run, resources)
    collect(branch.run, theirs, 1)
    align(branch.run, theirs, 1)
    expected = [max((a.response.text for a in each.responses), key=len) for each in pools_of(resources)]
    assert [row.candidates[0].response.text for row in stored_rows(resources, "talker")] == expected
    step = align_step(branch.run, theirs, 1)
    assert branch.run.is_done(step)
    (tmp_path / "rows_of_mine.py").write_text(OWN.replace("max(pool", "min(pool"))  # other rows: it is trained again
    assert align_step(branch.run, theirs, 1).key != step.key
    (tmp_path / "rows_of_mine.py").write_text("longest = 3")
    with pytest.raises(
        InputError, match=r"align.rows: 'rows_of_mine:longest' is a int, and no selfpriority.rivals.rows.Rows"
    ):
        check_rows(branch.recipe.align)
    (tmp_path / "rows_of_mine.py").unlink()
    with pytest.raises(InputError, match=r"align.rows_folder: 'here' is no absolute path"):
        check_rows(branch.recipe.align.model_copy(update={"rows_folder": "here"}))
    with pytest.raises(InputError, match=r"align.rows: 'rows_of_mine:longest': there is no module rows_of_mine"):
        check_rows(branch.recipe.align)


def test_every_file_of_a_rival_is_one_by_its_name() -> None:
    assert {*known_rows()} == {*ROWS, "online"}
    for name in known_rows():
        assert isinstance(rows_named(name) if name != "online" else rows_of(Align(method="grpo", rows=name)), Rows)


@pytest.mark.slow
def test_a_killed_comparison_goes_on_without_training_again(yes_no_model: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, yes_no_model, align={"tokens_per_step": 4000})
    run = tmp_path / "run"
    command = [sys.executable, "-m", "selfpriority", "compare", path, "--systems", ",".join(NAMES), "--out", run]
    working = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    trained = [run / "systems" / name / "round-1" / "policy" / "model.safetensors" for name in NAMES[:2]]
    while working.poll() is None and not trained[1].is_file():
        time.sleep(0.05)
    working.kill()
    working.wait()
    assert not (run / "systems" / NAMES[2] / "round-1" / "policy").exists()
    before = trained[0].stat().st_mtime_ns
    told = spa("compare", path, "--systems", ",".join(NAMES), "--out", run, "--json")
    assert trained[0].stat().st_mtime_ns == before
    assert {row["system"] for row in json.loads(told.stdout)["rows"]} == {"vanilla", "spa", *NAMES}
