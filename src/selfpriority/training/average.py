"""An exponential moving average of the trained weights: kept beside them, in float32, and saved in their place.

Part of every checkpoint, so that a training that is continued ends with the same average. Knows parameters by
name and nothing of what they are trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_FILE = "average.safetensors"


class Average:
    """The average over all steps so far; the first step's weights begin it.

    Args:
        decay: what the average keeps of itself at a step, between 0 and 1.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {}

    def update(self, model: nn.Module, master: Callable[[Tensor], Tensor]) -> None:
        """Moves the average towards the weights of this step: towards the float32 that each stands for."""
        for name, weight in _trained(model):
            kept = self.weights.get(name)
            latest = master(weight).float()
            # a copy even of float32, or the average would be the weight itself
            self.weights[name] = (
                latest.clone() if kept is None else kept.to(latest.device).lerp_(latest, 1 - self.decay)
            )

    def save(self, checkpoint: Path) -> None:
        """Writes the average into a checkpoint."""
        save_file(self.weights, checkpoint / _FILE)

    def load(self, checkpoint: Path) -> None:
        """Takes the average from a checkpoint."""
        self.weights = load_file(checkpoint / _FILE)

    @torch.no_grad()
    def move_into(self, model: nn.Module) -> None:
        """Overwrites the model's trained weights with their average."""
        for name, weight in _trained(model):
            weight.copy_(self.weights[name])


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
