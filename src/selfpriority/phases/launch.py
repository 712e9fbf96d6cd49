"""Starts one phase on several processes of this machine, and says in one line what became of them.

Those of several machines are started by somebody else (torchrun), who sets `RANK` as torch's launcher does here.

The processes are torch's to start and to stop (`torch.distributed.launcher`); the main one reports and writes, the
others are silent. An error of any is kept in a file and told here, once.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpriority.errors import InputError, SelfPriorityError, WorkFailed
from selfpriority.recipe import Align

SECONDS_TO_STOP = 900
"""That an interrupted training has on several processes, for the step under way and its checkpoint."""

if TYPE_CHECKING:  # `--help` needs none of it
    from selfpriority.run import Run


def rank() -> int | None:
    """This process's place among those that work together; None where it works alone."""
    given = os.environ.get("RANK")
    return int(given) if given else None  # set and empty: a shell's way to have it unset


def n_started() -> int:
    """Processes that work together, on all nodes."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_main() -> bool:
    """Whether this process writes and reports."""
    return not rank()


def node_command(settings: Align, folder: Path) -> str:
    """What every node runs for one training of several nodes; HOST is one of them."""
    spread = f"--nnodes {settings.nodes} --nproc-per-node {settings.processes}"
    how = f"torchrun {spread} --rdzv-backend c10d --rdzv-endpoint HOST:29500"
    return f"{how} -m selfpriority align {shlex.quote(str(folder.absolute()))}"


def check_started(settings: Align, folder: Path) -> None:
    """Whether as many processes were started as the recipe says; one that says nothing leaves it to the launcher.

    Raises:
        InputError: another number, or none on several nodes, which a program of one of them cannot start.
    """
    if rank() is None:
        if settings.nodes > 1:
            lack = f"align.nodes: {settings.nodes}: this program starts processes on its own node alone"
            raise InputError(f"{lack}; run on every node: {node_command(settings, folder)}")
        return
    if settings.n_together > 1 and n_started() != settings.n_together:
        wanted = f"align.nodes: {settings.nodes} times align.processes: {settings.processes}"
        lack = f"{wanted} is {settings.n_together}, and {n_started()} processes were started"
        raise InputError(f"{lack}; run on every node: {node_command(settings, folder)}")


def check_alone() -> None:
    """Raises InputError where this is one of several processes, for what a single one does from end to end."""
    if rank() is not None and n_started() > 1:
        raise InputError(
            f"RANK: {n_started()} processes were started, and a run has one from end to end; unset RANK, or start "
            f"several for the training alone: `spa align RUN`"
        )


def is_heard() -> bool:
    """Whether what this process says of an error is heard once: it works alone, or none keeps the errors of all."""
    return rank() is None or (is_main() and not os.environ.get("TORCHELASTIC_ERROR_FILE"))


def record(error: BaseException) -> None:
    """Keeps the error of a process for the one that started it; torchrun prints all of it, so of ours a line alone."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    is_ours = isinstance(error, SelfPriorityError) and "--debug" not in sys.argv
    get_error_handler().record_exception(type(error)(*error.args) if is_ours else error)


@contextmanager
def kept_for_launcher() -> Iterator[None]:
    """Keeps the error of one of several processes for whoever started them."""
    try:
        yield
    except Exception as error:  # it goes on to where every error is told
        if rank() is not None:
            record(error)
        raise


@contextmanager
def alone(run: Run, child: bool, is_part: bool = False) -> Iterator[None]:
    """Locks a run for one phase, or for a part of one; of several processes that work together the main one does."""
    if not is_main():
        yield
        return
    lock = "phase" if rank() is None else "ranks"  # who starts several processes holds the former
    # A child of a killed run may need a moment to notice; the next one waits for it.
    with nullcontext() if child else run.locked("run"), run.locked(lock, 30, is_part):
        yield


def die_with_parent() -> None:
    """Ends this process when the pipe on stdin closes: its parent is gone, and a new run must not meet it."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def launch(arguments: Sequence[str], n_processes: int, phase: str) -> None:
    """Runs `spa` with `arguments`, and `--debug` if this process has it, on several processes, until all are done.

    Called from a main thread.

    Raises:
        WorkFailed: one failed or was killed; the others were stopped.
        InputError: what a process found wrong with recipe or model.
        KeyboardInterrupt: interrupted; all were stopped.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # told below in one line
    # the processes end their step and write a checkpoint before they stop; torch would kill them after 30 s
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SECONDS_TO_STOP))
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // n_processes, 1)))
    alive = _die_with_this()
    with tempfile.TemporaryDirectory(prefix="spa-") as folder:
        silent = dict.fromkeys(range(1, n_processes), Std.ALL)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=n_processes,
            logs_specs=DefaultLogsSpecs(folder, redirects={0: Std.NONE, **silent}),
            run_id=phase.replace(" ", "-"),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
        )
        try:
            debug = ["--debug"] if "--debug" in sys.argv else []
            elastic_launch(config, sys.executable)("-m", "selfpriority", *debug, *arguments)
        except ChildFailedError as error:
            raise _decisive_error(error.failures, phase) from error
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise WorkFailed(f"{phase}: stopped by {error.sigval.name}; the same command continues") from None
        finally:
            os.close(alive)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # torch had put its own


def _die_with_this() -> int:
    """Gives the processes to come a pipe for stdin that closes with this process; returns its other end."""
    readable, writable = os.pipe()
    os.dup2(readable, 0)
    os.close(readable)
    return writable


@dataclass(frozen=True)
class _KeptError:
    """The error that a process kept."""

    kind: str
    """Name of its class."""
    message: str

    @property
    def is_ours(self) -> bool:
        """Whether the message is meant for the user as it is."""
        return self.kind in (InputError.__name__, WorkFailed.__name__)


def _decisive_error(failures: Mapping[int, Any], phase: str) -> SelfPriorityError:
    """The one failure that the others follow from: a kill before an error of ours before a broken connection."""
    number, failure = min(failures.items(), key=lambda item: _urgency(item[1]))
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        return WorkFailed(f"{phase}: process {number} was killed by {name}; the same command continues")
    error = _kept_error(failure)
    if error.kind == InputError.__name__:
        return InputError(*error.message.splitlines())
    if error.is_ours:
        return WorkFailed(error.message)
    first, *_ = error.message.splitlines()
    return WorkFailed(f"{phase}: process {number}: unexpected {error.kind}: {first}; --debug tells more")


def _urgency(failure: Any) -> int:
    if failure.exitcode == -signal.SIGTERM:
        return 3  # how the others are stopped once one has failed
    if failure.exitcode < 0:
        return 0
    return 1 if _kept_error(failure).is_ours else 2


def _kept_error(failure: Any) -> _KeptError:
    try:
        with open(failure.error_file, encoding="utf-8") as file:
            text = json.load(file)["message"]["message"]
    except (OSError, ValueError, KeyError, TypeError):
        return _KeptError("exit", f"code {failure.exitcode}")
    kind, _, message = text.partition(": ")
    return _KeptError(kind, message or "no message")
