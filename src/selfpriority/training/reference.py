"""What DPO and IPO measure against: log-probabilities under the model that training starts from.

Measured once, before the first step, and part of every checkpoint: the model that a continued training loads
is no longer the one it started from. Knows numbers per response, and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfpriority.training.encode import EncodedPool

_FILE = "reference.safetensors"


class Reference:
    """Mean log-probability of every response of some pools, once it is measured."""

    def __init__(self, pools: Sequence[EncodedPool]) -> None:
        self.by_pool: list[Tensor] = []
        """[responses] of every pool; empty until measured."""
        self._sizes = [len(pool.response_ids) for pool in pools]

    def fill(self, logps: Tensor) -> None:
        """Takes what was measured, pool after pool: [R]."""
        self.by_pool = list(torch.split(logps.cpu(), self._sizes))

    def save(self, checkpoint: Path) -> None:
        """Writes the numbers into a checkpoint."""
        save_file({"logps": torch.cat(self.by_pool)}, checkpoint / _FILE)

    def load(self, checkpoint: Path) -> None:
        """Takes the numbers from a checkpoint."""
        self.fill(load_file(checkpoint / _FILE)["logps"])
