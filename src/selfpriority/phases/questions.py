"""Questions from a user's local files: MMLU's form and MT-Bench's. A wrong line is one sentence with its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from selfpriority.errors import InputError
from selfpriority.evaluation.conversation import Question
from selfpriority.outside import read_text, written_rows
from selfpriority.plain_text import one_line

Row = TypeVar("Row", bound=BaseModel)
T = TypeVar("T")


_Name = Annotated[str, Field(min_length=1), AfterValidator(one_line)]


class _Choice(BaseModel):
    model_config = ConfigDict(extra="ignore")

    subject: _Name
    question: str
    choices: tuple[str, str, str, str]
    answer: Literal["A", "B", "C", "D"]


_Turn = Annotated[str, Field(pattern=r"\S")]
_References = Annotated[list[str | None], Field(max_length=2)] | None


class _TwoTurns(BaseModel):
    model_config = ConfigDict(extra="ignore")

    question_id: int | str
    category: _Name
    turns: tuple[_Turn, _Turn]
    reference: _References = None
    gpt4_reference: _References = None


def read_mmlu(path: Path) -> list[dict[str, Any]]:
    """Multiple-choice questions.

    Raises:
        InputError: the file cannot be read, is empty, or has bad lines (the first is named).
    """
    rows = _read(path, _Choice, "subject, question, four choices and answer A to D")
    return [row.model_dump() for _, row in rows]


def read_mt_bench(path: Path) -> list[Question]:
    """Questions of two turns; a turn's reference is `reference`'s, where that has none `gpt4_reference`'s.

    Raises:
        InputError: the file cannot be read, is empty, has bad lines or an id twice (the first is named).
    """
    questions: dict[str, Question] = {}
    for number, row in _read(path, _TwoTurns, "question_id, category and turns (two texts)"):
        name = one_line(str(row.question_id))
        if name in questions:
            raise InputError(f"{path}:{number}: question_id {name} occurs twice")
        references = (_reference(row, 0), _reference(row, 1))
        questions[name] = Question(name, row.category, row.turns, references)
    return list(questions.values())


def spread(rows: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` rows, evenly over all of them: files are sorted by subject or category."""
    if limit is None or limit >= len(rows):
        return list(rows)
    return [rows[i * len(rows) // limit] for i in range(limit)]


def _reference(row: _TwoTurns, turn: int) -> str:
    # a person's word before a model's, which is at times wrong
    for texts in (row.reference, row.gpt4_reference):
        if texts and turn < len(texts) and (texts[turn] or "").strip():
            return str(texts[turn]).strip()
    return ""


def _read(path: Path, form: type[Row], needs: str) -> list[tuple[int, Row]]:
    """(line number, row) of every line that is not empty."""
    rows = []
    for row in written_rows(path, read_text(path, "no such file of questions")):
        try:
            rows.append((row.number, form.model_validate(row.value)))
        except ValidationError:
            raise InputError(f"{row.place}: not a question; needs {needs}") from None
    if not rows:
        raise InputError(f"{path}: holds no question")
    return rows
