"""What a request is as token ids, and what drawn ids are as a text: alike for every engine that takes and gives ids.

Knows a chat and requests; no model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from selfpriority.chat import Chat
from selfpriority.language_model import Failure, Generate, Text
from selfpriority.records import Stop


def begun(chat: Chat, request: Generate) -> list[int]:
    """Token ids that the model goes on from: of the prompt, and of an answer that is begun for it."""
    if not request.opening:
        return chat.prompt_ids(request.messages)
    return [*chat.answered_ids(request.messages), *chat.response_ids(request.opening, "length")]


def text_of(chat: Chat, end_ids: Collection[int], request: Generate, ids: Sequence[int]) -> Text:
    """The answer that was drawn as `ids`, with what it was begun with; its end is one where an end token stands."""
    stop: Stop = "end" if ids[-1] in end_ids else "length"
    is_begun = bool(request.opening and chat.response_text(ids))  # an opening alone is no answer
    whole = [*chat.response_ids(request.opening, "length"), *ids] if is_begun else ids
    return Text.of(chat.response_text(whole), len(whole), stop, opened=chat.opens_thinking and not request.opening)


def too_long(n_prompt: int, n_after: int, context: int | None) -> Failure | None:
    """The failure of a request whose tokens exceed a model's context; None where they fit."""
    if context is None or n_prompt + n_after <= context:
        return None
    return Failure("too_long", f"{n_prompt} prompt tokens and {n_after} more exceed the context of {context}")
