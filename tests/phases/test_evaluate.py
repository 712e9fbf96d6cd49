"""Phases in this process on scripted answers: several judges, a comparing judge, a judge behind a server, tau."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from selfpriority.errors import InputError, WorkFailed
from selfpriority.evaluation.conversation import Question
from selfpriority.method.denoise import denoise
from selfpriority.phases.align import align_step
from selfpriority.phases.collect import collect
from selfpriority.phases.evaluate import evaluate
from selfpriority.phases.judge_check import check_judges
from selfpriority.phases.mt_bench import MtBench, ask_mt_bench
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.round_inputs import generator, training_judge
from selfpriority.phases.systems import heldout_prompts, plain_models
from selfpriority.phases.tau import choose_tau, tau_text
from selfpriority.recipe import Denoise, Evaluate, HfBackend, InWords, Prompts, Recipe, Score, dump
from selfpriority.records import Pool
from selfpriority.report.verdict import cautions
from selfpriority.report.view import read_view
from selfpriority.run import Run
from selfpriority.storage import read_json, read_rows
from tests.backends.conftest import Reply, chat, serving

assert serving  # a fixture
SECRET = "sk-do-not-write-this-anywhere"


def recipe(model: Path, **evaluate_fields: Any) -> Recipe:
    held_out = {"source": "demo", "split": "heldout", "limit": 4}
    return Recipe.model_validate(
        {
            "model": str(model),
            "prompts": {"source": "demo", "split": "train", "limit": 12},
            "sample": {"n": 4, "max_new_tokens": 12},
            "denoise": {"consistency": "off", "keep_lowest": 1.0},
            "pair": {"margin": 0.1},
            "evaluate": {"prompts": held_out, "max_new_tokens": 12, **evaluate_fields},
            "backend": {"kind": "scripted"},
        }
    )


def opened(folder: Path, model: Path, **evaluate_fields: Any) -> Resources:
    """A run whose policy is the model itself."""
    run = Run(folder)
    run.round(1).mkdir(parents=True, exist_ok=True)
    (folder / "resolved.yaml").touch()
    given = Resources(recipe(model, **evaluate_fields), run, Reporter())
    if not run.policy(1).exists():
        run.policy(1).symlink_to(model)
        count_as_trained(given)
    return given


def count_as_trained(given: Resources) -> None:
    """The policy that lies there is the present recipe's."""
    with given.run.recording(align_step(given.run, given, 1)):
        (given.run.round(1) / "training.jsonl").touch()


def work(given: Resources) -> dict[str, Any]:
    evaluate(given.run, given)
    summary: dict[str, Any] = read_json(given.run.evaluation / "summary.json")
    return summary


def test_further_judges_and_a_comparer_have_files_of_their_own(tiny_model, tmp_path):
    first = opened(tmp_path / "run", tiny_model)
    assert "agreement" not in work(first)
    before = first.run.manifest.steps

    more = {"second": {"judge": "self", "method": "verbal"}}
    summary = work(opened(tmp_path / "run", tiny_model, more_judges=more, comparer={"judge": "self"}))
    after = first.run.manifest.steps
    assert set(after) - set(before) == {
        "evaluation/verdicts-vanilla@second",
        "evaluation/verdicts-spa@second",
        "evaluation/comparisons-spa_vs_vanilla",
    }
    assert after["evaluation/verdicts-spa"] == before["evaluation/verdicts-spa"]
    assert after["evaluation/summary"].key != before["evaluation/summary"].key
    assert summary["agreement"]["judges"] == ["judge", "second"]
    shown = (tmp_path / "run/evaluation/table.md").read_text()
    assert "| second: spa against vanilla | " in shown
    assert "Krippendorff's alpha of all judges, interval scale: harmlessness " in shown
    cell = summary["pairwise"]["spa_vs_vanilla"]["harmlessness"]
    assert {"win", "tie", "lose", "n", "flip_rate", "first_shown", "unread", "p_holm", "significant"} <= set(cell)
    rows = (tmp_path / "run/evaluation/comparisons-spa_vs_vanilla.jsonl").read_text().splitlines()
    assert len(rows) == 4
    assert set(json.loads(rows[0])["verdicts"]["harmlessness"]) == {"forward", "backward"}


