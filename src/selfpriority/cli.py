"""The verbs of `spa`: the only place that prints and the only place that turns errors into exit codes.

Each verb parses, calls one function and shows what it returned. Imports stay inside the verbs, so `--help` is instant.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from selfpriority.errors import InputError, SelfPriorityError
from selfpriority.inspection.shown import printable
from selfpriority.options import UtilityOptions, spread

if TYPE_CHECKING:
    from selfpriority.phases.opening import Opened, Reporter
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

INTERRUPTED = 130


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


@app.command("run")
def run_command(
    context: typer.Context,
    recipe: RecipeArgument,
    fields: Fields = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory; default runs/<recipe name>.")] = None,
) -> None:
    """Check the judge, collect, align, evaluate, report. The same command again continues."""
    from selfpriority.pipeline import report, run_all, start

    run, parsed = start(named_recipe(recipe), fields or [], out)
    with reporting("spa") as reporter:
        code = run_all(run, parsed, reporter, debug=bool(context.obj))
    if code:
        raise typer.Exit(code)
    table = run.evaluation / "table.md"
    if table.is_file():
        print(printable(table.read_text("utf-8")))
    print(f"report: {report(run)}")


@app.command()
def collect(directory: Directory, number: Round = None, child: Child = False) -> None:
    """Sample, score, refine, denoise and pair for one round."""
    from selfpriority.phases.collect import collect as work
    from selfpriority.phases.judging import gated

    phase(directory, "collect", number, child, work if child else gated(work))


@app.command()
def align(directory: Directory, number: Round = None, child: Child = False) -> None:
    """Train one round on its pairs."""
    from selfpriority.phases.align import align as work

    phase(directory, "align", number, child, work)


@app.command()
def evaluate(directory: Directory, child: Child = False, as_json: AsJson = False) -> None:
    """Answer the held-out prompts with every system, rate and compare."""
    from selfpriority.phases.evaluate import evaluate as work

    run = phase(directory, "evaluate", 0, child, lambda run, opened, _: work(run, opened))
    if as_json:
        print(json.dumps(json.loads((run.evaluation / "summary.json").read_text("utf-8")), indent=1))
    elif not child:
        print(printable((run.evaluation / "table.md").read_text("utf-8")))


@app.command()
@spread
def utility(directory: Directory, options: UtilityOptions, as_json: AsJson = False) -> None:
    """What every system still knows: questions of lm-evaluation-harness, MT-Bench, and perplexity as an alarm."""
    from selfpriority.evaluation.utility import utility_text
    from selfpriority.phases.utility import utility as work

    asked = options.questions
    told: dict[str, Any] = {}
    phase(directory, "utility", 0, False, lambda run, opened, _: told.update(work(run, opened, asked)))
    print(json.dumps(told, indent=1) if as_json else utility_text(told))


@app.command("report")
def report_command(
    directory: Directory,
    other: Annotated[Path | None, typer.Argument(metavar="[DIR2]", help="A second run: both side by side.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="File for two runs; default DIR/against-DIR2.html.")] = None,
) -> None:
    """Write report.html from what the run directory holds; with a second run, a page about both side by side."""
    from selfpriority.report.diff import write_diff
    from selfpriority.report.page import write_report

    if other is None and to is not None:
        raise InputError("--to: belongs to a report about two runs; report.html of one lies in its run directory")
    print(f"report: {write_report(directory) if other is None else write_diff(directory, other, to)}")


@app.command()
def review(
    directory: Directory,
    rater: Annotated[str, typer.Option("--rater", help="Who reviews; verdicts of several people are kept apart.")],
    mode: Annotated[str, typer.Option("--mode", help="compare (two answers) or rate (1 to 10).")] = "compare",
    systems: Annotated[str, typer.Option("--systems", help="Whose answers, e.g. vanilla,spa.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Of the shuffled order.")] = 0,
) -> None:
    """Compare or rate held-out answers blind, on a page of this machine; Ctrl-C ends, the same command continues."""
    from selfpriority.review.desk import desk_for
    from selfpriority.review.questions import Plan, mode_named
    from selfpriority.review.server import serving
    from selfpriority.run import Run

    plan = Plan(rater, mode_named(mode), tuple(name for name in systems.split(",") if name), seed)
    with desk_for(Run.existing(directory), plan) as desk:
        with serving(desk) as server, contextlib.suppress(KeyboardInterrupt):
            print(f"review: {server.address}", flush=True)
            server.wait()
        print(f"{desk.n_done} of {desk.n_asked} answered; `spa report {directory}` shows the agreement with the judge")


@app.command("check-judge")
def check_judge(
    recipe: RecipeArgument,
    fields: Fields = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="Labelled answers or pairs, JSONL.")] = None,
    as_json: AsJson = False,
    child: Child = False,
) -> None:
    """Is this model's judgement worth training on? Exit code 0 only if usable."""
    if child:
        from selfpriority.phases.judging import gate

        phase(recipe, "check-judge", 0, child, lambda run, opened, _: gate(run, opened))
        return
    from selfpriority.inspection.trust import trust_table
    from selfpriority.phases.judging import check_recipe

    with reporting("check-judge") as reporter:
        reports = check_recipe(named_recipe(recipe), fields or [], labels, reporter)
    print(json.dumps(reports, indent=1) if as_json else trust_table(reports))
    if not reports["train"]["usable"]:
        raise typer.Exit(3)


