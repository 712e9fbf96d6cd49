"""What a model still knows: paired figures by hand, questions from a file, the alarm."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from selfpriority.backends.perplexity import Likelihood
from selfpriority.backends.progress import Progress
from selfpriority.errors import InputError, WorkFailed
from selfpriority.evaluation.accuracy import accuracies
from selfpriority.evaluation.perplexity import perplexities
from selfpriority.evaluation.records import Contest
from selfpriority.evaluation.summary_file import write_perplexity
from selfpriority.evaluation.utility_records import Utility, read_utility
from selfpriority.phases.harness import Bars, by_question, mmlu_tasks, model_arguments
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.summary import perplexity_of_all, perplexity_step
from selfpriority.phases.utility import Questions, utility, utility_text
from selfpriority.recipe import Evaluate, HfBackend, Prompts, Recipe
from selfpriority.run import Run
from selfpriority.run_records import Spent
from selfpriority.terminal import LiveReporter
from selfpriority.wording import FOLDER
from tests.phases.test_evaluate import count_as_trained

CONTEST = Contest("spa", "vanilla")


def row(number: int, subject: str = "astronomy", **changes) -> dict:
    made = {"source_id": f"q{number}", "subject": subject, "question": f"What is {number} plus one?"}
    return {**made, "choices": [str(number + i) for i in range(4)], "answer": "B", **changes}


def write(path, rows) -> object:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def test_accuracies_are_paired_by_question():
    first = {f"q{i}": float(i % 2) for i in range(40)}  # 50 %
    second = {f"q{i}": 1.0 for i in range(40)}
    told = accuracies({"mmlu": {"vanilla": first, "spa": second}})["mmlu"]
    assert told.systems["vanilla"].mean == 0.5
    assert told.systems["spa"].n == 40
    cell = told.difference[CONTEST]
    assert (cell.mean, cell.n, cell.significant) == (0.5, 40, True)


def test_the_same_answers_are_no_difference():
    answers = {f"q{i}": float(i % 3 == 0) for i in range(30)}
    cell = accuracies({"mmlu": {"vanilla": answers, "spa": answers}})["mmlu"].difference[CONTEST]
    assert (cell.mean, cell.p, cell.significant) == (0.0, 1.0, False)


def test_perplexity_is_over_all_tokens_and_rings_when_it_rises():
    twice = [Likelihood(20.0, 10), Likelihood(10.0, 10)]
    told = perplexities({"vanilla": twice, "spa": [Likelihood(40.0, 20)], "same": [Likelihood(30.0, 20)]})
    assert told.systems["vanilla"].perplexity == pytest.approx(2.71828**1.5, rel=1e-4)
    assert told.systems["spa"].ratio == pytest.approx(2.71828**0.5, rel=1e-4)
    assert told.alarm == ("spa",)
    text = utility_text(Utility({}, perplexity=told))
    assert "perplexity  spa: 7.39 (x 1.65)  !" in text


def test_one_task_a_subject_as_the_harness_has_them(tmp_path):
    rows = [row(1), row(2, "world_religions"), row(3)]
    shots = [row(10 + i, subject) for subject in ("astronomy", "world_religions") for i in range(5)]
    first, second = mmlu_tasks(rows, shots, tmp_path)
    assert (first["task"], second["task"]) == ("mmlu_astronomy", "mmlu_world_religions")
    assert second["description"].endswith("(with answers) about world religions.\n\n")
    assert (first["num_fewshot"], first["fewshot_split"]) == (5, "dev")
    asked = Path(first["dataset_kwargs"]["data_files"]["test"]).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["question"] for line in asked] == ["What is 1 plus one?", "What is 3 plus one?"]
    assert "num_fewshot" not in mmlu_tasks(rows, [], tmp_path)[0]


def test_a_subject_is_no_file_name(tmp_path):
    shots = [row(2 + i, "law/../torts") for i in range(5)]
    [task] = mmlu_tasks([row(1, "law/../torts")], shots, tmp_path / ".")
    files = [Path(path) for path in task["dataset_kwargs"]["data_files"].values()]
    assert {path.parent for path in files} == {tmp_path}
    assert task["task"] == "mmlu_law/../torts"


def samples(metrics: tuple[str, ...], *rows: tuple, reading: str = "none") -> list[dict]:
    """As the harness logs them: one row a question and reading."""
    made = [dict(zip(metrics, row, strict=True)) for row in rows]
    return [{"doc_id": i, "filter": reading, "metrics": list(metrics), **row} for i, row in enumerate(made)]


def test_a_task_without_acc_is_measured_by_its_own_first_metric():
    strict = samples(("exact_match",), (1.0,), (0.0,), reading="strict-match")
    flexible = samples(("exact_match",), (1.0,), (1.0,), reading="flexible-extract")
    name, answers = by_question("gsm8k", [*strict, *flexible])
    assert name == "gsm8k, exact_match, strict-match"
    assert answers == {"gsm8k/0": 1.0, "gsm8k/1": 0.0}
    name, answers = by_question("arc", samples(("acc_norm", "acc"), (0.0, 1.0)))
    assert (name, answers) == ("arc", {"arc/0": 1.0})


def test_a_task_that_says_nothing_of_single_questions_is_refused_with_its_metrics():
    likelihoods = samples(("word_perplexity", "bits_per_byte"), ((-12.5, 4), (-12.5, 20)))
    with pytest.raises(InputError, match=r"task wikitext has no share .* its metrics: word_perplexity, bits_per_byte"):
        by_question("wikitext", likelihoods)
    with pytest.raises(InputError, match="its metrics: bleu"):
        by_question("wmt", samples(("bleu",), (31.5,)))


@pytest.fixture
def evaluated(tiny_model, tmp_path) -> Resources:
    recipe = Recipe(
        model=str(tiny_model),
        prompts=Prompts(source="demo"),
        evaluate=Evaluate(prompts=Prompts(source="demo", split="heldout")),
        backend=HfBackend(dtype="float32", device="cpu"),
    )
    run = Run(tmp_path / "run")
    run.round(1).mkdir(parents=True)
    run.policy(1).symlink_to(tiny_model)
    given = Resources(recipe, run, Reporter())
    count_as_trained(given)
    return given


def test_perplexity_needs_no_harness(evaluated):
    told = utility(evaluated.run, evaluated, Questions())
    assert told.tasks == {}
    assert told.perplexity is not None
    assert told.perplexity.systems["spa"].ratio == pytest.approx(1.0)
    assert told.perplexity.alarm == ()
    assert read_utility(evaluated.run.evaluation / "utility.json") == told


def test_the_evaluation_says_how_many_systems_have_read_the_prose(evaluated):
    told: list[tuple[str, int, int]] = []

    class Heard(Reporter):
        def progress(self, step: str, progress: Progress) -> None:
            told.append((step, progress.done, progress.total))

    evaluated.reporter = Heard()
    perplexity_of_all(evaluated.run, evaluated, Spent())
    assert told == [("perplexity", 0, 2), ("perplexity", 1, 2)]


def test_perplexity_that_the_evaluation_measured_is_not_measured_again(evaluated):
    step = perplexity_step(evaluated.run, evaluated.recipe)
    assert step is not None
    measured = perplexities({"vanilla": [Likelihood(20.0, 10)], "spa": [Likelihood(30.0, 10)]})
    with evaluated.run.recording(step):
        write_perplexity(step.outputs[0], measured)
    assert utility(evaluated.run, evaluated, Questions()).perplexity == measured


def test_a_policy_of_an_older_recipe_is_not_asked(evaluated):
    align = evaluated.recipe.align.model_copy(update={"beta": 7.0})
    evaluated.recipe = evaluated.recipe.model_copy(update={"align": align})
    with pytest.raises(WorkFailed, match=r"round-1/align: not done under the present recipe; `spa align "):
        utility(evaluated.run, evaluated, Questions())
    assert not evaluated.run.evaluation.exists()


def test_the_harness_computes_in_the_arithmetic_of_our_own_answers(tiny_model, tmp_path):
    """Its own `auto` is what the file of weights happens to hold: vanilla's is not its policy's."""
    import torch
    from transformers import AutoModelForCausalLM

    from selfpriority.models.loading import load_causal

    low = shutil.copytree(tiny_model, tmp_path / "low")
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(low)
    for name in (str(tiny_model), str(low)):
        told = model_arguments(name, HfBackend())
        ours = load_causal(name, HfBackend()).model
        assert getattr(torch, told["dtype"]) is ours.dtype
        assert torch.device(told["device"]) == ours.device


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="the harness is installed")
def test_without_the_harness_one_line_says_how_to_get_it(evaluated, tmp_path):
    with pytest.raises(InputError, match=r"pip install .* '\.\[eval\]'"):
        utility(evaluated.run, evaluated, Questions(mmlu=write(tmp_path / "q.jsonl", [row(1)])))


def test_a_subject_without_enough_examples_is_told(tmp_path):
    rows = [row(1), row(2, "world_religions")]
    shots = [row(10 + i, subject) for subject in ("astronomy", "world_religions") for i in range(5)][:-1]
    with pytest.raises(InputError, match=r"--dev: 4 examples of 'world_religions', 5 are needed"):
        mmlu_tasks(rows, shots, tmp_path)


def test_the_harness_tells_how_far_it_is_and_nothing_else():
    told = []
    stream = Bars(told.append)
    stream.write("Loading weights:  50%|#####     | 1/2 [00:01<00:01]")
    stream.write("\rRunning loglikelihood requests:  12%|#2        | 547/4560 [00:10<01:20, 50.10it/s]")
    assert [(progress.done, progress.total) for progress in told] == [(547, 4560)]
    assert stream.getvalue() == ""


def test_what_is_told_reaches_the_stderr_that_the_harness_does_not(capsys):
    reporter = LiveReporter(Console(stderr=True), "utility")
    with contextlib.redirect_stderr(Bars(partial(reporter.progress, "questions to vanilla"))):
        for done in (0, 4):
            print(f"\rRunning loglikelihood requests:   0%|          | {done}/4560 [00:00<?, ?it/s]", file=sys.stderr)
    assert capsys.readouterr().err == "utility: questions to vanilla 0/4560 \n"


class Asked(Reporter):
    """Keeps how far the harness was with each system."""

    def __init__(self) -> None:
        self.told: dict[str, list[int]] = {}

    def progress(self, step, progress) -> None:
        self.told.setdefault(step, []).append(progress.done)


harness = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs selfpriority[eval]")


@pytest.mark.filterwarnings("ignore")  # of the harness and what it imports
@harness
def test_the_harness_asks_local_questions_and_none_twice(evaluated, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    evaluated.reporter = Asked()
    rows = [row(i, ("astronomy", "world_religions")[i % 2]) for i in range(6)]
    asked = Questions(mmlu=write(tmp_path / "q.jsonl", rows))
    told = utility(evaluated.run, evaluated, asked)
    assert told.tasks["mmlu"].systems["vanilla"].n == 6
    assert told.tasks["mmlu"].difference[CONTEST].mean == 0.0
    # one link to the same weights: what vanilla answered is known of spa, and all of it to the same command again
    assert list(evaluated.reporter.told) == ["questions to vanilla"]
    assert evaluated.reporter.told["questions to vanilla"][-1] == 24
    evaluated.reporter = Asked()
    assert utility(evaluated.run, evaluated, asked) == told
    assert evaluated.reporter.told == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@harness
def test_what_the_harness_answered_before_a_stop_is_kept(evaluated, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    stopped: list[int] = []

    class Stopped(Asked):
        def progress(self, step, progress) -> None:
            super().progress(step, progress)
            if progress.done >= 40 and not stopped:
                stopped.append(progress.done)  # once: the bar is drawn again as it goes
                raise KeyboardInterrupt

    # many, for the bar is drawn ten times a second
    asked = Questions(mmlu=write(tmp_path / "q.jsonl", [row(i) for i in range(600)]))
    evaluated.reporter = Stopped()
    with pytest.raises(KeyboardInterrupt):
        utility(evaluated.run, evaluated, asked)
    evaluated.reporter = Asked()
    utility(evaluated.run, evaluated, asked)
    assert stopped
    assert evaluated.reporter.told["questions to vanilla"][-1] <= 2400 - stopped[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@harness
def test_an_adapter_is_asked_on_its_base_and_a_task_file_of_ones_own_beside(
    evaluated, tiny_model, tmp_path, monkeypatch
):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    evaluated.run.policy(1).unlink()
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(tiny_model)
    adapted.save_pretrained(evaluated.run.policy(1))
    count_as_trained(evaluated)
    rows = write(tmp_path / "q.jsonl", [row(i) for i in range(20)])
    task = yaml.safe_load((FOLDER / "tasks" / "mmlu.yaml").read_text())
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({**task, "task": "mine", "dataset_kwargs": {"data_files": {"test": str(rows)}}}))
    evaluated.reporter = Asked()
    told = utility(evaluated.run, evaluated, Questions(mmlu=rows, tasks=(str(mine),)))
    assert list(told.tasks) == ["mmlu", "mine"]
    assert told.tasks["mine"].systems["spa"].n == 20
    # the policy is other weights: none of what vanilla answered is taken for its answers
    assert {step: done[-1] for step, done in evaluated.reporter.told.items()} == {
        "questions to vanilla": 160,
        "questions to spa": 160,
    }
    assert len(list((tmp_path / "cache" / "selfpriority" / "harness").glob("*.db"))) == 2
