"""What DPO and its kin measure against: log-probabilities under the model that training starts from.

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
    """Mean log-probability of every response of some pools, once it is measured.

    Args:
        pools: what is trained on.
        mismatched: for KTO, the same number of pools with answers to other prompts.
    """

    def __init__(self, pools: Sequence[EncodedPool], mismatched: Sequence[EncodedPool] = ()) -> None:
        self.by_pool: list[Tensor] = []
        """[responses] of every pool, or [responses, 2] where tokens weigh; empty until measured."""
        self.mismatched: list[Tensor] = []
        """The same of the mismatched pools."""
        self.token_weights: Tensor | None = None
        """For TIS-DPO, [tokens] of all responses, pool after pool; part of what is measured once."""
        self._sizes = [len(pool.response_ids) for pool in pools]
        self._mismatched_sizes = [len(pool.response_ids) for pool in mismatched]

    def fill(self, logps: Tensor, mismatched: Tensor | None = None) -> None:
        """Takes what was measured, pool after pool: [R] or [R, 2], and [R'] of mismatched pools if there are any."""
        self.by_pool = list(torch.split(logps.cpu(), self._sizes))
        if mismatched is not None:
            self.mismatched = list(torch.split(mismatched.cpu(), self._mismatched_sizes))

    def save(self, checkpoint: Path) -> None:
        """Writes the numbers into a checkpoint."""
        numbers = {"logps": torch.cat(self.by_pool)}
        if self.mismatched:
            numbers["mismatched"] = torch.cat(self.mismatched)
        if self.token_weights is not None:
            numbers["token_weights"] = self.token_weights
        save_file(numbers, checkpoint / _FILE)

    def load(self, checkpoint: Path) -> None:
        """Takes the numbers from a checkpoint."""
        numbers = load_file(checkpoint / _FILE)
        self.fill(numbers["logps"], numbers["mismatched"] if self._mismatched_sizes else None)
        self.token_weights = numbers.get("token_weights")
