"""Which of two answers is better? A language model is asked in words, by objective and in both orders.

See docs/evaluation.md: orders that disagree are a tie, and how often they do is reported. A verdict that was refused or
cannot be read is an outcome of its own, never a tie. Knows no system and no file.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from selfpriority.constitution import Constitution, Objective
from selfpriority.evaluation.significance import wins
from selfpriority.judges.words import marker_code, material, unread
from selfpriority.language_model import Answer, Choice, Choose, Completion, Failure, Generate, LanguageModel, ask
from selfpriority.rating import written_side
from selfpriority.recipe import Score
from selfpriority.records import Message, Prompt, Unrated
from selfpriority.wording import fill

Side = Literal["first", "second", "tie"]
LETTERS = ("A", "B")


@dataclass(frozen=True)
class Duel:
    """Two answers to one prompt."""

    prompt: Prompt
    a: str
    b: str


@dataclass(frozen=True)
class Compared:
    """What was said of a duel on one objective: with a shown first, then with b shown first."""

    forward: Side | Unrated
    backward: Side | Unrated

    @property
    def outcome(self) -> int | None:
        """1: a is better in both orders; -1: b is; 0: a tie or the orders disagree; None: not both were read."""
        if isinstance(self.forward, Unrated) or isinstance(self.backward, Unrated):
            return None
        if (self.forward, self.backward) == ("first", "second"):
            return 1
        return -1 if (self.forward, self.backward) == ("second", "first") else 0

    @property
    def flipped(self) -> bool:
        """Both orders were read and do not say the same."""
        same = {"first": "second", "second": "first", "tie": "tie"}
        read = not isinstance(self.forward, Unrated) and not isinstance(self.backward, Unrated)
        return read and same[str(self.forward)] != self.backward

    @property
    def unread(self) -> str | None:
        """Why there is no outcome."""
        return next((v.reason for v in (self.forward, self.backward) if isinstance(v, Unrated)), None)


class Comparer:
    """A language model that compares two answers on every objective of a constitution.

    Args:
        model: who is asked.
        constitution: objectives with question and rubric.
        settings: `method` is `expected` (the more probable letter; both letters under the mass floor are
            unread) or `verbal` (the last written verdict).

    Raises:
        ValueError: `settings.method` is not a judgement in words.
    """

    def __init__(self, model: LanguageModel, constitution: Constitution, settings: Score) -> None:
        if settings.method not in ("expected", "verbal"):
            raise ValueError(f"answers are compared in words, expected or verbal, not {settings.method!r}")
        self._model, self._constitution, self._settings = model, constitution, settings
        self._asked = tuple(constitution.objectives)

    def about(self, objective: str) -> Comparer:
        """The same judge, asked about one objective of its constitution alone."""
        other = copy.copy(self)
        other._asked = tuple(asked for asked in self._constitution.objectives if asked.name == objective)
        return other

    def compare(self, duels: Sequence[Duel]) -> list[tuple[Compared, ...]]:
        """One `Compared` per objective asked about for each duel, in order."""
        shown = [order for duel in duels for order in (duel, Duel(duel.prompt, duel.b, duel.a))]
        verdicts = self._expected(shown) if self._settings.method == "expected" else self._verbal(shown)
        pairs = zip(verdicts[::2], verdicts[1::2], strict=True)
        return [tuple(Compared(*both) for both in zip(forward, backward, strict=True)) for forward, backward in pairs]

    def _expected(self, shown: Sequence[Duel]) -> list[list[Side | Unrated]]:
        answers = ask(self._model, [Choose(self.contexts(duel), LETTERS) for duel in shown])
        return [self._read_choice(answer) for answer in answers]

    def _verbal(self, shown: Sequence[Duel]) -> list[list[Side | Unrated]]:
        longest = self._settings.max_new_tokens
        requests = [
            Generate(context, n=1, temperature=0.0, top_p=1.0, max_new_tokens=longest, seed=0)
            for duel in shown
            for context in self.contexts(duel)
        ]
        verdicts = [_read_text(answer) for answer in ask(self._model, requests)]
        k = len(self._asked)
        return [verdicts[start : start + k] for start in range(0, len(verdicts), k)]

    def contexts(self, duel: Duel) -> tuple[tuple[Message, ...], ...]:
        """A conversation an objective, `duel.a` shown first; they differ only after the judged texts."""
        return tuple((Message("user", self._question(duel, o)),) for o in self._asked)

    def _question(self, duel: Duel, objective: Objective) -> str:
        turns = duel.prompt.messages
        code = marker_code([*(turn.content for turn in turns), duel.a, duel.b])
        return fill(
            f"compare_{self._settings.method}",
            constitution=self._constitution,
            code=code,
            conversation=[Message(turn.role, material(turn.content, code)) for turn in turns],
            first=material(duel.a, code),
            second=material(duel.b, code),
            objective=objective,
            question=objective.question,
            levels=sorted(objective.rubric.items()),
        )

    def _read_choice(self, answer: Answer) -> list[Side | Unrated]:
        if isinstance(answer, Failure):
            return [Unrated(answer.reason, answer.detail) for _ in self._asked]
        assert isinstance(answer, Choice)
        return [self._read_letters(*letters) for letters in answer.probabilities]

    def _read_letters(self, a: float, b: float) -> Side | Unrated:
        if a + b < self._settings.mass_floor or a + b <= 0.0:
            return Unrated("low_mass", f"A and B hold {a + b:.3f} of the probability")
        return "tie" if a == b else "first" if a > b else "second"


def compared(rows: Sequence[Compared]) -> dict[str, Any]:
    """A cell of `pairwise`: shares of the duels read in both orders, and what the orders say about the judge.

    `flip_rate`: share whose orders disagree. `first_shown`: share of the decided verdicts that went to the answer
    shown first; 0.5 without a bias of position. `unread`: reason -> duels without an outcome.
    """
    outcomes = [row.outcome for row in rows if row.outcome is not None]
    read = [row for row in rows if row.outcome is not None]
    decided = [side for row in rows for side in (row.forward, row.backward) if side in ("first", "second")]
    return {
        **wins(outcomes),
        "flip_rate": sum(row.flipped for row in read) / len(read) if read else None,
        "first_shown": decided.count("first") / len(decided) if decided else None,
        "unread": dict(Counter(row.unread for row in rows if row.unread is not None)),
    }


def _read_text(answer: Answer) -> Side | Unrated:
    if isinstance(answer, Failure):
        return Unrated(answer.reason, answer.detail)
    assert isinstance(answer, Completion)
    (text,) = answer.texts
    is_cut = text.stop == "length"
    side = written_side(text.text, is_cut)
    if side is None and is_cut:
        return Unrated("cut", "the judge's text was cut before its verdict")
    if side is None:
        return unread(text.text, Unrated("no_verdict", "the judge's text holds no verdict"))
    sides: dict[str, Side] = {"A": "first", "B": "second", "tie": "tie"}
    return sides[side]
