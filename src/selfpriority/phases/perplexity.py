"""The cheap alarm: how much less likely every system finds plain prose than the first one does.

See docs/evaluation.md. It asks no question and needs no extra: one forward pass over twenty paragraphs of our own.
"""

from __future__ import annotations

from collections.abc import Mapping

from selfpriority.evaluation.perplexity import perplexities
from selfpriority.evaluation.records import Perplexity
from selfpriority.models.files import resolve
from selfpriority.recipe import HfBackend
from selfpriority.wording import FOLDER


def prose() -> list[str]:
    """The paragraphs, which no training saw."""
    return (FOLDER / "perplexity.txt").read_text(encoding="utf-8").splitlines()


def measured_perplexity(models: Mapping[str, str], settings: HfBackend) -> Perplexity:
    """Perplexity of each system.

    Args:
        models: system -> model or policy.
        settings: device and arithmetic.

    Raises:
        InputError: a model or the device cannot be used.
    """
    from selfpriority.backends.perplexity import likelihoods

    texts = prose()
    return perplexities({name: likelihoods(resolve(model), texts, settings) for name, model in models.items()})
