"""Every prompt of a run with all that became of it: answers, ratings, pairs, drops, whole and in order.

Reads the run directory, finished or not; what is missing is left out. Knows file names and shapes, nothing of HTML and
nothing of how much a page can hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selfpriority.records import Candidates, Drop, Pool, Prompt, Response, Scored
from selfpriority.run import CANDIDATES, PAIRS, REFINED, SCORED, Run, read_rows

Json = dict[str, Any]
Scores = tuple[float | None, ...]
"""A rating per objective, in priority order; None is unrated."""

HELD_OUT = "held-out"
OTHER_KIND = "other"
PAIR_FIELDS = ("chosen_id", "rejected_id", "decided_by", "distance", "gap")


@dataclass(frozen=True)
class Shown:
    """One answer as the page shows it."""

    name: str
    """The system of a held-out answer; else the last part of the answer's id."""
    role: str
    """`system`, `candidate`, `refined` or `other` (a refinement that is not the best)."""
    text: str
    scores: Scores = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One prompt in one part of the run, with its answers."""

    prompt_id: str
    part: str
    """`held-out` or `round <n>`."""
    kind: str
    outcome: str
    """`held-out`, `kept`, `not decided yet` or `<step>: <reason>` of the drop."""
    turns: tuple[tuple[str, str], ...] = ()
    """(role, text)."""
    answers: tuple[Shown, ...] = ()
    pairs: tuple[tuple[int, int, int, float, float], ...] = ()
    """(chosen, rejected, deciding objective, distance, gap); the first two by index into `answers`."""
    drops: tuple[tuple[str, str, str], ...] = field(default=())
    """(answer name or empty for the prompt itself, reason, detail)."""

    @property
    def text(self) -> str:
        """The last turn of the prompt."""
        return self.turns[-1][1] if self.turns else ""


def held_out(folder: Path, order: Sequence[str], objectives: Sequence[str]) -> list[Entry]:
    """Held-out prompts with all answers to them, systems in the order of the summary, others behind."""
    files = {path.stem.removeprefix("answers-"): path for path in sorted(folder.glob("answers-*.jsonl"))}
    names = [name for name in order if name in files] + [name for name in files if name not in order]
    prompts: dict[str, Json] = {}
    answers: dict[str, list[Shown]] = {}
    for name in names:
        verdicts = {row["prompt_id"]: row for row in lines_of(folder / f"verdicts-{name}.jsonl")}
        for row in lines_of(files[name]):
            prompt_id = row["prompt"]["id"]
            prompts.setdefault(prompt_id, row["prompt"])
            shown = _answer(name, row["response"], verdicts.get(prompt_id), objectives)
            answers.setdefault(prompt_id, []).append(shown)
    return [
        Entry(
            prompt_id=prompt_id,
            part=HELD_OUT,
            kind=prompt["kind"] or OTHER_KIND,
            outcome=HELD_OUT,
            turns=tuple((message["role"], message["content"]) for message in prompt["messages"]),
            answers=tuple(answers[prompt_id]),
        )
        for prompt_id, prompt in prompts.items()
    ]


def _answer(system: str, response: Json, verdict: Json | None, objectives: Sequence[str]) -> Shown:
    ratings: Mapping[str, Json] = verdict["ratings"] if verdict else {}
    refusal = bool(verdict and verdict["refusal"])
    return Shown(
        name=system,
        role="system",
        text=response["text"],
        scores=tuple(ratings.get(objective, {}).get("value") for objective in objectives),
        tags=tuple(tag for tag, there in (("refusal", refusal), ("cut", response["stop"] == "length")) if there),
    )


def collected(run: Run, number: int, objectives: Sequence[str]) -> Iterator[Entry]:
    """The prompts of one round: those that were sampled in their order, then those that never came so far."""
    folder = run.round(number)
    drops: dict[str, list[Drop]] = {}
    for drop in _records(folder / "drops.jsonl", Drop):
        drops.setdefault(drop.prompt_id, []).append(drop)
    pairs: dict[str, list[Json]] = {}
    for row in lines_of(folder / PAIRS):  # every line repeats three texts: only what is shown stays in memory
        pairs.setdefault(row["prompt_id"], []).append({name: row[name] for name in PAIR_FIELDS})
    rated = next((folder / name for name in (REFINED, SCORED) if (folder / name).is_file()), None)
    pools = {pool.prompt.id: pool for pool in _records(rated, Pool)} if rated else {}
    sampled = {row.prompt.id: row for row in _records(folder / CANDIDATES, Candidates)}
    prompts = {id_: row.prompt for id_, row in sampled.items()} | {id_: pool.prompt for id_, pool in pools.items()}
    for prompt_id, prompt in prompts.items():
        responses = sampled[prompt_id].responses if prompt_id in sampled else ()
        answers = _pool_answers(responses, pools.get(prompt_id))
        entry = _entry(prompt, f"round {number}", drops.get(prompt_id, []), bool(pairs))
        yield _with_pairs(entry, answers, pairs.get(prompt_id, []), objectives)
    for prompt_id in drops:
        if prompt_id not in prompts:
            yield _entry(Prompt(prompt_id, ()), f"round {number}", drops[prompt_id], bool(pairs))


def _entry(prompt: Prompt, part: str, drops: Sequence[Drop], decided: bool) -> Entry:
    whole = next((drop for drop in drops if drop.response_id is None), None)
    outcome = f"{whole.step}: {whole.reason}" if whole else "kept" if decided else "not decided yet"
    return Entry(
        prompt_id=prompt.id,
        part=part,
        kind=prompt.kind or OTHER_KIND,
        outcome=outcome,
        turns=tuple((message.role, message.content) for message in prompt.messages),
        drops=tuple(
            (
                _short(drop.response_id, prompt.id) if drop.response_id else "",
                f"{drop.step}: {drop.reason}",
                drop.detail,
            )
            for drop in drops
        ),
    )


def _pool_answers(responses: Sequence[Response], pool: Pool | None) -> dict[str, Shown]:
    """Answer id -> answer: rated ones of the pool, and sampled ones that no rating reached."""
    rated = {scored.response.id: scored for scored in pool.candidates} if pool else {}
    listed = {response.id: response for response in responses} | {id_: s.response for id_, s in rated.items()}
    found = {id_: _shown(response, rated.get(id_), "candidate") for id_, response in listed.items()}
    if pool and pool.refined:
        found[pool.refined.response.id] = _shown(pool.refined.response, pool.refined, "refined")
    for scored in pool.other_refinements if pool else ():
        found[scored.response.id] = _shown(scored.response, scored, "other")
    return found


def _shown(response: Response, scored: Scored | None, role: str) -> Shown:
    tags = [response.persona] if response.persona else []
    tags += ["cut"] if response.stop == "length" else []
    scores = scored.scores if scored else ()
    return Shown(_short(response.id, response.prompt_id), role, response.text, scores, tuple(tags))


def _short(response_id: str, prompt_id: str) -> str:
    return response_id.removeprefix(f"{prompt_id}/")


def _with_pairs(entry: Entry, answers: Mapping[str, Shown], rows: Sequence[Json], objectives: Sequence[str]) -> Entry:
    places = {id_: place for place, id_ in enumerate(answers)}
    names = list(objectives)
    pairs = tuple(
        (
            places[row["chosen_id"]],
            places[row["rejected_id"]],
            names.index(row["decided_by"]),
            row["distance"],
            row["gap"],
        )
        for row in rows
        if {row["chosen_id"], row["rejected_id"]} <= places.keys()  # pairs may be older than the answers beside them
    )
    return replace(entry, answers=tuple(answers.values()), pairs=pairs)


def _records(path: Path, cls: type[Any]) -> list[Any]:
    return read_rows(path, cls) if path.is_file() else []


def lines_of(path: Path) -> Iterable[Json]:
    """The rows of a JSONL file as plain JSON; none if there is no such file."""
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
