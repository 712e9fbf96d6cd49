"""The command `spa` itself: its options, what its verbs' arguments are called, and how a verb runs a phase."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selfpriority.phases.resources import Reporter, Resources
    from selfpriority.run import Run

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Safe or honest first, helpful second: self-priority alignment of an instruct model, from prompts alone.",
)

RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe file; `spa recipes` lists what ships.")
]
Fields = Annotated[list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Overrides, e.g. align.beta=2.5")]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")]
Round = Annotated[int | None, typer.Option("--round", min=1, help="Round; default: the next to do, or the last.")]
Child = Annotated[bool, typer.Option("--child", hidden=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="Show texts, which may be harmful.")]


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """What holds for every verb."""
    context.obj = debug
    if version:
        from selfpriority import __version__

        print(__version__)
        raise typer.Exit


def named_recipe(path: Path) -> Path:
    """A recipe file, or the shipped one of that name."""
    from selfpriority.shipped import recipe_path

    return path if path.exists() else recipe_path(str(path)) or path


def phase(
    directory: Path, name: str, number: int | None, child: bool, work: Callable[[Run, Resources, int], None]
) -> Run:
    """Runs one phase of an existing run under its lock."""
    from selfpriority.phases.launch import alone, die_with_parent
    from selfpriority.phases.resources import Resources
    from selfpriority.pipeline import next_round
    from selfpriority.recipe import load
    from selfpriority.run import Run

    if child:
        die_with_parent()
    run = Run.existing(directory)
    with reporting(name if not number else f"round {number}") as reporter:
        resources = Resources(load(run.recipe), run, reporter)
        if number is None:
            number = next_round(run, resources, name)
        with alone(run, child):
            work(run, resources, number)
    return run


@contextlib.contextmanager
def reporting(title: str) -> Iterator[Reporter]:
    """Progress on stderr; of several processes that work together the main one reports."""
    from rich.console import Console

    from selfpriority.phases.launch import is_main
    from selfpriority.phases.resources import Reporter
    from selfpriority.terminal import LiveReporter

    if not is_main():
        yield Reporter()
        return
    with LiveReporter(Console(stderr=True), title) as reporter:
        yield reporter
