"""What a rater is asked about a run: which prompts, whose answers, in which order. Blind and reproducible.

Order comes from the rater's name and a seed alone, so that it stays the same after an interruption. Reads the run's
`evaluation` folder; knows nothing of servers or of what was answered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from selfpriority.errors import InputError
from selfpriority.evaluation.records import AnswerRow
from selfpriority.evaluation.summary_file import read_summary
from selfpriority.records import Message
from selfpriority.run import Run
from selfpriority.storage import read_rows

Mode = Literal["compare", "rate"]


@dataclass(frozen=True)
class Plan:
    """Who is asked, and how."""

    rater: str
    mode: Mode = "compare"
    systems: tuple[str, ...] = ()
    """Whose answers; empty: the first system of the evaluation and the last (compare), or all (rate)."""
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """One system's answer to one prompt."""

    system: str
    text: str

    @property
    def digest(self) -> str:
        """Tells whether a verdict was about this very text."""
        return hashlib.sha256(self.text.encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True)
class Question:
    """One thing to decide: one answer to rate, or two to compare, in the order they are shown."""

    prompt_id: str
    turns: tuple[tuple[str, str], ...]
    """(role, text)."""
    answers: tuple[Answer, ...]

    @property
    def key(self) -> str:
        """Names the question whatever the order of its answers. Never leaves the program."""
        parts = [self.prompt_id, *sorted(f"{answer.system}={answer.digest}" for answer in self.answers)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def mode_named(name: str) -> Mode:
    """The mode of that name.

    Raises:
        InputError: there is none.
    """
    modes: dict[str, Mode] = {"compare": "compare", "rate": "rate"}
    if name in modes:
        return modes[name]
    raise InputError(f"--mode: {name!r} is neither compare nor rate")


def questions(run: Run, plan: Plan) -> list[Question]:
    """All there is to ask this rater, in this rater's order. Two equal answers are not compared: nothing to see.

    Raises:
        InputError: the run has no answers, or none of the systems asked for.
    """
    answers = held_out_answers(run.evaluation)
    systems = _systems(run, plan, answers)
    found = list(_asked(plan, systems, run.evaluation, answers))
    found.sort(key=lambda question: _order(plan, question.key))
    if not found:
        raise InputError(
            f"{run.folder}: {' and '.join(systems)} give the same answer to every prompt: nothing to compare"
        )
    return found


def held_out_answers(folder: Path) -> dict[str, dict[str, str]]:
    """System -> prompt id -> text, systems in the order of the summary."""
    found = {}
    for path in sorted(folder.glob("answers-*.jsonl")):
        rows = read_rows(path, AnswerRow)
        found[path.stem.removeprefix("answers-")] = {row.prompt.id: row.response.text for row in rows}
    summary = folder / "summary.json"
    order = list(read_summary(summary).systems) if summary.is_file() else ["vanilla"]
    names = [name for name in order if name in found] + [name for name in found if name not in order]
    return {name: found[name] for name in names}


def _systems(run: Run, plan: Plan, answers: dict[str, dict[str, str]]) -> tuple[str, ...]:
    if not answers:
        raise InputError(f"{run.folder}: no held-out answers yet; `spa evaluate {run.folder}` makes them")
    names = tuple(answers)
    unknown = [name for name in plan.systems if name not in answers]
    if unknown:
        raise InputError(f"--systems: no answers of {unknown[0]!r}; there are {', '.join(names)}")
    if plan.mode == "rate":
        return plan.systems or names
    chosen = plan.systems or (names[0], "spa" if "spa" in names[1:] else names[-1])
    if len(set(chosen)) != 2:
        raise InputError(f"--systems: compare takes two systems, got {', '.join(chosen)}; there are {', '.join(names)}")
    return chosen


def _asked(plan: Plan, systems: Sequence[str], folder: Path, answers: dict[str, dict[str, str]]) -> Iterator[Question]:
    prompts: dict[str, tuple[Message, ...]] = {}
    for system in systems:
        for row in read_rows(folder / f"answers-{system}.jsonl", AnswerRow):
            prompts.setdefault(row.prompt.id, row.prompt.messages)
    for prompt_id, messages in prompts.items():
        turns = tuple((message.role, message.content) for message in messages)
        given = [Answer(name, answers[name][prompt_id]) for name in systems if prompt_id in answers[name]]
        if plan.mode == "rate":
            yield from (Question(prompt_id, turns, (answer,)) for answer in given)
        elif len({answer.text for answer in given}) == 2:
            shuffled = sorted(given, key=lambda answer: _order(plan, f"{prompt_id}/{answer.system}"))
            yield Question(prompt_id, turns, tuple(shuffled))


def _order(plan: Plan, what: str) -> str:
    return hashlib.sha256(f"{plan.seed}/{plan.rater}/{what}".encode()).hexdigest()
