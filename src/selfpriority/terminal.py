"""What a person sees while work goes on: the view of a run on a terminal, a bar a step, or plain lines without one.

Everything here goes to stderr; results go to stdout, from `cli`. Never shows the text of a prompt or an answer.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from selfpriority.backends.progress import Progress
from selfpriority.phases.resources import Reporter
from selfpriority.plain_text import clean

LINE_EVERY = 15.0
"""Seconds between two plain lines of one step."""


class LiveReporter(Reporter):
    """Shows progress on `console`. Use as a context manager, so that the bars end with the work.

    Args:
        console: where to.
        title: what stands before every step.
        is_verbose: lines in place of bars, and one for every report.
        flags: as of `Reporter`.
    """

    def __init__(self, console: Console, title: str, *, is_verbose: bool = False, flags: tuple[str, ...] = ()) -> None:
        self._console, self._title, self.flags = console, title, flags
        self._every = 0.0 if is_verbose else LINE_EVERY
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}
        if console.is_terminal and not is_verbose:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(compact=True),
            )
            self._bars = Bars(*columns, console=console, transient=False)

    def __enter__(self) -> LiveReporter:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bars:
            self._bars.stop()

    def progress(self, step: str, progress: Progress) -> None:
        """A bar or a line: answers of all, rate, and how many requests came from the cache."""
        told = ", ".join(filter(None, (rate_of(progress), shard_of(progress))))  # one bar a step, whatever the shard
        self._show(step, answered(progress), asked(progress), told, progress.seconds)

    def training(self, row: dict[str, float]) -> None:
        """One optimizer step."""
        self._show("training", int(row["step"]), int(row["n_steps"]), pace_of(row), None)

    def note(self, text: str) -> None:
        """One line, kept on the screen."""
        self._console.print(clean(text), markup=False, highlight=False, soft_wrap=True)

    def _show(self, step: str, done: int, total: int, rate: str, seconds: float | None) -> None:
        name = f"{self._title}: {step}"
        if self._bars:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, rate="")
            self._bars.update(self._tasks[name], completed=done, total=total, rate=rate)
            return
        now = time.monotonic()
        due = now - self._last_line.setdefault(name, now - (0 if seconds else self._every)) >= self._every
        if due or done == total:
            self._last_line[name] = now
            self._console.print(f"{name} {done}/{total} {rate}", markup=False, highlight=False, soft_wrap=True)


def answered(progress: Progress) -> int:
    """Answers there are; requests, where nobody counted answers."""
    return progress.answers if progress.n_answers else progress.done


def asked(progress: Progress) -> int:
    """Answers that are asked for, likewise."""
    return progress.n_answers or progress.total


def shard_of(progress: Progress) -> str:
    """Which shard of a step is in hand; empty where there is one alone."""
    return f"shard {progress.shard} of {progress.shards}" if progress.shards > 1 else ""


def rate_of(progress: Progress) -> str:
    """Tokens a second, or else answers a second, and what came from disk."""
    tokens, new = progress.tokens + progress.tokens_in_hand, progress.done - progress.cached
    rate = f"{tokens / progress.seconds:,.0f} tok/s" if tokens and progress.seconds else ""
    if new and not rate and progress.seconds:
        rate = f"{new / progress.seconds:,.1f}/s"
    return f"{rate} ({progress.cached} known)".strip() if progress.cached else rate


def pace_of(row: dict[str, float]) -> str:
    """What one optimizer step says of the training."""
    told = [f"loss {row['loss']:.3f}"]
    if "margin" in row and row.get("n_pairs", 1):
        told.append(f"margin {row['margin']:+.2f}")
    if "reward" in row:
        told.append(f"reward {row['reward']:.2f}")
    if "tokens_per_second" in row:
        told.append(f"{row['tokens_per_second']:,.0f} tok/s")
    return " ".join(told)


MARK = "\x1e"
"""Begins a line that is no text but an event."""


class EventReporter(Reporter):
    """Tells the process that started this one, a line an event on stderr."""

    def progress(self, step: str, progress: Progress) -> None:
        """How far a step is."""
        self._tell("progress", step, asdict(progress))

    def training(self, row: dict[str, float]) -> None:
        """One optimizer step."""
        self._tell("training", row)

    def note(self, text: str) -> None:
        """A line to be kept on the screen."""
        self._tell("note", text)

    def _tell(self, kind: str, *content: object) -> None:
        sys.stderr.write(f"{MARK}{json.dumps([kind, *content])}\n")
        sys.stderr.flush()


def tell_on(line: str, reporter: Reporter) -> None:
    """Hands a line of another process to a reporter: an event as what it is, any other as a note."""
    if not line.startswith(MARK):
        if line.strip():
            reporter.note(line)
        return
    match json.loads(line.removeprefix(MARK)):
        case ["progress", step, told]:
            reporter.progress(step, Progress(**told))
        case ["training", row]:
            reporter.training(row)
        case ["note", text]:
            reporter.note(text)
