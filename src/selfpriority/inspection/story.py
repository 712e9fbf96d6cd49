"""The whole way of one prompt over all rounds and through the evaluation, as records.

Reads an unfinished run as well as a finished one. Texts stay folded unless revealed.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selfpriority.errors import InputError
from selfpriority.evaluation.files import EvaluationFiles
from selfpriority.evaluation.records import AnswerRow, VerdictRow
from selfpriority.inspection.folding import shown
from selfpriority.inspection.run_files import objectives_of, recipe_of, rows_about
from selfpriority.method.denoise import determinant
from selfpriority.plain_text import clean
from selfpriority.preferences import PreferenceRow, by_objective
from selfpriority.records import (
    Candidates,
    Drop,
    Message,
    Pool,
    Prompt,
    Rating,
    Response,
    Scored,
    Unrated,
    covariance,
)
from selfpriority.run import CANDIDATES, DROPS, PAIRS, POOLS, REFINED, SCORED, Run
from selfpriority.storage import read_rows


@dataclass(frozen=True)
class AnswerStory:
    """One answer of a round: whose it is, what it scored, and whether it was lost."""

    id: str
    persona: str
    stop: str
    n_tokens: int
    scores: dict[str, float] | None
    """By objective; None: not rated, or not yet."""
    lost: str | None
    """Step and reason."""
    text: str


@dataclass(frozen=True)
class Consistency:
    """One objective of the refined answer beside the candidates."""

    refined: float
    best: float
    """Highest score of a candidate."""
    beaten: int
    """Candidates that score lower."""
    of: int


@dataclass(frozen=True)
class DenoisingTests:
    """What denoising looks at."""

    consistency: dict[str, Consistency]
    """By objective; empty before there is a refined answer."""
    det: float
    """Of the covariance of the candidates' scores."""


@dataclass(frozen=True)
class DropStory:
    """Where the prompt, or one answer to it, left."""

    step: str
    reason: str
    response: str | None
    """Id of the single answer; None: the prompt."""
    detail: str


@dataclass(frozen=True)
class PairStory:
    """One pair, by ids of answers."""

    chosen: str
    rejected: str
    decided_by: str
    distance: float
    gap: float


@dataclass(frozen=True)
class RoundStory:
    """The way of the prompt through one round."""

    round: int
    outcome: str
    """In words."""
    prompt: tuple[Message, ...]
    kind: str
    candidates: tuple[AnswerStory, ...]
    refined: AnswerStory | None
    other_refinements: tuple[AnswerStory, ...]
    tests: DenoisingTests | None
    drops: tuple[DropStory, ...]
    pairs: tuple[PairStory, ...]


@dataclass(frozen=True)
class HeldOutAnswer:
    """What a system of the evaluation answered."""

    kind: str
    prompt: tuple[Message, ...]
    stop: str
    n_tokens: int
    ratings: dict[str, float | str] | None
    """By objective; a sentence where there is no rating. None: not judged yet."""
    refusal: bool | None
    text: str


@dataclass(frozen=True)
class HeldOutDrop:
    """Why a system has no answer."""

    dropped: str


@dataclass(frozen=True)
class PromptStory:
    """Everything that a run knows of one prompt."""

    prompt_id: str
    rounds: tuple[RoundStory, ...]
    held_out: dict[str, HeldOutAnswer | HeldOutDrop]
    """By system."""


def prompt_story(run: Run, prompt_id: str, reveal: bool) -> PromptStory:
    """The whole way of one prompt. Texts are folded unless `reveal`; then their control codes are stripped.

    Raises:
        InputError: the run knows no such prompt; the nearest ids are named.
    """
    objectives = objectives_of(run)
    stories = (_round_story(run, n, prompt_id, objectives) for n in range(1, recipe_of(run).rounds + 1))
    rounds = tuple(_as_shown(story, reveal) for story in stories if story)
    held_out = _held_out(run, prompt_id, reveal)
    if not rounds and not held_out:
        raise InputError(_unknown(run, prompt_id))
    return PromptStory(prompt_id, rounds, held_out)


def _as_shown(story: RoundStory, reveal: bool) -> RoundStory:
    """The same with every text as it may be shown."""

    def answers(group: Sequence[AnswerStory]) -> tuple[AnswerStory, ...]:
        return tuple(replace(answer, text=shown(answer.text, reveal)) for answer in group)

    return replace(
        story,
        prompt=_messages(story.prompt, reveal),
        candidates=answers(story.candidates),
        refined=answers([story.refined])[0] if story.refined else None,
        other_refinements=answers(story.other_refinements),
    )


def _messages(messages: Sequence[Message], reveal: bool) -> tuple[Message, ...]:
    return tuple(replace(message, content=shown(message.content, reveal)) for message in messages)