@app.command("choose-tau")
def choose_tau(
    directory: Directory,
    judge: Annotated[str, typer.Option("--judge", help="The stronger judge: a model, or a folder of fitted heads.")],
    method: Annotated[str, typer.Option("--method", help="expected, verbal or probe.")] = "expected",
    base_url: Annotated[str | None, typer.Option("--base-url", help="Server that runs the judge, up to /v1.")] = None,
    number: Annotated[int, typer.Option("--round", min=1, help="Round whose candidates are rated.")] = 1,
    as_json: AsJson = False,
) -> None:
    """How far does the training judge agree with a stronger one, and which tau does that suggest?"""
    from selfpriority.phases.tau import choose_tau as work
    from selfpriority.phases.tau import other_judge, tau_text

    stronger = other_judge(judge, method, base_url)
    told: dict[str, Any] = {}
    phase(directory, "choose-tau", number, False, lambda run, opened, n: told.update(work(run, opened, n, stronger)))
    print(json.dumps(told, indent=1) if as_json else tau_text(told))


@app.command("fit-judge")
def fit_judge(
    labels: Annotated[list[Path], typer.Option("--labels", help="Labelled answers or pairs, JSONL; repeatable.")],
    model: Annotated[str, typer.Option("--model", help="Model whose hidden states the heads read.")],
    to: Annotated[Path, typer.Option("--to", help="Folder for heads.safetensors and card.json.")],
    layer: Annotated[
        list[int] | None, typer.Option("--layer", min=0, help="Layer, repeatable; default: 1/2 and 3/4 of the depth.")
    ] = None,
    c: Annotated[float, typer.Option("--c", min=1e-9, help="Inverse strength of the penalty.")] = 1e-3,
) -> None:
    """Fit probe heads on labelled answers, cross-validated by prompt, with a card."""
    from selfpriority.phases.judging import fit

    with reporting("fit-judge") as reporter:
        card = fit(labels, model, to, (layer, c), reporter)
    print(json.dumps(card, indent=1))


@app.command()
def show(
    directory: Directory,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Id of one prompt: its whole way.")] = None,
    reveal: Reveal = False,
    as_json: AsJson = False,
) -> None:
    """The funnel, or the whole way of one prompt."""
    from selfpriority.inspection.show import funnel, funnel_text, prompt_story, prompt_text
    from selfpriority.run import Run

    run = Run.existing(directory)
    if prompt is None:
        counts = funnel(run)
        print(json.dumps(counts, indent=1) if as_json else funnel_text(counts))
    else:
        story = prompt_story(run, prompt, reveal)
        print(json.dumps(story, indent=1) if as_json else prompt_text(story))


@app.command()
def doctor(directory: Directory, number: Round = None, reveal: Reveal = False, as_json: AsJson = False) -> None:
    """Decoded sample pairs with the loss mask, end-token counts, and the first loss recomputed independently."""
    from selfpriority.inspection.doctor import diagnose, diagnosis_text
    from selfpriority.run import Run

    found = diagnose(Run.existing(directory), number, reveal=reveal)
    print(json.dumps(found, indent=1) if as_json else diagnosis_text(found))
    if not found["ok"]:
        raise typer.Exit(1)


