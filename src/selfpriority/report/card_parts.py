"""What the cards of a run's models and exports have in common: front matter, judge, results, limits, hazard.

Lines of Markdown. A model is called by its public name and a file by its own, never by a place on this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from selfpriority.errors import InputError
from selfpriority.evaluation.summary_file import read_summary
from selfpriority.formats import MARKDOWN
from selfpriority.intervals import Interval
from selfpriority.judges.reports import JudgeReport, read_checks
from selfpriority.models.embedded import EMBEDDED
from selfpriority.models.files import adapter_base, folder_of
from selfpriority.models.fingerprint import fingerprint
from selfpriority.models.public import public_name
from selfpriority.outside import read_text
from selfpriority.recipe import Recipe
from selfpriority.run import Run
from selfpriority.wording import FOLDER

PAPER = "https://arxiv.org/abs/2511.06222"
OURS = "<!-- Written by selfpriority, and written again with the report. Without this line it stays as it is. -->"


def tags_of(recipe: Recipe) -> tuple[str, ...]:
    """What the hub files it under."""
    return ("preference-optimization",) if recipe.pairs else ("self-priority-alignment", "preference-optimization")


def front_matter(head: dict[str, object]) -> list[str]:
    """The hub's head of a card, in YAML."""
    return ["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", ""]


def public_source(name: str) -> str:
    """A shipped set or a hub data set by its name, a file without its place."""
    return f"the file {Path(name).name}" if Path(name).is_absolute() else name


def licence_named(told: str | None) -> str:
    """A licence behind the name of what it is of."""
    return f" ({told})" if told else ", which is not known on the machine that trained"


def judge_part(run: Run) -> Iterator[str]:
    """Who judged the run's answers, and how good that judge is."""
    yield from ("## The judge, and how good it is", "")
    path = (run.above or run).folder / "judge.json"
    train = read_checks(path).train if path.is_file() else None
    if train is None:
        yield from ("It was not checked.", "")
        return
    yield f"{public_name(train.judge)}, method `{train.method}`. On labelled answers that it was checked with:"
    yield ""
    yield from _agreement(train)
    yield ""


def _agreement(report: JudgeReport) -> Iterator[str]:
    yield "| objective | AUC (95 %) | pairs right (95 %) | unrated |"
    yield "|---|---|---|---|"
    for row in report.objectives:
        figures = f"{_interval(row.auc)} | {_interval(row.pair_accuracy)} | {row.unrated:.0%}"
        yield f"| {row.objective} | {figures} |"
    if not report.usable:
        yield ""
        yield f"**Not shown to be better than chance**: {'; '.join(report.reasons)}."


def _interval(found: Interval | None) -> str:
    if found is None:
        return "not measured"
    return f"{MARKDOWN.number(found.estimate)} {MARKDOWN.edges(found.low, found.high)}"


def results_of(run: Run, name: str, weights: Path, recipe: Recipe) -> Iterator[str]:
    """The evaluation's table, if it is of these very weights: a run that is trained anew keeps the one before.

    Args:
        run: that is evaluated.
        name: what the evaluation calls the system.
        weights: the folder of its model.
        recipe: of the run.
    """
    folder = run.evaluation
    summary = read_summary(folder / "summary.json") if (folder / "summary.json").is_file() else None
    if summary is None or name not in summary.systems or not (folder / "table.md").is_file():
        yield "It was not evaluated: whether it is better than the model it started from is not known."
        return
    is_of_these = _are_these(weights, summary.models.get(name))
    if is_of_these is False:
        yield "It was not evaluated since it was trained: whether it is better than what it started from is not known."
        return
    yield f"On held-out prompts, `{name}` is this model and `vanilla` is {public_name(recipe.model)}."
    if is_of_these is None:
        yield "Whether it was measured on these very weights cannot be told."
    yield ""
    yield read_text(folder / "table.md").strip()


def _are_these(policy: Path, key: str | None) -> bool | None:
    """Whether a key is that of the weights in a folder; None: older versions noted none, or an adapter's base is away.

    Without its base an adapter has another key.
    """
    base = adapter_base(policy)
    if key is None or (base is not None and base not in EMBEDDED and folder_of(base) is None):
        return None
    try:
        return fingerprint(str(policy)) == key
    except InputError:  # an embedded base that is not installed
        return None


def limits_part(recipe: Recipe) -> Iterator[str]:
    """What no result says, and the hazard."""
    yield from ("## Limits", "")
    on = (
        "the judge above, the prompts and the constitution"
        if recipe.pairs is None
        else "the pairs that it learned from"
    )
    yield f"- It is as good as {on}; it is no proof of safety."
    yield f"- One training with seed {recipe.seed}. Another seed or another machine may end otherwise."
    yield "- What it knows beside this may have suffered; nothing here says that it has not, unless a table does."
    yield ""
    yield from hazard_part(recipe)


def hazard(recipe: Recipe) -> str:
    """The notice that goes with a run's texts."""
    return (FOLDER / ("hazard.txt" if recipe.pairs is None else "own_hazard.txt")).read_text("utf-8")


def hazard_part(recipe: Recipe) -> Iterator[str]:
    """The notice as a part of a card."""
    yield from ("## Hazard", "")
    text = hazard(recipe).partition("\n\n")[2]
    yield text.strip().replace("in this folder", "of this run")
    yield ""
