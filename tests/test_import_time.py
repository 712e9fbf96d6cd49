"""Importing the package and asking for help cost next to nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

SRC = Path(__file__).parent.parent / "src"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SRC)}
HEAVY = "sorted({'torch', 'transformers', 'datasets', 'peft', 'numpy', 'pandas'} & set(sys.modules))"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=120
    )


def test_import_is_quick():
    def seconds() -> float:
        timing = python("-X", "importtime", "-c", "import selfpriority").stderr
        found = re.search(r"\|\s*(\d+)\s*\| selfpriority$", timing, re.M)
        assert found
        return int(found.group(1)) / 1e6

    assert min(seconds() for _ in range(3)) < 0.2


def test_import_loads_nothing_heavy():
    assert python("-c", f"import sys, selfpriority; print({HEAVY})").stdout.strip() == "[]"


def test_light_names_stay_light():
    names = "Recipe, load_recipe, load_prompts, load_constitution, Pool, sample, score, refine, denoise, pair"
    code = f"import sys; from selfpriority import {names}; print({{'torch', 'transformers'}} & set(sys.modules))"
    assert python("-c", code).stdout.strip() == "set()"


def test_help_is_quick_and_loads_nothing_heavy():
    run = (
        "import sys; from selfpriority.cli import main; sys.argv = ['spa', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
    )

    def seconds() -> float:
        start = time.perf_counter()
        python("-c", run)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(4)) < 0.6
    loaded = python("-c", f"{run}print('loaded', {HEAVY})").stdout.splitlines()[-1]
    assert loaded == "loaded []"
