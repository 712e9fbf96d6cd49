"""Which of two answers is better? A language model is asked in words, by objective and in both orders.

See docs/evaluation.md: orders that disagree are a tie, and how often they do is reported. A verdict that was refused or
cannot be read is an outcome of its own, never a tie. Knows no system and no file.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from selfpriority.constitution import Constitution, Objective
from selfpriority.judges.asking import Reading, ask_in_words, marked, unread
from selfpriority.language_model import LanguageModel, Text
from selfpriority.rating import written_side
from selfpriority.recipe import InWords
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


@dataclass(frozen=True)
class Orders:
    """What the two orders say about the judge itself. None: there is nothing to tell it from."""

    flip_rate: float | None
    """Share of the duels read in both orders whose orders disagree."""
    first_shown: float | None
    """Share of the decided verdicts that went to the answer shown first; 0.5 without a bias of position."""
    unread: dict[str, int]
    """Reason -> duels without an outcome."""


def orders(rows: Sequence[Compared]) -> Orders:
    """How often the orders disagree, which place is preferred, and what could not be read."""
    read = [row for row in rows if row.outcome is not None]
    decided = [side for row in rows for side in (row.forward, row.backward) if side in ("first", "second")]
    return Orders(
        flip_rate=sum(row.flipped for row in read) / len(read) if read else None,
        first_shown=decided.count("first") / len(decided) if decided else None,
        unread=dict(Counter(row.unread for row in rows if row.unread is not None)),
    )


class Comparer:
    """A language model that compares two answers on every objective of a constitution.

    Args:
        model: who is asked.
        constitution: objectives with question and rubric.
        settings: `expected` takes the more probable letter (both letters under the mass floor are unread), `verbal`
            the last written verdict.
    """

    def __init__(self, model: LanguageModel, constitution: Constitution, settings: InWords) -> None:
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
        reading: Reading[Side] = Reading(LETTERS, self._read_letters, _read_text)
        verdicts = ask_in_words(self._model, self._settings, [self.contexts(duel) for duel in shown], reading)
        pairs = zip(verdicts[::2], verdicts[1::2], strict=True)
        return [tuple(Compared(*both) for both in zip(forward, backward, strict=True)) for forward, backward in pairs]

    def contexts(self, duel: Duel) -> tuple[tuple[Message, ...], ...]:
        """A conversation an objective, `duel.a` shown first; they differ only after the judged texts."""
        return tuple((Message("user", self._question(duel, o)),) for o in self._asked)

    def _question(self, duel: Duel, objective: Objective) -> str:
        judged = marked(duel.prompt.messages, duel.a, duel.b)
        first, second = judged.texts
        return fill(
            f"compare_{self._settings.method}",
            constitution=self._constitution,
            code=judged.code,
            conversation=judged.conversation,
            first=first,
            second=second,
            objective=objective,
            question=objective.question,
            levels=objective.levels,
        )

    def _read_letters(self, probabilities: Sequence[float]) -> Side | Unrated:
        a, b = probabilities
        if a + b < self._settings.mass_floor or a + b <= 0.0:
            return Unrated("low_mass", f"A and B hold {a + b:.3f} of the probability")
        return "tie" if a == b else "first" if a > b else "second"


def _read_text(verdict: Text) -> Side | Unrated:
    is_cut = verdict.stop == "length"
    side = written_side(verdict.text, is_cut)
    if side is None and is_cut:
        return Unrated("cut", "the judge's text was cut before its verdict")
    if side is None:
        return unread(verdict.text, Unrated("no_verdict", "the judge's text holds no verdict"))
    sides: dict[str, Side] = {"A": "first", "B": "second", "tie": "tie"}
    return sides[side]
