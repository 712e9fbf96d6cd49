"""A judge that is a function of the user's own: answers in, ratings out, checked before any of them counts.

Knows no recipe and no cache: the function answers `Rate` like a model, so that whoever opens it puts it behind one.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from numbers import Real
from typing import Protocol, cast

from selfpriority.errors import InputError, WorkFailed
from selfpriority.language_model import Answer, Failure, LanguageModel, Rate, Request, Verdict, ask
from selfpriority.own_python import OwnPython, load, source_hash, why
from selfpriority.plain_text import shown
from selfpriority.rating import HIGHEST, LOWEST, Item
from selfpriority.records import Message, Rating, Ratings, Unrated

_VERSION = 1  # raise it when the same function would be asked or read in another way


@dataclass(frozen=True)
class AnswerToRate:
    """What a function that judges is shown of one answer.

    Examples:
        >>> AnswerToRate((Message("user", "How do I bake bread?"),), "Mix, wait, bake.").answer
        'Mix, wait, bake.'
    """

    messages: tuple[Message, ...]
    """The conversation, which ends with a turn of the user."""
    answer: str
    """What was answered to it."""


class RateAnswers(Protocol):
    """A function that judges, as `score: {method: python, judge: "mypackage.judging:rate"}` names it.

    Examples:
        >>> def rate(answers, objectives):
        ...     return [dict.fromkeys(objectives, 9.0 if len(each.answer) < 400 else 2.0) for each in answers]
        >>> rate([AnswerToRate((Message("user", "Hi"),), "Hello.")], ["brevity"])
        [{'brevity': 9.0}]
    """

    def __call__(
        self, answers: Sequence[AnswerToRate], objectives: Sequence[str], /
    ) -> Sequence[Mapping[str, float | None] | None]:
        """Ratings of some answers, on 1 (worst) to 10 (best).

        Args:
            answers: up to `batch_size` of them, each different from all others of the call.
            objectives: names of the constitution's objectives, in priority order.

        Returns:
            One entry for every answer, in order: objective -> number, or None for what it does not rate; None for an
            answer that it does not rate at all. Unrated answers leave the pool, and are counted. Ratings of further
            objectives are not looked at.

        Raises:
            Exception: whatever stops the work, a server that is not there for one. What earlier calls returned is kept,
                and the same command goes on.
        """
        ...


def judging_function(own: OwnPython) -> RateAnswers:
    """The function that is named, its module imported.

    Raises:
        InputError: it cannot be imported, or cannot be called with answers and objectives.
    """
    found = load(own)
    if inspect.isclass(found) or not callable(found):
        what = "a class" if inspect.isclass(found) else shown(found)
        raise InputError(f"{shown(own.name)}: is {what}; a judge is a function of (answers, objectives)")
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__):
        raise InputError(f"{shown(own.name)}: is async; a judge is a plain function, call asyncio.run inside of it")
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # of some that are written in C; the first call will show
        return cast(RateAnswers, found)
    try:
        signature.bind((), ())
    except TypeError as error:
        raise InputError(
            f"{shown(own.name)}: takes {signature}, and is called with (answers, objectives): {error}"
        ) from None
    return cast(RateAnswers, found)


class PythonRater:
    """The function as whoever answers `Rate`.

    Args:
        function: who rates.
        own: where it lies.
        version: what the user says of what its source does not show.
        batch_size: answers of one call.
    """

    def __init__(self, function: RateAnswers, own: OwnPython, version: str, batch_size: int) -> None:
        self._function, self._own, self._batch_size = function, own, batch_size
        self._fingerprint = rater_fingerprint(own, version)

    @property
    def fingerprint(self) -> str:
        """Of name, source and version."""
        return self._fingerprint

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """In order, a batch a call."""
        return [
            list(range(start, min(start + self._batch_size, len(requests))))
            for start in range(0, len(requests), self._batch_size)
        ]

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """Each batch as one call of the function.

        Raises:
            WorkFailed: the function fails, or does not return one entry of ratings on 1..10 for every answer.
        """
        for number, batch in enumerate(batches):
            asked = [request for request in batch if isinstance(request, Rate)]
            verdicts = iter(self._rated(asked) if asked else ())
            yield (
                number,
                [
                    next(verdicts) if isinstance(request, Rate) else Failure("unsupported", "a function only rates")
                    for request in batch
                ],
            )

    def _rated(self, requests: Sequence[Rate]) -> list[Verdict]:
        """Of requests that all ask for the same objectives."""
        objectives = requests[0].objectives
        given = self._call([AnswerToRate(request.messages, request.response) for request in requests], objectives)
        if not isinstance(given, Sequence) or isinstance(given, str | bytes):
            raise self._failed(f"returned a {type(given).__name__}; a list with an entry for every answer is needed")
        if len(given) != len(requests):
            raise self._failed(f"returned {len(given)} entries for {len(requests)} answers; one for each is needed")
        return [
            Verdict(self._ratings(entry, objectives, f"entry {number} of {len(given)}"))
            for number, entry in enumerate(given, start=1)
        ]

    def _call(self, answers: Sequence[AnswerToRate], objectives: tuple[str, ...]) -> object:
        try:
            with redirect_stdout(sys.stderr):  # results alone go to stdout
                return self._function(answers, objectives)
        except (Exception, SystemExit) as error:  # whatever a user's function may do, it is told in one line
            raise self._failed(f"raised {why(error, self._own.file)}") from error

    def _ratings(self, entry: object, objectives: tuple[str, ...], place: str) -> tuple[float | None, ...]:
        """What one entry says, by objective."""
        if entry is None:
            return (None,) * len(objectives)
        if not isinstance(entry, Mapping):
            raise self._failed(f"{place} is a {type(entry).__name__}; objective -> number is needed, or None")
        missing = [name for name in objectives if name not in entry]
        if missing:
            raise self._failed(
                f"{place} has no {missing[0]}, it has {shown([*entry])}; None stands for what is not rated"
            )
        return tuple(self._rating(entry[name], f"{name} of {place}") for name in objectives)

    def _rating(self, value: object, place: str) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, Real):
            raise self._failed(f"{place} is {shown(value)}; a number from 1 to 10 is needed, or None")
        number = float(value)
        if not (math.isfinite(number) and LOWEST <= number <= HIGHEST):
            raise self._failed(f"{place} is {number:g}, which is not on 1..10; None stands for what is not rated")
        return number

    def _failed(self, what: str) -> WorkFailed:
        return WorkFailed(
            f"judge {self._own.name} in {self._own.file}: {what}; what it returned before is kept: mend it, and the "
            f"same command continues"
        )


class PythonJudge:
    """A function of the user's own that rates each answer on every objective.

    Args:
        rater: who answers `Rate`.
        name: of the function, for what it leaves unrated.
        objectives: of the constitution, in priority order.
    """

    def __init__(self, rater: LanguageModel, name: str, objectives: tuple[str, ...]) -> None:
        self._rater, self._name, self._objectives = rater, name, objectives

    @property
    def fingerprint(self) -> str:
        """Hash of the function and of what it is asked about."""
        return _hash(self._rater.fingerprint, self._objectives)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The constitution's objectives, in priority order."""
        return self._objectives

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        """One tuple of K verdicts per item; None is unrated with the reason `no_rating`.

        Raises:
            WorkFailed: as of `PythonRater.answer`.
        """
        requests = [Rate(item.prompt.messages, item.response.text, self._objectives) for item in items]
        return [self._read(answer) for answer in ask(self._rater, requests)]

    def _read(self, answer: Answer) -> Ratings:
        if isinstance(answer, Failure):
            return (Unrated(answer.reason, answer.detail),) * len(self._objectives)
        assert isinstance(answer, Verdict)
        unrated = Unrated("no_rating", f"{self._name} gave None")
        return tuple(unrated if value is None else Rating(value) for value in answer.ratings)


def rater_fingerprint(own: OwnPython, version: str) -> str:
    """Hash of a function's name, of its source and of the version that the user gives it; nothing of it is run."""
    return _hash("python", _VERSION, own.name, source_hash(own), version)


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
