"""One row of preference data as a record, whichever form it has: a pair, or a list of rated answers.

What cannot be read is an InputError that names row, column and remedy; what can be read and makes no pair has a flaw.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfpriority.errors import InputError
from selfpriority.own_pairs.turns import Said, agreed, asked, said
from selfpriority.plain_text import shown
from selfpriority.recipe.pairs import Pairs
from selfpriority.records import Message, Stop
from selfpriority.table_rows import TableRow, kind_of

LISTS = ("completions", "responses")
SINGLE = "score"
"""What an only score is called, where the file gives it no name."""
FLAWS = {
    "empty_prompt": "the prompt is empty",
    "no_chosen": "there is no chosen answer",
    "no_rejected": "there is no rejected answer",
    "identical": "chosen and rejected are the same text",
    "too_few_rated": "fewer than two answers have a text and a score",
}
"""Why a row that can be read makes no pair, in words."""
_TEXTS = ("response", "text", "content", "completion", "answer", "output")
_SCORES = ("scores", "score", "overall_score", "rating")
_OF_CHOSEN = re.compile(r"score_chosen_(.+)")

Scores = Mapping[str, float]
"""By objective, in order; empty: nobody rated."""


@dataclass(frozen=True)
class OwnAnswer:
    """One answer of a row."""

    text: str
    scores: Scores
    stop: Stop = "end"


@dataclass(frozen=True)
class OwnRow:
    """One row: the answers to a prompt, as a pair (the chosen one first) or as a list that its scores order."""

    place: str
    prompt: tuple[Message, ...]
    answers: tuple[OwnAnswer, ...]
    is_list: bool = False
    decided_by: str = ""
    """The objective that decided, where the row says so."""
    prompt_id: str = ""
    kind: str = ""
    n_lost: int = 0
    """Answers of a list without a text or a score."""

    @property
    def flaw(self) -> str:
        """Why it makes no pair, a key of `FLAWS`; empty where it makes one."""
        if not self.prompt[-1].content.strip():
            return "empty_prompt"
        if self.is_list:
            return "too_few_rated" if len({answer.text.strip() for answer in self.answers}) < 2 else ""
        chosen, rejected = (answer.text.strip() for answer in self.answers)
        if not chosen or not rejected:
            return "no_rejected" if chosen else "no_chosen"
        return "identical" if chosen == rejected else ""


def read_row(row: TableRow, pairs: Pairs) -> OwnRow:
    """The row as a record.

    Args:
        row: with the names that the file gives its columns.
        pairs: what they are called here, and whether scores count.

    Raises:
        InputError: it is of no form that is known (file and line, column, remedy).
    """
    columns = _renamed(row, pairs.columns)
    name = next((name for name in LISTS if isinstance(columns.get(name), list)), None)
    if name is not None and "chosen" not in columns:
        if not pairs.scores:
            raise InputError(f"{row.place}: {name!r} is ordered by its scores, so pairs.scores: false leaves no pair")
        return _list_row(row, columns, name)
    for side in ("chosen", "rejected"):
        if side not in columns:
            raise InputError(
                f"{row.place}: no column {side!r}; columns: {', '.join(map(str, row.columns))}; "
                f"name it with --columns {side}=NAME (pairs.columns)"
            )
    return _pair_row(row, columns, pairs.scores)


def _renamed(row: TableRow, names: Mapping[str, str]) -> dict[str, Any]:
    """The columns by the names they have here; one that stands for another is not read under its own."""
    for ours, theirs in names.items():
        if theirs not in row.columns:
            there = ", ".join(map(str, row.columns))
            raise InputError(
                f"{row.place}: no column {theirs!r}, which pairs.columns names as {ours}; columns: {there}"
            )
    taken = set(names.values())
    kept = {name: value for name, value in row.columns.items() if name not in taken}
    return {**kept, **{ours: row.columns[theirs] for ours, theirs in names.items()}}


def _pair_row(row: TableRow, columns: Mapping[str, Any], counts_scores: bool) -> OwnRow:
    place = row.place
    sides = [said(columns[side], side, place) for side in ("chosen", "rejected")]
    scores = [_scores_of(columns, side, place) if counts_scores else {} for side in ("chosen", "rejected")]
    if list(scores[0]) != list(scores[1]):
        raise InputError(
            f"{place}: one of the two answers has a score that the other lacks; give both, or pairs.scores=false"
        )
    stops = [_stop(columns, side, place) for side in ("chosen", "rejected")]
    answers = [OwnAnswer(side.text, own, stop) for side, own, stop in zip(sides, scores, stops, strict=True)]
    return _row(row, columns, tuple(sides), tuple(answers))


def _list_row(row: TableRow, columns: Mapping[str, Any], name: str) -> OwnRow:
    beside = columns.get("scores")
    entries = columns[name]
    if beside is not None and (not isinstance(beside, list) or len(beside) != len(entries)):
        raise InputError(f"{row.place}: 'scores' must be a list as long as {name!r}, which holds {len(entries)}")
    sides, answers = [], []
    for number, entry in enumerate(entries, start=1):
        where = f"{name}[{number}]"
        side = said(_text_in(entry, where, row.place), where, row.place)
        scores = _rated(_score_in(entry) if beside is None else beside[number - 1], where, row.place)
        if side.text.strip() and scores:
            sides.append(side)
            answers.append(OwnAnswer(side.text, scores))
    if entries and not answers and beside is None and not any(_score_in(entry) is not None for entry in entries):
        raise InputError(
            f"{row.place}: {name!r} holds no scores, so nothing orders its answers; give each a score (one of "
            f"{', '.join(_SCORES)}), or a column 'scores'"
        )
    return _row(row, columns, tuple(sides), tuple(answers), n_lost=len(entries) - len(answers), is_list=True)


def _row(
    row: TableRow, columns: Mapping[str, Any], sides: tuple[Said, ...], answers: tuple[OwnAnswer, ...], **more: Any
) -> OwnRow:
    prompt = agreed(asked(columns, row.place), sides, columns, row.place)
    decided_by, prompt_id, kind = (_word(columns, name) for name in ("decided_by", "prompt_id", "kind"))
    return OwnRow(row.place, prompt, answers, decided_by=decided_by, prompt_id=prompt_id, kind=kind, **more)


def _word(columns: Mapping[str, Any], name: str) -> str:
    value = columns.get(name)
    return "" if value is None or isinstance(value, dict | list) else str(value)


def _text_in(entry: Any, where: str, place: str) -> Any:
    """The answer in an entry of a list: the entry itself, unless it is an object with more in it."""
    if not isinstance(entry, dict) or "role" in entry or "from" in entry:
        return entry
    name = next((name for name in _TEXTS if name in entry), None)
    if name is None:
        raise InputError(
            f"{place}: {where} has no answer; it holds {', '.join(map(str, entry))}, known: {', '.join(_TEXTS)}"
        )
    return entry[name]


def _score_in(entry: Any) -> Any:
    names = (name for name in _SCORES if isinstance(entry, dict) and entry.get(name) is not None)
    return next((entry[name] for name in names), None)


def _rated(value: Any, where: str, place: str) -> dict[str, float]:
    """A score, or scores by name; empty where there is none."""
    if not isinstance(value, dict):
        number = _number(value, f"the score of {where}", place)
        return {} if number is None else {SINGLE: number}
    found = {str(name): _number(score, f"{where}: {name}", place) for name, score in value.items()}
    known = {name: score for name, score in found.items() if score is not None}
    return known if len(known) == len(found) else {}


def _scores_of(columns: Mapping[str, Any], side: str, place: str) -> dict[str, float]:
    """The scores of one side: by objective where there are such columns, else the only one, else none."""
    if isinstance(together := columns.get(f"{side}_scores"), dict):
        return _rated(together, f"{side}_scores", place)
    names = [found[1] for name in columns if (found := _OF_CHOSEN.fullmatch(str(name)))]
    wanted = {name: f"score_{side}_{name}" for name in names} or {SINGLE: f"score_{side}"}
    numbers = {name: _number(columns.get(column), column, place) for name, column in wanted.items()}
    known = {name: number for name, number in numbers.items() if number is not None}
    if names and known and len(known) < len(names):
        raise InputError(f"{place}: {side} has scores of {', '.join(known)} and not of all: {', '.join(names)}")
    return known


def _number(value: Any, what: str, place: str) -> float | None:
    """A score as a number; None where there is none."""
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{place}: {what} is {shown(value)}, {_no_number(value)}; write a number or leave it empty")
    return number


def _no_number(value: Any) -> str:
    return "no number" if isinstance(value, str | int | float) else f"{kind_of(value)} and no number"


def _stop(columns: Mapping[str, Any], side: str, place: str) -> Stop:
    """Whether the answer ended by itself, where the file says it."""
    for name in (f"stop_{side}", f"{side}_stop"):
        value = columns.get(name)
        if value in ("end", "length"):
            return "length" if value == "length" else "end"
        if value not in (None, ""):
            raise InputError(f"{place}: {name!r} is {shown(value)}; it must be 'end', or 'length' of a cut answer")
    return "end"
