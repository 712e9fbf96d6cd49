"""Shows a whole run on a terminal while it works: keeps the state of `screen.Screen` and draws it.

The processes of the phases tell this one how far they are; what is known so far is read from the run directory.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.console import Console, Group
from rich.live import Live

from selfpriority.backends.progress import Progress
from selfpriority.errors import SelfPriorityError
from selfpriority.phases.resources import Announced, Reporter
from selfpriority.plain_text import clean
from selfpriority.planning.rest import Ahead, rest_of, running_takes
from selfpriority.recipe import load, trained_systems
from selfpriority.run import SYSTEMS, Run
from selfpriority.run_records import StepEntry
from selfpriority.screen import Now, Screen, Stage, duration
from selfpriority.terminal import answered, asked, pace_of, rate_of, shard_of, tell_on

READ_EVERY = 2.0
"""Seconds between two looks into the run directory."""
_AHEAD = TypeAdapter(list[Ahead])


@dataclass
class _Clock:
    """When a stage that is under way was heard of."""

    began: float
    heard: float | None = None
    first_step: tuple[int, float] | None = None
    """The first optimizer step that was heard of, and when."""


class RunView(Reporter):
    """The view of one run. Use as a context manager, so that the terminal is given back.

    Args:
        console: a terminal.
        run: what is run.
        command: by which it was started.
    """

    def __init__(self, console: Console, run: Run, command: str = "spa run") -> None:
        self._console, self._run = console, run
        self._screen = Screen(f"{command} {run.folder}")
        self._parts: dict[str, Announced] = {}
        self._clocks: dict[str, _Clock] = {}
        self._most_at_once = 1
        self._began = self._ended = time.monotonic()
        self._read = 0.0
        self._plan: subprocess.Popen[bytes] | None = None
        self._ahead: list[Ahead] = []
        self._live = Live(get_renderable=self._drawn, console=console, refresh_per_second=4, transient=False)

    def __enter__(self) -> RunView:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._plan is not None:
                self._plan.kill()
        self._live.transient = not self._screen.stages  # nothing began: what is wrong stands alone
        self._live.stop()

    def stages(self, parts: Sequence[Announced]) -> None:
        """All parts of the run; from now on its plan is made, by a process beside."""
        self._parts = {part.title: part for part in parts}
        self._screen.stages = [Stage(part.title) for part in parts]
        command = [sys.executable, "-m", "selfpriority", "plan", str(self._run.recipe)]
        command += ["--out", str(self._run.folder), "--json"]
        quiet = subprocess.DEVNULL
        self._plan = subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, process_group=0)
        threading.Thread(target=self._read_plan, args=(self._plan,), daemon=True).start()

    def stage(self, title: str, state: str) -> None:
        """A part of the run begins or ends."""
        now = time.monotonic()
        clock = self._clocks.pop(title, None)
        for stage in self._named(title):
            if clock is not None:
                stage.seconds = now - clock.began
            stage.state, stage.now, stage.said = state, None, self._parts[title].told()
        if state == "now":
            self._clocks[title] = _Clock(now)
            self._most_at_once = max(self._most_at_once, len(self._clocks))
        self._ended, self._read = now, 0.0

    def within(self, title: str) -> StageView:
        """Who hears the process of this stage."""
        return StageView(self, title)

    def note(self, text: str) -> None:
        """Lines above the view, as wide as the terminal."""
        self._live.console.print(clean(text), markup=False, highlight=False)

    def heard(self, title: str) -> _Clock | None:
        """A word of a stage; its first one tells how long a start takes here. None: it has ended meanwhile."""
        clock, now = self._clocks.get(title), time.monotonic()
        if clock is None:
            return None
        if clock.heard is None:
            self._screen.usual_start = now - clock.began
        clock.heard = now
        return clock

    def show(self, title: str, now: Now) -> None:
        """The step that a stage has in hand."""
        for stage in self._named(title):
            stage.now = now

    def _named(self, title: str) -> list[Stage]:
        return [stage for stage in self._screen.stages if stage.title == title]

    def _drawn(self) -> Group:
        now = time.monotonic()
        self._screen.seconds, self._screen.starting = now - self._began, now - self._ended
        for stage in self._screen.stages:
            if clock := self._clocks.get(stage.title):
                stage.starting, stage.silence = now - clock.began, now - (clock.heard or now)
        if now - self._read > READ_EVERY:
            self._read = now
            self._look()
        return Group(*self._screen.lines(self._console.width, self._console.height))

    def _look(self) -> None:
        """What became known of the present stages, and the rest of the run."""
        present = [stage for stage in self._screen.stages if stage.state == "now"]
        entries = _entries(self._run)
        for stage in present:
            stage.said = self._parts[stage.title].told()
            stage.planned = running_takes(self._ahead, entries) if len(present) == 1 else None
        known = [stage.now.rest for stage in present if stage.now is not None and stage.now.rest is not None]
        n_parts = sum(part.is_part for part in self._parts.values())
        in_hand = max(known, default=None)
        rest = rest_of(self._ahead, entries, in_hand, self._most_at_once, max(1, n_parts))
        if rest is not None and rest.seconds >= 1.0:
            self._screen.rest = f"{'about' if rest.is_whole else 'at least'} {duration(rest.seconds)}"

    def _read_plan(self, plan: subprocess.Popen[bytes]) -> None:
        """The steps of the plan once it is made; without one the rest of the run stays unknown."""
        said, _ = plan.communicate()
        with contextlib.suppress(ValueError, KeyError, ValidationError):
            fields = set(Ahead.__dataclass_fields__)
            rows = ({k: v for k, v in row.items() if k in fields} for row in json.loads(said)["steps"])
            self._ahead = _AHEAD.validate_python(list(rows))


class StageView(Reporter):
    """Hears the process of one stage, and has the view show how far it is."""

    hears = True

    def __init__(self, view: RunView, title: str) -> None:
        self._view, self._title = view, title

    def progress(self, step: str, progress: Progress) -> None:
        """The step in hand, by answer."""
        done, total = answered(progress), asked(progress)
        new = done - round(progress.cached * total / progress.total) if progress.total else 0
        to_come = total - done + (progress.shards - progress.shard) * total
        rest = to_come * progress.seconds / new if new > 0 and progress.seconds else None
        if self._view.heard(self._title) is None:
            return
        named = ", ".join(filter(None, (step, shard_of(progress))))
        self._view.show(self._title, Now(named, done, total, rate_of(progress), progress.seconds, rest))

    def training(self, row: dict[str, float]) -> None:
        """The step in hand, by optimizer step."""
        done, total = int(row["step"]), int(row["n_steps"])
        clock = self._view.heard(self._title)
        if clock is None or clock.heard is None:
            return
        first, since = clock.first_step = clock.first_step or (done, clock.heard)  # a training may have been resumed
        rest = (total - done) * (clock.heard - since) / (done - first) if done > first else None
        self._view.show(self._title, Now("training", done, total, pace_of(row), clock.heard - clock.began, rest))

    def note(self, text: str) -> None:
        """Lines above the view."""
        self._view.note(text)

    def hear(self, line: str) -> None:
        """What the process wrote."""
        tell_on(line, self)


def _entries(run: Run) -> dict[str, StepEntry]:
    """What the manifests of a run and of the systems it trains say, by the name that a plan has for the step."""
    try:
        others = {f"{SYSTEMS}/{name}/": run.folder / SYSTEMS / name for name in trained_systems(load(run.recipe))}
        return {f"{start}{name}": e for start, at in {"": run.folder, **others}.items() for name, e in _of(at)}
    except (SelfPriorityError, OSError):
        return {}


def _of(folder: Path) -> list[tuple[str, StepEntry]]:
    return list(Run(folder).manifest.steps.items()) if (folder / "manifest.json").is_file() else []
