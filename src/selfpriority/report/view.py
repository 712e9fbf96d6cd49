"""Reads what a run directory holds, finished or not, into the records the page shows.

Every file may be missing: the page then lacks that part. Knows file names and shapes, nothing of HTML.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from selfpriority.records import Pool, Scored
from selfpriority.report.catalogue import Entry, collected, held_out
from selfpriority.report.people import People, read_people
from selfpriority.run import PAIRS, POOLS, REFINED, SCORED, Run, read_json, read_rows

Json = dict[str, Any]
T = TypeVar("T")

MOST_POINTS = 1500
"""Points of one scatter plot; more are thinned evenly."""


@dataclass(frozen=True)
class Point:
    """The first two ratings of one answer, and what became of its prompt."""

    primary: float
    secondary: float
    refined: bool
    kept: bool | None
    """None: not decided yet."""


@dataclass(frozen=True)
class Round:
    """One round: how many prompts each step kept, its pairs, ratings and training."""

    number: int
    steps: dict[str, Json]
    pairs: Json
    points: tuple[Point, ...]
    n_points: int
    """Before thinning."""
    training: tuple[Json, ...]


@dataclass(frozen=True)
class JudgeCard:
    """One judge of `judge.json`: its role, what the recipe called it when it was checked, and its check."""

    role: str
    name: str
    method: str
    report: Json


@dataclass(frozen=True)
class View:
    """All that the page shows."""

    name: str
    resolved: str
    settings: Json
    manifest: Json
    objectives: tuple[str, ...]
    judges: tuple[JudgeCard, ...]
    rounds: tuple[Round, ...]
    summary: Json | None
    entries: tuple[Entry, ...] = ()
    """Every prompt: the held-out ones, then those of each round."""
    people: People | None = None
    utility: Json | None = None
    """What the present systems still know, where somebody asked."""
    has_old_utility: bool = False
    """Somebody asked, but other systems than there are now."""


def read_view(run: Run) -> View:
    """Everything there is in the run directory."""
    resolved = run.recipe.read_text(encoding="utf-8")
    settings: Json = yaml.safe_load(resolved)
    judges = _optional(run.folder / "judge.json")
    summary = _optional(run.evaluation / "summary.json")
    names = (path.name.removeprefix("round-") for path in run.folder.glob("round-*"))
    numbers = sorted(int(name) for name in names if name.isdecimal())
    objectives = _objectives(run, summary, judges)
    utility = _optional(run.evaluation / "utility.json")
    is_present = utility is not None and _is_of_present(utility, settings, run.manifest)
    tested = held_out(run.evaluation, list((summary or {}).get("systems", {})), objectives)
    return View(
        name=run.manifest["name"],
        resolved=resolved,
        settings=settings,
        manifest=run.manifest,
        objectives=objectives,
        judges=tuple(_judge(role, report) for role, report in (judges or {}).items() if report),
        rounds=tuple(_round(run, number) for number in numbers),
        summary=summary,
        entries=(
            *tested,
            *(entry for number in numbers for entry in collected(run, number, objectives)),
        ),
        people=read_people(run.evaluation, tested, objectives),
        utility=utility if is_present else None,
        has_old_utility=utility is not None and not is_present,
    )


def _optional(path: Path) -> Json | None:
    return read_json(path) if path.is_file() else None


def _is_of_present(utility: Json, settings: Json, manifest: Json) -> bool:
    """Whether the policy that lies there is the one that was asked: the last training's key holds all before it."""
    last = manifest["steps"].get(f"round-{settings['rounds']}/align", {})
    return bool(last.get("state") == "done" and last.get("key") == utility.get("trained"))


def _objectives(run: Run, summary: Json | None, judges: Json | None) -> tuple[str, ...]:
    """Objective names in priority order, from whatever of the run is there already."""
    if summary:
        return tuple(summary["objectives"])
    for path in sorted(run.folder.glob(f"round-*/{PAIRS}")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                return tuple(json.loads(line)["chosen_scores"])
    reports = [report for report in (judges or {}).values() if report]
    return tuple(objective["objective"] for objective in reports[0]["objectives"]) if reports else ()


def _judge(role: str, report: Json) -> JudgeCard:
    return JudgeCard(role, report.get("judge", ""), report.get("method", ""), report)


def _round(run: Run, number: int) -> Round:
    folder = run.round(number)
    funnel = _optional(folder / "funnel.json") or {}
    points = _points(folder)
    return Round(
        number=number,
        steps=funnel.get("steps", {}),
        pairs=funnel.get("pairs", {}),
        points=tuple(_thinned(points, MOST_POINTS)),
        n_points=len(points),
        training=tuple(_training(folder / "training.jsonl")),
    )


def _points(folder: Path) -> list[Point]:
    """Ratings of the round so far; a pool with one objective only has no second axis and gives none."""
    path = next((folder / name for name in (REFINED, SCORED) if (folder / name).is_file()), None)
    if path is None:
        return []
    kept = None
    if (folder / POOLS).is_file():
        kept = {pool.prompt.id for pool in read_rows(folder / POOLS, Pool)}
    points: list[Point] = []
    for pool in read_rows(path, Pool):
        is_kept = None if kept is None else pool.prompt.id in kept
        points += [_point(candidate, False, is_kept) for candidate in pool.candidates]
        points += [] if pool.refined is None else [_point(pool.refined, True, is_kept)]
    return points


def _point(scored: Scored, refined: bool, kept: bool | None) -> Point:
    primary, secondary, *_ = scored.scores
    return Point(primary, secondary, refined, kept)


def _training(path: Path) -> list[Json]:
    """The steps so far. A last line without its newline is being written right now."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _thinned(rows: Sequence[T], most: int) -> Sequence[T]:
    """At most `most` of the rows, evenly spaced, so that nobody chose them."""
    if len(rows) <= most:
        return rows
    return [rows[i * len(rows) // most] for i in range(most)]
