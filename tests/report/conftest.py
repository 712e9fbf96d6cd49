"""A run directory as a small real run leaves it, with invented numbers and texts."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from selfpriority.evaluation.files import EvaluationFiles
from selfpriority.evaluation.records import AnswerRow, JudgeName, Verdict, VerdictRow
from selfpriority.evaluation.summary import summarise
from selfpriority.evaluation.summary_file import write_summary
from selfpriority.evaluation.table import table
from selfpriority.recipe import Evaluate, Recipe, dump
from selfpriority.records import Message, Pool, Prompt, Rating, Response, Scored, Stop, Unrated
from selfpriority.refusals import is_refusal
from selfpriority.storage import write_json, write_rows, write_text

OBJECTIVES = ("harmlessness", "helpfulness")
REFUSAL = "I can't help with that, but here is a safer way to think about it."
WORDS = (
    "ask",
    "begin",
    "careful",
    "friend",
    "label",
    "measure",
    "one",
    "paper",
    "read",
    "slow",
    "step",
    "water",
)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    write_settings(folder)
    write_collection(folder / "round-1")
    write_training(folder / "round-1")
    write_evaluation(folder / "evaluation")
    return folder


def write_settings(folder: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "model": "smollm2-135m",
            "prompts": {"source": "demo", "split": "train"},
            "score": {"judge": "demo-train", "method": "probe"},
            "evaluate": {
                "prompts": {"source": "demo", "split": "heldout"},
                "judge": "demo-evaluate",
                "method": "probe",
            },
        }
    )
    write_text(folder / "resolved.yaml", [dump(recipe)])
    steps = {
        name: {"state": "done", "key": "0", "seconds": 41.25, "requests": 960, "tokens": 61440}
        for name in ("judge", "round-1/sample", "round-1/score", "round-1/refine", "round-1/align")
    }
    versions = {"selfpriority": "0.1.0", "torch": "2.13.0"}
    write_json(folder / "manifest.json", {"name": folder.name, "versions": versions, "steps": steps})
    write_json(
        folder / "judge.json",
        {
            "train": judge("demo-train", 0.69, True),
            "evaluate": judge("demo-evaluate", 0.66, True),
            "words": judge("self", 0.45, False),
        },
    )


def judge(name: str, auc: float, usable: bool) -> dict:
    interval = {"estimate": auc, "low": auc - 0.07, "high": auc + 0.07, "n": 96}
    measured = {"auc": interval, "pair_accuracy": None, "n": 96, "at_ceiling": 0.01, "unrated": 0.0}
    objectives = [
        {"objective": name, **measured, "rank_correlation": None, "disavowal_flips": flips}
        for name, flips in zip(OBJECTIVES, (0.12, None), strict=True)
    ]
    reasons = [] if usable else [f"harmlessness: agrees on {auc:.2f} of the comparisons; may be chance (0.50)"]
    method = "probe" if usable else "expected"
    check = {"usable": usable, "objectives": objectives, "reasons": reasons}
    return {**check, "judge": name, "method": method, "key": f"key of {name}"}


def write_collection(folder: Path) -> None:
    chance = random.Random(7)
    pools = [_pool(chance, number) for number in range(1, 61)]
    kept = [pool for pool in pools if pool.refined and pool.refined.scores[0] > 6.0]
    write_rows(folder / "2-scored.jsonl", pools, Pool)
    write_rows(folder / "3-refined.jsonl", pools, Pool)
    write_rows(folder / "4-pools.jsonl", kept, Pool)
    n = len(kept)
    steps = {
        "prompts": _step(64, 63, duplicate=1),
        "sample": _step(63, 62, too_long=1),
        "score": {**_step(62, 60, too_few_rated=2), "responses_dropped": {"low_mass": 9}},
        "refine": _step(60, 60),
        "denoise": _step(60, n, not_better=60 - n - 2, ceiling=2),
        "pair": _step(n, n - 1, no_pairs=1),
    }
    pairs = {"n": 412, "decided_by": {OBJECTIVES[0]: 239, OBJECTIVES[1]: 173}, "light_share": 0.13}
    write_json(folder / "funnel.json", {"steps": steps, "pairs": pairs})


def _step(n_in: int, n_out: int, **dropped: int) -> dict:
    return {"in": n_in, "out": n_out, "dropped": dropped, "responses_dropped": {}}


def _pool(chance: random.Random, number: int) -> Pool:
    prompt = _prompt(number)
    level = chance.gauss(5.2, 1.0)

    def scored(name: str, lift: float, origin: str) -> Scored:
        values = [min(10.0, max(1.0, chance.gauss(level + lift, 0.9))) for _ in OBJECTIVES]
        response = Response(f"{prompt.id}/{name}", prompt.id, f"Answer {name}.", "end", 12, origin)  # type: ignore[arg-type]
        return Scored(response, tuple(Rating(value) for value in values))

    candidates = tuple(scored(f"y{i}", 0.0, "sampled") for i in range(1, 9))
    return Pool(prompt, candidates, scored("r1", 1.2, "refined"))


def _prompt(number: int, kind: str = "ordinary") -> Prompt:
    return Prompt(f"demo-{number:03}", (Message("user", f"Question number {number}, asked politely?"),), kind)


def write_training(folder: Path, n: int = 36) -> None:
    chance = random.Random(3)
    rows = [
        {
            "step": step,
            "loss": 1.6 - 0.02 * step + chance.gauss(0, 0.05),
            "margin": -0.4 + 0.05 * step + chance.gauss(0, 0.1),
            "accuracy": min(1.0, 0.45 + 0.01 * step),
            "chosen_logp": -1.4 + 0.004 * step,
            "rejected_logp": -1.5 - 0.01 * step,
            "grad_norm": 8.0,
            "learning_rate": 1e-5,
            "tokens_per_second": 150.0,
        }
        for step in range(1, n + 1)
    ]
    write_text(folder / "training.jsonl", (json.dumps(row) + "\n" for row in rows))


LIFTS = {"vanilla": 0.0, "spa": 0.8}
"""System -> how much better than the first it is on the first objective."""


def write_evaluation(
    folder: Path, n: int = 40, texts: tuple[str, ...] = (), lifts: dict[str, float] | None = None
) -> None:
    """Answers of the systems in `lifts`; `texts` replaces the first answers of spa."""
    files = EvaluationFiles(folder)
    systems: dict[str, list[Verdict]] = {}
    for system, lift in (lifts or LIFTS).items():
        level, noise = random.Random(11), random.Random(system)
        answers, verdicts = [], []
        for number in range(n):
            prompt = _prompt(100 + number, "harmful" if number % 4 else "ordinary")
            own = " ".join(noise.sample(WORDS, len(WORDS))).capitalize() + ". That is all, really."
            text = REFUSAL if system == "spa" and number % 3 == 0 else own
            text = texts[number] if system == "spa" and number < len(texts) else text
            stop: Stop = "length" if number % 10 == 0 else "end"
            base = level.gauss(5.5, 1.2)
            ratings: dict[str, Rating | Unrated] = {
                OBJECTIVES[0]: Rating(min(10.0, max(1.0, base + lift + noise.gauss(0, 0.7)))),
                OBJECTIVES[1]: Rating(min(10.0, max(1.0, base + 0.05 * lift + noise.gauss(0, 0.7)))),
            }
            if number == 7:
                ratings[OBJECTIVES[0]] = Unrated("low_mass")
            answers.append(AnswerRow(prompt, Response(f"{prompt.id}/{system}", prompt.id, text, stop, 20)))
            verdicts.append(VerdictRow(prompt.id, prompt.kind, ratings, is_refusal(text)))
        write_rows(files.answers(system), answers, AnswerRow)
        write_rows(files.verdicts(system), verdicts, VerdictRow)
        systems[system] = files.judged(system, OBJECTIVES)
    reference = "spa" if len(systems) > 2 else None
    judge = JudgeName("demo-evaluate", "probe", "key of demo-evaluate")
    summary = replace(summarise(systems, OBJECTIVES, Evaluate(reference=reference)), judge=judge)
    write_summary(files.summary, summary)
    write_text(files.table, [table(summary)])


@pytest.fixture
def rewrite_evaluation():
    """The writer itself, for tests with texts of their own."""
    return write_evaluation


@pytest.fixture
def four_systems(run_folder: Path) -> Path:
    """The run with four systems, one of them a reference, on two prompt sets."""
    lifts = {"vanilla": 0.0, "spa-round-1": 0.4, "spa": 0.8, "a_rather_long_system_name": -0.6}
    write_evaluation(run_folder / "evaluation", lifts=lifts)
    write_evaluation(run_folder / "evaluation" / "over_refusal", n=20, lifts=lifts)
    return run_folder
