"""Which checkpoint a training may continue from: whole, and of this very training.

A marker with the training's fingerprint and its engine's family is written into a checkpoint after everything else.
Folders without it were cut short by a kill, folders with another one belong to other pools or settings, or are in
another engine's form; none of them is ever loaded.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EACCES, EDQUOT, EFBIG, EIO, ENOSPC, EROFS
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import distributed
from torch.distributed.checkpoint.api import CheckpointException
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from selfpriority.errors import WorkFailed
from selfpriority.recipe import Align
from selfpriority.training.encode import EncodedPool
from selfpriority.training.engines import engine_family

MARKER = "complete"
_DISK = {ENOSPC, EDQUOT, EFBIG, EROFS, EACCES, EIO}


class Marking(TrainerCallback):
    """Marks every checkpoint when it is whole."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called after the checkpoint's last file of this rank is written."""
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()
        if state.is_world_process_zero:
            marker = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / MARKER
            marker.write_text(self.mark, encoding="ascii")


def mark_of(pools: Sequence[EncodedPool], settings: Align, seed: int, model: str) -> str:
    """What stands in a marker: the engine's family, and a hash of everything that decides what a training computes.

    Args:
        pools: what is trained on.
        settings: the fields of `align`.
        seed: of the order of the pools.
        model: what tells the starting model from others, however it is called at the time.
    """
    digest = hashlib.sha256(repr((model, seed, settings.in_result)).encode())
    for pool in pools:
        digest.update(repr(pool).encode())
    return f"{engine_family(settings)} {digest.hexdigest()}"


def last_checkpoint(folder: Path, mark: str) -> Path | None:
    """The newest usable checkpoint."""
    usable = [path for path in folder.glob("checkpoint-*") if _marker(path) == mark]
    return max(usable, key=step_of, default=None)


def discard_unusable(folder: Path, mark: str) -> None:
    """Removes the other checkpoints, so that they take no place among the last two kept."""
    for path in folder.glob("checkpoint-*"):
        if _marker(path) != mark:
            shutil.rmtree(path)


def of_other_engines(folder: Path, settings: Align) -> list[str]:
    """The families of engines that wrote whole checkpoints here which this training's engine cannot read."""
    families = {marker.partition(" ")[0] for path in folder.glob("checkpoint-*") if (marker := _marker(path))}
    return sorted(families - {engine_family(settings)})


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


@contextmanager
def written(place: Path, kept: str) -> Iterator[None]:
    """Runs the body, which writes under `place`; `kept` is what a failure of the disk leaves.

    Raises:
        WorkFailed: the disk is full or not writable.
    """
    try:
        yield
    except (OSError, SafetensorError, CheckpointException, RuntimeError) as error:
        reason = _of_the_disk(error)
        if reason is None:
            raise
        raise WorkFailed(
            f"{place}: cannot write: {reason}; {kept} is kept: free space and run the same command"
        ) from error


def _of_the_disk(error: BaseException) -> str | None:
    """Why something could not be written; None where the error is of another kind."""
    if isinstance(error, CheckpointException):  # what the processes raised, wrapped
        return next((_of_the_disk(failure) for failure, _ in error.failures.values()), None)
    if isinstance(error, OSError):
        return error.strerror if error.errno in _DISK else None
    if isinstance(error, SafetensorError):
        return str(error).strip().split("\n")[0]
    # torch.save's writer has no error of its own
    return "torch could not write the file" if "inline_container" in str(error) else None


def _marker(checkpoint: Path) -> str | None:
    path = checkpoint / MARKER
    return path.read_text(encoding="ascii") if path.is_file() else None
