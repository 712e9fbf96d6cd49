"""The run directory, a run's only state: names, atomic writes, step keys, manifest, lock.

A step is done when the manifest says so under its key (a hash of everything it depends on) and its files exist. Knows
nothing of what the steps compute.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter

from selfpriority.errors import InputError, WorkFailed
from selfpriority.records import Drop, Sifted

T = TypeVar("T")

CANDIDATES, SCORED, REFINED, POOLS, PAIRS = (
    "1-candidates.jsonl",
    "2-scored.jsonl",
    "3-refined.jsonl",
    "4-pools.jsonl",
    "5-pairs.jsonl",
)
DROPS, FUNNEL = "drops.jsonl", "funnel.json"


@dataclass(frozen=True)
class Step:
    """One entry of the manifest: its name, what it depends on and the files it writes."""

    name: str
    key: str
    outputs: tuple[Path, ...]


@dataclass
class Spent:
    """What a step cost, counted while it runs."""

    requests: int = 0
    cached: int = 0
    tokens: int = 0
    peak_mb: int = 0
    """Most memory that its process had held when it ended, earlier steps' included; 0: not measured."""


@dataclass(frozen=True)
class StepEntry:
    """What the manifest says of one step."""

    state: str
    """`running` or `done`."""
    key: str
    seconds: float = 0.0
    requests: int = 0
    cached: int = 0
    tokens: int = 0
    peak_mb: int | None = None
    """As of `Spent`; None in runs of older versions."""


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`: the steps that were begun, in order of their first time."""

    name: str
    versions: dict[str, str] = field(default_factory=dict)
    steps: dict[str, StepEntry] = field(default_factory=dict)


@dataclass(frozen=True)
class FunnelStep:
    """Prompts of one step: what came in went out or was dropped; single answers that were lost count apart."""

    n_in: Annotated[int, Field(alias="in")]
    out: int
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> prompts."""
    responses_dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> answers."""

    @classmethod
    def of(cls, n_in: int, sifted: Sifted[Any]) -> FunnelStep:
        """Of a step that `n_in` prompts went into."""
        lost = Counter(drop.reason for drop in sifted.dropped if drop.response_id is not None)
        return cls(n_in, len(sifted.kept), sifted.reasons, dict(lost))


@dataclass(frozen=True)
class PairCounts:
    """Pairs of a round; None: not counted yet."""

    n: int | None = None
    decided_by: dict[str, int] | None = None
    """Objective -> pairs that it decided."""
    trained: int | None = None
    light_share: float | None = None
    """Share of the trained pairs that weigh under 0.1."""


@dataclass(frozen=True)
class Funnel:
    """`funnel.json` of a round, the steps in order."""

    steps: dict[str, FunnelStep] = field(default_factory=dict)
    pairs: PairCounts | None = None


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
    def cache(self) -> Path:
        """The request cache."""
        return self.folder / "cache.sqlite"

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
        return read_record(path, Manifest) if path.is_file() else Manifest(self.folder.name)

    def funnel(self, number: int) -> Funnel:
        """The counts of a round so far; empty before its first step."""
        path = self.round(number) / FUNNEL
        return read_record(path, Funnel) if path.is_file() else Funnel()

    def write_funnel(self, number: int, funnel: Funnel) -> None:
        """Replaces the counts of a round."""
        write_record(self.round(number) / FUNNEL, funnel)

    def is_done(self, step: Step) -> bool:
        """Whether this very step, with these very inputs, has finished, and no other has begun to replace its files."""
        entry = self.manifest.steps.get(step.name)
        is_this = entry is not None and entry.state == "done" and entry.key == step.key
        return is_this and all(path.exists() for path in step.outputs)

    def was_done_otherwise(self, step: Step) -> bool:
        """Whether the step was last done, or begun, with other inputs: it is recomputed because something changed."""
        entry = self.manifest.steps.get(step.name)
        return entry is not None and entry.key != step.key

    @contextlib.contextmanager
    def recording(self, step: Step) -> Iterator[Spent]:
        """Runs the body as this step: `running` in the manifest from its start, `done` when it succeeds."""
        spent = Spent()
        started = time.monotonic()
        self._enter(step, "running", 0.0, spent)  # the files of before are about to be replaced one by one
        yield spent
        spent.peak_mb = _peak_mb()
        self._enter(step, "done", round(time.monotonic() - started, 2), spent)

    def _enter(self, step: Step, state: str, seconds: float, spent: Spent) -> None:
        manifest = self.manifest
        steps = {**manifest.steps, step.name: StepEntry(state, step.key, seconds, **asdict(spent))}
        write_record(self.folder / "manifest.json", Manifest(manifest.name, versions(), steps))

    def record_sifted(self, number: int, step: str, n_in: int, sifted: Sifted[Any]) -> None:
        """Puts a step's drops and counts into the round's `drops.jsonl` and `funnel.json`, replacing older ones."""
        path = self.round(number) / DROPS
        others = [drop for drop in self.drops(number) if drop.step != step]
        write_rows(path, [*others, *sifted.dropped], Drop)
        funnel = self.funnel(number)
        steps = {**funnel.steps, step: FunnelStep.of(n_in, sifted)}
        self.write_funnel(number, replace(funnel, steps=steps))

    def drops(self, number: int) -> list[Drop]:
        """All drops of a round so far, in the order of the steps."""
        path = self.round(number) / DROPS
        return read_rows(path, Drop) if path.is_file() else []

    def forget_from(self, number: int, step: str) -> None:
        """Takes a step and all after it out of the round's `drops.jsonl` and `funnel.json`: an older recipe's."""
        steps = self.funnel(number).steps
        if step not in steps:
            return
        earlier = list(steps)[: list(steps).index(step)]
        write_rows(self.round(number) / DROPS, [drop for drop in self.drops(number) if drop.step in earlier], Drop)
        self.write_funnel(number, Funnel({name: steps[name] for name in earlier}))

    @contextlib.contextmanager
    def locked(self, name: str, wait: float = 0.0) -> Iterator[None]:
        """Holds a lock file, so that no two programs write one run. Waits `wait` seconds, then InputError.

        The lock named `run` is the first that a program takes; with it goes what killed ones left half written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait
        with (self.folder / f".{name}.lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise InputError(f"{self.folder}: another spa process works on this run") from None
                    time.sleep(0.1)
            if name == "run":
                with self.locked("phase", wait=30):  # a child of a killed run may need a moment to notice
                    self._sweep()
            yield

    def _sweep(self) -> None:
        """Removes the temporary files and half-saved policies of processes that are no more."""
        for folder in (self.folder, *self.folder.glob("round-*"), self.evaluation, *self.evaluation.glob("*/")):
            for path in folder.glob(".*"):
                temporary = re.fullmatch(r"\..+\.(\d+)", path.name)
                if temporary and not _is_alive(int(temporary[1])):  # `spa report` writes without a lock
                    path.unlink(missing_ok=True)
            shutil.rmtree(folder / "policy.partial", ignore_errors=True)


def _peak_mb() -> int:
    """Most resident memory this process has held, in MB (10^6 bytes); its children's does not count."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("ascii"))
        if found:  # unlike ru_maxrss it knows nothing of the program that started this one
            return int(found[1]) * 1024 // 1_000_000
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) // 1_000_000


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _holds_other_things(folder: Path) -> bool:
    """Whether more is there than a start of ours leaves that was killed, or refused its inputs."""
    ours = re.compile(r"\.\w+\.lock|\.resolved\.yaml\.\d+")
    return any(not ours.fullmatch(path.name) for path in folder.iterdir())


def key_of(*parts: object) -> str:
    """Content hash of anything JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}  # building one costs milliseconds, and files have thousands of rows


def _adapter(cls: type[T]) -> TypeAdapter[T]:
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def write_rows(path: Path, rows: Sequence[T], cls: type[T]) -> None:
    """Writes records as JSONL, all or nothing."""
    adapter = _adapter(cls)
    write_text(path, (adapter.dump_json(row).decode() + "\n" for row in rows))


def read_rows(path: Path, cls: type[T]) -> list[T]:
    """Records of a JSONL file this program wrote."""
    adapter = _adapter(cls)
    with path.open("rb") as file:
        return [adapter.validate_json(line) for line in file]


def write_record(path: Path, record: T) -> None:
    """Writes one record as JSON, all or nothing; what is None is not named."""
    write_json(path, as_json(record, without_none=True))


def read_record(path: Path, cls: type[T]) -> T:
    """The record in a JSON file this program wrote; what another version wrote beside its fields is passed over."""
    return _adapter(cls).validate_json(path.read_bytes())


def as_json(record: object, *, without_none: bool = False) -> Any:
    """A record as JSON holds it."""
    return _adapter(type(record)).dump_python(record, mode="json", by_alias=True, exclude_none=without_none)


def json_text(record: object) -> str:
    """A record as the commands print it with `--json`."""
    return json.dumps(as_json(record), indent=1)


def write_json(path: Path, value: object) -> None:
    """Writes JSON, all or nothing."""
    write_text(path, [json.dumps(value, indent=1, ensure_ascii=False) + "\n"])


def read_json(path: Path) -> Any:
    """The value in a JSON file this program wrote."""
    return json.loads(path.read_text("utf-8"))


def write_text(path: Path, parts: Iterable[str]) -> None:
    """Writes a file beside its place and renames it there, so a reader never sees half of it.

    Raises:
        WorkFailed: the disk is full or not writable; what was there before stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise WorkFailed(f"{path}: cannot write: {error.strerror}; free space and run the same command") from error


@cache
def versions() -> dict[str, str]:
    """Installed versions of what a result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("selfpriority", "torch", "transformers", "peft", "accelerate", "tokenizers"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
