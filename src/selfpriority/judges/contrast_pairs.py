"""Pairs of a model's answers to one prompt, the worse one made so that it must be worse.

What is made is in `text/contrast/<objective>.yaml`. Source: docs/judging.md. Asks no model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

import numpy as np
from pydantic import Field

from selfpriority.judges.labels import LabelledPair, prompt_group
from selfpriority.judges.said_back import said_back
from selfpriority.recipe.section import Section
from selfpriority.records import Prompt

Written = Callable[[Prompt, str], str | None]
"""What the model wrote to a prompt behind an opening, without it; None where nothing came."""


class Worse(Section):
    """How the worse answer of a pair is made, of what the model wrote."""

    of: Literal["own", "near", "another", "question"] = "own"
    """The answer to this prompt, to another one of its kind and subject, or to any other; or the prompt, said back."""
    opened: str = ""
    """How it begins; empty: as the model likes."""
    read_whole: bool = False
    """Its opening is read too, for one that is itself what is worse about it."""
    words: int = Field(0, ge=0)
    """Its first so many words alone; 0: all of it."""
    looped: int = Field(0, ge=0)
    """Its first so many words over and over, to its length; 0: as it is."""
    weight: float = Field(1.0, gt=0)
    """How much such a pair counts."""


class OpenedPairs(Section):
    """Pairs of answers to one prompt."""

    to: tuple[str, ...]
    """Kinds of prompts that are answered."""
    better: str = ""
    """How the better answer begins."""
    worse: tuple[Worse, ...]

    @property
    def openings(self) -> tuple[str, ...]:
        """All that answers begin with, each once."""
        return tuple(dict.fromkeys([self.better, *(worse.opened for worse in self.worse)]))


@dataclass(frozen=True)
class Asked:
    """A prompt that answers are made for."""

    prompt: Prompt
    kind: str
    subject: str


def paired(objective: str, given: OpenedPairs, asked: Sequence[Asked], written: Written) -> Iterator[LabelledPair]:
    """The pairs of all prompts; one that an answer is missing of is left out.

    Every text is read as an answer of its own, without its opening, which would give it away by itself.

    Args:
        objective: what the better answer is better at.
        given: how the answers are made.
        asked: prompts, of the kinds of `given`.
        written: what the model wrote.
    """
    others = {"near": _near(asked), "another": _another(asked)}
    for n, each in enumerate(asked):
        better = written(each.prompt, given.better)
        if better is None:
            continue
        for worse in given.worse:
            source = asked[others[worse.of][n]] if worse.of in others else each
            text = said_back(each.prompt, n) if worse.of == "question" else written(source.prompt, worse.opened)
            if text is None or (worse.of in others and source is each):
                continue
            made = _made(worse, text)
            group = prompt_group(each.prompt)
            yield LabelledPair(each.prompt, better, made, objective, group, worse.weight, stop="length")


def _made(worse: Worse, text: str) -> str:
    words = text.split()
    if worse.looped:
        return " ".join(islice(cycle(words[: worse.looped]), max(len(words), worse.looped + 2)))
    if worse.words:
        return " ".join(words[: worse.words])
    return (worse.opened + text if worse.read_whole else text).strip()


def _another(asked: Sequence[Asked]) -> list[int]:
    """Of each prompt one other, by the same draw for every model; itself where there is no other."""
    order = np.random.default_rng(0).permutation(len(asked)).tolist()
    return [after for _, after in sorted(zip(order, [*order[1:], *order[:1]], strict=True))]


def _near(asked: Sequence[Asked]) -> list[int]:
    """Of each prompt the next one of its kind and subject, behind the last the first; itself where it is alone."""
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    for n, each in enumerate(asked):
        alike[each.kind, each.subject].append(n)
    following = {n: after for ring in alike.values() for n, after in zip(ring, [*ring[1:], *ring[:1]], strict=True)}
    return [following[n] for n in range(len(asked))]
