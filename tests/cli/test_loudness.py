"""How much the command says, and what a shell completes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from selfpriority.cli import app as cli
from selfpriority.phases.children import EVENTS
from selfpriority.phases.resources import Reporter
from selfpriority.terminal import EventReporter, LiveReporter


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "SAID", cli.Said())
    monkeypatch.delenv(EVENTS, raising=False)
    monkeypatch.delenv("RANK", raising=False)


@pytest.mark.parametrize(
    ("said", "kind", "flags"),
    [
        (cli.Said(), LiveReporter, ()),
        (cli.Said(is_verbose=True), LiveReporter, ("--verbose",)),
        (cli.Said(is_quiet=True), Reporter, ("--quiet",)),
    ],
)
def test_whoever_is_started_speaks_as_loud(monkeypatch, said, kind, flags) -> None:
    monkeypatch.setattr(cli, "SAID", said)
    with cli.reporting("round 1") as reporter:
        assert (type(reporter), reporter.flags, reporter.hears) == (kind, flags, False)


def test_a_process_that_is_read_tells_events_unless_it_shall_be_quiet(monkeypatch) -> None:
    monkeypatch.setenv(EVENTS, "1")
    with cli.reporting("round 1") as reporter:
        assert type(reporter) is EventReporter
    monkeypatch.setattr(cli, "SAID", cli.Said(is_quiet=True))
    with cli.reporting("round 1") as reporter:
        assert type(reporter) is Reporter


def test_a_shell_completes_verbs() -> None:
    asked = {"_SPA_COMPLETE": "complete_bash", "COMP_WORDS": "spa re", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['spa']; from selfpriority.cli import main; main()"
    told = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert {"report", "review", "recipes"} <= set(told.stdout.split())
    assert "run" not in told.stdout.split()
