"""What DPO and IPO measure against: log-probabilities under the model that training starts from.

Measured once, before the first step, and part of every checkpoint: the model that a continued training loads
is no longer the one it started from. Knows numbers per response, and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from selfpriority.training.encode import EncodedPool

_FILE = "reference.safetensors"


class Reference(TrainerCallback):
    """Mean log-probability of every response of some pools, once it is measured."""

    def __init__(self, pools: Sequence[EncodedPool]) -> None:
        self.by_pool: list[Tensor] = []
        """[responses] of every pool; empty until measured."""
        self._sizes = [len(pool.response_ids) for pool in pools]

    def fill(self, logps: Tensor) -> None:
        """Takes what was measured, pool after pool: [R]."""
        self.by_pool = list(torch.split(logps.cpu(), self._sizes))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Takes what the checkpoint holds that training continues from."""
        if state.global_step:
            self.fill(load_file(_place(args, state))["logps"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Writes the numbers into the checkpoint."""
        if state.is_world_process_zero:
            save_file({"logps": torch.cat(self.by_pool)}, _place(args, state))


def _place(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / _FILE