def _round_story(run: Run, number: int, prompt_id: str, objectives: Sequence[str]) -> RoundStory | None:
    folder = run.round(number)
    sampled = rows_about(folder / CANDIDATES, Candidates, prompt_id, lambda row: row.prompt.id)
    drops = rows_about(folder / DROPS, Drop, prompt_id, lambda drop: drop.prompt_id)
    pairs = rows_about(folder / PAIRS, PreferenceRow, prompt_id, lambda row: row.prompt_id)
    pool = _latest_pool(folder, prompt_id)
    if not sampled and not drops and pool is None:
        return None
    rated = {scored.response.id: scored for scored in (*pool.responses, *pool.other_refinements)} if pool else {}
    lost = {drop.response_id: drop for drop in drops if drop.response_id}

    def answer(response: Response) -> AnswerStory:
        return _answer(response, rated.get(response.id), lost.get(response.id), objectives)

    prompt = sampled[0].prompt if sampled else pool.prompt if pool else Prompt(prompt_id, ())
    # of pairs of one's own nothing was sampled: what there is lies in the pool
    responses = sampled[0].responses if sampled else [each.response for each in pool.candidates] if pool else []
    return RoundStory(
        round=number,
        outcome=_outcome(drops, pairs),
        prompt=prompt.messages,
        kind=prompt.kind,
        candidates=tuple(map(answer, responses)),
        refined=answer(pool.refined.response) if pool and pool.refined else None,
        other_refinements=tuple(answer(scored.response) for scored in pool.other_refinements) if pool else (),
        tests=_tests(pool, objectives) if pool and sampled else None,
        drops=tuple(DropStory(drop.step, drop.reason, drop.response_id, clean(drop.detail)) for drop in drops),
        pairs=tuple(PairStory(row.chosen_id, row.rejected_id, row.decided_by, row.distance, row.gap) for row in pairs),
    )


def _latest_pool(folder: Path, prompt_id: str) -> Pool | None:
    for name in (REFINED, SCORED, POOLS):
        for pool in rows_about(folder / name, Pool, prompt_id, lambda row: row.prompt.id):
            return pool
    return None


def _answer(response: Response, rated: Scored | None, lost: Drop | None, objectives: Sequence[str]) -> AnswerStory:
    return AnswerStory(
        id=response.id,
        persona=response.persona,
        stop=response.stop,
        n_tokens=response.n_tokens,
        scores=by_objective(rated, objectives) if rated else None,
        lost=f"{lost.step}: {lost.reason}" if lost else None,
        text=response.text,
    )


def _tests(pool: Pool, objectives: Sequence[str]) -> DenoisingTests:
    """How far the refined answer is ahead, and det of the candidates' covariance."""
    consistency = {}
    for k, name in enumerate(objectives):
        scores = [candidate.scores[k] for candidate in pool.candidates]
        if pool.refined is not None:
            own = pool.refined.scores[k]
            consistency[name] = Consistency(own, max(scores), sum(own > score for score in scores), len(scores))
    return DenoisingTests(consistency, determinant(covariance([c.scores for c in pool.candidates])))


def _outcome(drops: Sequence[Drop], pairs: Sequence[PreferenceRow]) -> str:
    whole = next((drop for drop in drops if drop.response_id is None), None)
    if whole is not None:
        return f"dropped by {whole.step}: {whole.reason}"
    return f"kept, {len(pairs)} pair{'' if len(pairs) == 1 else 's'}" if pairs else "kept so far"


def _held_out(run: Run, prompt_id: str, reveal: bool) -> dict[str, HeldOutAnswer | HeldOutDrop]:
    files = EvaluationFiles(run.evaluation)
    stories: dict[str, HeldOutAnswer | HeldOutDrop] = {}
    for system in _systems(files):
        answers = rows_about(files.answers(system), AnswerRow, prompt_id, lambda row: row.prompt.id)
        verdicts = rows_about(files.verdicts(system), VerdictRow, prompt_id, lambda row: row.prompt_id)
        drops = rows_about(files.drops(system), Drop, prompt_id, lambda drop: drop.prompt_id)
        if answers:
            stories[system] = _held_out_answer(answers[0], verdicts[0] if verdicts else None, reveal)
        elif drops:
            stories[system] = HeldOutDrop(drops[0].reason)
    return stories


def _held_out_answer(row: AnswerRow, verdict: VerdictRow | None, reveal: bool) -> HeldOutAnswer:
    return HeldOutAnswer(
        kind=row.prompt.kind,
        prompt=_messages(row.prompt.messages, reveal),
        stop=row.response.stop,
        n_tokens=row.response.n_tokens,
        ratings={name: _rating(rating) for name, rating in verdict.ratings.items()} if verdict else None,
        refusal=verdict.refusal if verdict else None,
        text=shown(row.response.text, reveal),
    )


def _systems(files: EvaluationFiles) -> list[str]:
    return sorted(files.systems(), key=lambda name: (name != "vanilla", name))


def _rating(rating: Rating | Unrated) -> float | str:
    return rating.value if isinstance(rating, Rating) else f"unrated ({rating.reason})"


def _unknown(run: Run, prompt_id: str) -> str:
    known: Counter[str] = Counter()
    for number in range(1, recipe_of(run).rounds + 1):
        folder = run.round(number)
        if (folder / CANDIDATES).is_file():
            known.update(row.prompt.id for row in read_rows(folder / CANDIDATES, Candidates))
        elif (folder / POOLS).is_file():
            known.update(pool.prompt.id for pool in read_rows(folder / POOLS, Pool))
        known.update(drop.prompt_id for drop in run.drops(number))
    files = EvaluationFiles(run.evaluation)
    for system in _systems(files):
        known.update(row.prompt.id for row in read_rows(files.answers(system), AnswerRow))
    if not known:
        return f"{run.folder}: no prompt has been sampled yet; `spa run` continues"
    near = difflib.get_close_matches(prompt_id, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"it has {len(known)}, for example {next(iter(known))}"
    return f"--prompt: {run.folder} has no prompt {prompt_id!r}; {hint}"
