"""Rewards-in-Context, its offline stage: all answers of the pools are learned, under prompts that tell their scores.

arXiv 2402.10207. Scores are standardised over all answers of a round and told with one decimal; the policy is then
asked with the highest that it saw in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from selfpriority.records import Message, Pool, Prompt, Scored, Sifted
from selfpriority.rivals.rows import Asking, Means, Rows, to_learn
from selfpriority.wording import fill


@dataclass(frozen=True)
class Standard:
    """What scores are standardised by, and the highest of them, by objective: [K] each."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    highest: NDArray[np.float64]

    @classmethod
    def of(cls, answers: Sequence[Scored]) -> Standard:
        """Of all answers of a round, population spread; an objective on which they are all alike has spread 1."""
        scores = np.array([answer.scores for answer in answers])
        spread = scores.std(axis=0)
        return cls(scores.mean(axis=0), np.where(spread > 0, spread, 1.0), scores.max(axis=0))

    def told(self, scores: NDArray[np.float64]) -> str:
        """Scores as they stand in a prompt."""
        rounded = np.round((scores - self.mean) / self.spread, 1) + 0.0  # no -0.0
        return fill("control", scores=rounded.tolist())


def controlled(prompt: Prompt, control: str) -> Prompt:
    """The prompt with the control text behind its last turn."""
    *before, last = prompt.messages
    return replace(prompt, messages=(*before, Message(last.role, f"{last.content} {control}")))


def _make(pools: Sequence[Pool], means: Means) -> Sifted[tuple[Pool, ...]]:
    """A row an answer; no prompt is dropped."""
    standard = Standard.of([answer for pool in pools for answer in pool.responses])
    return Sifted(tuple(tuple(_rows(pool, standard)) for pool in pools), ())


def _rows(pool: Pool, standard: Standard) -> Iterator[Pool]:
    for answer in pool.responses:
        prompt = controlled(pool.prompt, standard.told(np.array(answer.scores)))
        yield to_learn(replace(prompt, id=answer.response.id), answer)


def _ask(prompts: Sequence[Prompt], asking: Asking) -> Sifted[Prompt]:
    rows = [answer for row in asking.trained() for answer in row.candidates]
    if rows:
        standard = Standard.of(rows)
        control = standard.told(standard.highest)
    else:  # a plan, which asks for nothing more than the length of it
        control = fill("control", scores=[0.0] * len(asking.constitution.objectives))
    return Sifted(tuple(controlled(prompt, control) for prompt in prompts), ())


ROWS = Rows(_make, texts=("control",), ask=_ask)
