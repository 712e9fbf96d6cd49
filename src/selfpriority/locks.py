"""Files that one program at a time holds, or several that share them; whether who left something is still there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from selfpriority.errors import InputError


@contextlib.contextmanager
def held(path: Path, wait: float, taken: str, is_shared: bool = False) -> Iterator[None]:
    """Holds a lock file, made if missing and never written to.

    Args:
        path: of the lock; a link in its place would lead to a file of somebody's, so it is refused.
        wait: most seconds until another program lets go.
        taken: what is said if it does not.
        is_shared: whether others may hold it beside this program, that share it too.

    Raises:
        InputError: another program holds it, or it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise InputError(f"{path}: cannot be locked: {error.strerror}; if it is a link, remove it") from error
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    with os.fdopen(descriptor, "r+") as file:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise InputError(taken) from None
                time.sleep(0.1)
        yield


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
