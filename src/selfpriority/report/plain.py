"""Names from files as a reader would write them. Knows strings only."""

from __future__ import annotations


def words(name: str) -> str:
    """A name from a file as a reader would write it."""
    if name.startswith("HH_"):
        return f"HH, \N{GREEK SMALL LETTER LAMDA}\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{name.removeprefix('HH_')}"
    return name.replace("_", " ")
