"""Every prompt of a run with all that became of it: answers, ratings, pairs, drops, whole and in order.

Reads the run directory, finished or not; what is missing is left out. Knows file names and shapes, nothing of HTML and
nothing of how much a page can hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from selfpriority.evaluation.files import EvaluationFiles
from selfpriority.evaluation.records import AnswerRow, VerdictRow
from selfpriority.records import Candidates, Drop, Message, Pool, Prompt, Rating, Response, Scored
from selfpriority.run import CANDIDATES, PAIRS, POOLS, REFINED, SCORED, Run
from selfpriority.storage import read_rows

T = TypeVar("T")
Scores = tuple[float | None, ...]
"""A rating per objective, in priority order; None is unrated."""

HELD_OUT = "held-out"
OTHER_KIND = "other"


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
class PairLine:
    """One preference pair of a prompt; the answers by index into `Entry.answers`."""

    chosen: int
    rejected: int
    decided_by: int
    """Index of the objective."""
    distance: float
    gap: float


@dataclass(frozen=True)
class DropLine:
    """What was lost of a prompt: an answer, or with an empty `answer` the prompt itself."""

    answer: str
    reason: str
    """`<step>: <reason>`."""
    detail: str


@dataclass(frozen=True)
class PairRow:
    """What the page shows of a line of `5-pairs.jsonl`, which repeats three texts."""

    prompt_id: str
    chosen_id: str
    rejected_id: str
    decided_by: str
    distance: float
    gap: float


@dataclass(frozen=True)
class Entry:
    """One prompt in one part of the run, with its answers."""

    prompt_id: str
    part: str
    """`held-out`, `held-out: <set>` of a further prompt set, or `round <n>`."""
    kind: str
    outcome: str
    """`held-out`, `kept`, `not decided yet` or `<step>: <reason>` of the drop."""
    turns: tuple[Message, ...] = ()
    answers: tuple[Shown, ...] = ()
    pairs: tuple[PairLine, ...] = ()
    drops: tuple[DropLine, ...] = ()

    @property
    def text(self) -> str:
        """The last turn of the prompt."""
        return self.turns[-1].content if self.turns else ""

    @property
    def is_held_out(self) -> bool:
        """Whether systems were compared on it, in whichever set it is."""
        return self.part.partition(":")[0] == HELD_OUT


def held_out(folder: Path, order: Sequence[str], objectives: Sequence[str], name: str = "") -> list[Entry]:
    """Held-out prompts with all answers to them, systems in the order of the summary, others behind.

    Args:
        folder: of one evaluation.
        order: systems of its summary.
        objectives: in priority order.
        name: of a further prompt set.
    """
    files = EvaluationFiles(folder)
    answered = files.systems()
    prompts: dict[str, Prompt] = {}
    answers: dict[str, list[Shown]] = {}
    for system in sorted(answered, key=lambda system: order.index(system) if system in order else len(order)):
        verdicts = {row.prompt_id: row for row in _rows_of(files.verdicts(system), VerdictRow)}
        for row in read_rows(files.answers(system), AnswerRow):
            prompts.setdefault(row.prompt.id, row.prompt)
            shown = _answer(system, row.response, verdicts.get(row.prompt.id), objectives)
            answers.setdefault(row.prompt.id, []).append(shown)
    return [
        Entry(
            prompt_id=prompt.id,
            part=f"{HELD_OUT}: {name}" if name else HELD_OUT,
            kind=prompt.kind or OTHER_KIND,
            outcome=HELD_OUT,
            turns=prompt.messages,
            answers=tuple(answers[prompt.id]),
        )
        for prompt in prompts.values()
    ]


def _answer(system: str, response: Response, verdict: VerdictRow | None, objectives: Sequence[str]) -> Shown:
    ratings = [verdict.ratings.get(objective) if verdict else None for objective in objectives]
    tags = {"refusal": verdict is not None and verdict.refusal, "cut": response.stop == "length"}
    return Shown(
        name=system,
        role="system",
        text=response.text,
        scores=tuple(rating.value if isinstance(rating, Rating) else None for rating in ratings),
        tags=tuple(tag for tag, applies in tags.items() if applies),
    )


def collected(run: Run, number: int, objectives: Sequence[str]) -> Iterator[Entry]:
    """The prompts of one round: those that were sampled in their order, then those that never came so far."""
    folder = run.round(number)
    drops: dict[str, list[Drop]] = {}
    for drop in _rows_of(folder / "drops.jsonl", Drop):
        drops.setdefault(drop.prompt_id, []).append(drop)
    pairs: dict[str, list[PairRow]] = {}
    for row in _rows_of(folder / PAIRS, PairRow):
        pairs.setdefault(row.prompt_id, []).append(row)
    rated = next((folder / name for name in (REFINED, SCORED, POOLS) if (folder / name).is_file()), None)
    pools = {pool.prompt.id: pool for pool in _rows_of(rated, Pool)} if rated else {}
    sampled = {found.prompt.id: found for found in _rows_of(folder / CANDIDATES, Candidates)}
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
        turns=prompt.messages,
        drops=tuple(_drop_line(drop) for drop in drops),
    )


def _drop_line(drop: Drop) -> DropLine:
    answer = _short(drop.response_id, drop.prompt_id) if drop.response_id else ""
    return DropLine(answer, f"{drop.step}: {drop.reason}", drop.detail)


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


def _with_pairs(
    entry: Entry, answers: Mapping[str, Shown], rows: Sequence[PairRow], objectives: Sequence[str]
) -> Entry:
    places = {id_: place for place, id_ in enumerate(answers)}
    names = list(objectives)
    pairs = tuple(
        PairLine(places[row.chosen_id], places[row.rejected_id], names.index(row.decided_by), row.distance, row.gap)
        for row in rows
        if {row.chosen_id, row.rejected_id} <= places.keys()  # pairs may be older than the answers beside them
    )
    return replace(entry, answers=tuple(answers.values()), pairs=pairs)


def _rows_of(path: Path, cls: type[T]) -> list[T]:
    """The rows of a file; none if there is no such file."""
    return read_rows(path, cls) if path.is_file() else []
