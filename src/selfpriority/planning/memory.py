"""What every phase of a run holds in memory: weights, keys and values, and all that training adds.

Each phase is a process of its own, so the largest one is what a machine needs. Counted from configurations, without
any weights. In a training the interpreter, the libraries and what a single layer needs for a moment come on top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfpriority.backends.batches import PASS_TOKENS
from selfpriority.backends.counting import Asked
from selfpriority.planning.requests import PlannedStep, Rehearsal
from selfpriority.recipe import Align, HfBackend, Lora
from selfpriority.training.memory import Shape, activations, footprint, passing, shape_of

_LIBRARIES = 0.45e9  # interpreter, torch and transformers, measured on Linux
_DRAWN = 5  # float32 copies of the distribution while tokens are drawn: itself, its sums, masked and compared ones


@dataclass(frozen=True)
class Held:
    """Bytes of a phase that asks models; None: a model's files are not here."""

    weights: float | None
    cache: float | None
    """Keys and values of the largest batch."""
    passing: float | None
    """What one forward pass and the drawing of one token hold for a moment."""
    total: float | None
    """With the interpreter and its libraries."""
    peak: float | None = None
    """What the phase's process held at most in an earlier run."""


@dataclass(frozen=True)
class Trained:
    """Bytes of a training under one choice of settings, in one of its processes."""

    choice: str
    is_chosen: bool
    weights: float
    """With the frozen ones and their casts."""
    gradients: float
    """With the buckets in which copies of the model exchange them."""
    optimizer: float
    average: float
    activations: float
    """With what passes at the end of the model."""
    activations_checkpointed: float
    """The same with `gradient_checkpointing`."""
    total: float
    """With the activations of the recipe's setting."""


def held(steps: Sequence[PlannedStep], rehearsal: Rehearsal) -> dict[str, Held]:
    """Phases that hold models in this process -> what they hold, and held in the run of before."""
    earlier = rehearsal.run.manifest.steps
    phases: dict[str, list[Asked]] = {}
    for step in steps:
        local = [asked for asked in step.asked if isinstance(asked.settings, HfBackend)]
        if local:
            phases.setdefault(step.phase, []).extend(local)
    peaks = {
        phase: max(
            (earlier[step.name].peak_mb or 0 for step in steps if step.phase == phase and step.name in earlier),
            default=0,
        )
        * 1e6
        for phase in phases
    }
    return {phase: replace(_held(asked, rehearsal), peak=peaks[phase] or None) for phase, asked in phases.items()}


def trained(recipe_align: Align, rehearsal: Rehearsal, n_tokens: int, n_pool: int) -> list[Trained]:
    """The recipe's training and what it would hold under the other choices; empty if the model's files are not here.

    Args:
        recipe_align: the recipe's settings.
        rehearsal: knows the model.
        n_tokens: trained on in one epoch; a small training never fills `align.tokens_per_batch`.
        n_pool: tokens of the largest pool, which dropout keeps whole (`training/ranks.py`).
    """
    description = rehearsal.description(rehearsal.recipe.model)
    if description is None:
        return []
    lora = recipe_align.lora or Lora()
    plain = {"lora": None, "weights": "float32"}
    choices: dict[str, Mapping[str, Any]] = {
        "full, float32 weights": plain,
        "full, bfloat16 weights": {**plain, "weights": "bfloat16"},
        f"LoRA, rank {lora.r}": {**plain, "lora": lora.model_copy(update={"quantize": "none"})},
        f"LoRA, rank {lora.r}, on nf4": {**plain, "lora": lora.model_copy(update={"quantize": "nf4"})},
    }
    rows = []
    for name, changes in choices.items():
        settings = recipe_align.model_copy(update=changes)
        is_chosen = all(getattr(recipe_align, key) == value for key, value in changes.items())
        n_pass = min(settings.tokens_per_batch, n_tokens)
        if settings.lora is not None and settings.lora.dropout > 0:
            n_pass = max(n_pass, n_pool)
        rows.append(_trained(name, settings, description.config, is_chosen, n_pass))
    return rows


def _trained(name: str, settings: Align, config: Any, is_chosen: bool, n_pass: int) -> Trained:
    import torch

    from selfpriority.training.adapters import compute_dtype
    from selfpriority.training.parameters import counts

    in_bfloat16 = compute_dtype(settings) is torch.bfloat16
    n = counts(config, settings.lora)
    each = footprint(settings, in_bfloat16)
    plain = settings.lora and settings.model_copy(
        update={"lora": settings.lora.model_copy(update={"quantize": "none"})}
    )
    rest = footprint(plain, in_bfloat16).frozen if plain else 0.0
    # DDP copies every gradient, in its own type, into a bucket that it sends and keeps
    n_gradients = 2 if settings.parallel == "ddp" and settings.n_together > 1 else 1
    parts = {
        "weights": (each.weights + each.casts) * n.trained + each.frozen * n.frozen_linear + rest * n.frozen_rest,
        "gradients": n_gradients * each.gradients * n.trained,
        "optimizer": each.optimizer * n.trained,
        "average": each.average * n.trained,
    }
    parts = {part: size / settings.n_shards for part, size in parts.items()}
    shape = shape_of(config)
    kept, checkpointed = (
        activations(shape, n_pass, settings.model_copy(update={"gradient_checkpointing": value}), in_bfloat16)
        + passing(shape, n_pass, settings)
        for value in (False, True)
    )
    total = sum(parts.values()) + (checkpointed if settings.gradient_checkpointing else kept)
    return Trained(name, is_chosen, **parts, activations=kept, activations_checkpointed=checkpointed, total=total)


def _held(asked: Sequence[Asked], rehearsal: Rehearsal) -> Held:
    """All models of a phase stay open, but policies one at a time; one batch at a time has keys and values."""
    from selfpriority.models.arithmetic import bytes_per_weight
    from selfpriority.training.parameters import n_parameters

    models = {f"{one.model} {one.settings.model_dump_json()}": one for one in asked if one.settings is not None}
    weights: list[float] = []
    policies = [0.0]
    caches, passing = [0.0], [0.0]
    for one in models.values():
        description = rehearsal.description(one.model)
        if description is None or not isinstance(one.settings, HfBackend):
            return Held(None, None, None, None)
        size = bytes_per_weight(one.settings)
        of_its_kind = policies if one.model in rehearsal.policies else weights
        of_its_kind.append(float(size * n_parameters(description.config, one.classifies)))
        shape = shape_of(description.config)
        same = [other.cache_tokens for other in asked if other.model == one.model]
        caches.append(float(max(same) * 2 * shape.layers * shape.key_value * size))
        passing.append(_passing(shape, one.settings, size))
    open_weights = sum(weights) + max(policies)
    total = open_weights + max(caches) + max(passing) + _LIBRARIES
    return Held(open_weights, max(caches), max(passing), total)


def _passing(shape: Shape, settings: HfBackend, size: int) -> float:
    """Bytes of hidden states, queries and wide inner ones within a layer, and of probabilities as a token is drawn."""
    n_tokens = min(settings.batch_tokens, PASS_TOKENS)
    layer = n_tokens * (4 * shape.hidden + 3 * shape.query + 4 * shape.inner) * size
    return float(layer + settings.max_batch * shape.vocabulary * (_DRAWN * 4 + size))
