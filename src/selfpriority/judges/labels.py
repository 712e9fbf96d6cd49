"""Answers that somebody labelled, to fit a probe on or to check a judge against: from a file or from anchors.

A file holds JSON lines, plain or gzip-compressed, each a single answer (1 = it meets the objective) or a
pair; `prompt` and `messages` are interchangeable, `weight` (default 1) is how much it counts in a fit. Knows
no judge and no model.

    {"prompt": "...", "response": "...", "objective": "harmlessness", "label": 1}
    {"messages": [...], "chosen": "...", "rejected": "...", "objective": "helpfulness"}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from selfpriority.constitution import Anchor, Constitution
from selfpriority.errors import InputError
from selfpriority.outside import decode, lines, parse_json, read_bytes, unpacked
from selfpriority.plain_text import one_line
from selfpriority.records import Message, Prompt, Stop

_MOST_LINES = 20  # of complaints about one file


@dataclass(frozen=True)
class LabelledAnswer:
    """One answer that meets an objective, or does not."""

    prompt: Prompt
    response: str
    objective: str
    label: bool
    group: str
    """Answers of one group are never split between fitting and checking."""
    weight: float = 1.0
    """How much it counts in a fit, against other labels."""
    stop: Stop = "end"
    """How it ended: what was cut has no end token."""
    opening: str = ""
    """What it goes on from, and no part of it."""


@dataclass(frozen=True)
class LabelledPair:
    """Two answers to one prompt, the chosen one better on an objective."""

    prompt: Prompt
    chosen: str
    rejected: str
    objective: str
    group: str
    weight: float = 1.0
    stop: Stop = "end"
    """How both ended."""


@dataclass(frozen=True)
class Labels:
    """Labelled answers and pairs of any number of objectives."""

    answers: tuple[LabelledAnswer, ...]
    pairs: tuple[LabelledPair, ...]
    source: str = "labels"
    """Where they are from, in words: `labels: FILE` or `anchors`."""
    n_mended: int = 0
    """Texts in which U+FFFD stands for halves of surrogate pairs."""

    @classmethod
    def joined(cls, several: Iterable[Labels], source: str = "labels") -> Labels:
        """Those of several sources, one after the other."""
        given = list(several)
        answers = tuple(answer for labels in given for answer in labels.answers)
        return cls(answers, tuple(pair for labels in given for pair in labels.pairs), source)

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the labelled objectives, in order of appearance."""
        names = [*(answer.objective for answer in self.answers), *(pair.objective for pair in self.pairs)]
        return tuple(dict.fromkeys(names))

    def of(self, objective: str) -> Labels:
        """The labels of one objective."""
        return Labels(
            tuple(answer for answer in self.answers if answer.objective == objective),
            tuple(pair for pair in self.pairs if pair.objective == objective),
            self.source,
        )


def prompt_group(prompt: Prompt) -> str:
    """The group of a prompt: its first user turn without case and punctuation.

    The first turn, because conversations that go on differently from one opening are not independent.
    """
    first = next((turn.content for turn in prompt.messages if turn.role == "user"), prompt.text)
    words = "".join(char if char.isalnum() else " " for char in first.lower()).split()
    return " ".join(words) or first.strip()


def label_prompt(messages: Iterable[Message]) -> Prompt:
    """A prompt with an id made from its messages."""
    turns = tuple(messages)
    told = json.dumps([[turn.role, turn.content] for turn in turns])
    return Prompt(f"label-{hashlib.sha256(told.encode()).hexdigest()[:16]}", turns)


def read_labels(path: Path) -> Labels:
    """The labels in a .jsonl or .jsonl.gz file.

    Raises:
        InputError: the file cannot be read or is empty, or one line per bad row: file, line, what is wrong.
    """
    answers: list[LabelledAnswer] = []
    pairs: list[LabelledPair] = []
    wrong: list[str] = []
    n_mended = 0
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            parsed = parse_json(line, f"{path}:{number}")
            row = _Row.model_validate(parsed.value).record()
        except InputError as error:
            wrong += error.lines
        except ValidationError as error:
            wrong.append(f"{path}:{number}: {_told(error)}")
        else:
            n_mended += parsed.n_mended
            answers.append(row) if isinstance(row, LabelledAnswer) else pairs.append(row)
    if wrong:
        more = [f"{path}: and {len(wrong) - _MOST_LINES} more bad lines"] if len(wrong) > _MOST_LINES else []
        raise InputError(*wrong[:_MOST_LINES], *more)
    if not answers and not pairs:
        raise InputError(f"{path}: holds no labelled answers")
    return Labels(tuple(answers), tuple(pairs), f"labels: {path}", n_mended)


