"""The benchmarks run as their README says: a training step on a tiny shape, a shipped judge on a file of labels."""

import importlib.util
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.scripts import opened

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
def test_a_case_is_measured_with_or_without_the_peer():
    command = [
        sys.executable,
        BENCHMARKS / "align.py",
        "--model",
        "tiny",
        "--n",
        "2",
        "--prompt",
        "16",
        "--response",
        "8",
        "--json",
    ]
    done = subprocess.run([*command, "--steps", "2", "--rounds", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["pairs_per_second"] > 0
    assert result["limit_ratio"] > 0
    assert 0 < result["losses"][1] < result["losses"][0]
    if importlib.util.find_spec("trl"):
        assert result["loss_difference"] < 1e-4
        assert result["speed_ratio"] > 0
    else:
        assert "trl cannot run" in result["reasons"]["trl"]
        assert "speed_ratio" not in result


TOLD = {
    "How do I cook rice?": ("Rinse it, then simmer it in twice its volume of water for a quarter of an hour.", "No."),
    "How do I clean a window?": (
        "Warm water with a drop of soap, then a rubber blade, downwards.",
        "I do not know.",
    ),
    "How do I sleep better?": (
        "Go to bed at the same time and keep the room dark and cool.",
        "Cars have wheels.",
    ),
}

GREETING = '{{"prompt": "Hi", "response": "Ho", "objective": "{}", "label": 1}}'


def judges(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / "judges.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_shipped_judge_is_measured_on_any_file_of_labels(tmp_path):
    rows = [
        {"prompt": prompt, "response": text, "objective": "helpfulness", "label": label}
        for prompt, (good, bad) in TOLD.items()
        for text, label in ((good, 1), (bad, 0))
    ]
    rows += [{"prompt": p, "chosen": a, "rejected": b, "objective": "harmlessness"} for p, (a, b) in TOLD.items()]
    labels = tmp_path / "mine.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = judges("--data", labels, "--judge", "probe", "--json")
    assert done.returncode == 0, done.stderr
    pairs = json.loads(done.stdout.splitlines()[-1])
    [singles] = pairs.pop("further")
    assert {"accuracy", "low", "high", "n", "unrated"} <= set(pairs)
    assert {"auc", "low", "high", "n", "unrated"} <= set(singles)
    assert (pairs["n"], singles["n"], singles["unrated"]) == (3, 6, 0)
    assert singles["auc"] > 0.5  # an answer beside none
    assert len(singles["calibration"]) == 6


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("one.jsonl", GREETING.format("helpfulness"), "of both labels"),
        ("bad.jsonl", "{", "bad.jsonl:1: not JSON"),
        (
            "other.jsonl",
            '{"prompt": "Hi", "response": "Ho", "objective": "wit", "label": 1}',
            "no label that this judge",
        ),
        ("folder/notes.txt", "", "holds none of autoj_pairwise_human.jsonl.gz"),
    ],
)
def test_labels_that_measure_nothing_are_told_in_one_line(tmp_path, name, text, told):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    done = judges("--data", path.parent if name.startswith("folder") else path, "--judge", "probe")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()[-1:]
    assert told in line
    assert "Traceback" not in done.stderr


def test_agreement_within_a_prompt_is_told_from_agreement_over_prompts():
    module = opened("benchmarks/agreement.py")
    generator = np.random.default_rng(0)
    prompts = np.repeat(np.arange(60.0), 4)
    inside, level = generator.normal(size=(240, 2)), np.repeat(5 * generator.normal(size=(60, 2)), 4, axis=0)
    rated = {"a": inside + level, "b": inside, "c": level}
    rated["b"][7] = np.nan  # an answer that nobody could rate
    found = module.agreement("a", "b", rated, prompts)
    assert found["n"] == 239
    assert found["harmlessness"]["r_within"] == pytest.approx(1.0)
    assert found["rv_within"] > 0.99
    assert found["harmlessness"]["r"] < 0.5
    assert module.agreement("a", "c", rated, prompts)["helpfulness"]["r"] > 0.9
    assert module.agreement("a", "c", rated, prompts)["helpfulness"]["r_within"] is None
    assert "within    -" in module._line(module.agreement("a", "c", rated, prompts))


def test_the_client_of_servers_is_measured_beside_the_bare_library():
    command = [sys.executable, BENCHMARKS / "client.py", "--requests", "60", "--concurrency", "20", "--delay", "0.01"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    bare, ours = json.loads(done.stdout)
    assert [bare["client"], ours["client"]] == ["bare", "ours"], done.stderr
    assert bare["answered"] == ours["answered"] == 60
    assert 0 < ours["connections"] <= 20
    assert ours["cpu_us"] > 0


def test_fields_may_stand_behind_the_options_of_a_row_of_runs(tmp_path: Path):
    command = [sys.executable, BENCHMARKS / "order.py", "run", "none.yaml", "--seeds", "0", "--to", tmp_path / "runs"]
    command += ["--record", tmp_path / "order.json"]
    run = partial(subprocess.run, capture_output=True, text=True, check=False)
    done = run([*command, "sample.n=3", "evaluate.systems=[]"])
    assert done.returncode == 2
    assert "none.yaml" in done.stderr  # of `spa run`, which was asked
    assert "Traceback" not in done.stderr
    wrong = run([*command, "--nonsense", "0"])
    assert wrong.returncode == 2
    assert "unrecognized arguments: --nonsense 0" in wrong.stderr


def test_systems_are_set_against_each_other_run_by_run():
    order = opened("benchmarks/order.py")

    def row(seed: int, system: str, mean: float):
        return order.Row("demo", "fresh", "float32", seed, system, "judge", "safety", mean, mean, mean, 9)

    rows = [row(seed, "spa", spa) for seed, spa in enumerate((3.0, 5.0, 7.0))]
    rows += [row(seed, "sum", mean) for seed, mean in enumerate((2.0, 3.0, 4.0))]
    rows += [row(0, "swapped", 2.5), order.Row("demo", "fresh", "float32", 0, "spa", "", "cut", 0.1, 0.1, 0.1, 9)]
    *_, line = order.contests(rows)
    # spa - sum: 1, 2, 3; one run alone has a swapped order
    assert line == "| demo, fresh | judge | safety | +2.00 (-0.48 to +4.48, 3 runs) | -0.50 (1 run) | +0.50 (1 run) |"
