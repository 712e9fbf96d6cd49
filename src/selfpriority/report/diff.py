"""Makes one page about two runs side by side: recipes, verdicts, funnels, and both policies' answers to shared prompts.

Reads the two run directories only. Ratings are compared only where the same judge gave them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfpriority.evaluation.records import Contest, Difference
from selfpriority.evaluation.significance import corrected, difference, mean_difference
from selfpriority.evaluation.wins import wins, won_or_lost
from selfpriority.formats import PAGE
from selfpriority.plain_text import clean
from selfpriority.rating import HIGHEST, LOWEST
from selfpriority.recipe import Recipe
from selfpriority.report.catalogue import HELD_OUT, Entry, Shown
from selfpriority.report.figures import Range
from selfpriority.report.packing import Packed, pack
from selfpriority.report.page import page
from selfpriority.report.tables import DifferenceRow, WinBar, difference_row, reach_of, span, win_bar
from selfpriority.report.verdict import changes_in_words, main_contest
from selfpriority.report.view import View, read_view
from selfpriority.run import Run
from selfpriority.storage import write_text


@dataclass(frozen=True)
class Comparison:
    """Two runs, and what they have in common."""

    views: tuple[View, View]
    labels: tuple[str, str]
    policies: tuple[str, str]
    """The system each run is about; empty where a run has no evaluation."""
    shared: tuple[Entry, ...]
    """Held-out prompts of both, with the policies' answers; their names are the labels."""
    doubt: str
    """Why ratings cannot be compared; empty when they can."""

    @property
    def contest(self) -> Contest:
        """The second against the first."""
        return Contest(self.labels[1], self.labels[0])


def write_diff(first: Path, second: Path, to: Path | None = None) -> Path:
    """Writes the page, by default into the first run directory as `against-<second>.html`; returns where it is.

    Raises:
        InputError: one of the two is no run directory.
        WorkFailed: the page cannot be written.
    """
    runs = Run.existing(first), Run.existing(second)
    found = compare(*runs)
    path = to or runs[0].folder / f"against-{re.sub(r'[^A-Za-z0-9_.-]+', '-', found.labels[1])}.html"
    write_text(path, [render_diff(found)])
    return path


def compare(first: Run, second: Run) -> Comparison:
    """What the two runs hold, and where they meet."""
    views = read_view(first), read_view(second)
    labels = _labels(views, (first.folder, second.folder))
    leads = [main_contest(view.summary) for view in views]
    both = (leads[0].a if leads[0] else "", leads[1].a if leads[1] else "")
    return Comparison(views, labels, both, tuple(_shared(views, labels, both)), _doubt(views))


def _labels(views: tuple[View, View], folders: tuple[Path, Path]) -> tuple[str, str]:
    """Names that tell the two apart: the runs' own, else with the folder around them."""
    names = [view.name for view in views]
    around = [f"{folder.resolve().parent.name}/{folder.resolve().name}" for folder in folders]
    for first, second in (names, around):
        if first != second:
            return first, second
    return f"{names[0]} (first)", f"{names[1]} (second)"


def _doubt(views: tuple[View, View]) -> str:
    summaries = [view.summary for view in views if view.summary is not None]
    if len(summaries) < 2:
        return "One of the two has no evaluation yet."
    if views[0].objectives != views[1].objectives:
        return "They have different objectives."
    first, second = (summary.judge.key if summary.judge else None for summary in summaries)
    if first is None or second is None:
        return "One of the two does not say which judge rated its answers; `spa evaluate` on it adds that."
    return "" if first == second else "Their answers were rated by different judges."


def _shared(views: tuple[View, View], labels: tuple[str, str], policies: tuple[str, str]) -> Iterator[Entry]:
    """Prompts that both runs held out, equal in every turn, in the order of the first."""
    others = {entry.turns: entry for entry in views[1].entries if entry.part == HELD_OUT}
    for entry in views[0].entries:
        other = others.get(entry.turns)
        if entry.part == HELD_OUT and other is not None:
            told = [_of(policies[0], entry, labels[0]), _of(policies[1], other, labels[1])]
            start = entry.answers[0]
            twin = next((answer for answer in other.answers if answer.name == start.name), None)
            if start.name not in policies and twin is not None and twin.text == start.text:
                told.insert(0, start)
            yield replace(entry, answers=tuple(answer for answer in told if answer is not None))


