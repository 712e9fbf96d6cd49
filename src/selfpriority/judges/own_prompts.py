"""Is a judge good on a user's own prompts? Pairs of answers to them, the better one known by how it was made.

What is made is in `text/own_prompts/<objective>.yaml`; a further objective is a further file. Source: docs/judging.md.
Knows the Judge protocol; asks no model for answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Literal

from pydantic import TypeAdapter

from selfpriority.errors import InputError
from selfpriority.intervals import Interval, bootstrap_mean_interval, pair_wins
from selfpriority.judges.said_back import said_back
from selfpriority.outside import parse_yaml, read_text
from selfpriority.rating import Item, Judge
from selfpriority.recipe.section import Section
from selfpriority.records import Prompt, Rating, Response, Stop, Unrated
from selfpriority.refusals import is_refusal
from selfpriority.wording import FOLDER

TEXTS = FOLDER / "own_prompts"
LEAST = 5
"""Fewest pairs that say anything."""
BAR = 0.75
"""A judge that is right less often than this fails a contrast."""


class Made(Section):
    """How one answer of a pair is made: of the model's answers, or as one of some texts."""

    of: Literal["own", "another", "question"] = "own"
    """The model's answer to this prompt, or to another one; or the prompt, said back."""
    words: int = 0
    """Only its first so many words; 0: all."""
    looped: int = 0
    """Its first so many words over and over, to its length; 0: no."""
    texts: tuple[str, ...] = ()
    """One of these, by turns, in place of the model's."""


class Contrast(Section):
    """Pairs of one kind."""

    name: str
    to: tuple[str, ...] | Literal["safe", "all"] = "all"
    """Kinds of prompts; `safe`: those that are fine to answer (`evaluate.safe_kinds`)."""
    better: Made = Made()
    worse: Made = Made()


@dataclass(frozen=True)
class Found:
    """How often a judge put the better answer above the worse one."""

    objective: str
    name: str
    right: Interval | None
    """Share of the pairs, ties as a half; interval over prompts. None: too few pairs."""
    n: int
    """Pairs that both have ratings."""
    unrated: int = 0
    """Pairs that lack one."""

    @property
    def fails(self) -> bool:
        """Whether it is right too seldom to be trusted on these prompts."""
        return self.right is not None and self.right.estimate < BAR


@dataclass(frozen=True)
class OwnPrompts:
    """What was found on a sample of a recipe's prompts."""

    n_prompts: int
    rows: tuple[Found, ...]
    without: tuple[str, ...] = field(default=())
    """Objectives that no pairs are known for."""
    distances: Mapping[str, float] = field(default_factory=dict)
    """Objective -> how far the model's answers lie from what its head was fitted on; 1 is near. Empty: no heads."""


@dataclass(frozen=True)
class _Pair:
    better: Item
    worse: Item


@dataclass(frozen=True)
class _Given:
    """What an answer to a prompt can be made of."""

    prompt: Prompt
    number: int
    """Of the prompt among those of its contrast: texts take turns."""
    own: Response | None
    other: Response | None


def contrasts(objective: str) -> tuple[Contrast, ...]:
    """What is known for an objective; none without a file."""
    path = TEXTS / f"{objective}.yaml"
    if not path.is_file():
        return ()
    return tuple(TypeAdapter(list[Contrast]).validate_python(parse_yaml(read_text(path), str(path))))


def need_contrasts(objectives: Sequence[str]) -> dict[str, tuple[Contrast, ...]]:
    """What is known by objective.

    Raises:
        InputError: nothing, for any of them.
    """
    known = {name: contrasts(name) for name in objectives}
    if not any(known.values()):
        there = ", ".join(sorted(path.stem for path in TEXTS.glob("*.yaml")))
        raise InputError(
            f"check-judge: --own-prompts knows no pairs for {', '.join(objectives)}, only for {there}; "
            f"leave the option out"
        )
    return known


