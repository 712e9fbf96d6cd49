"""Verbs that list and print what ships: recipes, systems to compare with, constitutions."""

from __future__ import annotations

from typing import Annotated

import typer

from selfpriority.cli.app import app


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Print this one.")] = None) -> None:
    """What recipes ship, one line each; with a name, the recipe itself."""
    from selfpriority.shipped import recipe_lines, recipe_text

    print(recipe_text(name) if name else recipe_lines())


@app.command()
def systems() -> None:
    """What systems `spa compare` knows by name, one line each."""
    from selfpriority.shipped import system_lines

    print(system_lines())


@app.command()
def prompts() -> None:
    """What prompt sets of others are known by name: splits, licence, gate and hazard."""
    from selfpriority.prompt_sets import prompt_set_lines

    print(prompt_set_lines())


@app.command()
def constitutions(name: Annotated[str | None, typer.Argument(help="Print this one.")] = None) -> None:
    """What constitutions ship, one line each; with a name, its text."""
    from selfpriority.shipped import constitution_lines, constitution_text

    print(constitution_text(name) if name else constitution_lines())
