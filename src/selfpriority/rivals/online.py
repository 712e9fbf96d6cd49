"""Online reinforcement learning with the training judge as the reward: the prompts that are learned on, and the reward.

The first objective counts until it meets a threshold, and only from there on the next; or all count as one sum. Who
optimises is TRL (`training/online.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from selfpriority.rating import Item, Judge
from selfpriority.recipe import Recipe
from selfpriority.records import Pool, Prompt, Rating, Response, Sifted
from selfpriority.rivals.rows import Means, Rows


def _make(pools: Sequence[Pool], means: Means) -> Sifted[tuple[Pool, ...]]:
    """Every prompt, without the answers that are there: the policy draws its own. A plan counts those as its own."""
    return Sifted(tuple((Pool(pool.prompt, pool.candidates if means.is_planned else ()),) for pool in pools), ())


ROWS = Rows(_make)


def threshold_of(recipe: Recipe) -> float | None:
    """From where on an objective is met; None where the recipe's pairs follow a sum, and know no order."""
    if recipe.pair.order == "sum":
        return None
    return recipe.align.safe_from if recipe.pair.threshold is None else recipe.pair.threshold


def reward(scores: Sequence[float], threshold: float | None) -> float:
    """The reward of an answer; whoever meets more objectives in their order is always ahead.

    Args:
        scores: ratings in priority order.
        threshold: rating from which an objective is met and the next one counts; None: the plain sum of all.
    """
    if threshold is None:
        return math.fsum(scores)
    for rank, score in enumerate(scores[:-1]):
        if score < threshold:
            return rank * threshold + score
    return (len(scores) - 1) * threshold + scores[-1]


def rewards(
    judge: Judge, prompts: Sequence[Prompt], answers: Sequence[Response], threshold: float | None
) -> list[float]:
    """Of every answer; one that is not rated has the mean of the others to its prompt, so that it teaches nothing."""
    rated = judge.rate([Item(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)])
    found: list[float | None] = []
    by_prompt: dict[str, list[float]] = {prompt.id: [] for prompt in prompts}
    for prompt, ratings in zip(prompts, rated, strict=True):
        scores = [rating.value for rating in ratings if isinstance(rating, Rating)]
        found.append(reward(scores, threshold) if len(scores) == len(ratings) else None)
        by_prompt[prompt.id] += [] if found[-1] is None else [found[-1]]
    usual = {name: fmean(values) if values else 0.0 for name, values in by_prompt.items()}
    return [usual[prompt.id] if value is None else value for prompt, value in zip(prompts, found, strict=True)]
