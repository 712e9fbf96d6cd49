"""Output where a terminal or pipe knows fewer characters than there are: it is written, each lost one marked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("command", ["doctor", "show", "doctor --reveal"])
def test_a_run_is_shown_whatever_the_encoding(finished_run: Path, encoding: str, command: str) -> None:
    verb, *options = command.split()
    done = subprocess.run(
        [sys.executable, "-m", "selfpriority", verb, "run", *options],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        cwd=finished_run,
    )
    assert done.returncode == (verb == "doctor"), done.stderr  # the answers of this run were cut, which is bad
    text = done.stdout.decode(encoding)
    assert text
    if verb == "doctor":
        assert ("\u27e6" in text) == (encoding == "utf-8")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_an_error_is_one_line_whatever_the_encoding(tmp_path: Path, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "selfpriority", "plan", "\u27e6nicht da\u27e7.yaml"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    [line] = done.stderr.decode(encoding).splitlines()
    assert "?nicht da?.yaml" in line or "\\u27e6" in line