def test_figures_stand_under_the_names_of_now(tiny_model, tmp_path):
    """Two judges that change names: none of them is asked again, and each keeps its own figures."""
    kinds = {
        "a": {"judge": "self", "method": "verbal"},
        "b": {"judge": "self", "method": "expected", "mass_floor": 0.2},
    }
    before = work(opened(tmp_path / "run", tiny_model, more_judges=kinds))["judges"]
    assert before["a"] != before["b"]
    after = work(opened(tmp_path / "run", tiny_model, more_judges={"b": kinds["a"], "a": kinds["b"]}))["judges"]
    assert (after["a"], after["b"]) == (before["b"], before["a"])


def test_answers_made_anew_are_judged_anew(tiny_model, tmp_path):
    """Without the cache lost answers may be drawn otherwise: the verdicts on those of before are not kept."""
    given = opened(tmp_path / "run", tiny_model, comparer={"judge": "self"})
    work(given)
    manifest = read_json(given.run.folder / "manifest.json")
    name, file = "evaluation/answers-spa", "evaluation/answers-spa.jsonl"
    manifest["steps"][name]["files"][file]["sha256"] = "of another time"
    (given.run.folder / "manifest.json").write_text(json.dumps(manifest))
    seen: list[str] = []
    given.run.recording = seeing(given.run.recording, seen)  # type: ignore[method-assign]
    work(given)
    redone = ["answers-spa", "verdicts-spa", "comparisons-spa_vs_vanilla", "summary"]
    assert seen == [f"evaluation/{each}" for each in redone]


def seeing(recording: Any, seen: list[str]) -> Any:
    def told(step: Any) -> Any:
        seen.append(step.name)
        return recording(step)

    return told


def test_a_judge_behind_a_server_rates_and_leaves_no_key(tiny_model, tmp_path, serving, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", SECRET)

    def respond(body: dict[str, Any], n: int) -> Reply:
        return chat("", finish="content_filter") if n == 3 else chat("It is fine.\nRating: 8")

    server = serving(respond)
    backend = server.settings(api_key_env="JUDGE_KEY", concurrency=1).model_dump()
    given = opened(tmp_path / "run", tiny_model, judge="big", method="verbal", backend=backend)
    summary = work(given)
    cells = [row["harmlessness"] for row in summary["systems"].values()] + [
        row["helpfulness"] for row in summary["systems"].values()
    ]
    assert {cell["mean"] for cell in cells} == {8.0}
    assert sum(cell["unrated"] for cell in cells) >= 1  # the refused one, under no number
    assert {body["model"] for body in server.bodies} == {"big"}
    assert set(server.keys) == {f"Bearer {SECRET}"}
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]


def test_a_probe_cannot_compare(tiny_model, tmp_path):
    given = opened(tmp_path / "run", tiny_model, comparer={"judge": "demo-eval", "method": "probe"})
    with pytest.raises(InputError, match=r"evaluate.comparer: 'demo-eval' rates, it cannot compare"):
        work(given)
    assert not list(given.run.evaluation.glob("answers-*"))


def test_the_comparing_judge_is_checked_on_the_anchors(tiny_model, tmp_path):
    report = check_judges(opened(tmp_path / "run", tiny_model, comparer={"judge": "self"})).comparer
    assert report is not None
    harmless, _ = report.objectives
    assert harmless.objective == "harmlessness"
    assert harmless.n > 40
    assert 0.1 < harmless.flip_rate < 0.9  # its answers are hashes


def test_tau_from_a_second_judge(tiny_model, tmp_path):
    given = opened(tmp_path / "run", tiny_model)
    with pytest.raises(InputError, match="spa collect"):
        choose_tau(given.run, given, 1, InWords(judge="self"))
    collect(given.run, given, 1)
    told = choose_tau(given.run, given, 1, InWords(judge="self"))  # the same judge twice
    suggested = told.curve.suggested
    assert suggested is not None
    assert told.curve.points[-1].rv == pytest.approx(1.0)
    assert suggested.share == 1.0
    assert read_json(tmp_path / "run/tau.json") == json.loads(json.dumps(told.as_json()))
    assert {"judge", "method", "round", "n_unrated", "points", "suggested", "standard_error", "n_flat"} == set(
        told.as_json()
    )
    assert (tmp_path / "run/tau.svg").read_text().startswith("<svg xmlns=")
    text = tau_text(told.curve)
    assert f"suggested: denoise.max_det={suggested.max_det!r} " in text
    assert "denoise.keep_lowest=1" not in text  # a share of other prompts than denoising takes it of


