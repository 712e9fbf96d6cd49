"""System prompts that spread the sampled answers: shipped, or a YAML file of {name, text} rows.

Used for sampling only. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from selfpriority.errors import InputError
from selfpriority.outside import parse_yaml, read_text
from selfpriority.plain_text import one_line


@dataclass(frozen=True)
class Persona:
    """A system prompt and its name."""

    name: str
    text: str


PLAIN = Persona("plain", "")
"""No system prompt."""


def load_personas(name: str) -> tuple[Persona, ...]:
    """Personas of `default`, `none` or a YAML file.

    Raises:
        InputError: no such file, or rows that are not {name, text} with distinct names.
    """
    if name == "none":
        return ()
    path = Path(str(files("selfpriority"))) / "text" / "personas.yaml" if name == "default" else Path(name)
    if not path.is_file():
        raise InputError(f"sample.personas: {name!r} is no file; allowed: default, none, or a YAML file")
    rows = parse_yaml(read_text(path), str(path))
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: personas are a list of {{name, text}} rows")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not all(isinstance(row.get(k), str) and row[k] for k in ("name", "text")):
            raise InputError(f"{path}: persona {number} needs a name and a text")
    personas = tuple(Persona(one_line(row["name"]), row["text"].strip()) for row in rows)
    if len({persona.name for persona in personas}) != len(personas):
        raise InputError(f"{path}: persona names must differ")
    return personas
