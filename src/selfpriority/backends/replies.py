"""Replies of OpenAI's chat completions, as texts or as probabilities of tokens.

Servers write the same thing in many ways; what is no such reply is a KeyError, TypeError or ValueError. Knows no
request and no address.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfpriority.backends.http import Refusal
from selfpriority.language_model import Failure, Text
from selfpriority.outside import sound
from selfpriority.records import Stop

ENDS = frozenset({"stop", "end", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "finished"})
"""What servers call it when the model ended its turn by itself; in lower case."""
FILTERS = frozenset(
    {"content_filter", "safety", "recitation", "prohibited_content", "blocklist", "spii", "refusal", "sensitive"}
)
"""What they call it when a filter did."""
THINKING = ("reasoning_content", "reasoning", "thinking")
"""Fields that hold what a model thought before it answered."""
ROUNDING = 1e-3
"""A log-probability may lie so far above 0 by rounding."""


@dataclass(frozen=True)
class Position:
    """One place of a reply."""

    token: str | None
    """What was written there; None where the server does not say."""
    most_probable: tuple[tuple[str, float], ...]
    """(token, probability) of what might have been."""

    @property
    def words(self) -> list[tuple[str, float]]:
        """The most probable without the space before them."""
        return [(_word(token), p) for token, p in self.most_probable]

    @property
    def is_space(self) -> bool:
        """Whether a bare space was written; some servers spell SentencePiece's as nothing at all."""
        return self.token is not None and not _word(self.token)

    def of(self, choices: Sequence[str]) -> list[float]:
        """Probability of each choice in all its spellings; 0 where none is told."""
        return [sum(p for word, p in self.words if word == choice) for choice in choices]

    def unseen(self, choices: Sequence[str]) -> float:
        """The most that those choices may hold together of which no spelling is told.

        None of them is more probable than the least probable token that is told, and all tokens hold 1.
        """
        told = {word for word, _ in self.words}
        n_untold = sum(choice not in told for choice in choices)
        least = min((p for _, p in self.most_probable), default=1.0)
        return min(n_untold * least, max(0.0, 1.0 - sum(p for _, p in self.most_probable)))

    def probability(self, token: str | None) -> float:
        """Of one spelling."""
        return sum(p for other, p in self.most_probable if other == token)


def texts_of(reply: Any) -> list[Text | Failure]:
    """The texts of a reply, a failure for each that a filter kept back or that is none.

    Raises:
        KeyError, TypeError, ValueError: there is no choice, or none of them is one.
    """
    texts: list[Text | Failure] = []
    wrong: list[Exception] = []
    for choice in reply["choices"]:
        try:
            _check_refusal(choice)
            texts.append(_text(choice, _n_tokens(reply)))
        except Refusal as refusal:
            texts.append(Failure("refused", str(refusal)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # the other draws are paid for too
            wrong.append(error)
            texts.append(Failure("garbage", f"a choice of the reply: {error}"))
    if not texts:
        raise ValueError("the reply holds no choice")
    if len(wrong) == len(texts):
        raise ValueError(str(wrong[0])) from wrong[0]
    return texts


def _text(choice: Any, n_tokens: int) -> Text:
    """What the assistant said, and what it thought: a text, or a list of parts, or thinking in a field of its own.

    Neither a text nor any thinking is no answer: ValueError.
    """
    message = choice["message"]
    content = message.get("content")
    thoughts = [message[name] for name in THINKING if isinstance(message.get(name), str)][:1]
    if isinstance(content, list):
        thoughts += [_joined(part["thinking"]) for part in content if part.get("type") == "thinking"]
        content = _joined(content)
    if content is None and any(thoughts):
        content = ""
    if not isinstance(content, str):
        raise ValueError("the message has no text")
    written, thinking = (sound(text) for text in (content, "\n\n".join(thoughts)))
    return Text.of(written, n_tokens, _stop(choice), thinking=thinking)


def _joined(parts: Any) -> str:
    """A text, or the text parts of a list."""
    return parts if isinstance(parts, str) else "".join(p["text"] for p in parts if p.get("type", "text") == "text")


def _n_tokens(reply: Any) -> int:
    """Tokens of one choice, as far as the server counts; 0 where it does not, or counts what no number is."""
    try:
        counted = int((reply.get("usage") or {}).get("completion_tokens") or 0)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return 0
    return max(0, counted) // max(1, len(reply["choices"]))


def _stop(choice: Any) -> Stop:
    """`end` where the server says that the model ended its turn; anything unknown is no end, or it would be trained."""
    return "end" if str(choice.get("finish_reason")).lower() in ENDS else "length"


def positions(reply: Any) -> list[Position] | None:
    """The written tokens with those that were most probable in their places; None where the server tells none.

    Raises:
        ValueError: a log-probability that is none (not a number, or above 0), or a reply that says nothing.
    """
    choice = reply["choices"][0]
    _check_refusal(choice)
    given = (choice.get("logprobs") or {}).get("content")
    if not given or not given[0].get("top_logprobs"):
        _text(choice, 0)  # a reply that says nothing at all says nothing of probabilities either
        return None
    return [_position(place) for place in given]


def _position(place: Any) -> Position:
    is_named = place.get("token") is not None or bool(place.get("bytes"))
    most_probable = [(_spelled(entry), _probability(entry["logprob"])) for entry in place.get("top_logprobs") or ()]
    return Position(_spelled(place) if is_named else None, tuple(most_probable))


def _word(token: str) -> str:
    """A token without the white space around it; one of line ends alone is no space, so it stays."""
    return token.strip() or token.strip(" ")


def _spelled(entry: Any) -> str:
    """A token as text; some servers give its bytes, or the tokenizer's own spelling of the space before it."""
    token = entry.get("token")
    if token is None:
        token = bytes(entry["bytes"]).decode("utf-8", "replace")
    return str(token).replace("\u2581", " ").replace("\u0120", " ")


def _probability(logprob: Any) -> float:
    value = float(logprob)
    if math.isnan(value) or value > ROUNDING:
        raise ValueError(f"{value} is no log-probability")
    return min(1.0, math.exp(value))


def _check_refusal(choice: Any) -> None:
    if str(choice.get("finish_reason")).lower() in FILTERS:
        raise Refusal("the server's content filter kept the answer back")
    if choice["message"].get("refusal"):
        raise Refusal("the server declined to answer")
