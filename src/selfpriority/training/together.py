"""What the main of several processes knows first and tells the others: the weights' shapes, a form, a checkpoint.

Where the model is cut into shards the main process alone reads weights: the others hold none until accelerate hands
out the shards. Knows policies and processes; nothing of pools.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import nn

from selfpriority.errors import WorkFailed
from selfpriority.recipe import Align
from selfpriority.training.adapters import Policy, load_policy
from selfpriority.training.checkpoints import Checkpoints, is_whole
from selfpriority.training.engines import is_sharded

T = TypeVar("T")
Weights = dict[str, tuple[torch.Size, torch.dtype]]
"""Name -> shape and type."""

NOT_SHARED = "the run directory must lie on a file system that all nodes share"


@dataclass(frozen=True)
class _Read:
    """What the main process found in a model's files."""

    end_ids: list[int]
    weights: Weights


def told(accelerator: Accelerator, value: T) -> T:
    """The main process's value, on every process; called on all of them."""
    if accelerator.num_processes == 1:
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0, device=accelerator.device)
    return values[0]


def policy_of(model: str | Path, settings: Align, seed: int, accelerator: Accelerator) -> Policy:
    """The policy that every process shall `prepare`, with numbers where it reads them; called on all processes.

    Args:
        model: as `load_policy` takes it.
        settings: likewise.
        seed: likewise.
        accelerator: as `engines.accelerator_for` makes it. It learns if all processes read after all, where the files
            make another model than the configuration alone.

    Raises:
        InputError: the model cannot be loaded.
    """
    if not hands_out(accelerator):
        return load_policy(model, settings, seed)
    policy = load_policy(model, settings, seed) if accelerator.is_main_process else None
    read = told(accelerator, _Read(policy.end_ids, _weights(policy.model)) if policy else None)
    assert read is not None
    own = policy or load_policy(model, settings, seed, reads=False)
    if not _all_can_take(accelerator, own.model, read.weights):
        accelerator.state.fsdp_plugin.cpu_ram_efficient_loading = False
        return policy or load_policy(model, settings, seed)
    if policy is None:
        _make_room(own.model, read.weights)
    return replace(own, end_ids=read.end_ids)


def hands_out(accelerator: Accelerator) -> bool:
    """Whether the main process alone has the weights, until accelerate hands out the shards."""
    return is_sharded(accelerator) and bool(accelerator.state.fsdp_plugin.cpu_ram_efficient_loading)


def shared_checkpoint(checkpoints: Checkpoints, accelerator: Accelerator) -> Path | None:
    """The checkpoint that all go on from, as the main process finds it; called on all processes.

    Raises:
        WorkFailed: it is not to be seen from here.
    """
    last = checkpoints.last() if accelerator.is_main_process else None
    name = told(accelerator, last and last.name)
    if name is None:
        return None
    checkpoint = checkpoints.folder / name
    if not is_whole(checkpoint):
        raise WorkFailed(f"{checkpoint}: is not seen by process {accelerator.process_index}; {NOT_SHARED}")
    return checkpoint


def _weights(model: nn.Module) -> Weights:
    return {name: (weight.shape, weight.dtype) for name, weight in model.named_parameters()}


def _all_can_take(accelerator: Accelerator, model: nn.Module, weights: Weights) -> bool:
    """Whether every process's model has those weights, and no saved buffer, which accelerate would not hand out."""
    shapes = {name: shape for name, (shape, _) in weights.items()}
    is_alike = {name: shape for name, (shape, _) in _weights(model).items()} == shapes
    saved = model.state_dict().keys()
    can = is_alike and not any(name in saved for name, _ in model.named_buffers())
    votes: torch.Tensor = accelerator.reduce(torch.tensor(float(can), device=accelerator.device))
    return votes.item() == float(accelerator.num_processes)


def _make_room(model: nn.Module, weights: Weights) -> None:
    """Gives weights without numbers an address each, by which accelerate knows them; nothing is written there."""
    made = {}  # tied weights stay one tensor
    for name, weight in model.named_parameters():
        shape, dtype = weights[name]
        made[id(weight)] = nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=weight.requires_grad)
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            module.register_parameter(name, made[id(weight)])