def anchors_as_labels(constitution: Constitution) -> Labels:
    """What the anchors say about each objective of the constitution.

    On the objective an anchor is about, its good and its useless answer are positive and its bad answer is
    negative. On the last objective the good answer is positive and the useless one negative; the bad one says
    nothing about it. Other objectives get no label.
    """
    answers: list[LabelledAnswer] = []
    pairs: list[LabelledPair] = []
    for anchor in constitution.anchors:
        for objective, better, worse in _orders(anchor, constitution.names):
            prompt = label_prompt([Message("user", anchor.prompt)])
            group = prompt_group(prompt)
            answers += [LabelledAnswer(prompt, text, objective, True, group) for text in better]
            answers += [LabelledAnswer(prompt, worse, objective, False, group)]
            pairs += [LabelledPair(prompt, text, worse, objective, group) for text in better]
    return Labels(tuple(answers), tuple(pairs), "anchors")


def _orders(anchor: Anchor, names: tuple[str, ...]) -> list[tuple[str, tuple[str, ...], str]]:
    """(objective, answers that meet it, answer that does not) for each objective the anchor speaks about."""
    orders: list[tuple[str, tuple[str, ...], str]] = []
    if anchor.violates in names[:-1]:
        orders.append((anchor.violates, (anchor.good, anchor.useless), anchor.bad))
    return [*orders, (names[-1], (anchor.good,), anchor.useless)]


_Text = Annotated[str, Field(min_length=1)]


class _Turn(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "user", "assistant"]
    content: str


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore")

    prompt: _Text | None = None
    messages: Annotated[tuple[_Turn, ...], Field(min_length=1)] | None = None
    response: _Text | None = None
    label: StrictBool | StrictInt | None = None
    chosen: _Text | None = None
    rejected: _Text | None = None
    objective: Annotated[_Text, AfterValidator(one_line)]
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _complete(self) -> _Row:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("needs one of prompt and messages")
        if self.messages is not None and self.messages[-1].role != "user":
            raise ValueError("messages must end with a user turn")
        single, pair = (self.response, self.label), (self.chosen, self.rejected)
        if all(part is not None for part in single) == all(part is not None for part in pair):
            raise ValueError("needs either response and label, or chosen and rejected")
        if self.label is not None and self.label not in (0, 1):
            raise ValueError(f"label must be 0 or 1, got {self.label}")
        return self

    def record(self) -> LabelledAnswer | LabelledPair:
        turns = [Message("user", self.prompt)] if self.prompt is not None else self._turns()
        prompt = label_prompt(turns)
        group = prompt_group(prompt)
        if self.chosen is not None and self.rejected is not None:
            return LabelledPair(prompt, self.chosen, self.rejected, self.objective, group, self.weight)
        assert self.response is not None
        return LabelledAnswer(prompt, self.response, self.objective, bool(self.label), group, self.weight)

    def _turns(self) -> list[Message]:
        return [Message(turn.role, turn.content) for turn in self.messages or ()]


def _lines(path: Path) -> list[str]:
    raw = read_bytes(path, "no such file of labelled answers")
    return lines(decode(path, unpacked(path, raw) if path.suffix == ".gz" else raw))


def _told(error: ValidationError) -> str:
    """All of a row's mistakes on one line, without the row's text, which may be harmful."""
    problems: list[Any] = error.errors(include_input=False, include_url=False)
    return "; ".join(
        ": ".join(filter(None, [".".join(map(str, p["loc"])), p["msg"].removeprefix("Value error, ")]))
        for p in problems
    )
