"""A judge in words for one turn of a conversation: how well does the answer serve the user's last message?

As MT-Bench asks, with wording of our own (`text/rate_turn_*.md`): one number on 1..10, a reference answer beside it
where there is one. Knows no constitution, no question file and no system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfpriority.judges.asking import ask_in_words, marked, rating_reading
from selfpriority.language_model import LanguageModel
from selfpriority.rating import Item
from selfpriority.recipe import InWords
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
        settings: how it is asked and read.
    """

    def __init__(self, model: LanguageModel, settings: InWords) -> None:
        self._model, self._settings = model, settings

    def rate(self, turns: Sequence[Turn]) -> list[Rating | Unrated]:
        """One verdict a turn, in order; refused, failed and unreadable ones are unrated with the reason."""
        questions = [(self.context(turn),) for turn in turns]
        rows = ask_in_words(self._model, self._settings, questions, rating_reading(self._settings))
        return [verdict for (verdict,) in rows]

    def context(self, turn: Turn) -> tuple[Message, ...]:
        """The conversation put to the model; nothing in the judged texts can close its place in it."""
        judged = marked(turn.item.prompt.messages, *turn.references, turn.item.response.text)
        *references, answer = judged.texts
        question = fill(
            f"rate_turn_{self._settings.method}",
            code=judged.code,
            conversation=judged.conversation,
            answer=answer,
            references=[(n, text) for n, text in enumerate(references, start=1) if text],
        )
        return (Message("user", question),)
