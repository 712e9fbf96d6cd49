"""A record as the options of a verb: what typer is shown, and what the verb is handed."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from typer.testing import CliRunner

from selfpriority.cli.options import UtilityOptions, spread


@dataclass(frozen=True)
class Size:
    """Two options."""

    width: Annotated[int, typer.Option("--width", min=1)] = 3
    name: Annotated[str | None, typer.Option("--name")] = None


def test_the_fields_are_options_and_the_verb_gets_the_record():
    app, seen = typer.Typer(), []

    @app.command()
    @spread
    def draw(place: Annotated[Path, typer.Argument()], size: Size, loud: bool = False) -> None:
        seen.append((place, size, loud))

    assert CliRunner().invoke(app, ["here", "--width", "5", "--loud"]).exit_code == 0
    assert seen == [(Path("here"), Size(5, None), True)]
    assert CliRunner().invoke(app, ["here", "--width", "0"]).exit_code == 2


def test_a_verb_keeps_its_name_and_text():
    @spread
    def draw(size: Size) -> None:
        """Draws."""

    assert (draw.__name__, draw.__doc__) == ("draw", "Draws.")
    assert list(inspect.signature(draw).parameters) == ["width", "name"]


def test_options_of_utility_become_questions():
    asked = UtilityOptions(limit=5, task=["winogrande"]).questions
    assert (asked.limit, asked.tasks, asked.mt_bench) == (5, ("winogrande",), None)
