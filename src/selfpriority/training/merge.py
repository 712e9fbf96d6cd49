"""A model whose weights are those of one model and a sum of what trainings moved: of deltas, not of adapters' factors.

theta_0 + sum_i lambda_i (theta_i - theta_0), in float32, one model beside the sum at a time. Trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from selfpriority.errors import InputError
from selfpriority.models.rounding import to_bfloat16
from selfpriority.models.weights import Opened, open_model
from selfpriority.recipe import Align
from selfpriority.training.adapters import Policy, save_policy
from selfpriority.training.checkpoints import written
from selfpriority.training.saving import saved_dtype


def save_merged(model: str, weights: Mapping[str, float], settings: Align, folder: Path) -> None:
    """Writes the merged model into `folder`, in the type that a training under `settings` would save.

    Args:
        model: the one that the trainings started from: a name, folder or hub id.
        weights: trained model -> lambda.
        settings: the fields of `align`.
        folder: where it shall lie; there whole or not at all.

    Raises:
        InputError: a model cannot be loaded, or has other weights than the others.
        WorkFailed: the disk is full.
    """
    opened = merged(model, weights)
    if saved_dtype(settings, opened.model.num_parameters()) is torch.bfloat16:
        to_bfloat16(opened.model)
    with written(folder, "all that is trained"):
        save_policy(Policy(opened.model, opened.tokenizer, opened.end_ids), folder)


@torch.no_grad()
def merged(model: str, weights: Mapping[str, float]) -> Opened:
    """The sum in float32; of one model at 1 it is that model to the bit.

    Raises:
        InputError: as above.
    """
    own = 1.0 - math.fsum(weights.values())  # theta_0's own share
    shares = {**({} if math.isclose(own, 0.0, abs_tol=1e-9) else {model: own}), **weights}
    (first, share), *others = shares.items()
    total = open_model(first, torch.float32)
    for weight in total.model.parameters():
        weight.mul_(share)
    for name, share in others:
        _add(total, open_model(name, torch.float32), share, name)
    return total


def _add(total: Opened, part: Opened, share: float, name: str) -> None:
    """Adds `share` of a model's weights to those of the sum, in place."""
    theirs = dict(part.model.named_parameters())
    for place, weight in total.model.named_parameters():
        if place not in theirs or theirs[place].shape != weight.shape:
            raise InputError(f"model: {name} cannot be merged: its {place} is not there, or has another shape")
        weight.add_(theirs[place], alpha=share)
