"""The cheap alarm: how much less likely every system finds plain prose than the first one does.

See docs/evaluation.md. It asks no question and needs no extra: one forward pass over twenty paragraphs of our own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from selfpriority.backends.progress import Progress
from selfpriority.evaluation.perplexity import Likelihood, perplexities
from selfpriority.evaluation.records import Perplexity
from selfpriority.models.files import resolve
from selfpriority.recipe import HfBackend
from selfpriority.wording import FOLDER


def prose() -> list[str]:
    """The paragraphs, which no training saw."""
    return (FOLDER / "perplexity.txt").read_text(encoding="utf-8").splitlines()


def _unheard(_: Progress) -> None:
    pass


def measured_perplexity(
    models: Mapping[str, str], settings: HfBackend, on_progress: Callable[[Progress], None] = _unheard
) -> Perplexity:
    """Perplexity of each system.

    Args:
        models: system -> model or policy.
        settings: device and arithmetic.
        on_progress: told how many systems have read.

    Raises:
        InputError: a model or the device cannot be used.
    """
    from selfpriority.backends.perplexity import likelihoods

    texts, began = prose(), time.monotonic()
    found: dict[str, Sequence[Likelihood]] = {}
    for name, model in models.items():
        on_progress(Progress(len(found), len(models), 0, 0, time.monotonic() - began))
        found[name] = likelihoods(resolve(model), texts, settings)
    return perplexities(found)
