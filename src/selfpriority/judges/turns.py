"""A judge in words for one turn of a conversation: how well does the answer serve the user's last message?

As MT-Bench asks, with wording of our own (`text/rate_turn_*.md`): one number on 1..10, a reference answer beside it
where there is one. Knows no constitution, no question file and no system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfpriority.judges.words import marker_code, material, written_verdict
from selfpriority.language_model import Answer, Choice, Choose, Failure, Generate, LanguageModel, ask
from selfpriority.rating import DIGITS, Item, expected_rating
from selfpriority.recipe import Score
from selfpriority.records import Message, Rating, Unrated
from selfpriority.wording import fill


@dataclass(frozen=True)
class Turn:
    """One answer to be rated; the item's messages are the conversation up to the user's message it answers."""

    item: Item
    references: tuple[str, ...] = ()
    """What a right answer holds, one for each user message so far; empty where nobody wrote one."""


class TurnJudge:
    """A language model that rates one turn at a time.

    Args:
        model: who is asked.
        score: `method` is `expected` or `verbal`; mass floor and length limit are taken from it.

    Raises:
        ValueError: `score.method` is not a judgement in words.
    """

    def __init__(self, model: LanguageModel, score: Score) -> None:
        if score.method not in ("expected", "verbal"):
            raise ValueError(f"a turn is rated in words, expected or verbal, not {score.method!r}")
        self._model, self._score = model, score

    def rate(self, turns: Sequence[Turn]) -> list[Rating | Unrated]:
        """One verdict a turn, in order; refused, failed and unreadable ones are unrated with the reason."""
        contexts = [self.context(turn) for turn in turns]
        if self._score.method == "expected":
            return [self._read_choice(answer) for answer in ask(self._model, [Choose((c,), DIGITS) for c in contexts])]
        longest = self._score.max_new_tokens
        requests = [Generate(c, n=1, temperature=0.0, top_p=1.0, max_new_tokens=longest, seed=0) for c in contexts]
        return [written_verdict(answer) for answer in ask(self._model, requests)]

    def context(self, turn: Turn) -> tuple[Message, ...]:
        """The conversation put to the model; nothing in the judged texts can close its place in it."""
        messages, answer = turn.item.prompt.messages, turn.item.response.text
        code = marker_code([*(message.content for message in messages), *turn.references, answer])
        question = fill(
            f"rate_turn_{self._score.method}",
            code=code,
            conversation=[Message(message.role, material(message.content, code)) for message in messages],
            answer=material(answer, code),
            references=[(n, material(text, code)) for n, text in enumerate(turn.references, start=1) if text],
        )
        return (Message("user", question),)

    def _read_choice(self, answer: Answer) -> Rating | Unrated:
        if isinstance(answer, Failure):
            return Unrated(answer.reason, answer.detail)
        assert isinstance(answer, Choice)
        (digits,) = answer.probabilities
        return expected_rating(digits, self._score.mass_floor)
