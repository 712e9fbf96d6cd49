"""The run directory, a run's only state: names, step keys, manifest, counts, lock.

A step is done when the manifest says so under its key (a hash of everything it depends on) and its files hold what it
wrote. Knows nothing of what the steps compute.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from selfpriority.errors import InputError
from selfpriority.locks import held, is_alive
from selfpriority.records import Drop, Sifted
from selfpriority.run_records import FINISHED, Funnel, FunnelStep, Manifest, Spent, Step, StepEntry
from selfpriority.storage import (
    Content,
    Damaged,
    content_of,
    iter_rows,
    read_record,
    read_rows,
    remove,
    write_record,
    write_rows,
)

CANDIDATES, SCORED, REFINED, POOLS, PAIRS = (
    "1-candidates.jsonl",
    "2-scored.jsonl",
    "3-refined.jsonl",
    "4-pools.jsonl",
    "5-pairs.jsonl",
)
DROPS, FUNNEL = "drops.jsonl", "funnel.json"
SYSTEMS = "systems"
"""Folder of the further systems that a run trains, each a run of its own."""
MERGED = "merged"
"""Folder of the models that a run merges of what it trains."""
COUNTED_ANEW = "`spa run` counts anew"


class Run:
    """One run directory.

    Args:
        folder: the directory; made if missing.

    Raises:
        InputError: the path is a file, or a folder with other things in it.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file, a run is a directory")
        if folder.is_dir() and not (folder / "resolved.yaml").exists() and _holds_other_things(folder):
            raise InputError(f"{folder}: is not empty and not a run directory; choose another with --out")
        self.folder = folder

    @classmethod
    def existing(cls, folder: Path) -> Run:
        """A run that has been started; InputError otherwise."""
        if not (folder / "resolved.yaml").is_file():
            raise InputError(f"{folder}: is no run directory (no resolved.yaml); `spa run RECIPE` makes one")
        return cls(folder)

    @property
    def recipe(self) -> Path:
        """The recipe with every default visible; what all phases read."""
        return self.folder / "resolved.yaml"

    @property
    def above(self) -> Run | None:
        """The run that has this one as a system in its `systems`; None: this is no other's."""
        systems = self.folder.absolute().parent  # `.` has no parent that can be told from its name
        is_system = systems.name == SYSTEMS and (systems.parent / "resolved.yaml").is_file()
        return Run(systems.parent) if is_system else None

    def named(self, step: str) -> str:
        """A step as messages and the plan of the whole run call it; of a system beside, with the system's folder."""
        return f"{SYSTEMS}/{self.folder.name}/{step}" if self.above else step

    def named_from_here(self, model: str) -> str:
        """The folder of a model whose name counts from the run's folder, as `../spa/round-1/policy`; else the name."""
        is_beside = Path(model).parts[:1] == (os.pardir,)
        return os.path.normpath(self.folder.absolute() / model) if is_beside else model

    @property
    def cache(self) -> Path:
        """The request cache; another run's system shares that one's."""
        return (self.above or self).folder / "cache.sqlite"

    @property
    def evaluation(self) -> Path:
        """Folder of answers, verdicts and summary."""
        return self.folder / "evaluation"

    def round(self, number: int) -> Path:
        """Folder of one round, counted from 1."""
        return self.folder / f"round-{number}"

    def policy(self, number: int) -> Path:
        """The policy a round ends with."""
        return self.round(number) / "policy"

    @property
    def manifest(self) -> Manifest:
        """Name, versions and the steps done; empty before the first step."""
        path = self.folder / "manifest.json"
        remedy = "delete it, and `spa run` does every step again: answers come from the cache, training is done anew"
        return read_record(path, Manifest, remedy) if path.is_file() else Manifest(self.folder.name)

    def funnel(self, number: int) -> Funnel:
        """The counts of a round so far; empty before its first step."""
        path = self.round(number) / FUNNEL
        return read_record(path, Funnel, COUNTED_ANEW) if path.is_file() else Funnel()

    def write_funnel(self, number: int, funnel: Funnel) -> None:
        """Replaces the counts of a round."""
        write_record(self.round(number) / FUNNEL, funnel)

    def is_done(self, step: Step) -> bool:
        """Whether this very step, with these very inputs, has finished, and all it wrote is still there unchanged."""
        entry = self.manifest.steps.get(step.name)
        return entry is not None and entry.state in FINISHED and self.why_again(step) is None

    def why_again(self, step: Step) -> str | None:
        """Why a step that was done, or begun, has to be done again; None: nothing speaks for that."""
        entry = self.manifest.steps.get(step.name)
        if entry is None:
            return None
        if entry.key != step.key:
            return "its inputs changed"
        if entry.state not in FINISHED:
            return None
        wrong = (self._wrong_with(path, entry.files or {}) for path in step.outputs)
        return next(filter(None, wrong), None if self._is_counted(step) else f"{DROPS} or {FUNNEL} lost its counts")

    def is_made_otherwise(self, step: Step, before: StepEntry | None) -> bool:
        """Whether a step that was done again under the same key wrote something else than `before`."""
        made = self.manifest.steps[step.name]
        return before is not None and before.key == made.key and before.files not in (None, made.files)

    def _wrong_with(self, path: Path, files: dict[str, Content]) -> str | None:
        name = path.relative_to(self.folder).as_posix()
        if not path.exists():
            return f"{name} is gone"
        written = files.get(name)
        if written is None or (found := content_of(path)) == written:
            return None
        rows = "" if found.rows == written.rows else f" ({found.rows} rows, {written.rows} were written)"
        return f"{name} is not what was written{rows}"

    def _is_counted(self, step: Step) -> bool:
        """Whether its round still has the step's counts, and a drop for each that they name."""
        if not step.counts:
            return True
        try:
            counted, lost = self.funnel(step.round).steps, _lost_in(self.round(step.round) / DROPS)
        except Damaged:
            return False
        return all(name in counted and Counter(counted[name].dropped) == lost[name] for name in step.counts)

    @contextlib.contextmanager
    def recording(self, step: Step) -> Iterator[Spent]:
        """Runs the body as this step: `running` in the manifest from its start, `done` when it succeeds."""
        spent = Spent()
        started = time.monotonic()
        before = self.manifest.steps.get(step.name)
        written = before.files if before is not None and before.key == step.key else None
        self._enter(step, "running", spent, written)  # the files of before are about to be replaced one by one
        yield spent
        spent.peak_mb = _peak_mb()
        files = {path.relative_to(self.folder).as_posix(): content_of(path) for path in step.outputs}
        spent.seconds = round(spent.seconds + time.monotonic() - started, 2)
        self._enter(step, "done", spent, files)

    def _enter(self, step: Step, state: str, spent: Spent, files: dict[str, Content] | None) -> None:
        with self._changing() as manifest:
            steps = {**manifest.steps, step.name: StepEntry(state, step.key, **asdict(spent), files=files)}
            write_record(self.folder / "manifest.json", Manifest(manifest.name, versions(), steps))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Manifest]:
        """The manifest, which nobody else changes meanwhile: parts of an evaluation are done at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with held(self.folder / ".manifest.lock", 60.0, f"{self.folder}: another spa process holds the manifest"):
            yield self.manifest

    def record_sifted(self, number: int, step: str, n_in: int, sifted: Sifted[Any]) -> None:
        """Puts a step's drops and counts into the round's `drops.jsonl` and `funnel.json`, replacing older ones."""
        self.record_counts(number, step, FunnelStep.of(n_in, sifted), sifted.dropped)

    def record_counts(self, number: int, step: str, counts: FunnelStep, dropped: Iterable[Drop]) -> None:
        """The same of counts that are known, and drops that are looked at one by one."""
        path = self.round(number) / DROPS
        before = iter_rows(path, Drop, COUNTED_ANEW) if path.is_file() else ()
        write_rows(path, chain((drop for drop in before if drop.step != step), dropped), Drop)
        funnel = self.funnel(number)
        self.write_funnel(number, replace(funnel, steps={**funnel.steps, step: counts}))

    def drops(self, number: int) -> list[Drop]:
        """All drops of a round so far, in the order of the steps."""
        return _read_drops(self.round(number) / DROPS)

    def forget_damaged_counts(self, number: int) -> None:
        """Removes what cannot be read of a round's `drops.jsonl` and `funnel.json`: its steps count anew."""
        for name, read in ((DROPS, self.drops), (FUNNEL, self.funnel)):
            try:
                read(number)
            except Damaged:
                (self.round(number) / name).unlink()

    def mark(self, states: Mapping[str, str]) -> None:
        """Says of finished steps whether they are the present recipe's: step -> `done` or `older`."""
        with self._changing() as manifest:
            steps = {
                name: replace(entry, state=states.get(name, entry.state)) if entry.state in FINISHED else entry
                for name, entry in manifest.steps.items()
            }
            if steps != manifest.steps:
                write_record(self.folder / "manifest.json", replace(manifest, steps=steps))

    def undo(self, steps: Sequence[Step]) -> None:
        """Takes steps out of the manifest."""
        names = {step.name for step in steps}
        with self._changing() as manifest:
            kept = {name: entry for name, entry in manifest.steps.items() if name not in names}
            write_record(self.folder / "manifest.json", replace(manifest, steps=kept))

    def forget_from(self, number: int, step: str) -> None:
        """Takes a step and all after it out of the round's `drops.jsonl` and `funnel.json`: an older recipe's."""
        steps = self.funnel(number).steps
        if step not in steps:
            return
        earlier = list(steps)[: list(steps).index(step)]
        write_rows(self.round(number) / DROPS, [drop for drop in self.drops(number) if drop.step in earlier], Drop)
        self.write_funnel(number, Funnel({name: steps[name] for name in earlier}))

    @contextlib.contextmanager
    def locked(self, name: str, wait: float = 0.0, is_shared: bool = False) -> Iterator[None]:
        """Holds a lock file, so that no two programs write one run. Waits `wait` seconds, then InputError.

        Parts of one phase that are done at once share its lock.
        The lock named `run` is the first that a program takes; with it goes what killed ones left half written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        taken = f"{self.folder}: another spa process works on this run"
        with held(self.folder / f".{name}.lock", wait, taken, is_shared):
            if name == "run":
                with self.locked("phase", wait=30):  # a child of a killed run may need a moment to notice
                    self._sweep()
            yield

    def _sweep(self) -> None:
        """Removes the temporary files and half-saved policies of processes that are no more."""
        folders = (self.folder, self.folder / MERGED, self.evaluation)
        for folder in (*folders, *self.folder.glob("round-*"), *self.evaluation.glob("*/")):
            for path in folder.glob(".*.partial"):
                temporary = re.fullmatch(r"\..+\.(\d+)\.partial", path.name)
                if temporary and not is_alive(int(temporary[1])):  # `spa report` writes without a lock
                    remove(path)
            remove(folder / "policy.partial")  # of versions before 0.2


def trained_key(
    run: Run, rounds: int, systems: Sequence[str], merged: Mapping[str, Mapping[str, float]] | None = None
) -> str | None:
    """Key of the last trainings of a run and of the systems that it trains beside; None before all are done.

    Args:
        run: the run.
        rounds: of it.
        systems: names of those it trains beside.
        merged: system -> what it is merged of, and how much of each.
    """
    places = (run, *(Run(run.folder / SYSTEMS / name) for name in systems))
    entries = [place.manifest.steps.get(f"round-{rounds}/align") for place in places]
    keys = [entry.key for entry in entries if entry and entry.state == "done"]
    if len(keys) < len(entries):
        return None
    key = key_of(*keys) if systems else keys[0]
    return key_of(key, merged) if merged else key


def _read_drops(path: Path) -> list[Drop]:
    return read_rows(path, Drop, COUNTED_ANEW) if path.is_file() else []


def _lost_in(path: Path) -> dict[str, Counter[str]]:
    """Step -> reason -> prompts in a file of drops, which is read once while nobody changes it."""
    return _lost_in_content(path, content_of(path).sha256) if path.is_file() else defaultdict(Counter)


@lru_cache(maxsize=16)
def _lost_in_content(path: Path, sha256: str) -> dict[str, Counter[str]]:
    lost: dict[str, Counter[str]] = defaultdict(Counter)
    for drop in iter_rows(path, Drop, COUNTED_ANEW):
        if drop.response_id is None:
            lost[drop.step][drop.reason] += 1
    return lost


def _peak_mb() -> int:
    """Most resident memory this process has held, in MB (10^6 bytes); its children's does not count."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("ascii"))
        if found:  # unlike ru_maxrss it knows nothing of the program that started this one
            return int(found[1]) * 1024 // 1_000_000
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) // 1_000_000


def _holds_other_things(folder: Path) -> bool:
    """Whether more is there than a start of ours leaves that was killed, or refused its inputs."""
    ours = re.compile(r"\.\w+\.lock|\.resolved\.yaml\.\d+(\.partial)?")
    return any(not ours.fullmatch(path.name) for path in folder.iterdir())


def key_of(*parts: object) -> str:
    """Content hash of anything JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Installed versions of what a result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("selfpriority", "torch", "transformers", "peft", "accelerate", "tokenizers"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
