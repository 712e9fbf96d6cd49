"""Questions of two turns, and what a system answers to them: the second with its own first answer before it.

Knows nothing of ratings, of files or of who else is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfpriority.language_model import Completion, Failure, Generate, LanguageModel, ask
from selfpriority.rating import Item
from selfpriority.records import Message, Prompt, Response


@dataclass(frozen=True)
class Question:
    """Two messages of a user, one after the other."""

    id: str
    category: str
    turns: tuple[str, str]
    references: tuple[str, str] = ("", "")
    """What a right answer to each holds; empty where nobody wrote one."""


@dataclass(frozen=True)
class Answered:
    """A system's two answers, each with the conversation it answers; without a first one there is no second."""

    first: Item | Failure
    second: Item | Failure

    @property
    def turns(self) -> tuple[Item | Failure, Item | Failure]:
        """Both, in order."""
        return self.first, self.second


def converse(questions: Sequence[Question], model: LanguageModel, max_new_tokens: int) -> list[Answered]:
    """Both answers to every question, in order, greedily: what systems differ by is then never the draw.

    A request that failed is its failure; an empty answer is an answer.
    """
    opened = {f"{question.id}/1": (Message("user", question.turns[0]),) for question in questions}
    first = _answers(opened, model, max_new_tokens)
    continued = {
        f"{question.id}/2": (
            *item.prompt.messages,
            Message("assistant", item.response.text),
            Message("user", question.turns[1]),
        )
        for question, item in zip(questions, first.values(), strict=True)
        if isinstance(item, Item)
    }
    second = _answers(continued, model, max_new_tokens)
    return [
        Answered(item, second.get(f"{question.id}/2", item))
        for question, item in zip(questions, first.values(), strict=True)
    ]


def _answers(
    conversations: Mapping[str, tuple[Message, ...]], model: LanguageModel, max_new_tokens: int
) -> dict[str, Item | Failure]:
    requests = [
        Generate(messages, n=1, temperature=0.0, top_p=1.0, max_new_tokens=max_new_tokens, seed=0)
        for messages in conversations.values()
    ]
    replies = zip(conversations.items(), ask(model, requests), strict=True)
    return {
        name: reply if isinstance(reply, Failure) else _item(name, messages, reply)
        for (name, messages), reply in replies
    }


def _item(name: str, messages: tuple[Message, ...], reply: object) -> Item:
    assert isinstance(reply, Completion)
    (text,) = reply.texts
    return Item(Prompt(name, messages), Response(name, name, text.text, text.stop, text.n_tokens))
