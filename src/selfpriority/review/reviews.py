"""What people decided: one line a verdict in `reviews-<rater>.jsonl`, on the disk before the next question is shown.

A later line about the same question replaces an earlier one. Knows files, nothing of servers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter

from selfpriority.errors import InputError, WorkFailed
from selfpriority.storage import intact

TIE = "tie"
_RATER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True)
class Review:
    """One person's verdict on one question."""

    rater: str
    mode: str
    """`compare` or `rate`."""
    key: str
    prompt_id: str
    systems: tuple[str, ...]
    """In the order they were shown, unnamed."""
    digests: tuple[str, ...]
    """Of the texts shown: a verdict on a text that has changed since does not count."""
    verdicts: dict[str, int | str]
    """Objective -> rating 1 to 10 (rate), or the better system, or `tie` (compare)."""
    seconds: float
    at: str


_ADAPTER = TypeAdapter(Review)


def path_of(folder: Path, rater: str) -> Path:
    """The file of a rater.

    Raises:
        InputError: the name would not make a file name.
    """
    if not _RATER.fullmatch(rater):
        raise InputError(f"--rater: {rater!r} is no name; use up to 40 letters, digits, - and _")
    return folder / f"reviews-{rater}.jsonl"


def read_reviews(folder: Path) -> list[Review]:
    """The last word of every rater on every question. A line without its end was being written and does not count."""
    found: dict[tuple[str, str], Review] = {}
    for path in sorted(folder.glob("reviews-*.jsonl")):
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
            if line.endswith(b"\n"):
                with intact(f"{path}:{number}", "restore the line, or delete it: its question is asked again"):
                    review = _ADAPTER.validate_json(line)
                found[review.rater, review.key] = review
    return list(found.values())


class ReviewFile:
    """A rater's file, open for one program at a time."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file

    def append(self, review: Review) -> None:
        """Puts the verdict on the disk before it returns.

        Raises:
            WorkFailed: the disk is full or not writable; the file is as it was before.
        """
        left = json.dumps(asdict(review), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        try:
            while left:  # a nearly full disk takes a part and says so by a number alone
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(size)
            raise WorkFailed(
                f"{self.path}: cannot write: {error.strerror}; verdicts before this one are kept"
            ) from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[ReviewFile]:
    """The file to append to, made if missing; what a crash left of a last line is cut off.

    Raises:
        InputError: another program holds it.
    """
    with path.open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: another `spa review` of this rater is open") from None
        file.seek(0)
        whole = file.read().rpartition(b"\n")
        file.truncate(len(whole[0]) + len(whole[1]))
        yield ReviewFile(path, file)
