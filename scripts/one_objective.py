"""Fit the heads of some objectives anew and keep those of the others as they ship, bit for bit.

Labels that are added for one objective need no other machine's rounding in the heads of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selfpriority.judges.fit import FitSettings, fit_heads
from selfpriority.judges.heads import Heads, read_heads
from selfpriority.judges.labels import Labels
from selfpriority.language_model import LanguageModel


def fitted(
    labels: Labels, model: LanguageModel, name: str, settings: FitSettings, *, only: Sequence[str], shipped: Path
) -> Heads:
    """Heads on `labels`; of objectives that `only` does not name, those in `shipped`. Without `only` all anew."""
    if not only:
        return fit_heads(labels, model, name, settings)
    answers = tuple(row for row in labels.answers if row.objective in only)
    pairs = tuple(row for row in labels.pairs if row.objective in only)
    made, kept = fit_heads(Labels(answers, pairs), model, name, settings), read_heads(shipped)
    card = {**kept.card, "objectives": {**kept.card["objectives"], **made.card["objectives"]}}
    return replace(kept, by_objective={**kept.by_objective, **made.by_objective}, card=card)
