"""Texts for models, kept as files in `text/*.md` and filled with jinja2. Knows the folder, not what the texts say."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

import jinja2

FOLDER = Path(str(files("selfpriority"))) / "text"


def fill(name: str, **values: object) -> str:
    """The text `name`.md with its placeholders filled; an unknown placeholder is an error."""
    return _environment().get_template(f"{name}.md").render(**values).strip()


def text_hash(*names: str) -> str:
    """Content hash of text files, for step keys: a reworded question is another question."""
    return hashlib.sha256("\0".join((FOLDER / f"{n}.md").read_text("utf-8") for n in names).encode()).hexdigest()


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
