"""Does collection outgrow one machine's memory? Scripted answers, so that nothing but our own work is measured.

    python benchmarks/scale.py --prompts 20000 --to /tmp/scale --json

One process collects round 1 (candidates, ratings, refinements, pools, pairs) and is killed when refining is half done;
a second one ends it; a third one finds nothing to do. Told of each: seconds, and most memory; of the second, how long
until the first further shard is finished. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from selfpriority.errors import InputError
from selfpriority.phases.shards import SHARD, Grown
from selfpriority.pipeline import follow, start
from selfpriority.storage import read_record

WORDS = ("bread", "knee", "rent", "lease", "code", "lock", "letter", "garden")
WORDS += ("engine", "doctor", "judge", "river", "school", "winter", "bicycle", "account")


@dataclass(frozen=True)
class Took:
    """What one process took."""

    seconds: float
    peak_mb: int
    """Most resident memory."""
    first_shard_seconds: float | None = None
    """Until it had finished its first shard; None: not looked at."""


def main() -> None:
    """Collects thrice, and tells what each took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--to", type=Path, required=True, help="a folder that is emptied")
    parser.add_argument("--json", action="store_true", help="say nothing else")
    asked = parser.parse_args()
    shutil.rmtree(asked.to, ignore_errors=True)
    follow(*start(_written(asked.to, asked.prompts, asked.n), [], asked.to / "run"))
    note = asked.to / "run" / "round-1" / ".3-refined.jsonl.growing-note"
    killed = _took(asked.to / "run", lambda: _n_done(note) >= asked.prompts // 2)
    before = _n_done(note)
    resumed = _took(asked.to / "run", first=lambda: _n_done(note) > before or not note.exists())
    again = _took(asked.to / "run")
    steps = json.loads((asked.to / "run" / "manifest.json").read_text("utf-8"))["steps"]
    files = {path.name: path.stat().st_size for path in sorted((asked.to / "run").rglob("*")) if path.is_file()}
    told: dict[str, Any] = {
        "prompts": asked.prompts,
        "n": asked.n,
        "shard": SHARD,
        "killed_behind": before,
        "until_killed": asdict(killed),
        "resumed": asdict(resumed),
        "nothing_to_do": asdict(again),
        "megabytes": {name: round(size / 1e6) for name, size in files.items() if size > 1e6},
        "steps": {
            name: {k: step[k] for k in ("seconds", "requests", "cached", "peak_mb")} for name, step in steps.items()
        },
    }
    print(json.dumps(told) if asked.json else json.dumps(told, indent=1))


def _written(folder: Path, n_prompts: int, n: int) -> Path:
    """A recipe with as many prompts of a dozen words."""
    folder.mkdir(parents=True)
    with (folder / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for number in range(n_prompts):
            words = (WORDS[(number // len(WORDS) ** place) % len(WORDS)] for place in range(6))
            file.write(json.dumps({"prompt": f"What should I know about {', '.join(words)} ({number})?"}) + "\n")
    recipe = {
        "model": "smollm2-135m",
        "prompts": {"source": str(folder / "prompts.jsonl")},
        "sample": {"n": n, "max_new_tokens": 64},
        "score": {"require_signal": False},
        "refine": {"max_new_tokens": 64},
        "denoise": {"consistency": 0.25, "keep_lowest": 0.9},
        "backend": {"kind": "scripted"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    return folder / "recipe.yaml"


def _took(run: Path, kill: Callable[[], bool] = lambda: False, first: Callable[[], bool] | None = None) -> Took:
    """Lets a process collect; kills it as soon as `kill` says so, and looks when `first` does."""
    began, came = time.monotonic(), None
    process = subprocess.Popen([sys.executable, "-m", "selfpriority", "-q", "collect", str(run)])
    status = Path(f"/proc/{process.pid}/status")
    peak = 0
    while process.poll() is None:
        peak = max(peak, _peak_mb(status))
        if came is None and first is not None and first():
            came = time.monotonic() - began
        if kill():
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.05)
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit(process.returncode)
    return Took(round(time.monotonic() - began, 1), peak, came if came is None else round(came, 1))


def _peak_mb(status: Path) -> int:
    try:
        lines = status.read_text("ascii").splitlines()
    except OSError:  # it has ended
        return 0
    held = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    return held * 1024 // 1_000_000


def _n_done(note: Path) -> int:
    try:
        return read_record(note, Grown).counts.n_in
    except (OSError, InputError):
        return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
