"""Collection and training in this process on scripted answers: what trains, what counts as done, what a kill keeps."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from selfpriority.errors import WorkFailed
from selfpriority.phases.align import align, align_step
from selfpriority.phases.collect import collect, collect_steps
from selfpriority.phases.evaluate import evaluate
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.recipe import Recipe, dump
from selfpriority.report.cards import write_policy_cards
from selfpriority.run import Run
from selfpriority.stages import mark_older
from selfpriority.storage import read_json, write_text
from selfpriority.training import align as training
from selfpriority.training.checkpoints import MARKER
from tests.test_pipeline import SMALL


class Notes(Reporter):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.rows: list[dict[str, float]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def training(self, row: dict[str, float]) -> None:
        self.rows.append(row)


class Killed(BaseException):
    """Stands for a signal: nothing of the program may catch it."""


def opened(folder: Path, model: Path, **changes: Any) -> Resources:
    recipe = {"model": str(model), **SMALL}
    for name, value in changes.items():
        recipe[name] = {**recipe.get(name, {}), **value}
    return Resources(Recipe.model_validate(recipe), Run(folder), Notes())


def work(given: Resources, phase: Any) -> list[str]:
    """Does a phase of round 1; what was said."""
    assert isinstance(given.reporter, Notes)
    given.run.folder.mkdir(exist_ok=True)
    given.run.recipe.touch()
    phase(given.run, given, 1)
    return given.reporter.notes


def test_pairs_of_an_older_recipe_do_not_train(tiny_model, tmp_path):
    work(opened(tmp_path / "run", tiny_model), collect)
    older = opened(tmp_path / "run", tiny_model, pair={"margin": 2.0})
    with pytest.raises(WorkFailed, match=r"round-1/pair is not done under the present recipe; `spa collect .*run`"):
        work(older, align)
    assert not older.run.policy(1).exists()
    nothing = opened(tmp_path / "empty", tiny_model)
    with pytest.raises(WorkFailed, match=r"round-1/sample is not done under .* `spa collect "):
        work(nothing, align)


def test_pools_that_another_recipe_replaced_do_not_train_with_the_pairs(tiny_model, tmp_path, monkeypatch):
    first = opened(tmp_path / "run", tiny_model)
    work(first, collect)
    monkeypatch.setattr("selfpriority.phases.round_steps.pair", _killed)
    with pytest.raises(Killed):
        work(opened(tmp_path / "run", tiny_model, sample={"temperature": 0.9}), collect)
    with pytest.raises(WorkFailed, match="not done under the present recipe"):
        work(first, align)


def _killed(*_: object, **__: object) -> None:
    raise Killed


def test_a_policy_of_an_older_recipe_is_not_evaluated(tiny_model, tmp_path):
    first = opened(tmp_path / "run", tiny_model)
    work(first, collect)
    work(first, align)
    changed = opened(tmp_path / "run", tiny_model, align={"beta": 7.0})
    with pytest.raises(WorkFailed, match=r"round-1/align: not done under the present recipe; `spa align .*run`"):
        evaluate(changed.run, changed)
    assert not changed.run.evaluation.exists()
    evaluate(first.run, first)
    assert (first.run.evaluation / "summary.json").is_file()


def test_the_card_shows_no_results_of_older_weights(tiny_model, tmp_path):
    def card(given: Resources) -> str:
        return (given.run.policy(1) / "README.md").read_text("utf-8")

    first = opened(tmp_path / "run", tiny_model)
    work(first, collect)
    write_text(first.run.recipe, [dump(first.recipe)])
    align(first.run, first, 1)
    assert "It was not evaluated: " in card(first)
    evaluate(first.run, first)
    write_policy_cards(first.run)
    assert "`spa` is this model" in card(first)
    assert "cannot be told" not in card(first)
    changed = opened(tmp_path / "run", tiny_model, align={"beta": 7.0, "learning_rate": 0.5})
    write_text(changed.run.recipe, [dump(changed.recipe)])
    align(changed.run, changed, 1)
    assert "It was not evaluated since it was trained: " in card(changed)
    assert "| spa |" not in card(changed)
    evaluate(changed.run, changed)
    write_policy_cards(changed.run)
    assert "| spa |" in card(changed)


@pytest.mark.parametrize("flags", [(), ("--quiet",), ("--verbose",)])
def test_processes_that_train_together_speak_as_loud(tiny_model, tmp_path, monkeypatch, flags):
    launched = []
    monkeypatch.setattr("selfpriority.phases.align.launch", lambda given, *_: launched.append(given))
    many = opened(tmp_path / "run", tiny_model, align={"processes": 2})
    many.reporter.flags = flags
    work(many, collect)
    work(many, align)
    assert launched == [(*flags, "align", str(many.run.folder), "--child", "--round", "1")]


def test_another_model_trains_anew_whoever_generates(tiny_model, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_model.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 256}))
    server = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "model": "served"}
    served = [opened(tmp_path / "run", model, backend=server, score={"judge": "big"}) for model in (tiny_model, other)]
    assert len({collect_steps(given.run, given, 1)[-1].key for given in served}) == 1
    assert len({align_step(given.run, given, 1).key for given in served}) == 2


def test_a_kill_between_training_and_the_manifest_does_not_train_it_all_again(tiny_model, tmp_path, monkeypatch):
    often = {"epochs": 4, "checkpoint_minutes": 1e-9}
    first = opened(tmp_path / "run", tiny_model, align=often)
    work(first, collect)
    with monkeypatch.context() as killing:
        killing.setattr(Run, "record_sifted", _killed)
        with pytest.raises(Killed):
            work(first, align)
    n_steps = len(first.reporter.rows)
    again = opened(tmp_path / "run", tiny_model, align=often)
    work(again, align)
    assert n_steps > 4
    assert len(again.reporter.rows) <= 1
    assert not list(again.run.round(1).glob("checkpoints-*"))
    lines = (again.run.round(1) / "training.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, n_steps + 1))


def test_the_manifest_holds_the_tokens_of_the_process_whose_seconds_it_holds(tiny_model, tmp_path):
    often = {"epochs": 4, "checkpoint_minutes": 1e-9}
    whole, first = (opened(tmp_path / name, tiny_model, align=often) for name in ("whole", "run"))
    for given in (whole, first):
        work(given, collect)
    work(whole, align)
    n_steps = len(whole.reporter.rows)
    first.reporter.training = lambda row: _killed() if row["step"] == n_steps - 1 else None
    with pytest.raises(Killed):
        work(first, align)
    again = opened(tmp_path / "run", tiny_model, align=often)
    work(again, align)
    n_all, n_last = (given.run.manifest.steps["round-1/align"].tokens for given in (whole, again))
    assert len(again.reporter.rows) == 2
    assert 0 < n_last < n_all / 2


def test_a_lost_last_prompt_is_told_every_time_and_the_funnel_ends_there(tiny_model, tmp_path):
    whole = opened(tmp_path / "run", tiny_model)
    work(whole, collect)
    work(whole, align)
    for _ in range(3):
        given = opened(tmp_path / "run", tiny_model, denoise={"max_det": 1e-9, "keep_lowest": None})
        with pytest.raises(WorkFailed, match=r"round-1/denoise: no prompt is left \(6 \w+\)"):
            work(given, collect)
    funnel = read_json(given.run.round(1) / "funnel.json")
    assert list(funnel) == ["steps"]
    assert list(funnel["steps"]) == ["prompts", "sample", "score", "refine", "denoise"]


def test_checkpoints_of_the_version_before_are_said_to_be_useless(tiny_model, tmp_path):
    often = {"epochs": 4, "checkpoint_minutes": 1e-9}
    first = opened(tmp_path / "run", tiny_model, align=often)
    work(first, collect)
    first.reporter.training = lambda row: _killed() if row["step"] == 4 else None
    with pytest.raises(Killed):
        work(first, align)
    for marker in first.run.round(1).glob(f"checkpoints-*/checkpoint-*/{MARKER}"):
        marker.write_text(marker.read_text().replace("safetensors ", "torch "))
    again = opened(tmp_path / "run", tiny_model, align=often)
    told = [line for line in work(again, align) if "torch" in line]
    assert told == ["round-1/align: its checkpoints are in torch's form, unreadable here; it starts anew"]
    assert again.reporter.rows[0]["step"] == 1


def test_what_another_recipe_did_is_called_older_until_it_is_done_again(tiny_model, tmp_path):
    first = opened(tmp_path / "run", tiny_model)
    work(first, collect)
    work(first, align)
    other = opened(tmp_path / "run", tiny_model, pair={"margin": 0.3})
    mark_older(other.run, other)
    assert states(other.run) == {
        "sample": "done",
        "score": "done",
        "refine": "done",
        "denoise": "done",
    } | dict.fromkeys(("pair", "align"), "older")
    work(other, collect)
    assert (states(other.run)["pair"], states(other.run)["align"]) == ("done", "older")
    back = opened(tmp_path / "run", tiny_model)
    mark_older(back.run, back)
    assert (states(back.run)["pair"], states(back.run)["align"]) == ("older", "done")
    work(back, collect)
    work(back, align)
    assert set(states(back.run).values()) == {"done"}
    assert back.reporter.rows == []  # its policy was there all the time


def states(run: Run) -> dict[str, str]:
    steps = run.manifest.steps.items()
    return {name.partition("/")[2]: entry.state for name, entry in steps if name.startswith("round-1/")}


def test_a_field_mistyped_once_costs_no_trained_step(tiny_model, tmp_path):
    """Its command takes nothing away: checkpoints and log of the right recipe lie there until a training is done."""
    often = {"epochs": 4, "checkpoint_minutes": 1e-9}
    first = opened(tmp_path / "run", tiny_model, align=often)
    work(first, collect)
    for given, last in ((first, 5), (opened(tmp_path / "run", tiny_model, align={**often, "beta": 3.0}), 3)):
        given.reporter.training = lambda row, last=last: _killed() if row["step"] == last else None
        with pytest.raises(Killed):
            work(given, align)
    again = opened(tmp_path / "run", tiny_model, align=often)
    work(again, align)
    assert again.reporter.rows[0]["step"] == 5
    log = [json.loads(line) for line in (again.run.round(1) / "training.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == list(range(1, len(log) + 1))
    whole = opened(tmp_path / "whole", tiny_model, align=often)
    work(whole, collect)
    work(whole, align)
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in whole.reporter.rows])
    assert not list(again.run.round(1).glob("checkpoints-*"))


def test_a_training_tells_what_of_its_movement_was_saved(tiny_model, tmp_path):
    given = opened(tmp_path / "run", tiny_model)
    work(given, collect)
    (line,) = [note for note in work(given, align) if "survived" in note]
    assert line.startswith("round-1/align: movement that survived saving: 1.000 (in float32; rounded to the nearest ")
    pairs = given.run.funnel(1).pairs
    assert pairs is not None
    assert pairs.survived == 1.0
    assert not any("only" in note for note in given.reporter.notes)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupt_behind_the_last_step_loses_no_step(tiny_model, tmp_path, monkeypatch):
    """No checkpoint holds the steps since the last one any more, so what is trained is saved before the end."""
    settle = training.settle

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return settle(*arguments)

    monkeypatch.setattr(training, "settle", interrupted)
    given = opened(tmp_path / "run", tiny_model)
    work(given, collect)
    with pytest.raises(KeyboardInterrupt):
        work(given, align)
    assert given.run.is_done(align_step(given.run, given, 1))
    assert given.reporter.notes[-1] == "round-1/align: it was interrupted when all steps were done; its policy is saved"
    trained = given.reporter.rows
    work(given, align)
    assert given.reporter.rows == trained != []
