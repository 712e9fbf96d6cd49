"""Does an answer decline? Told from its opening, by patterns; works on text alone and knows no model.

The patterns are in `text/refusals/`, a file a language, and all are tried: nobody has to know an answer's language.
On the 2,074 XSTest answers of five models that people labelled full refusal or full compliance they agree with the
label on 92.6 % (88 % of the refusals found, 3 % of the compliant answers flagged; `benchmarks/refusals.py`); on 2,770
answers to everyday instructions (Auto-J) they fire on 1.4 %. What they miss are mostly answers that argue with the
question and never say that they decline.
"""

from __future__ import annotations

import re
from functools import cache

from selfpriority.wording import FOLDER

OPENING_CHARACTERS = 200
"""A refusal shows in its first sentence or two; later "I can't" belongs to the content."""


def is_refusal(text: str) -> bool:
    """Whether the answer opens by declining. An empty answer is none."""
    beginning = " ".join(text.replace("\u2019", "'").split())[:OPENING_CHARACTERS]
    return any(pattern.search(beginning) for pattern in _patterns())


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    files = sorted((FOLDER / "refusals").glob("*.txt"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return tuple(re.compile(line, re.IGNORECASE) for line in lines if line.strip() and not line.startswith("#"))
