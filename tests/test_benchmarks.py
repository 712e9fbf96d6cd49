"""The benchmark of a training step runs as its README says, on a tiny shape; without the peer it says why."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

ALIGN = Path(__file__).parent.parent / "benchmarks" / "align.py"


def test_a_case_is_measured_with_or_without_the_peer():
    command = [sys.executable, ALIGN, "--model", "tiny", "--n", "2", "--prompt", "16", "--response", "8", "--json"]
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
