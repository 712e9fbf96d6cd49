"""Reads what a run directory holds, finished or not, into the records the page shows.

Every file may be missing: the page then lacks that part. Knows file names and shapes, nothing of HTML.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from selfpriority.records import Pool, Scored
from selfpriority.run import PAIRS, POOLS, REFINED, SCORED, Run, read_json, read_rows

Json = dict[str, Any]
T = TypeVar("T")

MOST_ANSWERS = 40
"""Held-out prompts shown with their answers."""
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
    """One judge of `judge.json`: its role, what the recipe calls it, and its check."""

    role: str
    name: str
    method: str
    report: Json


@dataclass(frozen=True)
class SystemAnswer:
    """One system's answer and its verdicts, objective name -> rating or None for unrated."""

    system: str
    text: str
    cut: bool
    refusal: bool | None
    ratings: dict[str, float | None]


@dataclass(frozen=True)
class Exchange:
    """One held-out prompt with the answers of all systems."""

    prompt_id: str
    kind: str
    turns: tuple[tuple[str, str], ...]
    """(role, text)."""
    answers: tuple[SystemAnswer, ...]


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
    exchanges: tuple[Exchange, ...] = field(default=())
    n_exchanges: int = 0
    """Before the limit."""


def read_view(run: Run) -> View:
    """Everything there is in the run directory."""
    resolved = run.recipe.read_text(encoding="utf-8")
    settings: Json = yaml.safe_load(resolved)
    judges = _optional(run.folder / "judge.json")
    summary = _optional(run.evaluation / "summary.json")
    names = (path.name.removeprefix("round-") for path in run.folder.glob("round-*"))
    numbers = sorted(int(name) for name in names if name.isdecimal())
    exchanges = _exchanges(run.evaluation, list((summary or {}).get("systems", {})))
    shown = _thinned(exchanges, MOST_ANSWERS)
    return View(
        name=run.manifest["name"],
        resolved=resolved,
        settings=settings,
        manifest=run.manifest,
        objectives=_objectives(run, summary, judges),
        judges=tuple(_judge(role, report, settings) for role, report in (judges or {}).items() if report),
        rounds=tuple(_round(run, number) for number in numbers),
        summary=summary,
        exchanges=tuple(shown),
        n_exchanges=len(exchanges),
    )


def _optional(path: Path) -> Json | None:
    return read_json(path) if path.is_file() else None


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


def _judge(role: str, report: Json, settings: Json) -> JudgeCard:
    section = settings["evaluate" if role == "evaluate" else "score"]
    name = "self" if role == "words" else section["judge"]
    return JudgeCard(role, name, report.get("method", section["method"]), report)


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


def _exchanges(folder: Path, order: Sequence[str]) -> list[Exchange]:
    """Prompts with all answers to them, systems in the order of the summary, others behind."""
    files = {path.stem.removeprefix("answers-"): path for path in sorted(folder.glob("answers-*.jsonl"))}
    names = [name for name in order if name in files] + [name for name in files if name not in order]
    prompts: dict[str, Json] = {}
    answers: dict[str, list[SystemAnswer]] = {}
    for name in names:
        verdicts = {row["prompt_id"]: row for row in _lines(folder / f"verdicts-{name}.jsonl")}
        for row in _lines(files[name]):
            prompt = row["prompt"]
            prompts.setdefault(prompt["id"], prompt)
            answer = _answer(name, row["response"], verdicts.get(prompt["id"]))
            answers.setdefault(prompt["id"], []).append(answer)
    return [
        Exchange(
            prompt_id=prompt_id,
            kind=prompt["kind"],
            turns=tuple((message["role"], message["content"]) for message in prompt["messages"]),
            answers=tuple(answers[prompt_id]),
        )
        for prompt_id, prompt in prompts.items()
    ]


def _answer(system: str, response: Json, verdict: Json | None) -> SystemAnswer:
    ratings: Mapping[str, Json] = verdict["ratings"] if verdict else {}
    return SystemAnswer(
        system=system,
        text=response["text"],
        cut=response["stop"] == "length",
        refusal=verdict["refusal"] if verdict else None,
        ratings={objective: rating.get("value") for objective, rating in ratings.items()},
    )


def _lines(path: Path) -> Iterable[Json]:
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)


def _thinned(rows: Sequence[T], most: int) -> Sequence[T]:
    """At most `most` of the rows, evenly spaced, so that nobody chose them."""
    if len(rows) <= most:
        return rows
    return [rows[i * len(rows) // most] for i in range(most)]
