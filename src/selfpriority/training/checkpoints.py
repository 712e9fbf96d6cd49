"""Which checkpoint a training may continue from: whole, and of this very training.

A marker with the form of the checkpoint, the training's fingerprint and the content of every file is written into a
checkpoint after everything else. Folders without it were cut short by a kill, folders with another one belong to other
pools or settings, or are in the form of another version, and files may have been damaged since; none of them is ever
loaded.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EACCES, EDQUOT, EFBIG, EIO, ENOSPC, EROFS
from pathlib import Path

from safetensors import SafetensorError

from selfpriority.errors import WorkFailed
from selfpriority.recipe import Align
from selfpriority.storage import content_of
from selfpriority.training.encode import EncodedPool

MARKER = "complete"
TRL_MARKER = "trainer_state.json"
"""The last file of one of TRL's."""
FORM = "safetensors"
_DISK = {ENOSPC, EDQUOT, EFBIG, EROFS, EACCES, EIO}
_N_KEPT = 2


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training."""

    folder: Path
    mark: str
    """As `mark_of` makes it."""

    def last(self) -> Path | None:
        """The newest usable one; one with a damaged file is passed over for the one before."""
        return max(filter(_is_intact, self._usable()), key=step_of, default=None)

    def damaged(self) -> list[str]:
        """Names of those that would be usable but for a damaged file."""
        return [path.name for path in sorted(self._usable(), key=step_of) if not _is_intact(path)]

    def begin(self, step: int) -> Path:
        """A folder for the checkpoint after an optimizer step; usable once it is complete."""
        checkpoint = self.folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        return checkpoint

    def complete(self, checkpoint: Path) -> None:
        """Marks one as whole, and removes all but the newest."""
        files = sorted(path for path in checkpoint.iterdir() if path.is_file() and path.name != MARKER)
        with ThreadPoolExecutor() as threads:  # hashing lets other threads run
            contents = threads.map(content_of, files)
        lines = [f"{content.sha256}  {path.name}" for path, content in zip(files, contents, strict=True)]
        (checkpoint / MARKER).write_text("\n".join([self.mark, *lines]), encoding="ascii")
        for old in sorted(self._usable(), key=step_of)[:-_N_KEPT]:
            shutil.rmtree(old)

    def discard_unusable(self) -> None:
        """Removes what can never be continued from."""
        for path in set(self.folder.glob("checkpoint-*")) - {path for path in self._usable() if _is_intact(path)}:
            shutil.rmtree(path)

    def _usable(self) -> list[Path]:
        return [path for path in self.folder.glob("checkpoint-*") if _marker(path) == self.mark]


def mark_of(pools: Sequence[EncodedPool], settings: Align, seed: int, model: str) -> str:
    """What stands in a marker: the form, and a hash of everything that decides what a training computes.

    Args:
        pools: what is trained on.
        settings: the fields of `align`.
        seed: of the order of the pools.
        model: what tells the starting model from others, however it is called at the time.
    """
    digest = hashlib.sha256(repr((model, seed, settings.in_result)).encode())
    is_new = "learn" in settings.in_result  # without it the answers that are learned follow from the pairs
    for pool in pools:
        digest.update(repr(pool).encode())
        if is_new:
            digest.update(repr(pool.learned).encode())
        if pool.persona_ids:
            digest.update(repr(pool.persona_ids).encode())
        if pool.safe:
            digest.update(repr(pool.safe).encode())
    return f"{FORM} {digest.hexdigest()}"


def of_other_forms(folder: Path) -> list[str]:
    """The forms of whole checkpoints here that cannot be read: those of other versions."""
    forms = {marker.partition(" ")[0] for path in folder.glob("checkpoint-*") if (marker := _marker(path))}
    return sorted(forms - {FORM})


def newest(folder: Path) -> str | None:
    """Name of the last whole checkpoint here, whatever it is of."""
    whole = [path.parent for marker in (MARKER, TRL_MARKER) for path in folder.glob(f"checkpoint-*/{marker}")]
    return max(whole, key=step_of).name if whole else None


def is_whole(checkpoint: Path) -> bool:
    """Whether one is seen here with its marker."""
    return (checkpoint / MARKER).is_file()


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
    except (OSError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        if isinstance(error, OSError):
            if error.errno not in _DISK:
                raise
            reason = error.strerror or reason
        raise WorkFailed(
            f"{place}: cannot write: {reason}; {kept} is kept: free space and run the same command"
        ) from error


def _marker(checkpoint: Path) -> str:
    """The first line of its marker; empty without one."""
    return next(iter(_lines(checkpoint)), "")


def _is_intact(checkpoint: Path) -> bool:
    """Whether the files that its marker names hold what was written; older versions named none."""
    named = [line.split("  ", 1) for line in _lines(checkpoint)[1:]]
    return all((checkpoint / name).is_file() and content_of(checkpoint / name).sha256 == sha for sha, name in named)


def _lines(checkpoint: Path) -> list[str]:
    path = checkpoint / MARKER
    return path.read_text(encoding="ascii", errors="replace").splitlines() if path.is_file() else []
