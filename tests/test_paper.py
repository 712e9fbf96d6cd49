"""The paper's tables: one command trains and evaluates every system, keeps what was found, and prints it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.scripts import ROOT, opened

SCRIPT = ROOT / "benchmarks" / "paper.py"
FILES = ("saferlhf_prompts.train", "saferlhf_prompts.test", "jailbreaktrigger")
LABELLED = {
    "wildguard_prompts.train": ("harmful", "unharmful"),
    "wildguard_prompts.test": ("harmful", "unharmful"),
    "xstest_prompts": ("safe", "unsafe"),
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # where it finds its neighbours, as a script does
    return opened("benchmarks/paper.py")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight prompts of our own in every file."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in (*FILES, *LABELLED):
        rows = [
            {"prompt": f"{name}: what is {i} and {i}?", "label": LABELLED.get(name, ("",))[i % 2 - 1]} for i in range(8)
        ]
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def paper(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_a_table_holds_every_set_and_system_and_is_made_once(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    recipe = {
        "model": str(tiny_model),
        "prompts": {"source": "demo"},
        "constitution": "harmless-helpful",
        "sample": {"n": 4, "max_new_tokens": 8, "personas": "none"},
        "score": {"require_signal": False},
        "denoise": {"consistency": "off", "keep_lowest": 1.0},
        "pair": {"margin": 0.1},
        "evaluate": {"prompts": {"source": "demo", "split": "dev"}, "max_new_tokens": 8},
        "backend": {"kind": "scripted"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    asked = [
        "run",
        "ablations",
        "iterations",
        "--data",
        data,
        "--sets",
        "wildguard",
        "--seeds",
        0,
        "--recipe",
        tmp_path / "recipe.yaml",
    ]
    asked += ["--prompts", 6, "--heldout", 6, "--to", tmp_path / "runs", "refine.max_new_tokens=8"]
    done = paper(*asked)
    assert done.returncode == 0, done.stderr
    record = tmp_path / "runs" / "paper.json"
    rows = json.loads(record.read_text())
    assert {row["set"] for row in rows} == {"wildguard", "saferlhf", "jailbreaktrigger", "xstest"}
    same, new = "three rounds, the same prompts", "two rounds, new prompts"
    asked_of = {(row["system"], row["setting"]) for row in rows if row["system"] != "vanilla"}
    varied = {"consistency_off_keep_lowest_0_5", "consistency_0_25_keep_lowest_1_0", "consistency_0_25_keep_lowest_0_5"}
    assert asked_of == {
        *((system, "") for system in {"spa", "spa_simpo", *varied}),
        *((system, same) for system in ("spa-round-1", "spa-round-2", "spa")),
        *((system, new) for system in ("spa-round-1", "spa")),
    }
    assert all(row["n"] == 6 and row["trained_on"] == "wildguard" for row in rows)
    runs = tmp_path / "runs"
    policies = [*runs.glob("*/round-*/training.jsonl"), *runs.glob("*/systems/*/round-*/training.jsonl")]
    made = {path: path.stat().st_mtime_ns for path in policies}
    assert len(made) == (1 + 1 + len(varied)) + 3 + 2
    assert paper(*asked).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in policies} == made
    assert json.loads(record.read_text()) == rows
    told = paper("table", record).stdout
    assert told.count("Trained on wildguard (recipe refine.max_new_tokens=8): seeds 0") == 1
    assert told.count("Asked ") == 4
    spa = next(row for row in rows if row["system"] == "spa" and row["gain"])
    assert f"{spa['gain']['mean']:+.2f} ({spa['gain']['low']:+.2f} to {spa['gain']['high']:+.2f}, 1 run)" in told


def rows_of(
    system: str, means: list[float], objective: str = "harmlessness", **fields: object
) -> list[dict[str, object]]:
    """A row a run, of a system that is so much above vanilla."""
    shared = {"recipe": "demo", "changed": "", "trained_on": "a", "setting": "", "arithmetic": "x", "set": "a"}
    shared |= {"judge": "j", "objective": objective, "n": 5, "worst_decile": 2.0, "over_refusal": 0.1}
    gains = [None if system == "vanilla" else {"mean": mean, "low": 0.0, "high": 1.0} for mean in means]
    return [
        {**shared, "system": system, "seed": seed, "mean": 5.0 + mean, "gain": gain, **fields}
        for seed, (mean, gain) in enumerate(zip(means, gains, strict=True))
    ]


def test_gains_are_in_the_mean_of_the_runs(script: ModuleType) -> None:
    rows = [*rows_of("vanilla", [0, 0, 0]), *rows_of("spa", [0.2, 0.4, 0.6]), *rows_of("sft", [0.1])]
    told = list(script.tables(rows))
    assert "| system | harmlessness, `j` | worst tenth, harmlessness, `j` | over-refusals |" in told
    assert "| vanilla | 5.00 | 2.00 | 10 % |" in told
    assert "| spa | +0.40 (-0.10 to +0.90) | 2.00 | 10 % |" in told  # 0.4 -/+ 4.303 * 0.2 / sqrt(3)
    assert "| sft, 1 run | +0.10 (+0.00 to +1.00, 1 run) | 2.00 | 10 % |" in told
    other = [{**row, "trained_on": "b"} for row in [*rows_of("vanilla", [0]), *rows_of("spa", [0.1])]]
    *_, head, _, on_a, on_b = script.tables([*rows, *other])
    assert head == "| trained on | a, harmlessness |"
    assert on_a == "| a | +0.40 (-0.10 to +0.90); refuses 10 % |"
    assert on_b == "| b | +0.10 (+0.00 to +1.00, 1 run); refuses 10 % |"


def test_what_the_paper_claims_is_said_with_what_was_found(script: ModuleType) -> None:
    rows = [row for system, gain in (("vanilla", 0.0), ("spa", 0.4), ("sft", 0.1), ("sum", 0.5))
            for name in ("harmlessness", "HH_5") for row in rows_of(system, [gain, gain], objective=name)]  # fmt: skip
    rows += [{**row, "setting": "half"} for row in rows_of("spa", [0.9, 0.9], objective="HH_5")]
    rows += rows_of("spa", [0.4, 0.4], objective="HH_5", judge="k") + rows_of("sum", [0.3, 0.3], "HH_5", judge="k")
    told = list(script.tables(rows))
    assert "- spa minus vanilla, by `j`: harmlessness +0.40 (+0.40 to +0.40)." in told
    assert "- HH_5, by `j`: above spa: sum." in told  # another setting is another run
    assert "- HH_5, by `k`: spa is highest." in told
    assert "- Refusals of prompts that nobody should refuse: 10 % before, 10 % after." in told


def test_what_shares_its_answers_is_one_comparison(script: ModuleType) -> None:
    whole, *others = script.together(["main", "ablations", "iterations", "main"])
    assert whole.systems.split(",")[:2] == ["sft", "spa_dpo"]
    assert whole.systems.split(",").count("spa_simpo") == 1
    assert whole.vary == ("denoise.consistency=0.25,off", "denoise.keep_lowest=1.0,0.5")
    assert [part.times for part in others] == [1.0, 2.0]
    assert all(part.setting for part in others)


def test_a_comparison_that_fails_holds_up_no_other(
    script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {"saferlhf-0": 1, "saferlhf-1": 0}
    kept: list[str] = []
    monkeypatch.setattr(script, "compared", lambda recipe, part, folder, fields: codes[folder.name])
    monkeypatch.setattr(script, "arithmetic_of", lambda folder: "x")
    monkeypatch.setattr(script, "keep", lambda record, told, folder: kept.append(folder.name))
    asked = ["run", "rivals", "--sets", "saferlhf", "--seeds", "0", "1", "--data", str(data), "--to", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["paper.py", *asked])
    assert script.main() == 1
    assert kept == ["saferlhf-1"]
    assert "failed: saferlhf-0" in capsys.readouterr().err


def test_without_a_folder_the_sets_are_asked_for_by_their_short_names(script: ModuleType) -> None:
    assert script.TEST["wildguard"].section(None, 5) == {
        "source": "wildguardmix", "split": "test", "limit": 5, "shuffle": True}  # fmt: skip
    from selfpriority.prompt_sets import prompt_sets

    names = {each.hub for each in (*script.TRAIN.values(), *script.TEST.values()) if each.hub}
    assert names <= set(prompt_sets())
