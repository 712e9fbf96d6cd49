"""A judge that is asked many small questions, yes or no, about every answer; the anchors say what each is worth.

`text/battery/<objective>.yaml` holds an objective's questions; a further objective is a further file. How they are
oriented is in `orientation.py`. Source: docs/judging.md. Knows the language model's protocol; no run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from pydantic import TypeAdapter, ValidationError

from selfpriority.constitution import Constitution
from selfpriority.errors import InputError, WorkFailed
from selfpriority.formats import counted
from selfpriority.judges.asking import Conversation, marked
from selfpriority.judges.labels import LabelledAnswer, anchors_as_labels, prompt_group
from selfpriority.judges.orientation import Floats, Orientation, Weighed, orient, orient_without
from selfpriority.language_model import BUSY, Answer, Chances, Choice, Choose, Failure, LanguageModel, ask
from selfpriority.outside import parse_yaml, read_text
from selfpriority.rating import Item
from selfpriority.recipe.section import Section
from selfpriority.records import Message, Prompt, Ratings, Unrated
from selfpriority.wording import FOLDER, fill, text_hash

TEXTS = FOLDER / "battery"
CONTENT_FREE = "N/A"
"""An answer that says nothing: what a model says of it is its leaning, given the question and the prompt."""
CHOICES = ("yes", "Yes", "no", "No")
_FLOOR = 1e-7  # a server tells the 20 most probable tokens alone: what is not among them is not impossible
_VERSION = 1  # raise it when the same texts and answers make other ratings


class Statement(Section):
    """One thing that holds of an answer or does not, asked for in two polarities and two wordings."""

    good: tuple[str, str]
    """Questions to which yes is good."""
    bad: tuple[str, str]
    """Questions to which yes is bad."""


_STATEMENTS = TypeAdapter(tuple[Statement, ...])


@dataclass(frozen=True)
class Battery:
    """What the anchors make of one model's answers."""

    model: str
    by_objective: dict[str, Orientation]
    held_out: dict[str, dict[str, Orientation]] = field(default_factory=dict)
    """Objective -> group of an anchor's prompt -> orientation that never saw that prompt; for checks alone."""

    def of(self, objective: str, prompt: Prompt) -> Orientation:
        """What rates an answer to `prompt`."""
        whole = self.by_objective[objective]
        held_out = self.held_out.get(objective)
        return held_out.get(prompt_group(prompt), whole) if held_out else whole

    @property
    def asked(self) -> tuple[str, ...]:
        """The questions that a rating needs: in a check all, since every fold drops others; otherwise those kept."""
        if self.held_out:
            return tuple(w.question for one in self.by_objective.values() for w in one.questions)
        return tuple(question for one in self.by_objective.values() for question in one.kept)


def battery_objectives() -> tuple[str, ...]:
    """Objectives that there are questions for."""
    return tuple(sorted(path.stem for path in TEXTS.glob("*.yaml")))


def read_questions(objective: str) -> tuple[str, ...]:
    """The questions about an objective, each text once.

    Raises:
        InputError: there is no file for it, or it holds no statements.
    """
    path = TEXTS / f"{objective}.yaml"
    if objective not in battery_objectives():
        raise InputError(
            f"battery: there are no questions about {objective!r}, only about {', '.join(battery_objectives())}; write "
            f"some into {path}, in the form of the others there"
        )
    try:
        statements = _STATEMENTS.validate_python(parse_yaml(read_text(path), str(path)))
    except ValidationError as error:
        raise InputError(f"{path}: {error.errors()[0]['msg']}; a statement is {{good: [2], bad: [2]}}") from None
    return tuple(dict.fromkeys(text for one in statements for text in (*one.good, *one.bad)))


def battery_hash(constitution: Constitution) -> str:
    """Content hash of all that a battery depends on, beside the model: questions, wording and anchors.

    Raises:
        InputError: an objective without questions, or a constitution without anchors.
    """
    if not constitution.anchors:
        raise InputError(f"constitution: {constitution.name!r} has no anchors, and a battery is oriented by them")
    asked = {name: read_questions(name) for name in constitution.names}
    anchors = [anchor.model_dump(mode="json") for anchor in constitution.anchors]
    parts = [_VERSION, CONTENT_FREE, CHOICES, _FLOOR, text_hash("battery"), asked, anchors]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def fit_battery(model: LanguageModel, name: str, constitution: Constitution, *, hold_out: bool = False) -> Battery:
    """Asks about the anchors and orients every question by their labels.

    Args:
        model: who is asked.
        name: what it is called.
        constitution: objectives and anchors.
        hold_out: also without each part of the anchors, so that they can be evidence about the judge.

    Raises:
        InputError: an objective without questions, or nothing could be asked about any anchor.
        WorkFailed: a server was busy or silent, and fewer anchors would make another judge; what was answered is kept.
    """
    asked = {objective: read_questions(objective) for objective in constitution.names}
    every = tuple(question for questions in asked.values() for question in questions)
    labels = anchors_as_labels(constitution)
    keys = list(dict.fromkeys((row.prompt, row.response) for row in labels.answers))
    read = dict(zip(keys, values_of(model, every, keys), strict=True))
    if busy := Counter(row.reason for row in read.values() if isinstance(row, Failure) and row.reason in BUSY):
        raise WorkFailed(
            f"battery: {name} left {busy.total()} of {len(read)} anchors without an answer ({counted(busy)}); "
            f"the same command asks only what is missing"
        )
    if not any(isinstance(row, dict) for row in read.values()):
        failed = Counter(row.reason for row in read.values() if isinstance(row, Failure))
        raise InputError(f"battery: {name} could be asked about none of the {len(read)} anchors ({counted(failed)})")
    whole, held_out = {}, {}
    for objective, questions in asked.items():
        rows = [row for row in labels.of(objective).answers if isinstance(read[row.prompt, row.response], dict)]
        values, good = _table(questions, rows, read), [row.label for row in rows]
        whole[objective] = orient(questions, values, good)
        if hold_out:
            held_out[objective] = orient_without(questions, values, good, [row.group for row in rows])
    return Battery(name, whole, held_out)


