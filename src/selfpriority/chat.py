"""Messages to token ids for one tokenizer, as the model was made to read them.

Finds the one token that ends an assistant turn. Training and generation both write here, so they cannot disagree; what
its template does to a conversation is in `chat_template`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from selfpriority.chat_template import ChatTemplate
from selfpriority.errors import InputError
from selfpriority.records import Message, Stop


class Chat:
    """A tokenizer with its chat template.

    Args:
        tokenizer: a `transformers` tokenizer with a chat template.
        end_ids: the model's own end-of-sequence ids (`generation_config.eos_token_id`), if known.
        name: what error messages call the model.

    Raises:
        InputError: no chat template or one that cannot be trained with, or a missing or ambiguous end-of-turn token.
    """

    def __init__(self, tokenizer: Any, end_ids: Collection[int] = (), name: str = "model") -> None:
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer, name)
        self.end_id = self._find_end(end_ids, name)

    @property
    def opens_thinking(self) -> bool:
        """Whether a prompt ends inside the model's thinking, so that what it writes begins there."""
        return self.template.opens_thinking

    def text(self, messages: Sequence[Message]) -> str:
        """The conversation as a string, the assistant's turn opened at its end.

        Raises:
            RefusedTurns: the template does not take these turns; so do all that take messages.
        """
        return self.template.text(messages)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of `text(messages)`; special tokens appear exactly once, where the template puts them."""
        return self._encode(self.text(messages))

    def answered_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids that an answer stands behind: the prompt's, and the end of the thinking where it opens that."""
        return self._encode(self.answer_opening(messages))

    def answer_opening(self, messages: Sequence[Message]) -> str:
        """The text behind which an answer stands, as `answered_ids` encodes it."""
        return self.text(messages) + self.template.shuts_thinking

    def last_turn(self, messages: Sequence[Message]) -> range:
        """Positions in `prompt_ids(messages)` of what the last message says, without the template around it.

        Found by rendering the same conversation with nothing said last; where the two part, the content lies.
        """
        ids, empty = self.prompt_ids(messages), self.prompt_ids([*messages[:-1], replace(messages[-1], content="")])
        n_most = min(len(ids), len(empty))
        start = next((i for i in range(n_most) if ids[i] != empty[i]), n_most)
        n_after = next((i for i in range(n_most - start) if ids[-1 - i] != empty[-1 - i]), n_most - start)
        start = min(start, len(ids) - 1)
        return range(start, max(len(ids) - n_after, start + 1))

    def response_ids(self, text: str, stop: Stop) -> list[int]:
        """Token ids of an answer. A finished answer ends in exactly one end token, a cut one in none."""
        end = self.tokenizer.convert_ids_to_tokens(self.end_id)
        while text.endswith(end):  # data made by others often brings its end token along (trl#4481)
            text = text.removesuffix(end)
        # split: an answer that spells out a control token means its letters, not the token
        ids = list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        return [*ids, self.end_id] if stop == "end" else ids

    def response_text(self, ids: Sequence[int]) -> str:
        """Generated ids, without special tokens, as text."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _find_end(self, end_ids: Collection[int], name: str) -> int:
        known = set(end_ids) | ({self.tokenizer.eos_token_id} - {None})
        tail = self._encode(self.template.closing)
        found = [token for token in tail if token in known]
        if found:
            return int(found[0])
        if self.tokenizer.eos_token_id is None:
            raise InputError(f"model: {name} has no end-of-sequence token; set eos_token in its tokenizer")
        raise InputError(
            f"model: {name}: its chat template closes a turn with {self.tokenizer.decode(tail)!r}, which "
            f"holds no end-of-sequence token; set eos_token to the token that ends a turn"
        )
