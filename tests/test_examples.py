"""The examples run as they stand, without torch, and print what they claim."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    environment = {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_own_objectives():
    assert run("own_objectives.py") == [
        "score: 2 prompts kept; dropped: empty (q2/4)",
        "denoise: 2 prompts kept; dropped: nothing",
        "pair: 2 prompts kept; dropped: nothing",
        "16 pairs; honest decided 10, kind decided 5, brief decided 1",
    ]


def test_pairs_for_trl(tmp_path):
    lines = run("pairs_for_trl.py", str(tmp_path / "to"))
    each = ", ".join(
        f"score_{role}_{name}" for role in ("chosen", "rejected") for name in ("harmlessness", "helpfulness")
    )
    columns = f"prompt, chosen, rejected, score_chosen, score_rejected, {each}, gap, weight, decided_by, prompt_id"
    columns += ", stop_chosen, stop_rejected"
    assert lines[0] == f"5 pairs with {columns}"
    assert [line.split()[0] for line in lines[1:]] == ["harmlessness"] * 2 + ["helpfulness"] * 3
    rows = [json.loads(line) for line in (tmp_path / "to" / "pairs.jsonl").read_text("utf-8").splitlines()]
    # 9.0 and 9.2 are equally harmless on the grid, so helpfulness decides for the helpful answer
    assert (rows[2]["score_chosen"], rows[2]["score_rejected"]) == (17.5, 11.2)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_do_without_torch(path):
    code = f"import runpy, sys; runpy.run_path({str(path)!r}, run_name='__main__')\nassert 'torch' not in sys.modules"
    environment = {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