@app.command()
def export(
    directory: Directory,
    to: Annotated[Path, typer.Option("--to", help="File or folder to write.")],
    form: Annotated[str, typer.Option("--format", help="trl, llama-factory or parquet.")] = "trl",
    number: Annotated[int | None, typer.Option("--round", min=1, help="One round; default: all.")] = None,
) -> None:
    """The preference data for other trainers. It holds harmful text by nature."""
    from selfpriority.inspection.export import export as work
    from selfpriority.run import Run

    written = work(Run.existing(directory), form, to, number)
    print(f"{written.rows} pairs: {written.path}")


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Print this one.")] = None) -> None:
    """What recipes ship, one line each; with a name, the recipe itself."""
    from selfpriority.shipped import recipe_lines, recipe_text

    print(recipe_text(name) if name else recipe_lines())


@app.command()
def constitutions(name: Annotated[str | None, typer.Argument(help="Print this one.")] = None) -> None:
    """What constitutions ship, one line each; with a name, its text."""
    from selfpriority.shipped import constitution_lines, constitution_text

    print(constitution_text(name) if name else constitution_lines())


def named_recipe(path: Path) -> Path:
    """A recipe file, or the shipped one of that name."""
    from selfpriority.shipped import recipe_path

    return path if path.exists() else recipe_path(str(path)) or path


def phase(directory: Path, name: str, number: int | None, child: bool, work: Callable[[Run, Opened, int], None]) -> Run:
    """Runs one phase of an existing run under its lock."""
    from selfpriority.phases.launch import alone, die_with_parent
    from selfpriority.phases.opening import Opened
    from selfpriority.pipeline import next_round
    from selfpriority.recipe import load
    from selfpriority.run import Run

    if child:
        die_with_parent()
    run = Run.existing(directory)
    with reporting(name if not number else f"round {number}") as reporter:
        opened = Opened(load(run.recipe), run, reporter)
        if number is None:
            number = next_round(run, opened, name)
        with alone(run, child):
            work(run, opened, number)
    return run


@contextlib.contextmanager
def reporting(title: str) -> Iterator[Reporter]:
    """Progress on stderr; of several processes that work together the main one reports."""
    from rich.console import Console

    from selfpriority.phases.launch import is_main
    from selfpriority.phases.opening import Reporter
    from selfpriority.terminal import LiveReporter

    if not is_main():
        yield Reporter()
        return
    with LiveReporter(Console(stderr=True), title) as reporter:
        yield reporter


def main() -> NoReturn:
    """Entry point: every error a user can cause becomes one line on stderr and its exit code."""
    from selfpriority.phases.launch import kept_for_launcher

    debug = "--debug" in sys.argv
    try:
        with kept_for_launcher():
            result: Any = app(standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except SelfPriorityError as error:
        if debug:
            raise
        lines = error.lines if isinstance(error, InputError) else [str(error)]
        for line in lines:
            tell(f"spa: {line}")
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):  # some versions of typer return 130 instead
        code = INTERRUPTED
    except OSError as error:
        if debug:
            raise
        tell(f"spa: {error.filename}: {error.strerror}" if error.filename else f"spa: {error.strerror or error}")
        code = 1
    except Exception as error:  # a bug of ours must reach the user as one line too
        code = _usage_or_bug(error, debug)
    if code == INTERRUPTED and "--child" not in sys.argv:
        tell("spa: interrupted; what is done is kept and the same command continues")
    sys.exit(code)


def tell(line: str) -> None:
    """One line on stderr; of several processes none speaks, for one's error is the cause of the others'."""
    from selfpriority.phases.launch import is_heard

    if is_heard():
        print(printable(line), file=sys.stderr)


def _usage_or_bug(error: Exception, debug: bool) -> int:
    """A mistake on the command line is exit 2 in one line; anything else is a bug of ours, told in one line."""
    describe = getattr(error, "format_message", None)  # click's errors, which some versions of typer bring along
    if describe is not None:
        bare = type(error).__name__ == "NoArgsIsHelpError"
        tell(describe() if bare else f"spa: {describe()}")
        return 2
    if debug:
        raise error
    kind = type(error).__name__
    tell(f"spa: unexpected {kind}: {error}; please report it with the output of --debug")
    return 1
