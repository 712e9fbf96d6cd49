"""Verbs that do the work: the whole way, one phase of it, and what a model still knows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfpriority.cli.app import (
    AlignTarget,
    AsJson,
    Child,
    Directory,
    Fields,
    Part,
    RecipeArgument,
    Round,
    app,
    named_recipe,
    phase,
    reporting,
)
from selfpriority.cli.options import CompareOptions, OwnOptions, PlanOptions, UtilityOptions, spread
from selfpriority.plain_text import clean

if TYPE_CHECKING:
    from selfpriority.phases.resources import Resources
    from selfpriority.pipeline import Asked
    from selfpriority.run import Run


@app.command("plan")
@spread
def plan_command(recipe: RecipeArgument, options: PlanOptions, fields: Fields = None, as_json: AsJson = False) -> None:
    """Before any work: requests, tokens, memory, time and money of every step; with --pilot the yield, from a few."""
    from selfpriority.planning import pace
    from selfpriority.planning.plan import Given, plan
    from selfpriority.planning.table import plan_text
    from selfpriority.storage import json_text

    rates = pace.rates(options.rates) if options.rates is not None else None
    prices = pace.prices(options.prices) if options.prices is not None else None
    path, given = named_recipe(recipe), options.read(fields or [])
    overrides = given.overrides
    if options.systems or options.vary:  # what `spa compare` would do
        overrides = compared_fields(path, overrides, CompareOptions(options.systems, options.vary))
    planned = plan(path, overrides, options.out, Given(rates, prices, options.offline))
    if given.n_pilot:
        from selfpriority.planning.pilot import pilot

        with reporting("pilot") as reporter:
            planned = replace(planned, pilot=pilot(path, overrides, options.out, given.n_pilot, reporter))
    print(json_text(planned) if as_json else clean(plan_text(planned)))


@app.command("run")
def run_command(
    context: typer.Context,
    recipe: RecipeArgument,
    fields: Fields = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory; default runs/<recipe name>.")] = None,
) -> None:
    """Check the judge, collect, align, evaluate, report. The same command again continues."""
    from selfpriority.pipeline import start

    _work_through(*start(named_recipe(recipe), fields or [], out), debug=bool(context.obj))


def _work_through(run: Run, asked: Asked, debug: bool, *last: str) -> None:
    """The whole way of a run, its tables, and where the report is; `last` are lines before that one."""
    from selfpriority.pipeline import report, run_all

    with reporting("spa run", run) as reporter:
        code = run_all(run, asked, reporter, debug=debug)
    if code:
        raise typer.Exit(code)
    print_tables(run)
    for line in (*last, f"report: {report(run)}"):
        print(line)


@app.command("compare")
@spread
def compare_command(
    context: typer.Context,
    recipe: RecipeArgument,
    options: CompareOptions,
    fields: Fields = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory; default runs/<recipe name>.")] = None,
    as_json: AsJson = False,
) -> None:
    """`run` with named systems, trained on the same answers: all of them in one table. The same again continues.

    Without --systems and --vary they are those that the recipe names in evaluate.systems, or else all that ship but the
    ablations.
    """
    from selfpriority.inspection.comparison import comparison, comparison_text
    from selfpriority.pipeline import report, run_all, start
    from selfpriority.storage import json_text

    path = named_recipe(recipe)
    run, asked = start(path, compared_fields(path, fields or [], options), out)
    with reporting("spa compare", run) as reporter:
        code = run_all(run, asked, reporter, debug=bool(context.obj))
    if code:
        raise typer.Exit(code)
    found = comparison(run)
    print(json_text(found) if as_json else clean(comparison_text(found)))
    if not as_json:
        print(f"\nreport: {report(run)}")


def compared_fields(recipe: Path, fields: list[str], options: CompareOptions) -> list[str]:
    """The fields with those of the systems to compare.

    Raises:
        InputError: the recipe cannot be read, has no held-out prompts to compare on, or what is varied may not be.
    """
    from selfpriority.errors import InputError
    from selfpriority.recipe import load
    from selfpriority.recipe.varied import varied

    loaded = load(recipe, fields)
    evaluate, fields = loaded.evaluate, [*fields, *varied(loaded, options.vary or [])]
    if evaluate.prompts is None:
        raise InputError(
            f"{recipe}: evaluate.prompts: not set, so there is nothing to compare on; name held-out prompts"
        )
    if not options.systems and (evaluate.systems or options.vary):
        return fields
    names = [name.strip() for name in (options.systems or "all").split(",") if name.strip()]
    return [*fields, f"evaluate.systems={json.dumps(names)}"]


@app.command()
def collect(directory: Directory, number: Round = None, child: Child = False) -> None:
    """Sample, score, refine, denoise and pair for one round."""
    from selfpriority.phases.collect import collect as work
    from selfpriority.phases.judge_check import gated

    phase(directory, "collect", number, child, work if child else gated(work))


@app.command()
@spread
def align(
    context: typer.Context,
    target: AlignTarget,
    options: OwnOptions,
    fields: Fields = None,
    number: Round = None,
    child: Child = False,
) -> None:
    """Train one round of a run on its pairs, or a model on a file of chosen and rejected answers of your own."""
    from selfpriority.phases.align import align as work

    if not is_data(target):
        options.check_run(fields or [])
        phase(target, "align", number, child, work)
        return
    from selfpriority.pipeline import start_own

    options.check_file(number)
    run, asked = start_own(options.recipe(target), fields or [], options.to or Path("runs") / target.stem)
    _work_through(run, asked, bool(context.obj), f"policy: {run.policy(1)}")


def is_data(target: Path) -> bool:
    """Whether `spa align` is given a file of preference data, and not a run.

    Raises:
        InputError: it is neither.
    """
    from selfpriority.errors import InputError
    from selfpriority.own_pairs.pools import FORMATS, is_readable

    if target.is_dir():
        return False
    known = ", ".join(FORMATS)
    if not target.exists():
        raise InputError(f"{target}: no such run directory, and no such file of chosen and rejected answers ({known})")
    if target.suffix in (".yaml", ".yml"):
        raise InputError(f"{target}: is a recipe; `spa run {target}` works through it, training included")
    if not is_readable(target):
        raise InputError(f"{target}: is no run directory, nor a file of chosen and rejected answers: {known}")
    return True


@app.command()
def merge(
    directory: Directory,
    to: Annotated[Path | None, typer.Option("--to", help="Folder to write; there must be none yet.")] = None,
    system: Annotated[str, typer.Option("--system", help="Which of the trained systems.")] = "spa",
    child: Child = False,
) -> None:
    """Write what a run trained as one whole model, an adapter merged into its base, for any engine to load."""
    from selfpriority.errors import InputError
    from selfpriority.inspection.whole_model import write_whole_model
    from selfpriority.phases.merges import merge as work
    from selfpriority.run import Run

    if child:  # the part of `run` that makes the systems which are merged of others, apart for its memory
        phase(directory, "merge", 0, child, lambda run, resources, _: work(run, resources))
        return
    if to is None:
        raise InputError("--to: names no folder; `spa merge RUN --to FOLDER` writes a whole model there")
    print(f"model: {write_whole_model(Run.existing(directory), to, system)}")


@app.command()
def evaluate(directory: Directory, child: Child = False, systems: Part = None, as_json: AsJson = False) -> None:
    """Answer the held-out prompts with every system, rate and compare."""
    from selfpriority.phases.evaluate import evaluate as work

    names = systems.split(",") if systems else None
    run = phase(directory, "evaluate", 0, child, lambda run, resources, _: work(run, resources, names), bool(names))
    if as_json:
        from selfpriority.storage import read_json

        sets = {path.parent.name: read_json(path) for path in sorted(run.evaluation.glob("*/summary.json"))}
        summary = read_json(run.evaluation / "summary.json")
        print(json.dumps({**summary, "sets": sets} if sets else summary, indent=1))
    elif not child:
        print_tables(run)


def print_tables(run: Run) -> None:
    """The table of the main prompt set, then those of the further ones; Markdown unless on a terminal."""
    from rich.console import Console

    from selfpriority.result_table import print_result

    console = Console()
    paths = [run.evaluation / "table.md", *sorted(run.evaluation.glob("*/table.md"))]
    for path in filter(Path.is_file, paths):
        if path.parent != run.evaluation:
            print(f"{path.parent.name}:\n")
        text = clean(path.read_text("utf-8"))
        if console.is_terminal:
            print_result(console, text)
        else:
            print(text)


@app.command()
@spread
def utility(directory: Directory, options: UtilityOptions, as_json: AsJson = False) -> None:
    """What every system still knows: questions of lm-evaluation-harness, MT-Bench, and perplexity as an alarm."""
    from selfpriority.evaluation.utility_records import read_utility, utility_as_json
    from selfpriority.phases.utility import utility as work
    from selfpriority.phases.utility import utility_text

    asked = options.questions

    def ask(run: Run, resources: Resources, _: int) -> None:
        work(run, resources, asked)

    run = phase(directory, "utility", 0, False, ask)
    found = read_utility(run.evaluation / "utility.json")
    print(json.dumps(utility_as_json(found), indent=1) if as_json else clean(utility_text(found)))
