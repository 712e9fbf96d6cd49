"""What unfinished trainings leave in a folder: checkpoints under a key of what trains there, and a log.

A field mistyped once must not cost what was trained before: another training's checkpoints and log stay until one is
done. Knows files and nothing of their content.
"""

from __future__ import annotations

import shutil
from pathlib import Path

LOG = "training.jsonl"
_CHECKPOINTS = "checkpoints-{}"


def checkpoints_of(folder: Path, key: str) -> Path:
    """Where a training keeps its checkpoints; one of anything else never resumes them."""
    return folder / _CHECKPOINTS.format(key[:12])


def take_place(folder: Path, checkpoints: Path) -> Path:
    """Puts this training's log into its place, and that of another one beside its checkpoints; where the log is."""
    log = folder / LOG
    if checkpoints.is_dir() and not (checkpoints / LOG).exists():
        return log  # what lies there is this training's
    others = (path for path in folder.glob(_CHECKPOINTS.format("*")) if path != checkpoints)
    owner = next((path for path in others if not (path / LOG).exists()), None)
    if owner is not None and log.exists():
        log.replace(owner / LOG)
    log.unlink(missing_ok=True)
    if (checkpoints / LOG).exists():
        (checkpoints / LOG).replace(log)
    return log


def remove_all(folder: Path) -> None:
    """A training is done: none of the checkpoints is needed any more."""
    for path in folder.glob(_CHECKPOINTS.format("*")):
        shutil.rmtree(path, ignore_errors=True)
