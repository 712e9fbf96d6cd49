"""What ships besides code: recipes, systems, constitutions, listed and printed. Reads the package's own files only."""

from __future__ import annotations

import difflib
from pathlib import Path

from selfpriority.constitution import SHIPPED, load_constitution, shipped_constitutions
from selfpriority.errors import InputError
from selfpriority.recipe.named import FIRST, LAST, read_system, shipped_systems
from selfpriority.recipe.named import SHIPPED as SYSTEMS

_PACKAGE = Path(__file__).parent
RECIPES = _PACKAGE / "recipes" if (_PACKAGE / "recipes").is_dir() else _PACKAGE.parents[1] / "recipes"
"""In a wheel the recipes lie in the package, in a clone at its top."""


def recipe_path(name: str) -> Path | None:
    """The file of a shipped recipe; None if there is no such name."""
    path = RECIPES / f"{name.removesuffix('.yaml').removeprefix('recipes/')}.yaml"
    return path if path.is_file() else None


def recipe_lines() -> str:
    """Name and first comment line of every shipped recipe."""
    names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    width = max(len(name) for name in names)
    return "\n".join(f"{name:{width}}  {_headline(RECIPES / f'{name}.yaml')}" for name in names)


def recipe_text(name: str) -> str:
    """A shipped recipe, to start one's own from.

    Raises:
        InputError: no such recipe; the nearest name is suggested.
    """
    path = recipe_path(name)
    if path is None:
        raise _unknown("recipe", name, [p.stem for p in RECIPES.glob("*.yaml")])
    return path.read_text("utf-8").rstrip()


def system_lines() -> str:
    """Name, title and origin of every system that `spa compare` knows."""
    names = (FIRST, LAST)  # the constitution's are not known here
    loaded = [(name, read_system(SYSTEMS / f"{name}.yaml", names)) for name in shipped_systems()]
    width = max(len(name) for name, _ in loaded)
    return "\n".join(f"{name:{width}}  {system.title} ({system.source})" for name, system in loaded)


def constitution_lines() -> str:
    """Name, objectives in order and summary of every shipped constitution."""
    loaded = [(name, load_constitution(name)) for name in shipped_constitutions()]
    width = max(len(name) for name, _ in loaded)
    return "\n".join(f"{name:{width}}  {' > '.join(c.names)}: {c.summary}" for name, c in loaded)


def constitution_text(name: str) -> str:
    """The YAML of a shipped constitution."""
    if name not in shipped_constitutions():
        raise _unknown("constitution", name, shipped_constitutions())
    return (SHIPPED / name / "constitution.yaml").read_text("utf-8").rstrip()


def _headline(path: Path) -> str:
    first = path.read_text("utf-8").splitlines()[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _unknown(what: str, name: str, known: list[str]) -> InputError:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}?" if close else f"shipped: {', '.join(sorted(known))}"
    return InputError(f"{name!r}: no such {what}; {hint}")
