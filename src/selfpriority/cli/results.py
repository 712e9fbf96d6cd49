"""Verbs that show what a run made, or send it: the report, people's verdicts, one prompt's way, exports, the hub."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfpriority.cli.app import AsJson, Directory, Reveal, Round, app
from selfpriority.errors import InputError

if TYPE_CHECKING:
    from selfpriority.inspection.push import Shipment


@app.command("report")
def report_command(
    directory: Directory,
    others: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR2]...", help="Further runs: all side by side.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="File for several runs; default DIR/against-DIR2.html.")
    ] = None,
) -> None:
    """Write report.html from what the run directory holds; with further runs, a page about all side by side."""
    from selfpriority.report.diff import write_diff
    from selfpriority.report.page import write_report

    if not others and to is not None:
        raise InputError("--to: belongs to a report about several runs; report.html of one lies in its run directory")
    print(f"report: {write_diff([directory, *others], to) if others else write_report(directory)}")


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


@app.command()
def show(
    directory: Directory,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Id of one prompt: its whole way.")] = None,
    reveal: Reveal = False,
    as_json: AsJson = False,
) -> None:
    """The funnel, or the whole way of one prompt."""
    from selfpriority.inspection.funnel import funnel, funnel_text
    from selfpriority.inspection.story import prompt_story
    from selfpriority.inspection.story_text import prompt_text
    from selfpriority.run import Run
    from selfpriority.storage import json_text

    run = Run.existing(directory)
    if prompt is None:
        counts = funnel(run)
        print(json_text(counts) if as_json else funnel_text(counts))
    else:
        story = prompt_story(run, prompt, reveal)
        print(json_text(story) if as_json else prompt_text(story))


@app.command()
def doctor(directory: Directory, number: Round = None, reveal: Reveal = False, as_json: AsJson = False) -> None:
    """Decoded sample pairs with the loss mask, end-token counts, and the first loss recomputed independently."""
    from selfpriority.inspection.doctor import diagnose, diagnosis_text
    from selfpriority.run import Run
    from selfpriority.storage import json_text

    diagnosis = diagnose(Run.existing(directory), number, reveal=reveal)
    print(json_text(diagnosis) if as_json else diagnosis_text(diagnosis))
    if not diagnosis.ok:
        raise typer.Exit(1)


@app.command()
def export(
    directory: Directory,
    to: Annotated[Path, typer.Option("--to", help="File or folder to write.")],
    form: Annotated[str, typer.Option("--format", help="trl, llama-factory or parquet.")] = "trl",
    number: Annotated[int | None, typer.Option("--round", min=1, help="One round; default: all.")] = None,
    keep_cut: Annotated[
        bool, typer.Option("--keep-cut", help="Also pairs with a cut answer, to which other trainers add an end token.")
    ] = False,
) -> None:
    """The preference data for other trainers. It holds harmful text by nature."""
    from selfpriority.inspection.export import Wanted
    from selfpriority.inspection.export import export as work
    from selfpriority.run import Run

    written = work(Run.existing(directory), to, Wanted(form, number, keep_cut))
    print(f"{written.rows} pairs: {written.path}")
    if written.n_cut:
        are = "among them" if keep_cut else "left out (--keep-cut keeps them)"
        print(f"{written.n_cut} pairs with an answer that was cut at the length limit are {are}")


@app.command()
def push(
    directory: Directory,
    to: Annotated[
        str | None,
        typer.Option("--to", help="ORG/NAME, or NAME of your own; default: RUN-SYSTEM."),
    ] = None,
    with_data: Annotated[bool, typer.Option("--data", help="Also the pairs, as a data set of that name.")] = False,
    system: Annotated[str, typer.Option("--system", help="Which of the trained systems.")] = "spa",
    is_public: Annotated[bool, typer.Option("--public", help="For everybody to read; private without it.")] = False,
    is_sure: Annotated[bool, typer.Option("--yes", help="Send without a question.")] = False,
) -> None:
    """Send the trained policy, with its card, to the Hugging Face hub. Says what would leave this machine, and asks."""
    from selfpriority.inspection.push import Hub, data_shipment, model_shipment
    from selfpriority.run import Run

    if not is_sure and not sys.stdin.isatty():
        raise InputError("push: asks before anything leaves this machine, and nobody is here to answer: add --yes")
    run, hub = Run.existing(directory), Hub()
    with tempfile.TemporaryDirectory() as scratch:
        name = hub.named(to or f"{run.folder.resolve().name}-{system}")
        shipments = [model_shipment(run, name, system)]
        if with_data:
            shipments.append(data_shipment(run, name, Path(scratch)))
        for shipment in shipments if not is_public else ():
            hub.check_private(shipment)
        if not is_sure and not _wants(shipments, hub.address, is_public):
            print("nothing was sent")
            raise typer.Exit(1)
        for shipment in shipments:
            print(f"{shipment.kind}: {hub.send(shipment, is_public)}")


def _wants(shipments: Sequence[Shipment], address: str, is_public: bool) -> bool:
    """Whether somebody at the terminal says yes to what would be sent."""
    lines = [f"To {address}, {'PUBLIC: everybody can read it' if is_public else 'private'}:"]
    for shipment in shipments:
        size = f"{shipment.n_bytes / 1e6:,.1f} MB: {', '.join(shipment.files)}"
        lines.append(f"  {shipment.kind} {shipment.to}, {size}")
        if shipment.kind == "dataset":
            lines.append("  It holds prompts and answers that may be harmful.")
    return typer.confirm("\n".join([*lines, "Send it?"]), err=True)
