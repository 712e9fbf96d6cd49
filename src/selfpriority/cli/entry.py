"""Entry point of `spa`: the only place that turns errors into exit codes."""

from __future__ import annotations

import errno
import io
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer

from selfpriority.cli import judges, results, shipped, work
from selfpriority.cli.app import app
from selfpriority.errors import InputError, SelfPriorityError
from selfpriority.interrupts import INTERRUPTED
from selfpriority.outside import sound
from selfpriority.plain_text import clean, message, shown

VERBS = (work, judges, results, shipped)
"""Importing them makes them known to the app, in the order of `--help`."""

_WRONG_NAMES = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EILSEQ}
"""What the system says of a name that can be no file's."""


def main() -> NoReturn:
    """Entry point: every error a user can cause becomes one line on stderr and its exit code."""
    debug = "--debug" in sys.argv
    _write_what_can_be()
    stopped_by = hear_signals()
    try:
        code = _last_code(debug)
    except KeyboardInterrupt:  # between the end of the work and the end of hearing
        code = INTERRUPTED
        hear_no_more()
    if code == INTERRUPTED and "--child" not in sys.argv:
        how = f"stopped by {signal.Signals(stopped_by[0]).name}" if stopped_by else "interrupted"
        tell(f"spa: {how}; what is done is kept and the same command continues")
    sys.exit(128 + stopped_by[0] if code == INTERRUPTED and stopped_by else code)


def _last_code(debug: bool) -> int:
    """The exit code; from then on no signal is heard.

    Raises:
        KeyboardInterrupt: interrupted after the work was over.
    """
    try:
        code = _outcome(debug)
    except (KeyboardInterrupt, typer.Abort):  # some versions of typer return 130 instead
        code = INTERRUPTED
    hear_no_more()
    return code


def _outcome(debug: bool) -> int:
    """The exit code of the command, its error told in lines of its own.

    Raises:
        KeyboardInterrupt: interrupted, even while an error was being told.
    """
    from selfpriority.phases.launch import kept_for_launcher

    try:
        _check_arguments(sys.argv[1:])
        with kept_for_launcher():
            result: Any = app(standalone_mode=False)
        return result if isinstance(result, int) else 0
    except SelfPriorityError as error:
        if debug:
            raise
        lines = error.lines if isinstance(error, InputError) else [str(error)]
        for line in lines:
            tell(f"spa: {message(line)}", is_ours=True)
        return error.exit_code
    except typer.Abort:
        raise
    except OSError as error:
        if debug:
            raise
        place = f"{error.filename}: " if error.filename else ""
        tell(f"spa: {message(f'{place}{error.strerror or error}')}")
        return 2 if error.errno in _WRONG_NAMES else 1
    except Exception as error:  # a bug of ours must reach the user as one line too
        return _usage_or_bug(error, debug)


def hear_signals() -> list[int]:
    """SIGTERM and SIGHUP interrupt as Ctrl-C does; those that came are in the list. An ignored one stays ignored."""
    received: list[int] = []

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    return received


def hear_no_more() -> None:
    """From now on a signal ends the process without a word, as the system does it.

    Nothing is left to keep, and what libraries tidy up at the end would answer an interrupt with a traceback.
    """
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _write_what_can_be() -> None:
    """A terminal or pipe that knows fewer characters than Unicode gets a question mark for each of the others."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raises InputError for one that is no text, which no file of a run could name."""
    for argument in arguments:
        if sound(argument) != argument:
            raise InputError(f"{shown(sound(argument))}: an argument that is not UTF-8; rename what it names")


def tell(line: str, is_ours: bool = False) -> None:
    """One line on stderr; of several processes none speaks, for one's error is the cause of the others'.

    An error of ours is no broken connection, though: the main process tells its own where somebody else started them.
    """
    from selfpriority.phases.launch import is_heard, is_main

    if is_heard() or (is_ours and is_main() and "--child" not in sys.argv):
        print(clean(line), file=sys.stderr)


def _usage_or_bug(error: Exception, debug: bool) -> int:
    """A mistake on the command line is exit 2 in one line; anything else is a bug of ours, told in one line."""
    describe = getattr(error, "format_message", None)  # click's errors, which some versions of typer bring along
    if describe is not None:
        bare = type(error).__name__ == "NoArgsIsHelpError"
        tell(describe() if bare else f"spa: {describe()}")
        return 2
    if debug:
        raise error
    kind = type(error).__name__
    tell(f"spa: unexpected {kind}: {error}; please report it with the output of --debug")
    return 1
