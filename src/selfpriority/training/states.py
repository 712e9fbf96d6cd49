"""Weights and optimizer state on disk in a form that any number of processes reads, whichever engine wrote it.

Every process writes its shards (`torch.distributed.checkpoint`); reading cuts them anew. Knows tensors by name and
nothing of training.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

_TRAINED = StateDictOptions(
    ignore_frozen_params=True, strict=False
)  # under adapters the base comes from its own folder


def save_states(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Writes what is trained of `model`, and its optimizer's state; called on all processes."""
    with _alone_or_not():
        save(_states(model, optimizer), checkpoint_id=folder)


def load_states(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Reads them back in place; called on all processes."""
    states = _states(model, optimizer)
    with _alone_or_not():
        load(states, checkpoint_id=folder)
    set_state_dict(
        model, optimizer, model_state_dict=states["model"], optim_state_dict=states["optimizer"], options=_TRAINED
    )


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights by name on the CPU of the main process, nothing elsewhere; called on all processes."""
    weights: dict[str, Any] = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    first_names: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = first_names.setdefault(id(parameter), name)
        if name in weights:
            weights[name] = weights[first]  # tied weights are one tensor again, so that they are saved once
    return weights


def _states(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    weights, state = get_state_dict(model, optimizer, options=_TRAINED)
    return {"model": weights, "optimizer": state}


@contextmanager
def _alone_or_not() -> Iterator[None]:
    """Without torch's warning that one process saves for itself alone, which is what one process means to do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield
