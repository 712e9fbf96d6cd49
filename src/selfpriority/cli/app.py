"""The command `spa` itself: its options, what its verbs' arguments are called, and how a verb runs a phase."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selfpriority.phases.resources import Reporter, Resources
    from selfpriority.run import Run

app = typer.Typer(
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
AlignTarget = Annotated[
    Path, typer.Argument(metavar="DIR|FILE", help="A run directory, or a file of chosen and rejected answers.")
]
Round = Annotated[int | None, typer.Option("--round", min=1, help="Round; default: the next to do, or the last.")]
Child = Annotated[bool, typer.Option("--child", hidden=True)]
Part = Annotated[str | None, typer.Option("--systems", hidden=True)]  # of an evaluation that is done in parts at once
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="Show texts, which may be harmful.")]


@dataclass
class Said:
    """How much the command says; set once, before a verb begins."""

    is_quiet: bool = False
    """Errors and results alone."""
    is_verbose: bool = False
    """A plain line for every report, and no view."""

    @property
    def flags(self) -> tuple[str, ...]:
        """The same for a process that this one starts."""
        return ("--quiet",) * self.is_quiet + ("--verbose",) * self.is_verbose


SAID = Said()


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors and results.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A line for every report, no view.")] = False,
) -> None:
    """What holds for every verb."""
    context.obj = debug
    SAID.is_quiet, SAID.is_verbose = quiet, verbose and not quiet
    if version:
        from selfpriority import __version__

        print(__version__)
        raise typer.Exit


def named_recipe(path: Path) -> Path:
    """A recipe file, or the shipped one of that name."""
    from selfpriority.shipped import recipe_path

    return path if path.exists() else recipe_path(str(path)) or path


def phase(
    directory: Path,
    name: str,
    number: int | None,
    child: bool,
    work: Callable[[Run, Resources, int], None],
    is_part: bool = False,
) -> Run:
    """Runs one phase of an existing run under its lock; `is_part`: a part of it, beside others."""
    from selfpriority.phases.launch import alone, die_with_parent
    from selfpriority.phases.resources import Resources
    from selfpriority.recipe import load
    from selfpriority.run import Run
    from selfpriority.stages import next_round

    if child:
        die_with_parent()
    run = Run.existing(directory)
    with reporting(run.named(name if not number else f"round {number}")) as reporter:
        resources = Resources(load(run.recipe), run, reporter)
        if number is None:
            number = next_round(run, resources, name)
        with alone(run, child, is_part):
            work(run, resources, number)
    return run


@contextlib.contextmanager
def reporting(title: str, run: Run | None = None) -> Iterator[Reporter]:
    """Progress on stderr; of several processes that work together the main one reports.

    Args:
        title: what stands before every step; of a run that is worked through, the command, for its view.
        run: is run from end to end; on a terminal it gets a view of its own.
    """
    from rich.console import Console

    from selfpriority.phases.children import EVENTS
    from selfpriority.phases.launch import is_main
    from selfpriority.phases.resources import Reporter
    from selfpriority.terminal import EventReporter, LiveReporter

    console = Console(stderr=True)
    if SAID.is_quiet or not is_main():
        silent = Reporter()
        silent.flags = SAID.flags
        yield silent
    elif os.environ.get(EVENTS):
        yield EventReporter()
    elif run is not None and console.is_terminal and not SAID.is_verbose:
        from selfpriority.run_view import RunView

        with RunView(console, run, title) as view:
            yield view
    else:
        title = title.split()[0] if run is not None else title
        with LiveReporter(console, title, is_verbose=SAID.is_verbose, flags=SAID.flags) as reporter:
            yield reporter