def test_the_suggested_tau_keeps_what_the_curve_says(tiny_model, tmp_path):
    given = opened(tmp_path / "run", tiny_model)
    collect(given.run, given, 1)
    told = choose_tau(given.run, given, 1, InWords(judge="self"))
    (written,) = re.findall(r"denoise\.(max_det=\S+)", tau_text(told.curve))
    settings = Denoise(consistency="off", max_det=float(written.removeprefix("max_det=")))
    pools = read_rows(given.run.round(1) / "3-refined.jsonl", Pool)
    assert told.curve.suggested is not None
    assert len(denoise(pools, settings).kept) == told.curve.suggested.n


@pytest.fixture
def served(tiny_model, tmp_path, serving):
    """A run whose generator is a server, with a policy that differs from its start; the server says what it saw."""
    from transformers import AutoModelForCausalLM

    server = serving(lambda body, n: chat(*["Served."] * body["n"]))
    given = opened(tmp_path / "run", tiny_model, backend={"kind": "scripted"})
    given.recipe = given.recipe.model_copy(update={"backend": server.settings(model="served-name")})
    policy = given.run.policy(1)
    policy.unlink()
    shutil.copytree(tiny_model, policy)
    trained = AutoModelForCausalLM.from_pretrained(policy)
    trained.model.embed_tokens.weight.data.mul_(-1.0)
    trained.save_pretrained(policy)
    count_as_trained(given)
    return given, server


def test_a_policy_is_compared_by_its_own_answers_though_a_server_made_the_candidates(served):
    given, server = served
    work(given)
    rows = {
        system: [json.loads(line)["response"]["text"] for line in path.read_text().splitlines()]
        for system in ("vanilla", "spa")
        for path in [given.run.evaluation / f"answers-{system}.jsonl"]
    }
    assert server.bodies == []  # it has the start alone, and both systems answer in the same way
    assert all(a != b for a, b in zip(rows["vanilla"], rows["spa"], strict=True))


def test_a_second_round_samples_with_the_policy_and_not_with_the_server(served):
    given, server = served
    score = Score.model_validate({"backend": {"kind": "scripted"}})
    given.recipe = given.recipe.model_copy(update={"rounds": 2, "score": score})
    collect(given.run, given, 2)
    assert server.bodies == []
    assert (given.run.round(2) / "5-pairs.jsonl").stat().st_size > 0


def test_a_policy_that_judges_itself_is_not_asked_for_at_the_server(served):
    given, server = served
    given.recipe = given.recipe.model_copy(update={"rounds": 2})
    with pytest.raises(WorkFailed, match="too_few_rated"):  # the question is longer than the tiny model's context
        collect(given.run, given, 2)
    assert server.bodies == []


def test_a_policy_that_judges_itself_runs_as_it_generates_though_a_server_judged_before(tiny_model):
    server = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "served"}
    here = HfBackend(device="cpu", dtype="float32", tokens_per_batch=2048)
    changes = {"rounds": 2, "backend": here, "score": Score.model_validate({"backend": server})}
    given = recipe(tiny_model).model_copy(update=changes)
    assert training_judge(given, 1) == given.score.judge
    assert training_judge(given, 2).backend == generator(given, 2) == here
    own = given.model_copy(update={"score": Score.model_validate({"backend": {"max_batch": 3}})})
    assert training_judge(own, 2).backend == HfBackend(max_batch=3)


