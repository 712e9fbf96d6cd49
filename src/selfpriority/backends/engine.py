"""An engine in a process of its own, under an interpreter of its own: starts it, asks it, starts it again once.

Token ids go there and come back; `vllm_process.py` is the other side. Knows no chat and no request. One engine runs at
a time: each takes its share of the GPU, and only the end of its process gives that back.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import IO, Any

from selfpriority.errors import InputError, WorkFailed

SENT_AT_ONCE = 64
"""Questions that are encoded and sent in between two looks at the replies."""
SECONDS_TO_END = 10.0
"""That an engine has to end once its stdin is closed."""
_PROGRAM = Path(__file__).with_name("vllm_process.py")
_VERSION = """
from importlib.metadata import packages_distributions, version
found = packages_distributions().get("vllm")
print(version(found[0]) if found else "")
"""
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # this process is one of its own already
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",  # it is given folders
}


@dataclass(frozen=True)
class LowRank:
    """Weights that an engine lays beside its own; it serves several of them in turn."""

    folder: str
    content: str
    """Stands for what is in it: a folder may hold other weights later."""


@dataclass(frozen=True)
class Question:
    """Token ids to go on from, and how."""

    ids: list[int]
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1
    end_ids: tuple[int, ...] = ()
    read: tuple[int, ...] = ()
    """Tokens whose log-probabilities behind the ids are asked for; nothing is drawn then."""
    adapter: LowRank | None = None


@dataclass(frozen=True)
class Reply:
    """What became of one question."""

    drawn: tuple[list[int], ...] = ()
    """Token ids of each draw, an end token included."""
    read: tuple[float, ...] = ()
    """Log-probabilities, in the order of the question."""
    refused: str = ""
    """Why the engine takes no such question; empty: it answered."""


@dataclass(frozen=True)
class Start:
    """How an engine is started. What only seeds its draws makes no other engine."""

    python: str
    """Interpreter of an environment that has vLLM."""
    arguments: Mapping[str, Any]
    """Of `vllm.LLM`."""
    seed: int = field(default=0, compare=False)


class _Died(Exception):
    """The process ended while somebody waited for it."""


_running: weakref.ReferenceType[Engine] | None = None
"""The engine that was started last in this process."""


def engine(start: Start, note: Callable[[str], None]) -> Engine:
    """The engine that runs if it was started alike, else a new one; what runs is ended once the new one is asked."""
    running = _running() if _running else None
    return running if running is not None and running.start == start else Engine(start, note)


class Engine:
    """vLLM behind a pipe. It starts when it is first asked, and ends when nobody holds it any more.

    Args:
        start: how.
        note: told in a line when it starts, which takes its time.
    """

    def __init__(self, start: Start, note: Callable[[str], None]) -> None:
        self.start = start
        self.busy_seconds = 0.0
        """That the running process has been computing, since it was started."""
        self._note = note
        self._end: Callable[[], object] = lambda: None
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._log = Path()

    def ask(self, questions: Iterable[Question]) -> Iterator[tuple[int, Reply]]:
        """(place of the question, its reply) as each is there. Questions are taken in parts while others are answered.

        Raises:
            InputError: it does not start; says why.
            WorkFailed: it died twice; what was answered has been yielded.
        """
        waiting: dict[int, Question] = {}
        numbered, is_second = enumerate(questions), False
        try:
            while (part := dict(islice(numbered, SENT_AT_ONCE))) or waiting:
                waiting |= part
                try:
                    self._send(part)
                    replies = self._heard(wait=not part)
                except _Died:
                    if is_second:
                        raise WorkFailed(f"backend: {self._why('died twice')}; the same command continues") from None
                    is_second = True
                    self._note(f"backend: {self._why('died')}; it is started again, once")
                    self.stop()
                    self._send(waiting)
                    continue
                for number, reply in replies:
                    del waiting[number]
                    yield number, reply
        finally:
            if waiting:  # nobody will hear the replies
                self.stop()

    def stop(self) -> None:
        """Ends the process, if it runs; asked again, another one starts."""
        self._end()
        self._process = None

    def _send(self, questions: Mapping[int, Question]) -> None:
        self._run()
        self._write({"id": number, **asdict(question)} for number, question in questions.items())

    def _heard(self, wait: bool) -> Iterator[tuple[int, Reply]]:
        """Replies that are there; the first is waited for if need be."""
        found: list[tuple[int, Reply]] = []
        try:
            while True:
                found.append(self._next(wait and not found))
        except queue.Empty:
            pass
        except _Died:
            if not found:
                raise
        return iter(found)

    def _next(self, wait: bool) -> tuple[int, Reply]:
        line = self._replies.get(block=wait)
        if not line:
            self._replies.put("")  # whoever looks next finds it too
            raise _Died
        told = json.loads(line)
        self.busy_seconds = told["busy"]
        reply = Reply(tuple(told.get("drawn", ())), tuple(told.get("read", ())), told.get("refused", ""))
        return told["id"], reply

    def _run(self) -> None:
        """Starts the process unless it runs, and waits until it can be asked."""
        global _running
        if self._process is not None:
            return
        if _running and (other := _running()) is not None:
            other.stop()
        _running = weakref.ref(self)
        arguments = {**self.start.arguments, "seed": self.start.seed}
        self._note(f"backend: vLLM {vllm_version(self.start.python)} opens {arguments['model']}; this takes a while")
        self._open()
        try:
            with contextlib.suppress(_Died):
                self._write([arguments])
                if self._replies.get():
                    return
            raise InputError(f"backend: {self._why('does not start')}; see backend.engine and backend.memory_share")
        except BaseException:  # an interrupt too: a process that is half open answers nobody
            self.stop()
            raise

    def _open(self) -> None:
        handle, name = tempfile.mkstemp(prefix="spa-vllm-", suffix=".log")
        self._log, self._replies, self.busy_seconds = Path(name), queue.SimpleQueue(), 0.0
        with os.fdopen(handle, "w") as log:
            self._process = subprocess.Popen(
                [self.start.python, str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **_ENVIRONMENT},
                text=True,
            )
        self._end = weakref.finalize(self, _stop, self._process, self._log)
        threading.Thread(target=_listen, args=(self._process.stdout, self._replies), daemon=True).start()

    def _write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.writelines(f"{json.dumps(line)}\n" for line in lines)
            self._process.stdin.flush()
        except OSError:
            raise _Died from None

    def _why(self, what: str) -> str:
        """What happened to the process and its last words, which stay on disk whole."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_END)
        kept = self._log.with_suffix(".kept.log")
        shutil.copy(self._log, kept)
        said = last_words(kept) or f"exit code {self._process.returncode}"
        return f"vLLM under {self.start.python} {what} ({said}; all of it: {kept})"