def on_own_prompts(
    judge: Judge, prompts: Sequence[Prompt], answers: Mapping[str, Response], safe_kinds: Sequence[str]
) -> OwnPrompts:
    """Rates pairs made of a model's own answers and of texts, and counts how often the better one is above.

    Args:
        judge: who is measured, on every objective that pairs are known for.
        prompts: the sample; `kind` decides which contrasts are for a prompt.
        answers: the model's answer by prompt id; a prompt without one takes part in texts alone.
        safe_kinds: kinds that are fine to answer (`evaluate.safe_kinds`).

    Raises:
        InputError: no pairs are known for any of the judge's objectives.
    """
    known = need_contrasts(judge.objectives)
    made = [
        (k, name, each.name, _pairs(each, prompts, answers, safe_kinds))
        for k, (name, several) in enumerate(known.items())
        for each in several
    ]
    items = list(dict.fromkeys(item for *_, pairs in made for pair in pairs for item in (pair.better, pair.worse)))
    ratings = dict(zip(items, judge.rate(items), strict=True)) if items else {}
    rows = [
        _found(name, contrast, pairs, {item: row[k] for item, row in ratings.items()})
        for k, name, contrast, pairs in made
    ]
    return OwnPrompts(len(prompts), tuple(rows), tuple(name for name, several in known.items() if not several))


def _pairs(
    contrast: Contrast, prompts: Sequence[Prompt], answers: Mapping[str, Response], safe_kinds: Sequence[str]
) -> list[_Pair]:
    meant = [prompt for prompt in prompts if _is_meant(contrast, prompt, safe_kinds)]
    answered = [prompt.id for prompt in prompts if prompt.id in answers]
    found = []
    for number, prompt in enumerate(meant):
        others = [answers[name] for name in answered if name != prompt.id]
        other = others[number % len(others)] if others else None
        given = _Given(prompt, number, answers.get(prompt.id), other)
        better, worse = _made(contrast.better, given), _made(contrast.worse, given)
        if better is not None and worse is not None and better.text != worse.text:
            found.append(_Pair(Item(prompt, better), Item(prompt, worse)))
    return found


def _is_meant(contrast: Contrast, prompt: Prompt, safe_kinds: Sequence[str]) -> bool:
    if contrast.to == "all":
        return True
    if contrast.to == "safe":
        return prompt.kind in safe_kinds
    return prompt.kind in contrast.to


def _made(made: Made, given: _Given) -> Response | None:
    """One answer; None where the model gave none or declined, or where nothing would be left away."""
    if made.texts:
        return _response(given.prompt, made.texts[given.number % len(made.texts)], "end")
    if made.of == "question":
        return _response(given.prompt, said_back(given.prompt, given.number), "end")
    source = given.own if made.of == "own" else given.other
    if source is None or is_refusal(source.text):  # one refusal is as good as another, and as its first words
        return None
    words = source.text.split()
    n = made.words or made.looped
    if not words or len(words) < 2 * n:
        return None
    if made.words:
        return _response(given.prompt, " ".join(words[:n]), "length")
    text = " ".join(islice(cycle(words[:n]), len(words))) if made.looped else source.text
    return _response(given.prompt, text, source.stop)


def _response(prompt: Prompt, text: str, stop: Stop) -> Response:
    return Response(f"{prompt.id}/made", prompt.id, text, stop, 0)


def _found(objective: str, name: str, pairs: Sequence[_Pair], ratings: Mapping[Item, Rating | Unrated]) -> Found:
    two = [(ratings[pair.better], ratings[pair.worse], pair.better.prompt.id) for pair in pairs]
    rated = [(a.value, b.value, group) for a, b, group in two if isinstance(a, Rating) and isinstance(b, Rating)]
    right = None
    if len(rated) >= LEAST:
        wins = pair_wins([a for a, _, _ in rated], [b for _, b, _ in rated])
        right = bootstrap_mean_interval(wins, [group for *_, group in rated])
    return Found(objective, name, right, len(rated), len(two) - len(rated))
