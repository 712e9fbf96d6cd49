"""The cheap alarm: how much less likely every system finds plain prose than the first one does.

See docs/evaluation.md. It asks no question and needs no extra: one forward pass over twenty paragraphs of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfpriority.evaluation.utility import perplexities
from selfpriority.models.files import resolve
from selfpriority.recipe import HfBackend
from selfpriority.wording import FOLDER


def prose() -> list[str]:
    """The paragraphs, which no training saw."""
    return (FOLDER / "perplexity.txt").read_text(encoding="utf-8").splitlines()


def alarm(systems: Mapping[str, str], settings: HfBackend) -> dict[str, Any]:
    """Perplexity of each system, by `evaluation.utility.perplexities`.

    Args:
        systems: name -> model or policy.
        settings: device and arithmetic.

    Raises:
        InputError: a model or the device cannot be used.
    """
    from selfpriority.backends.perplexity import likelihoods

    texts = prose()
    return perplexities(
        {
            name: [(found.nats, found.n_tokens) for found in likelihoods(resolve(model), texts, settings)]
            for name, model in systems.items()
        }
    )
