"""What a person sees while work goes on, on a terminal and where there is none."""

from __future__ import annotations

import io
import re
from typing import get_type_hints

import pytest
from rich.console import Console

from selfpriority import terminal
from selfpriority.backends.progress import Progress
from selfpriority.terminal import LINE_EVERY, LiveReporter

ROW = {"step": 3.0, "n_steps": 8.0, "loss": 0.69314, "margin": -0.5, "tokens_per_second": 1234.5, "lr": 1e-5}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """rich reads these, and a terminal that calls itself dumb gets no bars."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


class Clock:
    """Stands for `time` in `terminal`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(terminal, "time", made)
    return made


class Lines:
    """A reporter without a terminal, and the lines it wrote."""

    def __init__(self, width: int = 40) -> None:
        self.out = io.StringIO()
        self.reporter = LiveReporter(Console(file=self.out, width=width), "round 1")

    def __call__(self) -> list[str]:
        return self.out.getvalue().splitlines()


def shown_on_a_terminal(*calls: tuple[str, object]) -> str:
    """All that a terminal of 120 columns gets, control codes and all; (method, argument) a call."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None, legacy_windows=False)
    with LiveReporter(console, "round 1") as reporter:
        for method, argument in calls:
            if method == "progress":
                reporter.progress("sample", argument)  # type: ignore[arg-type]
            else:
                getattr(reporter, method)(argument)
    return out.getvalue()


def last_bars(written: str) -> list[str]:
    """The bars as they stand in the end: what follows the last time the cursor went up and erased."""
    frame = re.split(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*", written)[-1]
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).splitlines() if line.strip()]


def test_progress_has_no_place_for_a_text():
    assert set(get_type_hints(Progress).values()) == {int, float}


def test_a_note_stays_one_line_however_long():
    lines = Lines()
    lines.reporter.note("a note of many words " * 10)
    assert len(lines()) == 1


def test_a_note_is_cleaned_and_no_markup():
    written = shown_on_a_terminal(("note", "\x1b[2Jfolder [bold]x[/bold] \u202eback"))
    assert "folder [bold]x[/bold] back" in written
    assert "\x1b[2J" not in written
    lines = Lines()
    lines.reporter.note("\x1b[2Jfolder [bold]x[/bold] \u202eback")
    assert lines() == ["folder [bold]x[/bold] back"]


def test_a_line_says_done_rate_and_what_was_known():
    lines = Lines()
    lines.reporter.progress("sample", Progress(4, 4, 0, 300, 2.0))
    lines.reporter.progress("score", Progress(40, 40, 10, 0, 4.0))
    lines.reporter.progress("refine", Progress(6, 6, 6, 0, 0.1))
    assert lines() == [
        "round 1: sample 4/4 150 tok/s",
        "round 1: score 40/40 7.5/s (10 known)",
        "round 1: refine 6/6 (6 known)",
    ]


def test_a_line_comes_at_once_then_every_fifteen_seconds_and_at_the_end(clock):
    lines = Lines()
    for done in range(41):
        clock.now = 1000.0 + done
        lines.reporter.progress("score", Progress(done, 40, 0, 0, float(done)))
    assert LINE_EVERY == 15.0
    assert [line.split()[3] for line in lines()] == ["0/40", "15/40", "30/40", "40/40"]


def test_two_steps_have_their_own_lines(clock):
    lines = Lines()
    for name in ("sample", "score"):
        lines.reporter.progress(name, Progress(0, 9, 0, 0, 0.0))
        lines.reporter.progress(name, Progress(1, 9, 0, 0, 1.0))
    assert [line.split()[2] for line in lines()] == ["sample", "score"]


def test_a_row_of_training_is_a_line():
    lines = Lines(width=120)
    lines.reporter.training(ROW)
    assert lines() == ["round 1: training 3/8 loss 0.693 margin -0.50 1,234 tok/s"]


def test_training_writes_lines_as_seldom_as_the_rest(clock):
    lines = Lines()
    for step in range(1, 41):
        clock.now = 1000.0 + step
        lines.reporter.training({**ROW, "step": float(step), "n_steps": 40.0})
    assert [line.split()[3] for line in lines()] == ["1/40", "16/40", "31/40", "40/40"]


def test_without_a_terminal_nothing_moves():
    lines = Lines()
    with lines.reporter as reporter:
        reporter.progress("sample", Progress(0, 4, 0, 0, 0.0))
        reporter.progress("sample", Progress(4, 4, 0, 0, 1.0))
    assert "\x1b" not in lines.out.getvalue()


def test_a_bar_ends_where_the_work_ended():
    written = shown_on_a_terminal(
        ("progress", Progress(0, 4, 0, 0, 0.0)),
        ("progress", Progress(2, 4, 0, 100, 1.0)),
        ("progress", Progress(4, 4, 1, 300, 2.0)),
        ("training", ROW),
    )
    sample, training = last_bars(written)
    assert sample.startswith("round 1: sample")
    assert "4/4" in sample
    assert "150 tok/s (1 known)" in sample
    assert training.startswith("round 1: training")
    assert "3/8" in training
    assert "loss 0.693 margin -0.50 1,234 tok/s" in training
    assert "━" in sample


def test_a_bar_starts_again_with_a_longer_total():
    written = shown_on_a_terminal(("progress", Progress(4, 4, 0, 0, 1.0)), ("progress", Progress(1, 9, 0, 0, 1.0)))
    (bar,) = last_bars(written)
    assert "1/9" in bar


def test_the_cursor_comes_back_when_the_work_fails():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, legacy_windows=False)

    def fail() -> None:
        with LiveReporter(console, "round 1") as reporter:
            reporter.progress("sample", Progress(1, 4, 0, 0, 1.0))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().index("\x1b[?25l")
