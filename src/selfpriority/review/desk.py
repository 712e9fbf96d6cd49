"""One rater at work: the next open question without names, and a verdict taken in, checked and stored.

What leaves it never says whose answer an answer is. Safe to call from several threads.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from selfpriority.constitution import Objective, load_constitution
from selfpriority.rating import HIGHEST, LOWEST
from selfpriority.recipe import load
from selfpriority.review.questions import Plan, Question, questions
from selfpriority.review.reviews import TIE, Review, ReviewFile, opened, path_of, read_reviews
from selfpriority.run import Run

Json = dict[str, Any]
SIDES = ("left", "right")


class Refused(Exception):
    """A request the page would never make; its message says what is wrong with it."""


class Desk:
    """A rater's questions, and the file the verdicts go to."""

    def __init__(
        self, plan: Plan, asked: Sequence[Question], objectives: Sequence[Objective], file: ReviewFile
    ) -> None:
        self._plan, self._asked, self._objectives, self._file = plan, asked, objectives, file
        self._lock = threading.Lock()
        self._done: dict[str, Review] = {}

    def resume(self, reviews: Sequence[Review]) -> None:
        """Takes up what this rater has decided before."""
        keys = {question.key for question in self._asked}
        own = [review for review in reviews if review.rater == self._plan.rater and review.key in keys]
        self._done = {review.key: review for review in own}

    @property
    def n_done(self) -> int:
        """Questions decided."""
        return len(self._done)

    @property
    def n_asked(self) -> int:
        """Questions there are."""
        return len(self._asked)

    def next(self) -> Json:
        """The first question without a verdict, or that all are done."""
        number = next((n for n, question in enumerate(self._asked) if question.key not in self._done), None)
        if number is None:
            return {"total": self.n_asked, "done": self.n_done, "finished": True}
        return self.question(number)

    def question(self, number: int) -> Json:
        """One question, and what this rater said to it before.

        Raises:
            Refused: there is no such question.
        """
        if not 0 <= number < len(self._asked):
            raise Refused(f"there are {len(self._asked)} questions")
        question = self._asked[number]
        before = self._done.get(question.key)
        return {
            "number": number,
            "total": self.n_asked,
            "done": self.n_done,
            "mode": self._plan.mode,
            "turns": [list(turn) for turn in question.turns],
            "answers": [answer.text for answer in question.answers],
            "objectives": [
                {"name": o.name, "definition": " ".join(o.definition.split()), "rubric": o.levels}
                for o in self._objectives
            ],
            "verdicts": self._as_shown(question, before) if before else {},
        }

    def decide(self, given: object) -> Json:
        """Stores a verdict and returns the next open question.

        Raises:
            Refused: not a verdict on one of the questions.
            WorkFailed: it cannot be stored.
        """
        if not isinstance(given, Mapping) or type(given.get("number")) is not int:
            raise Refused("a verdict has a number, verdicts and seconds")
        number, seconds = given["number"], given.get("seconds")
        self.question(number)
        if not isinstance(seconds, int | float) or not abs(seconds) <= sys.float_info.max:  # nor is NaN
            raise Refused("seconds is a number")
        question = self._asked[number]
        review = Review(
            rater=self._plan.rater,
            mode=self._plan.mode,
            key=question.key,
            prompt_id=question.prompt_id,
            systems=tuple(answer.system for answer in question.answers),
            digests=tuple(answer.digest for answer in question.answers),
            verdicts=self._checked(question, given.get("verdicts")),
            seconds=round(float(seconds), 1),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with self._lock:
            self._file.append(review)
            self._done[question.key] = review
        return self.next()

    def _checked(self, question: Question, verdicts: object) -> dict[str, int | str]:
        names = [objective.name for objective in self._objectives]
        if not isinstance(verdicts, Mapping) or set(verdicts) != set(names):
            raise Refused(f"verdicts are needed on {', '.join(names)}")
        checked: dict[str, int | str] = {}
        for name in names:
            said = verdicts[name]
            if self._plan.mode == "rate" and type(said) is int and LOWEST <= said <= HIGHEST:
                checked[name] = said
            elif self._plan.mode == "compare" and said == TIE:
                checked[name] = TIE
            elif self._plan.mode == "compare" and said in SIDES:
                checked[name] = question.answers[SIDES.index(said)].system
            else:
                raise Refused(f"{name}: not a verdict")
        return checked

    def _as_shown(self, question: Question, review: Review) -> dict[str, int | str]:
        """The verdict by side again: names of systems stay here."""
        sides = {answer.system: side for answer, side in zip(question.answers, SIDES, strict=False)}
        return {n: said if isinstance(said, int) else sides.get(said, TIE) for n, said in review.verdicts.items()}


@contextlib.contextmanager
def desk_for(run: Run, plan: Plan) -> Iterator[Desk]:
    """The desk of a rater, with what was decided before.

    Raises:
        InputError: no answers to review, no such system, or another review of this rater is open.
    """
    path = path_of(run.evaluation, plan.rater)
    asked = questions(run, plan)
    objectives = load_constitution(load(run.recipe).constitution).objectives
    with opened(path) as file:
        desk = Desk(plan, asked, objectives, file)
        desk.resume([review for review in read_reviews(run.evaluation) if review.mode == plan.mode])
        yield desk
