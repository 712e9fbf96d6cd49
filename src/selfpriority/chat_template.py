"""A chat template: conversations to text, and what a few conversations of its own show it does to them.

A template is a program of somebody else's. What cannot be trained rightly with it is refused when it is opened;
what it merely does not take (a system role, some orders of turns, text that is no list of parts) is worked around
or told. Knows no token ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from selfpriority.errors import InputError
from selfpriority.records import Message
from selfpriority.thinking import OPENS, SHUTS, shutting

# Sampling, rating and training happen on different days, and a template that asks for the date would show each of them
# another prompt. So the clock stands still: on the day that Llama's templates name where there is no clock.
PINNED = datetime(2024, 7, 26, 12, tzinfo=UTC)

_TAG = rf"(?:{OPENS}|{SHUTS})"
_ENDS_IN_TAGS = re.compile(rf"(?:\s*{_TAG})*\s*\Z", re.I)
_ONLY_TAGS = re.compile(rf"(?:\s|{_TAG})*", re.I)
_OPENS_THINKING = re.compile(rf"{OPENS}\s*\Z", re.I)


def _says(role: Any, name: str) -> Message:
    """A turn whose text a template that changes case, marks, white space or line ends does not leave alone."""
    return Message(role, f'Zq{name} <b>it\'s "1 & 2"</b>\n\n  Is  it so, {name}?')


_SYSTEM, _USER, _ANSWER = _says("system", "sys"), _says("user", "usr"), _says("assistant", "ans")
_LAST, _OTHER = _says("user", "last"), _says("assistant", "other")
_THOUGHT = "Zqthought"
_THINKING = Message("assistant", f"<think>\n{_THOUGHT}\n</think>\n\n{_ANSWER.content}")

_AS_PARTS: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"system", "user", "assistant"}),
    frozenset({"system", "user"}),
)
"""Roles whose text is given as a list of parts, in the order in which that is tried."""

_ASSISTANT_FIRST = "a first turn of the assistant"
_TWICE = {"user": "two user turns in a row", "assistant": "two assistant turns in a row"}
_ORDERS = {
    _ASSISTANT_FIRST: (_ANSWER, _USER),
    _TWICE["user"]: (_USER, _LAST),
    _TWICE["assistant"]: (_USER, _ANSWER, _OTHER, _LAST),
}
"""Orders of turns that a template may not take; where one loses a turn in silence, that counts as not taken."""


class RefusedTurns(InputError):
    """A conversation that a chat template does not take; `reason` names the turn."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"model: {name}: its chat template refuses a conversation: {reason}")
        self.reason = reason


