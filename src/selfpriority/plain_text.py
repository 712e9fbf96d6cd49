"""Text that others wrote, as a reader may see it: never able to speak to a terminal or to reorder a line.

Models, data sets and file names are such others. For the terminal and the page alike. Knows strings only.
"""

from __future__ import annotations

import re
import reprlib

# no sequence reaches past its line, so that an unfinished one hides nothing but the rest of that line
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|.)?")
_UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control codes (all but newline and tab), and marks that reorder what a reader sees."""
_BETWEEN_LINES = re.compile("[\t\n\u2028\u2029]+")

_LONGEST = 1200
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80


def clean(text: str) -> str:
    """The text without terminal control codes, and without marks that reorder what a reader sees."""
    return _UNSHOWN.sub("", _ESCAPE_SEQUENCE.sub("", text))


def one_line(text: str) -> str:
    """The text as `clean` leaves it, on one line: a name, or a message."""
    return _BETWEEN_LINES.sub(" ", clean(text))


def message(text: str) -> str:
    """A message on one line, what is too long in its middle left out: its place and its remedy are at its ends."""
    line = one_line(text)
    half = _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[:half]} [...] {line[-half:]}"


def shown(value: object) -> str:
    """A value as a message quotes it: as Python writes it, cut where it is long."""
    return _REPR.repr(value)
