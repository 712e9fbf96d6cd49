"""What every judge in words does alike: judged texts between markers, a choice or a written verdict, and its reading.

The judged text can close neither its markers nor the judge's turn. Knows no question, no scale and no other judge.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from selfpriority.language_model import (
    Answer,
    Choice,
    Choose,
    Completion,
    Failure,
    Generate,
    LanguageModel,
    Text,
    ask,
)
from selfpriority.rating import DIGITS, expected_rating, verbal_rating
from selfpriority.recipe import InWords
from selfpriority.records import Message, Rating, Unrated
from selfpriority.refusals import is_refusal

_LEFT = "<\uff1c\ufe64"  # the second and third become the first in tokenizers that normalise
# What control words of chat templates begin with: <|im_end|>, <turn|>, <s>, <start_of_turn>, [INST], [|user|].
# Ordinary markup is left alone, or every answer that holds HTML would look odd to its judge.
_MARKUP = (
    "a|abbr|b|blockquote|body|br|button|code|div|em|form|h[1-6]|head|hr|html|i|img|input|label|li|ol|option|p|pre|q"
)
_MARKUP += "|script|section|select|small|span|strong|style|sub|sup|table|tbody|td|textarea|th|thead|title|tr|u|ul"
_CONTROL = re.compile(
    rf"[{_LEFT}](?=[|\uff5c])|(?<=[|\uff5c])>|\[(?=\|)"
    rf"|[{_LEFT}](?=/?(?!(?:{_MARKUP})>)[\w-]+[>|\uff5c])"
    r"|\[(?=/?(?:[A-Z_]{3,}|[gs]MASK)\])"
)
_SHORT = 6  # characters of a code that is shared; like the long one it is replaced in every text
Conversation = tuple[Message, ...]
_Verdict = TypeVar("_Verdict", covariant=True)


@dataclass(frozen=True)
class Reading(Generic[_Verdict]):
    """How a verdict is read; what cannot be read is unrated with the reason."""

    choices: tuple[str, ...]
    """What is chosen from."""
    of_choice: Callable[[Sequence[float]], _Verdict | Unrated]
    """From the probabilities of the choices, not renormalised."""
    of_text: Callable[[Text], _Verdict | Unrated]
    """From a written verdict."""


def ask_in_words(
    model: LanguageModel,
    settings: InWords,
    questions: Sequence[Sequence[Conversation]],
    reading: Reading[_Verdict],
) -> list[tuple[_Verdict | Unrated, ...]]:
    """One verdict a conversation, grouped as they were given.

    Args:
        model: who is asked.
        settings: `expected` asks for a choice, `verbal` for a text.
        questions: conversations put to the model; those of a group differ only at their end.
        reading: how an answer becomes a verdict. A failed request is unrated with the failure's reason.
    """
    if settings.method == "expected":
        answers = ask(model, [Choose(tuple(group), reading.choices) for group in questions])
        return [_chosen(answer, len(group), reading) for answer, group in zip(answers, questions, strict=True)]
    longest = settings.max_new_tokens
    requests = [
        Generate(context, n=1, temperature=0.0, top_p=1.0, max_new_tokens=longest, seed=0)
        for group in questions
        for context in group
    ]
    verdicts = iter([_written(answer, reading) for answer in ask(model, requests)])
    return [tuple(next(verdicts) for _ in group) for group in questions]


def _chosen(answer: Answer, n: int, reading: Reading[_Verdict]) -> tuple[_Verdict | Unrated, ...]:
    if isinstance(answer, Failure):
        return (Unrated(answer.reason, answer.detail),) * n
    assert isinstance(answer, Choice)
    return tuple(
        Unrated(found.reason, found.detail) if isinstance(found, Failure) else reading.of_choice(found.probabilities)
        for found in answer.by_context
    )


def _written(answer: Answer, reading: Reading[_Verdict]) -> _Verdict | Unrated:
    if isinstance(answer, Failure):
        return Unrated(answer.reason, answer.detail)
    assert isinstance(answer, Completion)
    (text,) = answer.texts
    return reading.of_text(text)


def rating_reading(settings: InWords) -> Reading[Rating]:
    """A rating on 1..10, by the ten digits or as it is written."""
    return Reading(DIGITS, lambda digits: expected_rating(digits, settings.mass_floor), written_rating)


def written_rating(verdict: Text) -> Rating | Unrated:
    """The rating in a judge's written text; without one that can be read, why."""
    rating = verbal_rating(verdict.text, is_cut=verdict.stop == "length")
    if isinstance(rating, Unrated) and rating.reason == "no_rating":
        return unread(verdict.text, rating)
    return rating


def unread(text: str, otherwise: Unrated) -> Unrated:
    """Why a written text holds no verdict: it declines to give one, or `otherwise`."""
    return Unrated("refused", "the judge declined in words") if is_refusal(text) else otherwise


@dataclass(frozen=True)
class Material:
    """Judged texts as they stand between their markers."""

    code: str
    """What the markers carry: equal for equal texts, hard to guess, and in none of them."""
    conversation: tuple[Message, ...]
    texts: tuple[str, ...]
    """In the order they were given."""


def marked(messages: Sequence[Message], *texts: str, is_shared: bool = False) -> Material:
    """A conversation and texts, made fit to stand between markers.

    Args:
        messages: the conversation.
        texts: what is judged.
        is_shared: the code is that of the conversation and half as long, so that all answers to it stand behind the
            same words, which an engine reads once.
    """
    turns_said = [message.content for message in messages]
    code = marker_code(turns_said)[:_SHORT] if is_shared else marker_code([*turns_said, *texts])
    turns = tuple(Message(message.role, material(message.content, code)) for message in messages)
    return Material(code, turns, tuple(material(text, code) for text in texts))


def marker_code(texts: Sequence[str]) -> str:
    """The code in the markers around judged texts."""
    return hashlib.sha256("\x1f".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def material(text: str, code: str) -> str:
    """Judged text that can neither close its markers nor the judge's turn.

    The code is replaced (in any case), and a space breaks a chat template's control words, because a
    tokenizer reads `<|im_end|>` as the end of a turn wherever it stands.
    """
    hidden = re.sub(re.escape(code), "[code]", text, flags=re.IGNORECASE) if code in text.lower() else text
    return _CONTROL.sub(lambda bracket: " >" if bracket[0] == ">" else f"{bracket[0]} ", hidden)