def _listen(replies: IO[str], heard: queue.SimpleQueue[str]) -> None:
    with replies:
        for line in replies:
            heard.put(line)
    heard.put("")


def _stop(process: subprocess.Popen[str], log: Path) -> None:
    with contextlib.suppress(OSError):
        assert process.stdin is not None
        process.stdin.close()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.unlink(missing_ok=True)


_PLACE = re.compile(r"^(\[rank\d+\]:\s*)?(\(\w+ pid=\d+\)\s*)?")


def last_words(log: Path) -> str:
    """The last line of a log that names an error, without where it was said."""
    lines = [_PLACE.sub("", line).strip() for line in log.read_text("utf-8", errors="replace").splitlines()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (named or list(filter(None, lines)) or [""])[-1][:300]


@cache
def vllm_version(python: str) -> str:
    """Which vLLM an interpreter has.

    Raises:
        InputError: there is no such interpreter, or no vLLM.
    """
    try:
        done = subprocess.run([python, "-c", _VERSION], capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "it does not answer"
        raise InputError(f"backend.python: {python} cannot be run: {reason}") from None
    if version := done.stdout.strip():
        return version
    is_own = python == sys.executable
    remedy = "name the interpreter of an environment that has it" if is_own else "install it there (pip install vllm)"
    raise InputError(f"backend.python: {python} has no vllm; {remedy}")
