"""What spreads the sampled answers: system prompts, and openings that an answer goes on from.

Shipped, or a YAML file of {name, text, opening, language} rows, where a row has a text, an opening or both. A small
model follows no system prompt of this kind, but it does go on as its own answer begins. Rows with a language are for
prompts in that language, rows without one for all other prompts; the shipped ones without are English.

Used for sampling only. Knows nothing of models.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from selfpriority.errors import InputError
from selfpriority.languages import MANY, TOLD_APART, language_of
from selfpriority.outside import parse_yaml, read_text
from selfpriority.plain_text import one_line, shown


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
    language: str = field(default="", repr=False)  # likewise
    """Code of the language whose prompts it is for; empty: it is for those that no other one is for."""


PLAIN = Persona("plain")
"""The model as it is."""
_FIELDS = ("name", "text", "opening", "language")
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
        InputError: no such file, rows that are not {name, text, opening, language} with distinct names in a language,
            or none that are for prompts of any language.

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
        raise InputError(f"{path}: personas are a list of {{name, text, opening, language}} rows")
    personas = tuple(_persona(row, f"{path}: persona {number}") for number, row in enumerate(rows, start=1))
    if len({(persona.name, persona.language) for persona in personas}) != len(personas):
        raise InputError(f"{path}: persona names must differ")
    if all(persona.language for persona in personas):
        raise InputError(f"{path}: every persona has a language; leave it out of those for all other prompts")
    return personas


def personas_for(texts: Sequence[str], personas: Sequence[Persona]) -> list[list[Persona]]:
    """Those that are for each prompt: of its language, or else those without a language.

    A prompt that is too short to tell is taken to be in the language of most others.

    Args:
        texts: of the prompts.
        personas: as `load_personas` reads them.
    """
    others = [persona for persona in personas if not persona.language]
    if len(others) == len(personas):
        return [others for _ in texts]
    told = [_language_of(text) for text in texts]
    usual = next((language for language, _ in Counter(filter(None, told)).most_common(1)), "")
    own = {language: [each for each in personas if each.language == language] for language in {*told, usual} - {""}}
    return [own.get(language or usual) or others for language in told]


def without_personas(texts: Sequence[str], personas: Sequence[Persona]) -> dict[str, float]:
    """Share of the prompts by language, of those that get English personas for want of their own.

    Where it is `MANY`; a text or two in a hundred are taken for another language than theirs.
    """
    covered = {"en", *(persona.language for persona in personas)}
    if covered <= {"en", ""} or not texts:  # no personas, or some that somebody wrote for all prompts
        return {}
    found = Counter(language for language in map(_language_of, texts) if language and language not in covered)
    shares = {language: count / len(texts) for language, count in sorted(found.items())}
    return {language: share for language, share in shares.items() if share >= MANY}


@lru_cache(maxsize=1 << 16)
def _language_of(text: str) -> str:
    return language_of(text)


def _persona(row: object, where: str) -> Persona:
    given = row if isinstance(row, dict) else {}
    known = {name: value for name, value in given.items() if name in _FIELDS}
    for other in map(str, given.keys() - known.keys()):  # notes of one's own may stand there
        if near := difflib.get_close_matches(other, _FIELDS, n=1, cutoff=0.7):
            raise InputError(f"{where} has a field {other!r}; did you mean {near[0]}?")
    if not all(isinstance(value, str) and value.strip() for value in known.values()):
        raise InputError(f"{where}: its fields are texts")
    if not {"text", "opening"} & known.keys() or "name" not in known:
        raise InputError(f"{where} needs a name and a text or an opening")
    language = given.get("language", "")
    if language and language not in TOLD_APART:
        raise InputError(
            f"{where}: language {shown(language)} is not told apart here; allowed: {', '.join(TOLD_APART)}"
        )
    opening = given.get("opening", "").strip()
    return Persona(one_line(given["name"]), given.get("text", "").strip(), opening, language)
