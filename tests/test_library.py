"""The whole way from Python: a recipe from end to end and what it found, the steps one by one, wrong calls."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from selfpriority import (
    Align,
    Evaluate,
    InputError,
    InWords,
    Item,
    JudgeRefused,
    Message,
    ProbeJudge,
    Prompt,
    Rating,
    Recipe,
    Response,
    Results,
    WordsJudge,
    WorkFailed,
    evaluate,
    load_constitution,
    load_recipe,
    open_judge,
    open_model,
    run_recipe,
    train,
)
from selfpriority.method.pair import pair
from selfpriority.recipe import ByBattery, ByContrast, ByPython, PairRules
from selfpriority.training import align as training
from tests.test_pipeline import write_recipe

PAGE = (Path(__file__).parent.parent / "docs" / "library.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


@pytest.fixture(scope="module")
def found(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("library")
    return run_recipe(write_recipe(folder, tiny_model), to=folder / "run")


def test_a_run_says_what_it_found(found):
    assert [len(pool.responses) for pool in found.candidates()] == [4] * 6
    assert [len(pool.candidates) for pool in found.scored()] == [4] * 6
    assert {row.prompt_id for row in found.pairs()} <= {pool.prompt.id for pool in found.pools()}
    assert found.funnel().steps["sample"].out == 6
    assert found.policy() == found.policy(1)
    assert (found.policy() / "model.safetensors").is_file()
    assert [row.prompt.id for row in found.answers("vanilla")] == [row.prompt.id for row in found.answers("spa")]
    assert "train" in found.checks.raters
    assert found.rounds == (1,)
    assert found.recipe.sample.n == 4


def test_tables_hold_what_the_records_hold(found):
    candidates, pairs, differences = (found.frame(what) for what in ("candidates", "pairs", "differences"))
    assert len(candidates) == 24
    first = found.scored()[0].candidates[0]
    assert tuple(candidates.loc[0, ["harmlessness", "helpfulness"]]) == first.scores
    assert list(pairs["gap"]) == [row.gap for row in found.pairs()]
    assert set(differences["objective"]) == {"harmlessness", "helpfulness"}
    [contest] = found.summary.against_first()
    rows = differences[(differences["judge"] == "self") & (differences["objective"] == "helpfulness")]
    assert list(rows["mean"]) == [found.summary.difference[contest]["helpfulness"].mean]


def test_the_same_call_goes_on(found, monkeypatch):
    before = found.policy().stat().st_mtime_ns
    again = run_recipe(Path(found.folder) / "recipe.yaml", to=found.folder)
    assert again.policy().stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_recipe_made_in_python_runs(tiny_model, tmp_path, found):
    made: Recipe = load_recipe(Path(found.folder) / "recipe.yaml").model_copy(update={"seed": 5})
    assert run_recipe(made, to=tmp_path / "run").recipe.seed == 5
    with pytest.raises(InputError, match="needs `to`"):
        run_recipe(made)


def test_what_is_not_there_names_the_step_that_makes_it(found, tmp_path):
    with pytest.raises(InputError, match="is no run directory"):
        Results(tmp_path)
    with pytest.raises(InputError, match="no table 'answers'; there are candidates, pairs, differences"):
        found.frame("answers")
    with pytest.raises(InputError, match="no answers of 'sft'"):
        found.answers("sft")
    with pytest.raises(InputError, match="not there yet; `spa collect"):
        found.pairs(round=2)


def test_a_refused_judge_is_an_error_of_its_own(tiny_model, tmp_path):
    recipe = write_recipe(tmp_path, tiny_model)
    with pytest.raises(JudgeRefused, match="exit code 3"):
        run_recipe(recipe, "score.require_signal=true", to=tmp_path / "run")


def test_judges_open_by_name_and_as_a_recipe_has_them(yes_no_model, embedded_model):
    constitution = load_constitution("harmless-helpful")
    item = Item(
        Prompt("p", (Message("user", "How do I bake bread?"),)), Response("p/y", "p", "Mix and wait.", "end", 4)
    )
    heads = open_judge("demo-eval", constitution)
    assert (type(heads), heads.objectives) == (ProbeJudge, constitution.names)
    assert all(1 <= rating.value <= 10 for rating in heads.rate([item])[0])
    asked = open_judge(InWords(judge=str(yes_no_model), mass_floor=1e-9), constitution)
    assert isinstance(asked, WordsJudge)
    assert len(asked.rate([item])[0]) == 2
    with pytest.raises(InputError, match="nobody/nothing"):
        open_judge("nobody/nothing", constitution)


def test_a_comparison_needs_two_systems_and_prompts():
    with pytest.raises(InputError, match="1 systems"):
        evaluate({"one": None}, [], None)
    with pytest.raises(InputError, match="no prompts"):
        evaluate({"one": None, "two": None}, [], None)


def test_a_judge_that_a_run_makes_is_refused_and_a_function_opens(tmp_path, monkeypatch):
    constitution = load_constitution("harmless-helpful")
    for section in (ByContrast(kind="contrast"), ByBattery(kind="battery")):
        with pytest.raises(InputError, match="is made in a run"):
            open_judge(section, constitution)
    (tmp_path / "judging_here.py").write_text(
        "def rate(answers, objectives):\n    return [dict.fromkeys(objectives, 7) for _ in answers]\n"
    )
    monkeypatch.chdir(tmp_path)
    prompt = Prompt("p", (Message("user", "How?"),))
    judge = open_judge(ByPython(kind="python", judge="judging_here:rate", folder=str(tmp_path)), constitution)
    [row] = judge.rate([Item(prompt, Response("p/y", "p", "So.", "end", 1))])
    assert [rating.value for rating in row] == [7, 7]


class Sevens:
    objectives, fingerprint = ("one",), "sevens"

    def rate(self, items):
        return [(Rating(7.0),) for _ in items]


def test_a_system_without_answers_and_ids_that_repeat_are_errors(tiny_model):
    prompt = Prompt("p", (Message("user", "How?"),))
    model = open_model(str(tiny_model))
    settings = Evaluate(max_new_tokens=8)
    with pytest.raises(InputError, match="several prompts have one id"):
        evaluate({"a": model, "b": model}, [prompt, prompt], Sevens(), settings)
    with pytest.raises(WorkFailed, match="a has no answer at all"):
        evaluate({"a": model, "b": model}, [prompt], Sevens())  # 512 tokens have no place in 512


def test_training_on_several_processes_is_for_a_run(tmp_path):
    with pytest.raises(InputError, match="processes is for a run"):
        train([], "anything", tmp_path, Align(processes=2))


def test_what_a_run_notes_is_told_on_stderr(tiny_model, tmp_path, capfd):
    recipe = write_recipe(tmp_path, tiny_model)
    with pytest.raises(JudgeRefused):
        run_recipe(recipe, "score.require_signal=true", "align.beta=0.001", to=tmp_path / "run")
    assert "beta" in capfd.readouterr().err


def test_the_steps_of_the_page_run_as_they_are_printed(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": str(tiny_model), "TEXTS": [f"Say {word} in your own words." for word in ("one", "two", "three")]}
    exec(compile(BLOCKS[1], "library.md", "exec"), names)
    assert (tmp_path / "out" / "policy" / "model.safetensors").is_file()
    assert re.match(r"\d+ pairs; {Contest\(a='after', b='before'\)", capsys.readouterr().out)
    assert names["trained"].n_pairs > 0


def test_the_first_example_of_the_page_runs_as_it_is_printed(tiny_model, tmp_path, monkeypatch, capsys):
    write_recipe(tmp_path, tiny_model).rename(tmp_path / "my.yaml")
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[0], "library.md", "exec"), {})
    assert "harmlessness" in capsys.readouterr().out


def test_a_training_goes_on_from_its_own_checkpoint_and_from_no_other(tiny_model, tmp_path, found, monkeypatch):
    """Weights trained anew under the same path are another start, and a mistyped field takes nothing away."""
    pools = pair(found.pools(), PairRules(margin=0.1)).kept
    settings = Align(epochs=4, checkpoint_minutes=1e-9, tokens_per_step=200, tokens_per_batch=200)
    start = tmp_path / "start"
    shutil.copytree(tiny_model, start)
    stop_at = [3]

    def stopping(row):
        if row["step"] == stop_at[0]:
            raise Stopped

    def trained(**changes):
        with monkeypatch.context() as patched:
            original = training.train
            patched.setattr(training, "train", lambda *given: original(*given, stopping))
            return train(pools, start, tmp_path / "out", settings.model_copy(update=changes))

    for changes in ({}, {"beta": 9.0}):
        with pytest.raises(Stopped):
            trained(**changes)
        stop_at[0] = 2
    stop_at[0] = 0
    assert trained().resumed_from == 2
    stop_at[0] = 3
    with pytest.raises(Stopped):
        trained()
    stop_at[0] = 0
    shutil.rmtree(start)
    shutil.copytree(tmp_path / "out" / "policy", start)
    assert trained().resumed_from == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"policy", "training.jsonl"}


class Stopped(BaseException):
    """Stands for a kill."""
