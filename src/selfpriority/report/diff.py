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

from selfpriority.evaluation.significance import corrected, difference, mean_difference, wins, won_or_lost
from selfpriority.plain_text import clean
from selfpriority.report.catalogue import HELD_OUT, Entry, Shown
from selfpriority.report.packing import Packed, pack
from selfpriority.report.page import mean_whisker, page
from selfpriority.report.plain import DASH
from selfpriority.report.tables import Wins, contest, mean_words, span, win_row
from selfpriority.report.verdict import changes_in_words, main_contest
from selfpriority.report.view import View, read_view
from selfpriority.run import Run, write_text

Json = dict[str, Any]


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
    leads = [main_contest(view) for view in views]
    policies = tuple(lead.split("_vs_")[0] if lead else "" for lead in leads)
    both = (policies[0], policies[1])
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
    first, second = (summary.get("judge", {}).get("key") for summary in summaries)
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


def changes(found: Comparison) -> dict[str, Json]:
    """Second minus first by objective on the shared prompts, shaped and tested as in a summary.

    Holm's correction runs over the objectives. None where judges differ.
    """
    if found.doubt or not found.shared:
        return {}
    lengths = _lengths(found)
    cells = {
        name: {**difference(paired), "words": mean_difference(lengths, paired)}
        for name, paired in _ratings(found).items()
    }
    return corrected(cells)


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


def recipe_rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(field, first, second) of every setting that differs."""
    flat = dict(_flat(first)), dict(_flat(second))
    fields = dict.fromkeys([*flat[0], *flat[1]])
    rows = [(name, *(clean(side.get(name, DASH)) for side in flat)) for name in fields]
    return [(name, one, two) for name, one, two in rows if one != two]


def _flat(settings: Mapping[str, Any], around: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{around}{name}.")
        else:
            yield f"{around}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def counted_wins(found: Comparison) -> list[Wins]:
    """Prompts that the second won, tied and lost, by objective, tested and corrected over the objectives."""
    if found.doubt:
        return []
    tie, lengths = found.views[0].settings["evaluate"]["tie"], _lengths(found)
    cells = {
        name: {**wins(won_or_lost(paired, tie)), "words": mean_difference(lengths, paired)}
        for name, paired in _ratings(found).items()
    }
    names = found.labels[::-1]
    return [win_row((names[0], names[1]), name, cell) for name, cell in corrected(cells).items() if cell["n"]]


def _packed(found: Comparison) -> Packed:
    about = {
        "objectives": [clean(name) for name in found.views[0].objectives],
        "tie": found.views[0].settings["evaluate"]["tie"],
        "contest": [clean(label) for label in found.labels],
    }
    return pack(found.shared, about)


def render_diff(found: Comparison) -> str:
    """The page."""
    first, second = found.views
    rows = changes(found)
    reach = max([1.0, *(abs(row[edge]) for row in rows.values() if row["n"] for edge in ("low", "high"))])
    spans = [span(view) for view in found.views if view.summary is not None] or [(1.0, 10.0)]
    return page(
        "diff.html.j2",
        _packed(found),
        found=found,
        headline=diff_headline(found),
        recipes=recipe_rows(first.settings, second.settings),
        contests=[contest(found.labels[::-1], "shared", name, row, reach) for name, row in rows.items()],
        wins=counted_wins(found),
        span=(min(low for low, _ in spans), max(high for _, high in spans)),
        rounds=max(len(first.rounds), len(second.rounds)),
        mean_whisker=mean_whisker,
        mean_words=mean_words,
    )
