"""The rows that `align.rows` names: of a rival that ships, a file beside this one, or of a module of the user's own.

Nothing lists the rivals: a file with a record `ROWS` is one.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path

from selfpriority.errors import InputError
from selfpriority.own_python import OwnPython, find, load, source_hash
from selfpriority.plain_text import shown
from selfpriority.recipe import Align
from selfpriority.rivals.rows import Rows, no_pairs
from selfpriority.wording import text_hash

_OTHERS = {"__init__", "known", "rows"}
"""Files here that are no rival."""


def known_rows() -> list[str]:
    """Names of the rows that ship."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _OTHERS)


def rows_of(align: Align) -> Rows:
    """How the rows of a training are made; a module of the user's own is imported.

    Args:
        align: its `rows` are not `pairs`.

    Raises:
        InputError: there are no rows of this name, or they cannot be imported.
    """
    if ":" not in align.rows:
        if align.rows not in known_rows():
            raise InputError(_unknown(align.rows))
        found: object = importlib.import_module(f"selfpriority.rivals.{align.rows}").ROWS
    else:
        found = load(_own(align))
    if not isinstance(found, Rows):
        raise InputError(
            f"align.rows: {shown(align.rows)} is a {type(found).__name__}, and no selfpriority.rivals.rows.Rows"
        )
    return found


def check_rows(align: Align) -> None:
    """Raises InputError where rows cannot be found, or not be trained on by the method."""
    if align.rows == "pairs":
        return
    if rows_of(align).pairs is no_pairs and align.method not in ("sft", "grpo"):
        raise InputError(f"align.rows: {align.rows} are answers to learn and make no pairs; set align.method: sft")


def rows_key(align: Align) -> object:
    """What decides how rows are made of the same pools, beside what they read of the recipe."""
    own = source_hash(_own(align)) if ":" in align.rows else None
    return align.rows, text_hash(*rows_of(align).texts), own


def _own(align: Align) -> OwnPython:
    if align.rows_folder is not None and not Path(align.rows_folder).is_absolute():
        raise InputError(f"align.rows_folder: {shown(align.rows_folder)} is no absolute path, as a run has it")
    try:
        return find(align.rows, () if align.rows_folder is None else (Path(align.rows_folder),))
    except InputError as error:
        raise InputError(*(f"align.rows: {line}" for line in error.lines)) from error


def _unknown(name: str) -> str:
    known = known_rows()
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"known here: pairs, {', '.join(known)}, or package.module:name"
    return f"align.rows: {shown(name)} are no rows; {hint}"