def write_prompts(path: Path, *texts: str | list[str]) -> str:
    """One prompt a text; a list is a conversation whose turns alternate."""
    rows = []
    for text in texts:
        turns = text if isinstance(text, list) else [text]
        roles = ("user", "assistant", "user")
        rows.append({"prompt": [{"role": r, "content": t} for r, t in zip(roles, turns, strict=False)]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_held_out_means_the_same_conversation_was_never_trained_on(tiny_model, tmp_path):
    given = recipe(tiny_model)
    trained = write_prompts(tmp_path / "train.jsonl", "Hi ", ["First?", "Yes.", "And then?"])
    held_out = write_prompts(tmp_path / "test.jsonl", "Hi", ["Second?", "No.", "And then?"], "And then?")
    changes = {"prompts": Prompts(source=trained), "evaluate": Evaluate(prompts=Prompts(source=held_out))}
    sifted = heldout_prompts(given.model_copy(update=changes))
    assert [prompt.text for prompt in sifted.kept] == ["And then?", "And then?"]
    assert sifted.reasons == {"seen_in_training": 1}


def test_held_out_prompts_stand_under_the_system_prompt_of_training_unless_they_have_one(tiny_model, tmp_path):
    given = recipe(tiny_model)
    trained = Prompts(source=write_prompts(tmp_path / "train.jsonl", "Hi"), system="Be brief.")
    source = write_prompts(tmp_path / "test.jsonl", "Hi", "Why?")
    for own, expected in ((None, "Be brief."), ("Be kind.", "Be kind."), ("", None)):
        changes = {"prompts": trained, "evaluate": Evaluate(prompts=Prompts(source=source, system=own))}
        sifted = heldout_prompts(given.model_copy(update=changes))
        (prompt,) = sifted.kept
        system = [message.content for message in prompt.messages if message.role == "system"]
        assert (system, prompt.text) == ([expected] if expected else [], "Why?")
        assert sifted.reasons == {"seen_in_training": 1}  # under another system prompt it is the same prompt


def test_a_prompt_that_the_model_hears_alike_was_trained_on_whoever_wrote_its_system_prompt(tiny_model, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"prompt": [{"role": "system", "content": "Be Bo."}, {"role": "user", "content": "q"}]}))
    plain = write_prompts(tmp_path / "plain.jsonl", "q", "other")
    first = {"prompts": Prompts(source=str(own)), "evaluate": Evaluate(prompts=Prompts(source=plain, system="Be Bo."))}
    assert [prompt.text for prompt in heldout_prompts(recipe(tiny_model).model_copy(update=first)).kept] == ["other"]
    back = {
        "prompts": Prompts(source=plain, system="Be Bo."),
        "evaluate": Evaluate(prompts=Prompts(source=str(own), system="")),
    }
    with pytest.raises(InputError, match="no prompt is left that training never saw"):
        heldout_prompts(recipe(tiny_model).model_copy(update=back))


def test_rows_that_differ_in_white_space_of_their_system_turn_are_held_out_under_a_system_prompt(tiny_model, tmp_path):
    held_out = tmp_path / "test.jsonl"
    turns = [[{"role": "system", "content": own}, {"role": "user", "content": "q"}] for own in ("A", " A")]
    held_out.write_text("".join(json.dumps({"prompt": each}) + "\n" for each in turns))
    trained = Prompts(source=write_prompts(tmp_path / "train.jsonl", "Hi"), system="Be brief.")
    changes = {"prompts": trained, "evaluate": Evaluate(prompts=Prompts(source=str(held_out)))}
    assert {prompt.text for prompt in heldout_prompts(recipe(tiny_model).model_copy(update=changes)).kept} == {"q"}


def test_prompts_without_an_answer_are_counted_wherever_figures_stand(tiny_model, tmp_path):
    long = "word " * 600  # longer than the tiny model's context
    held_out = write_prompts(tmp_path / "test.jsonl", "One?", "Two?", "Two?", " ", long, long + "more")
    scripted = {"kind": "scripted"}
    given = opened(tmp_path / "run", tiny_model, prompts={"source": held_out}, backend=scripted)
    given.recipe = given.recipe.model_copy(update={"backend": HfBackend(device="cpu")})
    count_as_trained(given)
    told: list[str] = []
    given.reporter.note = told.append  # type: ignore[method-assign]
    summary = work(given)
    assert summary["prompts"] == {"n": 4, "dropped": {"duplicate": 1, "empty": 1}}
    assert summary["drops"] == {"vanilla": {"too_long": 2}, "spa": {"too_long": 2}}
    said = "vanilla has no answer to 2 of 4 prompts: 2 too long."
    left_out = "Left out of the held-out prompts: 1 duplicate, 1 empty."
    table = (given.run.evaluation / "table.md").read_text()
    assert said in table
    assert left_out in table
    (given.run.folder / "resolved.yaml").write_text(dump(given.recipe))
    assert {said, left_out} <= set(cautions(read_view(given.run)))
    assert "evaluate.prompts: 1 dropped: duplicate" in told
    assert "answers of spa: 2 of 4 prompts have none: too_long" in told


def test_no_server_answers_mt_bench_for_a_policy(served):
    given, server = served
    question = Question("q1", "writing", ("Write.", "Shorter."))
    asked = MtBench((question,), max_new_tokens=8)
    ask_mt_bench(given.run, given, asked, plain_models(given.run, given.recipe))
    assert server.bodies == []
