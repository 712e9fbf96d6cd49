"""What a way of doing the same work took: seconds, tokens, processor time and memory. For the benchmarks beside it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Timed:
    """One way, once."""

    way: str
    seconds: float
    """The model's opening excluded."""
    tokens: int
    """Written ones."""
    cpu_seconds: float
    peak_mb: float
    """Of the largest process."""
    rating_seconds: float = 0.0
    """Of them, spent on ratings."""
    busy_seconds: float = 0.0
    """Of them, the engine computed."""
    requests: int = 0

    @property
    def rate(self) -> float:
        """Written tokens a second."""
        return self.tokens / self.seconds


def last_line(command: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The last line of JSON that a command writes; an engine writes there too.

    Raises:
        SystemExit: the command failed.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{command[0]}: exit code {done.returncode}")
    told = [line for line in done.stdout.splitlines() if line.startswith('{"')]
    found: dict[str, Any] = json.loads(told[-1])
    return found


def children() -> list[int]:
    """Processes that this one started, and those that they did."""
    found, queue = [], [os.getpid()]
    while queue:
        for task in Path(f"/proc/{queue.pop()}/task").glob("*/children"):
            own = list(map(int, task.read_text().split()))
            found += own
            queue += own
    return found


def cpu_of(pid: int) -> float:
    """Seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """Of this process, of those that it started, and of those of them that have ended and were waited for, so far."""
    ended = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) + ended + sum(map(cpu_of, children()))


def peak_mb() -> float:
    """Of the largest of this process and those that it started, so far."""
    sizes = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
    for pid in children():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        sizes += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")]
    return max(sizes)