def unfitted(name: str, objectives: Sequence[str], *, hold_out: bool = False) -> Battery:
    """A battery that weighs all questions alike, for who counts what is asked."""
    whole = {
        objective: Orientation(tuple(Weighed(q, 1, 1.0, 0.0, 1.0) for q in read_questions(objective)), 0.0, 1.0, 0)
        for objective in objectives
    }
    return Battery(name, whole, {objective: {"": one} for objective, one in whole.items()} if hold_out else {})


def values_of(
    model: LanguageModel, questions: Sequence[str], answers: Sequence[tuple[Prompt, str]]
) -> list[dict[str, float] | Failure]:
    """By question the log-odds of yes, less those for an answer that says nothing; without what was not answered.

    The answer that says nothing is asked about once a prompt, not once for all: what is the same for every prompt
    disappears in the z-scores, and what is left is how the prompt alone sways the model, which must not rate answers.
    All answers to a prompt share it, so it costs one request a prompt. All questions of a request are one `Choose`:
    what stands before them is computed once.

    Args:
        model: who is asked.
        questions: what is asked about each answer; without any nobody is asked.
        answers: (prompt, answer).

    Returns:
        Value by question of each answer; a failure where it is one, or where a busy server left out a question, for the
        answers of a prompt would be weighed by different ones.
    """
    if not questions:
        return [{} for _ in answers]
    requests = [_request(prompt, text, questions) for prompt, text in answers]
    empty = [_request(prompt, CONTENT_FREE, questions) for prompt, _ in answers]
    found = ask(model, [*requests, *empty])
    pairs = zip(found[: len(answers)], found[len(answers) :], strict=True)
    return [_difference(questions, said, baseline) for said, baseline in pairs]


class BatteryJudge:
    """Rates by many small questions.

    Args:
        model: who is asked.
        battery: what the questions are worth, in priority order.
    """

    def __init__(self, model: LanguageModel, battery: Battery) -> None:
        self._model, self._battery = model, battery

    @property
    def fingerprint(self) -> str:
        """Hash of model, questions and what they are worth."""
        parts = (_VERSION, self._model.fingerprint, text_hash("battery"), asdict(self._battery))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def objectives(self) -> tuple[str, ...]:
        """What it rates, in priority order."""
        return tuple(self._battery.by_objective)

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        """One tuple of K verdicts per item; a failed request is unrated with the failure's reason."""
        answers = [(item.prompt, item.response.text) for item in items]
        found = values_of(self._model, self._battery.asked, answers)
        return [self._verdicts(item, values) for item, values in zip(items, found, strict=True)]

    def _verdicts(self, item: Item, values: dict[str, float] | Failure) -> Ratings:
        if isinstance(values, Failure):
            return tuple(Unrated(values.reason, values.detail) for _ in self.objectives)
        return tuple(self._battery.of(objective, item.prompt).rating(values) for objective in self.objectives)


def _request(prompt: Prompt, text: str, questions: Sequence[str]) -> Choose:
    judged = marked(prompt.messages, text)
    (answer,) = judged.texts
    told = {"code": judged.code, "conversation": judged.conversation, "answer": answer}
    return Choose(tuple(_context(fill("battery", question=question, **told)) for question in questions), CHOICES)


def _context(text: str) -> Conversation:
    return (Message("user", text),)


def _difference(questions: Sequence[str], said: Answer, baseline: Answer) -> dict[str, float] | Failure:
    """What is said of an answer less what is said of nothing; a question is missing where either is for good."""
    for answer in (said, baseline):
        if isinstance(answer, Failure):
            return answer
        assert isinstance(answer, Choice)
        if not answer.probabilities:  # some failed for good, the others for now
            return answer.missing[0]
    assert isinstance(said, Choice)
    assert isinstance(baseline, Choice)
    for failure in (*said.missing, *baseline.missing):
        if failure.reason in BUSY:
            return failure
    odds = {
        question: log_odds(ours.probabilities) - log_odds(free.probabilities)
        for question, ours, free in zip(questions, said.by_context, baseline.by_context, strict=True)
        if isinstance(ours, Chances) and isinstance(free, Chances)
    }
    return {question: value for question, value in odds.items() if math.isfinite(value)}


def log_odds(probabilities: Sequence[float]) -> float:
    """Of yes against no, in natural logarithms, from the probabilities of `CHOICES`; NaN where neither is said."""
    yes, no = sum(probabilities[:2]), sum(probabilities[2:])
    if yes + no <= 0.0:
        return math.nan
    return math.log(max(yes, _FLOOR)) - math.log(max(no, _FLOOR))


def _table(
    questions: Sequence[str],
    rows: Sequence[LabelledAnswer],
    read: Mapping[tuple[Prompt, str], dict[str, float] | Failure],
) -> Floats:
    """[rows, questions], NaN where a question was not answered."""
    table = np.full((len(rows), len(questions)), np.nan)
    for number, row in enumerate(rows):
        values = read[row.prompt, row.response]
        if isinstance(values, dict):
            table[number] = [values.get(question, math.nan) for question in questions]
    return table
