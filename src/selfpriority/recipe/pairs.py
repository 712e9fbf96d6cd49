"""A user's own preference data, as a recipe says it: which file, and what its columns are called. Reads none."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from selfpriority.plain_text import shown
from selfpriority.recipe.section import Section

COLUMNS = (
    "prompt",
    "conversations",
    "instruction",
    "input",
    "history",
    "system",
    "chosen",
    "rejected",
    "completions",
    "responses",
    "scores",
    "score_chosen",
    "score_rejected",
    "chosen_scores",
    "rejected_scores",
    "decided_by",
    "stop_chosen",
    "stop_rejected",
    "chosen_stop",
    "rejected_stop",
    "prompt_id",
    "kind",
)
"""The columns that are read."""
_OF_OBJECTIVES = re.compile(r"score_(chosen|rejected)_\w[\w-]*")


def is_read(column: str) -> bool:
    """Whether a column of this name means something: one of `COLUMNS`, or a score by objective."""
    return column in COLUMNS or _OF_OBJECTIVES.fullmatch(column) is not None


class Pairs(Section):
    """Chosen and rejected answers that somebody else has: they train in place of what a run would collect."""

    source: str
    """A .jsonl, .json, .csv or .parquet file (docs/own-pairs.md has its forms)."""
    columns: dict[str, str] = Field({})
    """What the file calls a column: {chosen: better, rejected: worse}."""
    scores: bool = True
    """Whether scores in the file weigh the pairs, by `align.weight_gap`; without any all pairs weigh alike."""

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: dict[str, str]) -> dict[str, str]:
        for column in columns:
            if not is_read(column):
                known = f"{', '.join(COLUMNS)} and score_chosen_NAME"
                raise ValueError(f"no column {shown(column)} is read, so none can stand for it; known: {known}")
        return columns
