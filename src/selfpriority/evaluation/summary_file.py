"""The one reader and the one writer of `summary.json` and `perplexity.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from selfpriority.evaluation.records import Perplexity, Summary
from selfpriority.storage import intact, read_json, write_json

_SUMMARY = TypeAdapter(Summary)
_OPTIONAL = ("pairwise", "judges", "agreement", "perplexity", "judge", "models")
"""Parts that a file without them does not name."""


def summary_as_json(summary: Summary) -> dict[str, Any]:
    """As `summary.json` holds it."""
    told: dict[str, Any] = _SUMMARY.dump_python(summary, mode="json")
    for row in told["behaviour"].values():
        if row["repetition"] is None:  # of a version that did not count it
            del row["repetition"]
        if not row["unread"]:
            del row["unread"]
    return {name: part for name, part in told.items() if part or name not in _OPTIONAL}


def summary_of_json(told: Mapping[str, Any]) -> Summary:
    """The summary in parsed JSON."""
    return _SUMMARY.validate_python(dict(told))


def write_summary(path: Path, summary: Summary) -> None:
    """Writes `summary.json`, all or nothing."""
    write_json(path, summary_as_json(summary))


def read_summary(path: Path) -> Summary:
    """The summary in a file that this program wrote, this version or the one before."""
    with intact(str(path)):
        return summary_of_json(read_json(path))


_PERPLEXITY = TypeAdapter(Perplexity)


def write_perplexity(path: Path, found: Perplexity) -> None:
    """Writes `perplexity.json`, all or nothing."""
    write_json(path, _PERPLEXITY.dump_python(found, mode="json"))


def read_perplexity(path: Path) -> Perplexity:
    """What the alarm found."""
    with intact(str(path)):
        return _PERPLEXITY.validate_python(read_json(path))
