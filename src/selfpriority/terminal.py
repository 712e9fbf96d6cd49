"""What a person sees while work goes on: a live progress bar per step on a terminal, plain lines otherwise.

Everything here goes to stderr; results go to stdout, from `cli`. Never shows the text of a prompt or an answer.
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from selfpriority.backends.progress import Progress
from selfpriority.phases.resources import Reporter
from selfpriority.plain_text import clean

LINE_EVERY = 15.0
"""Seconds between two plain lines of one step."""


class LiveReporter(Reporter):
    """Shows progress on `console`. Use as a context manager, so that the bars end with the work."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
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
        """A bar or a line: done of total, rate, and how many came from the cache."""
        new = progress.done - progress.cached
        rate = f"{progress.tokens / progress.seconds:,.0f} tok/s" if progress.tokens and progress.seconds else ""
        if new and not rate and progress.seconds:
            rate = f"{new / progress.seconds:,.1f}/s"
        if progress.cached:
            rate = f"{rate} ({progress.cached} known)".strip()
        self._show(step, progress.done, progress.total, rate, progress.seconds)

    def training(self, row: dict[str, float]) -> None:
        """One optimizer step."""
        rate = f"loss {row['loss']:.3f} margin {row['margin']:+.2f} {row['tokens_per_second']:,.0f} tok/s"
        self._show("training", int(row["step"]), int(row["n_steps"]), rate, None)

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
        due = now - self._last_line.setdefault(name, now - (0 if seconds else LINE_EVERY)) >= LINE_EVERY
        if due or done == total:
            self._last_line[name] = now
            self._console.print(f"{name} {done}/{total} {rate}", markup=False, highlight=False, soft_wrap=True)
