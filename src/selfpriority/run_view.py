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


class RunView(Reporter):
    """The view of one run. Use as a context manager, so that the terminal is given back.

    Args:
        console: a terminal.
        run: what is run.
    """

    hears = True

    def __init__(self, console: Console, run: Run) -> None:
        self._console, self._run = console, run
        self._screen = Screen(f"spa run {run.folder}")
        self._parts: dict[str, Announced] = {}
        self._began = time.monotonic()
        self._stage_began = self._read = self._heard = 0.0
        self._first_step: tuple[int, float] | None = None
        self._spoke = False
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
        self._screen.now = None
        for stage in self._screen.stages:
            if stage.title == title:
                if stage.state == "now":
                    stage.seconds = now - self._stage_began
                stage.state = state
                stage.said = self._parts[title].told()
        self._stage_began, self._read, self._first_step, self._spoke = now, 0.0, None, False

    def progress(self, step: str, progress: Progress) -> None:
        """The step in hand, by answer."""
        done, total = answered(progress), asked(progress)
        new = done - round(progress.cached * total / progress.total) if progress.total else 0
        to_come = total - done + (progress.shards - progress.shard) * total
        rest = to_come * progress.seconds / new if new > 0 and progress.seconds else None
        self._hears()
        named = ", ".join(filter(None, (step, shard_of(progress))))
        self._screen.now = Now(named, done, total, rate_of(progress), progress.seconds, rest)

    def training(self, row: dict[str, float]) -> None:
        """The step in hand, by optimizer step."""
        done, total = int(row["step"]), int(row["n_steps"])
        self._hears()
        first, since = self._first_step = self._first_step or (done, self._heard)  # a training may have been resumed
        rest = (total - done) * (self._heard - since) / (done - first) if done > first else None
        self._screen.now = Now("training", done, total, pace_of(row), self._heard - self._stage_began, rest)

    def note(self, text: str) -> None:
        """Lines above the view, as wide as the terminal."""
        self._live.console.print(clean(text), markup=False, highlight=False)

    def hear(self, line: str) -> None:
        """What the process of a phase wrote."""
        tell_on(line, self)

    def _hears(self) -> None:
        """A word of the present stage; its first one tells how long a start takes here."""
        self._heard = time.monotonic()
        if not self._spoke:
            self._screen.usual_start, self._spoke = self._heard - self._stage_began, True

    def _drawn(self) -> Group:
        now = time.monotonic()
        self._screen.seconds, self._screen.silence = now - self._began, now - self._heard
        self._screen.starting = now - (self._stage_began or self._began)
        if now - self._read > READ_EVERY:
            self._read = now
            self._look()
        return Group(*self._screen.lines(self._console.width, self._console.height))

    def _look(self) -> None:
        """What became known of the present stage, and the rest of the run."""
        for stage in self._screen.stages:
            if stage.state == "now":
                stage.said = self._parts[stage.title].told()
        in_hand = self._screen.now.rest if self._screen.now else None
        entries = _entries(self._run)
        self._screen.planned = running_takes(self._ahead, entries)
        rest = rest_of(self._ahead, entries, in_hand)
        if rest is not None and rest.seconds >= 1.0:
            self._screen.rest = f"{'about' if rest.is_whole else 'at least'} {duration(rest.seconds)}"

    def _read_plan(self, plan: subprocess.Popen[bytes]) -> None:
        """The steps of the plan once it is made; without one the rest of the run stays unknown."""
        said, _ = plan.communicate()
        with contextlib.suppress(ValueError, KeyError, ValidationError):
            fields = set(Ahead.__dataclass_fields__)
            rows = ({k: v for k, v in row.items() if k in fields} for row in json.loads(said)["steps"])
            self._ahead = _AHEAD.validate_python(list(rows))


def _entries(run: Run) -> dict[str, StepEntry]:
    """What the manifests of a run and of the systems it trains say, by the name that a plan has for the step."""
    try:
        others = {f"{SYSTEMS}/{name}/": run.folder / SYSTEMS / name for name in trained_systems(load(run.recipe))}
        return {f"{start}{name}": e for start, at in {"": run.folder, **others}.items() for name, e in _of(at)}
    except (SelfPriorityError, OSError):
        return {}


def _of(folder: Path) -> list[tuple[str, StepEntry]]:
    return list(Run(folder).manifest.steps.items()) if (folder / "manifest.json").is_file() else []
