"""Conversations as preference data writes them: {role, content} or {from, value} turns, texts, or both in a CSV cell.

What is none of these is an InputError that names the row, the column and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from selfpriority.errors import InputError
from selfpriority.outside import parse_json
from selfpriority.plain_text import shown
from selfpriority.records import Message
from selfpriority.table_rows import TableRow, kind_of

Role = Literal["system", "user", "assistant"]
_ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


_OF_LISTS = ("completions", "responses", "scores", "history", "chosen_scores", "rejected_scores")
"""Columns that never hold text."""


@dataclass(frozen=True)
class Said:
    """One side of a pair: an answer, and the turns before it where the side holds a whole conversation."""

    text: str
    before: tuple[Message, ...] = ()


def with_cells_read(row: TableRow) -> TableRow:
    """A row of a file whose values are all text, with the cells that hold conversations as JSON read.

    Raises:
        InputError: a cell holds a conversation as Python prints it, which nobody can read back for sure.
    """
    return row._replace(columns={name: _cell(value, name, row.place) for name, value in row.columns.items()})


def _cell(value: Any, column: str, place: str) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    text = value.strip()
    if text.startswith(("[{'", "{'")) and ("'role':" in text or "'from':" in text):
        raise InputError(
            f"{place}: {column!r} is a conversation as Python prints it, not JSON; save the data as .jsonl or .parquet"
        )
    try:
        found = parse_json(text, place).value
    except InputError:  # a text that begins with a bracket
        return value
    is_turns = isinstance(found, list) and bool(found) and all(map(_is_turn, found))
    return found if is_turns or _is_turn(found) or column in _OF_LISTS else value


def _is_turn(value: object) -> bool:
    return isinstance(value, dict) and bool({"role", "from"} & value.keys())


def turns(value: list[Any], column: str, place: str) -> tuple[Message, ...]:
    """A list of turns as messages.

    Raises:
        InputError: an entry is no turn, or a system turn stands behind another one.
    """
    messages = tuple(_turn(entry, column, place) for entry in value)
    if any(message.role == "system" for message in messages[1:]):
        raise InputError(f"{place}: {column!r} holds a system turn behind another one; put it first")
    return messages


def _turn(entry: object, column: str, place: str) -> Message:
    if isinstance(entry, dict):
        role, content = entry.get("role", entry.get("from")), entry.get("content", entry.get("value"))
        if isinstance(role, str) and role in _ROLES and isinstance(content, str):
            return Message(_ROLES[role], content)
        if isinstance(role, str) and role not in _ROLES:
            raise InputError(
                f"{place}: {column!r} has a turn of {shown(role)}; turns are of {', '.join(_ROLES)}; leave others out"
            )
    raise InputError(
        f"{place}: {column!r}: a turn is {{role, content}} or {{from, value}} with text, not {_what(entry)}"
    )


def _what(entry: object) -> str:
    if isinstance(entry, dict):
        fields = ", ".join(f"{name}: {kind_of(value)}" for name, value in list(entry.items())[:4])
        return f"{{{fields}}}"
    return kind_of(entry)


def said(value: object, column: str, place: str) -> Said:
    """One side of a pair; null and an empty list say nothing.

    Raises:
        InputError: it is neither text nor turns that end with the assistant's.
    """
    if value is None or value == []:
        return Said("")
    if isinstance(value, str):
        return Said(value)
    if not isinstance(value, dict | list):
        raise InputError(f"{place}: {column!r} is {kind_of(value)}; it must be text, a turn or a list of turns")
    found = turns(value if isinstance(value, list) else [value], column, place)
    if found[-1].role != "assistant":
        raise InputError(f"{place}: {column!r} ends with a turn of the {found[-1].role}; it must end with an answer")
    return Said(found[-1].content, found[:-1])


def asked(columns: Mapping[str, Any], place: str) -> tuple[Message, ...] | None:
    """The prompt that a row states beside its answers; None: it states none.

    Raises:
        InputError: it is neither text nor turns that end with the user's.
    """
    column = next((name for name in ("prompt", "conversations", "instruction") if name in columns), None)
    if column is None:
        return None
    value = columns[column]
    if isinstance(value, list) and value:
        messages = turns(value, column, place)
    elif value is None or isinstance(value, str) or value == []:
        messages = (*_history(columns, place), Message("user", _with_input(value or "", columns, place)))
    else:
        raise InputError(f"{place}: {column!r} is {kind_of(value)}; a prompt is text or a list of turns")
    if messages[-1].role != "user":
        raise InputError(
            f"{place}: {column!r} ends with a turn of the {messages[-1].role}; it must end with the user's"
        )
    return _under_system(messages, columns, place)


def agreed(
    prompt: tuple[Message, ...] | None, sides: Sequence[Said], columns: Mapping[str, Any], place: str
) -> tuple[Message, ...]:
    """The prompt of answers that may bring it along: what stands before the last turn of each.

    Raises:
        InputError: nobody says what was asked, or they contradict each other.
    """
    brought = [side.before for side in sides if side.before]
    if not brought:
        if prompt is None:
            raise InputError(
                f"{place}: no prompt: there is no column prompt, conversations or instruction (columns: "
                f"{', '.join(map(str, columns))}), and the answers bring no turns; name it with --columns prompt=NAME"
            )
        return prompt
    if any(before != brought[0] for before in brought):
        raise InputError(f"{place}: chosen and rejected differ before their last turns; only the answers may differ")
    whole = brought[0]
    if whole[-1].role != "user":
        raise InputError(f"{place}: the turn before the answer is the {whole[-1].role}'s; it must be the user's")
    stated = "" if prompt is None else prompt[-1].content.strip()
    if stated and stated != whole[-1].content.strip():
        raise InputError(f"{place}: the prompt is not what the conversations in chosen and rejected ask; leave out one")
    return prompt if stated and prompt and len(prompt) > len(whole) else _under_system(whole, columns, place)


def _with_input(text: str, columns: Mapping[str, Any], place: str) -> str:
    given = columns.get("input") if "instruction" in columns else None
    if given is None or given == "":
        return text
    if not isinstance(given, str):
        raise InputError(f"{place}: 'input' is {kind_of(given)}; it must be text")
    return f"{text}\n{given}"


def _history(columns: Mapping[str, Any], place: str) -> Iterator[Message]:
    """Earlier questions and answers, as LLaMA-Factory's alpaca form writes them."""
    for pair in columns.get("history") or ():
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise InputError(f"{place}: 'history' is a list of [question, answer] pairs, not of {_what(pair)}")
        yield Message("user", pair[0])
        yield Message("assistant", pair[1])


def _under_system(messages: tuple[Message, ...], columns: Mapping[str, Any], place: str) -> tuple[Message, ...]:
    given = columns.get("system")
    if given is None or given == "" or messages[0].role == "system":
        return messages
    if not isinstance(given, str):
        raise InputError(f"{place}: 'system' is {kind_of(given)}; it must be text")
    return (Message("system", given), *messages)