class ChatTemplate:
    """The chat template of one tokenizer.

    Args:
        tokenizer: a `transformers` tokenizer.
        name: what messages call the model.

    Raises:
        InputError: there is none, or what it writes cannot be trained: it loses or changes a turn, or the turn it opens
            for an answer is not the one it writes around an answer.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer, self._name = tokenizer, name
        source = _source(tokenizer, name)
        self.tells_date = "strftime_now" in source
        self._source = _with_pinned_date(source) if self.tells_date else source
        self._as_parts = self._form()
        self.folds_system = bool(self._fault((_SYSTEM, _USER), opened=True))
        if fault := self._fault((_USER, _ANSWER, _LAST), opened=True):
            raise self._unfit(f"{fault} when the conversation goes on")
        opened, whole = self._raw((_USER,), opened=True), self._raw((_USER, _ANSWER), opened=False)
        self.opening, self.closing = opened.partition(_USER.content)[2], whole.rpartition(_ANSWER.content)[2]
        self._check_opening(opened, whole)
        self.gap = _gap(opened, whole)
        opens = _OPENS_THINKING.search(opened)
        self.opens_thinking = opens is not None
        self.shuts_thinking = f"\n{shutting(opens[0].strip())}\n\n" if opens else ""
        self.cuts_thinking = self._cuts_thinking()
        self.refused_orders = tuple(name for name, turns in _ORDERS.items() if self._fault(turns, opened=True))

    def text(self, messages: Sequence[Message]) -> str:
        """The conversation, the assistant's turn opened at its end.

        Raises:
            RefusedTurns: the template does not take these turns.
        """
        if refused := self._refused_turn(messages):
            raise RefusedTurns(self._name, refused)
        try:
            return self._raw(fold_system(messages) if self.folds_system else messages, opened=True)
        except Exception as error:  # templates raise jinja2's TemplateError or anything their author chose
            raise RefusedTurns(self._name, f"it says {_first_line(error)!r}") from error

    def habits(self) -> list[str]:
        """What is worth knowing of it, a phrase each."""
        told = {
            "the system's text goes into the first user turn": self.folds_system,
            "texts are given as parts": bool(self._as_parts),
            f"its date is always {PINNED:%Y-%m-%d}": self.tells_date,
            "an answer begins in its thinking": self.opens_thinking,
            "thinking is cut from earlier turns": self.cuts_thinking,
        }
        return [*(phrase for phrase, holds in told.items() if holds), *(f"not taken: {o}" for o in self.refused_orders)]

    def _refused_turn(self, messages: Sequence[Message]) -> str:
        """What is wrong with the turns, empty if nothing; a system turn is not counted, for personas add one."""
        roles = [message.role for message in messages if message.role != "system"]
        if _ASSISTANT_FIRST in self.refused_orders and roles[:1] == ["assistant"]:
            return "turn 1 is the assistant's, before any of the user"
        for number, (before, role) in enumerate(pairwise(roles), start=2):
            if before == role and _TWICE[role] in self.refused_orders:
                return f"turn {number} is the {role}'s, as the one before it"
        return ""

    def _raw(self, messages: Sequence[Message], opened: bool) -> str:
        turns = [{"role": message.role, "content": self._content(message)} for message in messages]
        return str(
            self._tokenizer.apply_chat_template(
                turns, chat_template=self._source, tokenize=False, add_generation_prompt=opened
            )
        )

    def _content(self, message: Message) -> object:
        return [{"type": "text", "text": message.content}] if message.role in self._as_parts else message.content

    def _fault(self, messages: Sequence[Message], opened: bool) -> str:
        """What it does to these turns that it must not; empty if all texts come out, unchanged and in order."""
        try:
            text = self._raw(messages, opened)
        except Exception as error:  # templates raise jinja2's TemplateError or anything their author chose
            return f"fails ({_first_line(error)})"
        at = 0
        for message in messages:
            found = text.find(message.content, at)
            if found < 0:
                is_there = message.content.split()[0].casefold() in text.casefold()
                return f"{'changes' if is_there else 'loses'} what the {message.role} says"
            at = found + len(message.content)
        return ""

    def _form(self) -> frozenset[str]:
        faults = []
        for self._as_parts in _AS_PARTS:
            fault = self._fault((_USER, _ANSWER), opened=False)
            if not fault:
                return self._as_parts
            faults.append(fault)
        raise self._unfit(faults[0])

    def _check_opening(self, opened: str, whole: str) -> None:
        """The turn opened for an answer must be the one written around an answer, white space and thinking aside.

        Not every template heeds `add_generation_prompt`: in some the end of the user's turn opens the assistant's.
        """
        if not self.opening.strip():
            raise self._unfit("writes nothing between what the user says and an answer")
        start = _ENDS_IN_TAGS.sub("", opened)
        between = whole[len(start) :].partition(_ANSWER.content)[0]
        if whole.startswith(start) and _ONLY_TAGS.fullmatch(between):
            return
        own = whole.partition(_USER.content)[2].partition(_ANSWER.content)[0]
        heeds = opened != self._raw((_USER,), opened=False)
        how = "opens" if heeds else "ignores add_generation_prompt, so it opens"
        raise self._unfit(f"{how} the assistant's turn with {self.opening!r} but writes one with {own!r}")

    def _cuts_thinking(self) -> bool:
        try:
            return _THOUGHT not in self._raw((_USER, _THINKING, _LAST), opened=True)
        except Exception:  # as above; it takes no thinking, so it cuts none
            return False

    def _unfit(self, fault: str) -> InputError:
        return InputError(
            f"model: {self._name}: its chat template {fault}, so it cannot be trained; correct its chat_template.jinja"
        )


def _gap(opened: str, whole: str) -> str:
    """White space that the template writes between the turn it opens and an answer, as Llama-2's does."""
    between = whole[len(opened) :].partition(_ANSWER.content)[0] if whole.startswith(opened) else ""
    return between if between.isspace() else ""


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """The same conversation without a system role: its text opens the first user turn."""
    if not messages or messages[0].role != "system":
        return [*messages]
    system, *turns = messages
    first = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return [Message("user", system.content), *turns]
    turns[first] = Message("user", f"{system.content}\n\n{turns[first].content}")
    return turns


def _source(tokenizer: Any, name: str) -> str:
    templates = getattr(tokenizer, "chat_template", None)
    if not templates:
        raise InputError(f"model: {name} has no chat template; use an instruct model, or add one to its tokenizer")
    if isinstance(templates, dict) and "default" not in templates:
        known = ", ".join(map(str, templates))
        raise InputError(f"model: {name} has chat templates ({known}) but none called 'default'; name one of them so")
    return str(templates["default"] if isinstance(templates, dict) else templates)


def _with_pinned_date(source: str) -> str:
    """The template with a `strftime_now` of its own: transformers hands no function on to a template."""
    codes = sorted(set(re.findall(r"%[-_0^#]?[A-Za-z]", source)))
    steps = "".join(f" | replace({json.dumps(code)}, {json.dumps(PINNED.strftime(code))})" for code in codes)
    # jinja drops the line end after a tag here, so what the template itself begins with stays
    return f"{{% macro strftime_now(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}\n{source}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
