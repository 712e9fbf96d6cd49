"""Texts as a reader may see them: without control codes. Knows strings only."""

from __future__ import annotations

import re

_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?", re.DOTALL)
UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control codes (all but newline and tab), and marks that reorder what a reader sees."""


def clean(text: str) -> str:
    """The text without terminal control codes, and without marks that reorder what a reader sees."""
    return UNSHOWN.sub("", _ESCAPE_SEQUENCE.sub("", text))


def words(name: str) -> str:
    """A name from a file as a reader would write it."""
    if name.startswith("HH_"):
        return f"HH, \N{GREEK SMALL LETTER LAMDA}\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{name.removeprefix('HH_')}"
    return name.replace("_", " ")
