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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from selfpriority.errors import InputError, WorkFailed
from selfpriority.records import Drop, Sifted, funnel_row

T = TypeVar("T")

CANDIDATES, SCORED, REFINED, POOLS, PAIRS = (
    "1-candidates.jsonl",
    "2-scored.jsonl",
    "3-refined.jsonl",
    "4-pools.jsonl",
    "5-pairs.jsonl",
)


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
    def manifest(self) -> dict[str, Any]:
        """Name, versions and the steps done; empty before the first step."""
        path = self.folder / "manifest.json"
        if not path.is_file():
            return {"name": self.folder.name, "versions": {}, "steps": {}}
        loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return loaded

    def is_done(self, step: Step) -> bool:
        """Whether this very step, with these very inputs, has finished, and no other has begun to replace its files."""
        entry = self.manifest["steps"].get(step.name, {})
        is_this = entry.get("state") == "done" and entry.get("key") == step.key
        return is_this and all(path.exists() for path in step.outputs)

    def was_done_otherwise(self, step: Step) -> bool:
        """Whether the step was last done, or begun, with other inputs: it is recomputed because something changed."""
        entry = self.manifest["steps"].get(step.name)
        return entry is not None and entry.get("key") != step.key

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
        manifest["versions"] = versions()
        manifest["steps"][step.name] = {"state": state, "key": step.key, "seconds": seconds, **asdict(spent)}
        write_json(self.folder / "manifest.json", manifest)

    def record_sifted(self, number: int, step: str, n_in: int, sifted: Sifted[Any]) -> None:
        """Puts a step's drops and counts into the round's `drops.jsonl` and `funnel.json`, replacing older ones."""
        folder = self.round(number)
        drops = folder / "drops.jsonl"
        others = [drop for drop in read_rows(drops, Drop) if drop.step != step] if drops.exists() else []
        write_rows(drops, [*others, *sifted.dropped], Drop)
        funnel = read_json(folder / "funnel.json") if (folder / "funnel.json").exists() else {"steps": {}}
        funnel["steps"][step] = funnel_row(n_in, sifted)
        write_json(folder / "funnel.json", funnel)

    def forget_from(self, number: int, step: str) -> None:
        """Takes a step and all after it out of the round's `drops.jsonl` and `funnel.json`: an older recipe's."""
        path, drops = self.round(number) / "funnel.json", self.round(number) / "drops.jsonl"
        rows = read_json(path)["steps"] if path.exists() else {}
        if step not in rows:
            return
        earlier = list(rows)[: list(rows).index(step)]
        write_rows(drops, [drop for drop in read_rows(drops, Drop) if drop.step in earlier], Drop)
        write_json(path, {"steps": {name: rows[name] for name in earlier}})

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
        for folder in (self.folder, self.evaluation, *self.folder.glob("round-*")):
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
