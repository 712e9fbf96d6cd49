"""Runs on preference data of one's own: a tiny model trains on every form, and an export reads back."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from selfpriority.errors import InputError
from selfpriority.inputs import check_inputs
from selfpriority.inspection.doctor import diagnose
from selfpriority.inspection.export import Wanted, export
from selfpriority.inspection.funnel import funnel, funnel_text
from selfpriority.inspection.run_files import objectives_of, paired_of
from selfpriority.inspection.story import prompt_story
from selfpriority.inspection.story_text import prompt_text
from selfpriority.phases.align import align, align_step, read_paired
from selfpriority.phases.collect import collect
from selfpriority.phases.own_steps import check_own
from selfpriority.phases.resources import Resources
from selfpriority.planning.plan import plan
from selfpriority.recipe import Recipe, dump, unused_fields
from selfpriority.report.page import write_report
from selfpriority.run import Run
from selfpriority.storage import write_text
from tests.inspection.conftest import make_run
from tests.own_pairs.test_pools import write
from tests.phases.test_align import Notes, work
from tests.test_pipeline import spa, steps

ALIGN = {"learning_rate": 1e-3, "tokens_per_step": 100, "dtype": "float32"}

__all__ = ["make_run"]  # a fixture of the inspections


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def pair_row(question: str, better: str, worse: str) -> dict[str, Any]:
    return {"prompt": question, "chosen": better, "rejected": worse}


PLAIN = [
    pair_row(f"Question {n}?", better, worse)
    for n in range(4)
    for better, worse in (("Yes.", "No."), ("Yes.", "Never."), ("No.", "Never."))
]


def in_messages(row: dict[str, Any]) -> dict[str, Any]:
    sides = {side: [turn("assistant", row[side])] for side in ("chosen", "rejected")}
    return {"prompt": [turn("user", row["prompt"])], **sides}


def implicit(row: dict[str, Any]) -> dict[str, Any]:
    found = in_messages(row)
    return {side: [*found["prompt"], *found[side]] for side in ("chosen", "rejected")}


def sharegpt(row: dict[str, Any]) -> dict[str, Any]:
    sides = {side: {"from": "gpt", "value": row[side]} for side in ("chosen", "rejected")}
    return {"conversations": [{"from": "human", "value": row["prompt"]}], **sides}


def alpaca(row: dict[str, Any]) -> dict[str, Any]:
    return {"instruction": row["prompt"], "input": "", "chosen": row["chosen"], "rejected": row["rejected"]}


def rated_list(question: str) -> dict[str, Any]:
    scores = {"Yes.": 3, "No.": 2, "Never.": 1}
    return {"instruction": question, "completions": [{"response": t, "overall_score": s} for t, s in scores.items()]}


FORMS: dict[str, list[dict[str, Any]]] = {
    "plain.csv": PLAIN,
    "messages.parquet": list(map(in_messages, PLAIN)),
    "implicit.jsonl": list(map(implicit, PLAIN)),
    "sharegpt.json": list(map(sharegpt, PLAIN)),
    "alpaca.json": list(map(alpaca, PLAIN)),
    "rated.jsonl": [rated_list(f"Question {n}?") for n in range(4)],
}


def opened(folder: Path, model: Path, file: Path, **fields: Any) -> Resources:
    recipe = {"model": str(model), "pairs": {"source": str(file)}, "align": ALIGN}
    run = Run(folder)
    parsed = Recipe.model_validate({**recipe, **fields})
    write_text(run.recipe, [dump(parsed)])
    return Resources(parsed, run, Notes())


def collected(folder: Path, model: Path, file: Path, **fields: Any) -> Resources:
    given = opened(folder, model, file, **fields)
    collect(given.run, given, 1)
    return given


def said_in_pairs(run: Run) -> list[tuple[str, str, str, float]]:
    """(prompt, chosen, rejected, gap) of every pair."""
    return [
        (entry.pool.prompt.text, *(entry.pool.responses[i].response.text for i in (p.chosen, p.rejected)), p.gap)
        for entry in paired_of(run, 1)
        for p in entry.pairs
    ]


@pytest.mark.parametrize("name", FORMS)
def test_the_tiny_model_trains_on_every_form(tiny_model, tmp_path, name):
    given = collected(tmp_path / "run", tiny_model, write(tmp_path / name, FORMS[name]))
    notes = work(given, align)
    assert sorted(pair[:3] for pair in said_in_pairs(given.run)) == sorted(tuple(row.values()) for row in PLAIN)
    assert "12 pairs: 12 answers, each computed once a pass, instead of 24" in notes
    assert any("over 12 pairs; 0% of the pairs weigh under 0.1" in note for note in notes)
    # 18 tokens of a prompt and 4 of each of 3 answers, 4 times over; in rows 6 prompts and 6 answers a pool
    assert any("computed once: 120 tokens a pass, 528 if every pair were a row of its own" in note for note in notes)
    assert (given.run.policy(1) / "model.safetensors").is_file()
    assert given.run.is_done(align_step(given.run, given, 1))


def test_without_scores_the_training_is_that_of_a_file_whose_gaps_are_all_one(tiny_model, tmp_path):
    """One form is another's equal: the very same weights come out, with scores one apart as without any."""
    rows = [{**row, "score_chosen": 1, "score_rejected": 0} for row in PLAIN if row["rejected"] == "Never."]
    bare = [pair_row(row["prompt"], row["chosen"], row["rejected"]) for row in rows]
    weights = []
    for name, content in (("rated", rows), ("bare", list(map(sharegpt, bare)))):
        given = collected(tmp_path / name, tiny_model, write(tmp_path / f"{name}.jsonl", content))
        work(given, align)
        weights.append((given.run.policy(1) / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != (tiny_model / "model.safetensors").read_bytes()


@pytest.mark.parametrize("form", ["trl", "llama-factory", "parquet"])
def test_an_export_read_back_is_the_same_pairs(make_run, tiny_model, tmp_path, form):
    run = make_run()
    written = export(run, tmp_path / "to", Wanted(form, keep_cut=True)).path
    given = collected(tmp_path / "back", tiny_model, written)
    assert said_in_pairs(given.run) == said_in_pairs(run)
    assert objectives_of(given.run) == objectives_of(run)
    for there, here in zip(paired_of(run, 1), paired_of(given.run, 1), strict=True):
        assert here.pool.prompt.id == there.pool.prompt.id
        for one, other in zip(there.pairs, here.pairs, strict=True):
            assert (other.distance, other.decided_by) == (pytest.approx(one.distance), one.decided_by)
            for i, j in ((one.chosen, other.chosen), (one.rejected, other.rejected)):
                mine, its = there.pool.responses[i], here.pool.responses[j]
                assert (its.scores, its.response.stop) == (mine.scores, mine.response.stop)
    again = export(given.run, tmp_path / "again", Wanted(form, keep_cut=True)).path
    assert again.read_bytes() == written.read_bytes()


def test_an_export_of_unrated_pairs_reads_back_and_its_card_claims_nothing(tiny_model, tmp_path):
    given = collected(tmp_path / "run", tiny_model, write(tmp_path / "d.jsonl", PLAIN))
    written = export(given.run, tmp_path / "to", Wanted())
    rows = [json.loads(line) for line in written.path.read_text().splitlines()]
    assert {(row["score_chosen"], row["weight"], row["decided_by"]) for row in rows} == {(None, 1.0, "preference")}
    assert said_in_pairs(collected(tmp_path / "back", tiny_model, written.path).run) == said_in_pairs(given.run)
    card = written.path.with_name("README.md").read_text()
    assert "12 pairs of answers to prompts, read from the file d.jsonl and made by nobody here." in card
    assert "judge" not in card
    assert str(tmp_path) not in card


def test_a_list_of_rated_answers_follows_the_rules_of_pairs(tiny_model, tmp_path):
    file = write(tmp_path / "d.jsonl", FORMS["rated.jsonl"])
    wide = collected(tmp_path / "run", tiny_model, file, pair={"margin": 2.0})
    assert [pair[1:] for pair in said_in_pairs(wide.run)] == [("Yes.", "Never.", 2.0)] * 4
    assert wide.run.funnel(1).pairs.decided_by == {"score": 4}


def test_whoever_looks_at_a_run_sees_its_pairs(tiny_model, tmp_path):
    lost = {"prompt": "Question 0?", "chosen": "Yes.", "rejected": "Yes."}
    file = write(tmp_path / "d.jsonl", [*PLAIN, lost, pair_row("Question 9?", "x", "")])
    given = collected(tmp_path / "run", tiny_model, file)
    assert "next: align" in funnel_text(funnel(given.run))
    work(given, align)
    shown = funnel_text(funnel(given.run))
    assert "1 no_rejected; rows left out: 1 (1 identical)" in shown
    assert "pairs: 12; decided by preference 12 (100%)" in shown
    assert "next" not in shown
    first = paired_of(given.run, 1)[0].pool.prompt.id
    story = prompt_text(prompt_story(given.run, first, reveal=True))
    assert "kept, 3 pairs" in story
    assert "| Never." in story
    assert f"dropped by prompts: row {file}:13, identical" in story
    with pytest.raises(InputError, match=r"has no prompt 'p-nothing'; did you mean p-|it has 5"):
        prompt_story(given.run, "p-nothing", reveal=False)
    found = diagnose(given.run, None)
    assert found.ok, [check for check in found.checks if not check.ok]
    write_report(given.run.folder)
    page = (given.run.folder / "report.html").read_text("utf-8")
    assert "preference" in page
    card = (given.run.policy(1) / "README.md").read_text()
    assert "was trained on the chosen and rejected answers of the file d.jsonl" in card
    assert "sampled answers" not in card


def test_a_plan_counts_what_the_file_holds(tiny_model, tmp_path):
    file = write(tmp_path / "d.jsonl", PLAIN)
    recipe = tmp_path / "own.yaml"
    recipe.write_text(json.dumps({"model": str(tiny_model), "pairs": file.name, "align": {"epochs": 2}}))
    found = plan(recipe, [], None)
    assert [step.name for step in found.steps] == ["round-1/read", "round-1/pair", "round-1/align"]
    assert (found.total.requests, found.total.trained_tokens) == (0, 2 * 120)


def test_only_a_changed_file_or_field_trains_again(tiny_model, tmp_path):
    file = write(tmp_path / "d.jsonl", PLAIN)
    given = collected(tmp_path / "run", tiny_model, file)
    work(given, align)
    moved = opened(tmp_path / "run", tiny_model, file.rename(tmp_path / "moved.jsonl"), sample={"n": 4})
    assert moved.run.is_done(align_step(moved.run, moved, 1))
    assert unused_fields(moved.recipe) == [
        "sample.n: 4 is not used by a recipe with pairs of its own, which collects none"
    ]
    other = opened(tmp_path / "run", tiny_model, write(tmp_path / "other.jsonl", PLAIN[:6]))
    assert not other.run.is_done(align_step(other.run, other, 1))
    collect(other.run, other, 1)
    assert [len(entry.pairs) for entry in read_paired(other.run, other, 1)] == [3, 3]


@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupted_training_goes_on_and_ends_as_one_that_was_not(tiny_model, tmp_path):
    file = write(tmp_path / "d.jsonl", PLAIN)
    often = {"align": {**ALIGN, "epochs": 3}}
    whole, first = (collected(tmp_path / name, tiny_model, file, **often) for name in ("whole", "run"))
    work(whole, align)
    n_steps = len(whole.reporter.rows)
    first.reporter.training = lambda row: signal.raise_signal(signal.SIGINT) if row["step"] == 2 else None
    with pytest.raises(KeyboardInterrupt):
        work(first, align)
    again = opened(tmp_path / "run", tiny_model, file, **often)
    work(again, align)
    assert len(again.reporter.rows) == n_steps - 2 > 0
    weights = [(given.run.policy(1) / "model.safetensors").read_bytes() for given in (whole, again)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("method", ["dpo", "ipo", "kto", "sft", "simpo"])
def test_other_losses_train_on_unrated_pairs(tiny_model, tmp_path, method):
    fields = {"align": {**ALIGN, "method": method, "weight_gap": "primary"}}
    given = collected(tmp_path / "run", tiny_model, write(tmp_path / "d.jsonl", PLAIN[:6]), **fields)
    work(given, align)
    assert diagnose(given.run, 1).ok


def test_a_loss_that_asks_for_safety_wants_ratings(tiny_model, tmp_path):
    safe = {"align": {"method": "safedpo"}}
    given = opened(tmp_path / "run", tiny_model, write(tmp_path / "d.jsonl", PLAIN), **safe)
    with pytest.raises(
        InputError, match=r"align.method: safedpo asks which answers are safe, and .*d.jsonl rates none"
    ):
        check_own(given.recipe)
    rated = [{**row, "score_chosen": 8, "score_rejected": 2} for row in PLAIN]
    check_own(opened(tmp_path / "run", tiny_model, write(tmp_path / "e.jsonl", rated), **safe).recipe)


def test_the_command_trains_goes_on_and_tells(tiny_model, tmp_path):
    rows = [{"better" if k == "chosen" else k: v for k, v in row.items()} for row in PLAIN]
    file = write(tmp_path / "d.jsonl", [*rows, {"prompt": "a", "better": "x", "rejected": "x"}])
    command = ("align", file, "--model", tiny_model, "--to", tmp_path / "run", "--columns", "chosen=better")
    done = spa(*command, "align.learning_rate=1e-3")
    assert f"policy: {tmp_path / 'run' / 'round-1' / 'policy'}\n" in done.stdout
    assert "pairs: d.jsonl: 13 rows: 4 pools, 12 answers instead of 24\n" in done.stderr
    assert f"pairs: 1 row left out: chosen and rejected are the same text ({file}:13)\n" in done.stderr
    assert list(steps(tmp_path / "run")) == ["round-1/read", "round-1/pair", "round-1/align", "report"]
    before = steps(tmp_path / "run")
    again = spa("run", tmp_path / "run" / "recipe.yaml", "--out", tmp_path / "run")
    assert "align (round 1): done before" in again.stderr
    assert steps(tmp_path / "run") == before
    wrong = spa(*command[:-1], "chosen=best", check=2)
    assert wrong.stderr.startswith(
        f"spa: {file}:1: no column 'best', which pairs.columns names as chosen; columns: prompt"
    )


@pytest.mark.parametrize(("name", "is_told"), [("plain.csv", True), ("rated.jsonl", False)])
def test_a_system_of_another_order_is_told_where_the_file_says_the_order(tiny_model, tmp_path, name, is_told):
    file = write(tmp_path / name, FORMS[name])
    systems = {"swapped": {"train": {"pair": {"order": "swapped"}}}}
    given = opened(tmp_path / "run", tiny_model, file, evaluate={"more_systems": systems})
    check_inputs(given)
    told = [line for line in given.reporter.notes if "evaluate.more_systems.swapped" in line]
    assert (
        told
        == [
            "evaluate.more_systems.swapped.train: pair.order: swapped is not used: "
            "the file of pairs says itself which answer is chosen",
            "evaluate.more_systems.swapped: under this recipe it is trained as spa is; leave it out",
        ][: 2 * is_told]
    )
