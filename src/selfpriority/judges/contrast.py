"""A judge that nobody labelled: heads fitted on a model's own answers whose label is known by construction.

The model answers behind an opening of ours (`text/contrast/<objective>.yaml`), and how an answer began says how good it
is. A further objective is a further file. Source: docs/judging.md. Knows the language model's protocol; no run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from selfpriority.errors import InputError
from selfpriority.judges.contrast_pairs import Asked, OpenedPairs, paired
from selfpriority.judges.fit import FitSettings, fit_heads
from selfpriority.judges.heads import Heads, Pooling
from selfpriority.judges.labels import LabelledAnswer, LabelledPair, Labels, prompt_group
from selfpriority.language_model import Answer, Completion, Generate, LanguageModel, ask
from selfpriority.outside import parse_yaml, read_text, written_rows
from selfpriority.recipe.section import Section, Share
from selfpriority.records import Message, Prompt
from selfpriority.refusals import is_refusal
from selfpriority.wording import FOLDER

TEXTS = FOLDER / "contrast"
SOURCE = "contrast"
"""What a card says its labels are from."""
_VERSION = 3  # raise it when the same texts make other heads
_N_TOKENS, _TEMPERATURE, _TOP_P = 48, 0.8, 0.95


class OpenedAnswers(Section):
    """Answers behind openings that have one label."""

    to: tuple[str, ...]
    """Kinds of prompts that are answered."""
    opened: tuple[str, ...]
    """How the answers begin; an empty opening is none."""
    label: Literal[0, 1]
    unless_refusal: bool = False
    """Leave out an answer that goes on to decline."""


class Contrast(Section):
    """How answers with a known label are made for one objective."""

    depth: Share
    """Share of the model's layers below the one that is read."""
    penalty: float = Field(gt=0)
    """Inverse strength of the penalty of a fit."""
    pooling: Pooling = "mean"
    """What of the hidden states is read."""
    answers: tuple[OpenedAnswers, ...] = ()
    pairs: OpenedPairs | None = None

    def layer(self, n_layers: int) -> int:
        """Which hidden states are read, of a model with so many layers."""
        return round(self.depth * n_layers)


@dataclass(frozen=True)
class _Wanted:
    """An answer to be written: to whom, and how it begins."""

    prompt: Prompt
    opening: str

    def request(self) -> Generate:
        """One draw behind the opening."""
        return Generate(self.prompt.messages, 1, _TEMPERATURE, _TOP_P, _N_TOKENS, seed=0, opening=self.opening)

    def written(self, answer: Answer) -> str:
        """What the model wrote behind the opening; empty where nothing came."""
        text = answer.texts[0].text if isinstance(answer, Completion) else ""
        behind = text.removeprefix(self.opening) if text.startswith(self.opening) else ""
        return behind if behind.strip() else ""


def contrast_objectives() -> tuple[str, ...]:
    """Objectives that answers can be made for."""
    return tuple(sorted(path.stem for path in TEXTS.glob("*.yaml")))


def contrast_hash(objectives: Sequence[str]) -> str:
    """Content hash of all that the heads of these objectives depend on, beside the model."""
    files = [TEXTS / "prompts.jsonl", *(_path(objective) for objective in objectives)]
    parts = [str((_VERSION, _N_TOKENS, _TEMPERATURE, _TOP_P)), *(file.read_text("utf-8") for file in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def fit_contrast(model: LanguageModel, name: str, n_layers: int, objectives: Sequence[str], every: int = 1) -> Heads:
    """A head per objective, fitted on answers that the model writes itself.

    Args:
        model: writes the answers and shows their hidden states.
        name: what the card calls it.
        n_layers: of the model.
        objectives: in priority order.
        every: 2: every second prompt alone, which takes half the time; 3, 4, ... likewise.

    Raises:
        InputError: an objective that no answers can be made for, or too few answers came.
    """
    contrasts = {objective: read_contrast(objective) for objective in objectives}
    made = (made_labels(objective, contrast, model, every) for objective, contrast in contrasts.items())
    labels = Labels.joined(made, SOURCE)
    settings = FitSettings(
        layers={objective: contrast.layer(n_layers) for objective, contrast in contrasts.items()},
        c={objective: contrast.penalty for objective, contrast in contrasts.items()},
        pooling={objective: contrast.pooling for objective, contrast in contrasts.items()},
    )
    heads = fit_heads(labels, model, name, settings)
    part = {} if every == 1 else {"every": every}
    return replace(heads, card={**heads.card, "labels": SOURCE, "texts": contrast_hash(objectives), **part})


def made_labels(objective: str, contrast: Contrast, model: LanguageModel, every: int = 1) -> Labels:
    """Answers of the model with the labels that their openings give them; answers that failed are left out."""
    everything: list[OpenedAnswers | OpenedPairs] = [*contrast.answers, *([contrast.pairs] if contrast.pairs else [])]
    wanted = [each for given in everything for each in _wanted(given, every)]
    answers = ask(model, [each.request() for each in wanted])
    came = ((each, each.written(answer)) for each, answer in zip(wanted, answers, strict=True))
    texts = {each: text for each, text in came if text}
    singles = tuple(row for given in contrast.answers for row in _labelled(objective, given, texts))
    pairs = tuple(_paired(objective, contrast.pairs, texts, every)) if contrast.pairs else ()
    return Labels(singles, pairs, SOURCE)


def read_contrast(objective: str) -> Contrast:
    """How answers are made for an objective.

    Raises:
        InputError: there is no file for it.
    """
    path = _path(objective)
    try:
        return Contrast.model_validate(parse_yaml(read_text(path), str(path)))
    except ValidationError as error:
        raise InputError(f"{path}: {error.errors()[0]['msg']}") from None


def _path(objective: str) -> Path:
    if objective not in contrast_objectives():
        raise InputError(
            f"contrast: no answers can be made for {objective!r}, only for {', '.join(contrast_objectives())}; use a "
            f"model in words or fitted heads (`spa fit-judge --labels`) for it"
        )
    return TEXTS / f"{objective}.yaml"


@cache
def _asked(kinds: tuple[str, ...]) -> tuple[Asked, ...]:
    path = TEXTS / "prompts.jsonl"
    rows = [row.value for row in written_rows(path, read_text(path))]
    prompts = [(Prompt(row["id"], (Message("user", row["prompt"]),)), row) for row in rows if row["kind"] in kinds]
    return tuple(Asked(prompt, row["kind"], row["domain"]) for prompt, row in prompts)


def _wanted(given: OpenedAnswers | OpenedPairs, every: int = 1) -> Iterator[_Wanted]:
    openings = given.opened if isinstance(given, OpenedAnswers) else given.openings
    return (_Wanted(asked.prompt, opening) for asked in _asked(given.to)[::every] for opening in openings)


def _labelled(objective: str, given: OpenedAnswers, texts: dict[_Wanted, str]) -> Iterator[LabelledAnswer]:
    for wanted in _wanted(given):
        text = texts.get(wanted)
        if text is None or (given.unless_refusal and is_refusal(text)):
            continue
        label, group = bool(given.label), prompt_group(wanted.prompt)
        yield LabelledAnswer(wanted.prompt, text, objective, label, group, stop="length", opening=wanted.opening)


def _paired(objective: str, given: OpenedPairs, texts: dict[_Wanted, str], every: int) -> Iterator[LabelledPair]:
    return paired(
        objective, given, _asked(given.to)[::every], lambda prompt, opening: texts.get(_Wanted(prompt, opening))
    )
