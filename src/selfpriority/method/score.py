"""Step 2: rate every candidate on every objective, s_k(y) on 1..10.

Paper: section "Self-scoring"; docs/judging.md. Knows the Judge protocol, not the judges.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfpriority.rating import Item, Judge
from selfpriority.records import Candidates, Drop, Pool, Rating, Ratings, Response, Scored, Sifted, Unrated


def score(candidates: Sequence[Candidates], judge: Judge) -> Sifted[Pool]:
    """Pools of rated candidates.

    An unrated candidate leaves its pool with the judge's reason; a pool with fewer than K + 1 rated candidates is
    dropped (`too_few_rated`), since its covariance could not have full rank.

    Args:
        candidates: as `sample` keeps them.
        judge: who rates, on K objectives.

    Raises:
        WorkFailed: a judge of your own failed.

    Examples:
        >>> judge = open_judge("my-heads", load_constitution("harmless-helpful"))
        >>> pool = score(Results("runs/my").candidates()[:1], judge).kept[0]
        >>> len(pool.candidates[0].scores)
        2
    """
    verdicts = iter(judge.rate([Item(c.prompt, response) for c in candidates for response in c.responses]))
    least = len(judge.objectives) + 1
    kept: list[Pool] = []
    dropped: list[Drop] = []
    for entry in candidates:
        rated: list[Scored] = []
        for response in entry.responses:
            verdict = scored(response, next(verdicts), "score", judge.objectives)
            if isinstance(verdict, Drop):
                dropped.append(verdict)
            else:
                rated.append(verdict)
        if len(rated) < least:
            detail = f"{len(rated)} of {len(entry.responses)} rated, {least} needed"
            dropped.append(Drop("score", entry.prompt.id, "too_few_rated", detail=detail))
        else:
            kept.append(Pool(entry.prompt, tuple(rated)))
    return Sifted(tuple(kept), tuple(dropped))


def scored(response: Response, ratings: Ratings, step: str, objectives: Sequence[str]) -> Scored | Drop:
    """The response with its ratings, or, when any objective is unrated, the drop that says which and why."""
    for objective, rating in zip(objectives, ratings, strict=True):
        if isinstance(rating, Unrated):
            return Drop(step, response.prompt_id, rating.reason, response.id, f"{objective}: {rating.detail}")
    return Scored(response, tuple(rating for rating in ratings if isinstance(rating, Rating)))