def _of(system: str, entry: Entry, label: str) -> Shown | None:
    found = next((answer for answer in entry.answers if answer.name == system), None)
    return None if found is None else replace(found, name=label)


def changes(found: Comparison) -> dict[str, Difference]:
    """Second minus first by objective on the shared prompts, tested as in a summary.

    Holm's correction runs over the objectives. None where judges differ.
    """
    if found.doubt or not found.shared:
        return {}
    lengths = _lengths(found)
    return corrected(
        {name: difference(paired, mean_difference(lengths, paired)) for name, paired in _ratings(found).items()}
    )


def _ratings(found: Comparison) -> dict[str, dict[str, tuple[float, float]]]:
    """Objective -> prompt id -> (second, first) where both are rated."""
    ratings: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in found.views[0].objectives}
    for entry in found.shared:
        by_name = {answer.name: answer.scores for answer in entry.answers}
        first, second = (by_name.get(label, ()) for label in found.labels)
        for name, one, other in zip(ratings, first, second, strict=False):  # no answer, no scores
            if one is not None and other is not None:
                ratings[name][entry.prompt_id] = (other, one)
    return ratings


def _lengths(found: Comparison) -> dict[str, tuple[float, float]]:
    """Prompt id -> words of (second, first) where both answered."""
    lengths = {}
    for entry in found.shared:
        by_name = {answer.name: float(len(answer.text.split())) for answer in entry.answers}
        if all(label in by_name for label in found.labels):
            lengths[entry.prompt_id] = (by_name[found.labels[1]], by_name[found.labels[0]])
    return lengths


def diff_headline(found: Comparison) -> str:
    """Which policy is better on what both were asked, in one sentence."""
    first, second = found.labels
    if found.doubt:
        return f"{second} and {first} cannot be compared by their ratings. {found.doubt}"
    if not found.shared:
        return f"{second} and {first} share no held-out prompt, so there is nothing to compare them on."
    told = changes_in_words(changes(found))
    return f"On {len(found.shared)} shared held-out prompts, {second} against {first}: {told}."


@dataclass(frozen=True)
class RecipeRow:
    """A setting that differs."""

    field: str
    """With its path."""
    first: str
    second: str


def recipe_rows(first: Recipe, second: Recipe) -> list[RecipeRow]:
    """Every setting that differs."""
    one, other = (dict(_flat(recipe.model_dump(mode="json"))) for recipe in (first, second))
    rows = (
        RecipeRow(name, clean(one.get(name, PAGE.dash)), clean(other.get(name, PAGE.dash))) for name in {**one, **other}
    )
    return [row for row in rows if row.first != row.second]


def _flat(settings: Mapping[str, Any], around: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{around}{name}.")
        else:
            yield f"{around}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def counted_wins(found: Comparison) -> list[WinBar]:
    """Prompts that the second won, tied and lost, by objective, tested and corrected over the objectives."""
    if found.doubt:
        return []
    tie, lengths = found.views[0].recipe.evaluate.tie, _lengths(found)
    cells = corrected(
        {
            name: wins(won_or_lost(paired, tie), words=mean_difference(lengths, paired))
            for name, paired in _ratings(found).items()
        }
    )
    return [win_bar(found.contest, name, cell) for name, cell in cells.items() if cell.n]


def difference_rows(found: Comparison) -> list[DifferenceRow]:
    """The differences as the page's table shows them."""
    cells = changes(found)
    reach = reach_of(cells.values())
    return [difference_row(found.contest, "shared", name, cell, reach) for name, cell in cells.items()]


def _packed(found: Comparison) -> Packed:
    about = {
        "objectives": [clean(name) for name in found.views[0].objectives],
        "tie": found.views[0].recipe.evaluate.tie,
        "contest": [clean(label) for label in found.labels],
    }
    return pack(found.shared, about)


def render_diff(found: Comparison) -> str:
    """The page."""
    first, second = found.views
    spans = [span(view.summary) for view in found.views if view.summary is not None] or [Range(LOWEST, HIGHEST)]
    return page(
        "diff.html.j2",
        _packed(found),
        found=found,
        headline=diff_headline(found),
        recipes=recipe_rows(first.recipe, second.recipe),
        changes=difference_rows(found),
        wins=counted_wins(found),
        span=Range(min(one.low for one in spans), max(one.high for one in spans)),
        rounds=max(len(first.rounds), len(second.rounds)),
    )
