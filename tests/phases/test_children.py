"""The process of a phase: a second interrupt ends it, and neither its words nor its children hold up the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selfpriority.phases import children
from selfpriority.phases.children import run_child
from selfpriority.phases.resources import Reporter

ROOT = Path(__file__).parents[2]
BUSY = """
import os, signal, sys, threading, time
def watch():
    while os.read(0, 1): pass
    os._exit(1)
def goes_on(*_): print("again", file=sys.stderr, flush=True)
threading.Thread(target=watch, daemon=True).start()
signal.signal(signal.SIGINT, goes_on)
print("up", file=sys.stderr, flush=True)
end = time.monotonic() + 30
while time.monotonic() < end: time.sleep(0.1)
"""
"""As a phase in the middle of its work: one interrupt does not end it, the end of its stdin does."""
CHATTY = """
import signal, sys
signal.alarm(20)
for number in range(20_000): print(f"line {number}", file=sys.stderr)
"""
"""Writes more than a pipe holds."""


class Ear(Reporter):
    """Hears, and does something at every line."""

    hears = True

    def __init__(self, at: Callable[[str], None]) -> None:
        self.at = at

    def hear(self, line: str) -> None:
        self.at(line)


@pytest.mark.usefixtures("hears_interrupts")
def test_a_second_interrupt_ends_both_at_once() -> None:
    heard: list[str] = []

    def interrupt(line: str) -> None:
        heard.append(line)
        os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_child([sys.executable, "-c", BUSY], {}, Ear(interrupt))
    assert time.monotonic() - began < 10
    assert heard == ["up", "again"]


def test_what_outlives_the_child_does_not_hold_up_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "SECONDS_TO_HEAR", 0.3)
    heard: list[str] = []
    began = time.monotonic()
    assert run_child(["sh", "-c", "sleep 30 & echo $! >&2; exit 3"], {}, Ear(heard.append)) == 3
    assert time.monotonic() - began < 10
    os.kill(int(heard[0]), signal.SIGKILL)


def test_a_line_that_cannot_be_shown_does_not_keep_the_child_from_writing() -> None:
    heard: list[str] = []

    def fail(line: str) -> None:
        heard.append(line)
        raise ValueError(line)

    assert run_child([sys.executable, "-c", CHATTY], {}, Ear(fail)) == 0
    assert heard[-1] == "line 19999"


def test_a_child_that_nobody_hears_writes_where_this_one_does(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_child(["sh", "-c", "echo told >&2"], {}, Reporter()) == 0
    assert capfd.readouterr().err == "told\n"


def test_a_job_in_the_background_is_ended_by_the_signal_that_it_hears() -> None:
    """A shell starts those with SIGINT ignored, and so is what they start."""
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from selfpriority.cli.entry import hear_signals\n"
        "from selfpriority.phases.children import run_child\n"
        "from tests.phases.test_children import Ear\n"
        "hear_signals()\n"
        "child = \"import sys, time; print('up', file=sys.stderr, flush=True); time.sleep(120)\"\n"
        "run_child([sys.executable, '-c', child], {}, Ear(lambda _: os.kill(os.getpid(), signal.SIGTERM)))\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"})  # fmt: skip
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert time.monotonic() - began < 60
