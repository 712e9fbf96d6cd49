"""What spreads the sampled answers: system prompts, and openings that an answer goes on from.

Shipped, or a YAML file of {name, text, opening} rows, where a row has one of the two or both. A small model follows no
system prompt of this kind, but it does go on as its own answer begins.

Used for sampling only. Knows nothing of models.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from selfpriority.errors import InputError
from selfpriority.outside import parse_yaml, read_text
from selfpriority.plain_text import one_line


@dataclass(frozen=True)
class Persona:
    """A way to answer, and its name.

    Examples:
        >>> Persona("careful", "You are a careful pharmacist.").name
        'careful'
    """

    name: str
    text: str = ""
    """A system prompt, seen by the sampling alone."""
    opening: str = field(default="", repr=False)  # what is shown is in the keys of runs from before there were any
    """How the answer begins; a part of the answer, rated and trained as the rest of it."""


PLAIN = Persona("plain")
"""The model as it is."""
_FIELDS = ("name", "text", "opening")
NONE = "none"
_SHIPPED = {"default": "personas.yaml", "openings": "openings.yaml"}


def known_personas() -> tuple[str, ...]:
    """Names that are no files: those that ship, and `none`."""
    return (*_SHIPPED, NONE)


def load_personas(name: str) -> tuple[Persona, ...]:
    """Personas of `default`, `openings`, `none` or a YAML file.

    Args:
        name: a shipped name, or a path.

    Raises:
        InputError: no such file, or rows that are not {name, text, opening} with distinct names.

    Examples:
        >>> load_personas("none")
        ()
        >>> load_personas("openings")[0].opening != ""
        True
    """
    if name == NONE:
        return ()
    shipped = _SHIPPED.get(name)
    path = Path(str(files("selfpriority"))) / "text" / shipped if shipped else Path(name)
    if not path.is_file():
        raise InputError(
            f"sample.personas: {name!r} is no file; allowed: {', '.join(known_personas())}, or a YAML file"
        )
    rows = parse_yaml(read_text(path), str(path))
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: personas are a list of {{name, text, opening}} rows")
    personas = tuple(_persona(row, f"{path}: persona {number}") for number, row in enumerate(rows, start=1))
    if len({persona.name for persona in personas}) != len(personas):
        raise InputError(f"{path}: persona names must differ")
    return personas


def _persona(row: object, where: str) -> Persona:
    given = row if isinstance(row, dict) else {}
    known = {name: value for name, value in given.items() if name in _FIELDS}
    for other in map(str, given.keys() - known.keys()):  # notes of one's own may stand there
        if near := difflib.get_close_matches(other, _FIELDS, n=1, cutoff=0.7):
            raise InputError(f"{where} has a field {other!r}; did you mean {near[0]}?")
    if not all(isinstance(value, str) and value.strip() for value in known.values()):
        raise InputError(f"{where}: its fields are texts")
    if "name" not in known or len(known) < 2:
        raise InputError(f"{where} needs a name and a text or an opening")
    return Persona(one_line(given["name"]), given.get("text", "").strip(), given.get("opening", "").strip())
