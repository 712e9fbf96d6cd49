"""What is saved of a trained policy, in which type, and how much of its movement that keeps.

Full fine-tuning is saved in the type that the policy is read in: bfloat16 as `models/rounding.py` rounds, or float32.
Adapters are small and saved as they are; what counts is the model they are merged into. Writes no file.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from peft import PeftModel
from torch import Tensor

from selfpriority.models.rounding import rounded
from selfpriority.recipe import Align
from selfpriority.training.adapters import Policy, compute_dtype, weight_dtype
from selfpriority.training.survival import Starting, Survival, Tally, adapted_layers, base_name

_BIG = 1_000_000_000  # parameters from which a full fine-tune is saved as bfloat16 wherever it was trained
Master = Callable[[str, Tensor], Tensor]
"""Name and weight -> the float32 weight that it stands for."""


def saved_dtype(settings: Align, n_parameters: int) -> torch.dtype:
    """The type of the weights that full fine-tuning saves."""
    if settings.save != "auto":
        return torch.float32 if settings.save == "float32" else torch.bfloat16
    is_low = n_parameters > _BIG or compute_dtype(settings) is torch.bfloat16
    return torch.bfloat16 if is_low else torch.float32


@torch.no_grad()
def settle(policy: Policy, settings: Align, start: str, weights: dict[str, Tensor] | None, master: Master) -> Survival:
    """Turns the trained weights into those that are saved, in place, and measures what is left of their movement.

    Args:
        policy: what was trained.
        settings: the fields of `align`.
        start: the name, folder or hub id of the model that training started from.
        weights: by name, where the model itself holds but a shard of them.
        master: of a trained weight.
    """
    if isinstance(policy.model, PeftModel):
        return _merged(policy.model, settings, start, weights)
    dtype = saved_dtype(settings, policy.model.num_parameters())
    starting, tally = Starting(start, weight_dtype(settings)), Tally()
    trained = {name for name, weight in policy.model.named_parameters() if weight.requires_grad}
    settled: dict[int, Tensor] = {}  # tied weights stay one tensor
    for name, weight in (weights or dict(policy.model.named_parameters())).items():
        if id(weight) not in settled:
            held, kept = _settled(name, weight, dtype, master)
            if name in trained:
                tally.add(starting.weight(name, held), held, kept)
            settled[id(weight)] = kept
        if weights is None:
            weight.data = settled[id(weight)]
        else:
            weights[name] = settled[id(weight)]
    if weights is None:
        policy.model.to(dtype)  # what is no parameter
    return tally.survival(_word(dtype))


def _settled(name: str, weight: Tensor, dtype: torch.dtype, master: Master) -> tuple[Tensor, Tensor]:
    """The float32 weight and what is saved for it."""
    held = master(name, weight)
    if not held.is_floating_point():
        return held, held
    is_rounded = dtype is torch.bfloat16 and held.dtype is torch.float32
    return held, rounded(held, name) if is_rounded else held.to(dtype)


def _merged(model: PeftModel, settings: Align, start: str, weights: dict[str, Tensor] | None) -> Survival:
    """Of adapters: all that they change of their base, merged as `models.weights.open_model` merges."""
    dtype = compute_dtype(settings)
    starting, tally = Starting(base_name(start), dtype), Tally()
    for layer in adapted_layers(model, weights):
        is_packed = not layer.weight.is_floating_point()
        before = starting.weight(layer.name, layer.change) if is_packed else layer.weight
        before = before.to(layer.change.device).float()
        after = before + layer.change
        tally.add(before, after, rounded(after, layer.name) if dtype is torch.bfloat16 else after)
    return tally.survival(_word(dtype))


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
