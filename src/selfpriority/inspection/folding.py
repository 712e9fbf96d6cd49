"""Text of prompts and answers as it may be shown: folded until asked for, never able to speak to a terminal.

The texts are harmful by nature and written by models. Knows strings only.
"""

from __future__ import annotations

from selfpriority.plain_text import clean


def shown(text: str, reveal: bool) -> str:
    """The text, cleaned, or in its place how long it is."""
    if not text.strip():
        return "[empty]"
    return clean(text) if reveal else folded(len(text.split()), "word")


def folded(n: int, unit: str) -> str:
    """What stands for a text that is not shown."""
    return f"[{n} {unit}{'' if n == 1 else 's'}, folded; --reveal shows them]"


def barred(text: str, indent: str) -> list[str]:
    """The lines of a text, each behind a bar, so that no answer can pass for what the program says."""
    return [f"{indent}| {line}" for line in text.split("\n")]
