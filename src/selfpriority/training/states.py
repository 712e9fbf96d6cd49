"""Weights, optimizer state and random state on disk, read by any number of processes, whichever engine wrote them.

Every process writes its own shards and the main one what all hold alike, as safetensors: a file cannot run code.
Knows tensors by name and nothing of training.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor, distribute_tensor


def save_states(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, rank: int) -> None:
    """Writes what is trained of `model`, and its optimizer's state; called on all processes."""
    tensors: dict[str, Tensor] = {}
    for name, weight in _trained(model):
        for key, value in {"weight": weight.detach(), **optimizer.state[weight]}.items():
            if isinstance(value, DTensor):
                if not _is_copy(value):
                    tensors[f"{name}:{key}"] = value.to_local()
            elif rank == 0:
                tensors[f"{name}:{key}"] = value
    save_file(tensors, _file(folder, rank))


@torch.no_grad()
def load_states(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Reads them back, tensor by tensor; called on all processes.

    Raises:
        SafetensorError: a file is damaged.
        KeyError: the files are of another model.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, "pt")) for path in _files(folder)]
        holders: dict[str, dict[str, list[Any]]] = {}  # files by weight and entry; a shard in each
        for file in files:
            for entry in file.keys():  # noqa: SIM118 - not a mapping
                name, _, key = entry.rpartition(":")
                holders.setdefault(name, {}).setdefault(key, []).append(file)
        for name, weight in _trained(model):
            read = {key: _whole(f"{name}:{key}", of_key) for key, of_key in holders[name].items()}
            state = {key: _placed(value, weight) for key, value in read.items()}
            weight.copy_(state.pop("weight"))
            optimizer.state[weight] = state


def unseen(folder: Path, n_ranks: int) -> int | None:
    """The first process whose states are not to be seen from here; None: all are."""
    return next((rank for rank in range(n_ranks) if not _file(folder, rank).is_file()), None)


def save_random(folder: Path, rank: int) -> None:
    """Writes where torch's random numbers of this process stand, which is what dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    save_file(state, folder / f"random-{rank:05}.safetensors")


def load_random(folder: Path, rank: int) -> None:
    """Sets them back; a process that had no part in the checkpoint keeps its own."""
    path = folder / f"random-{rank:05}.safetensors"
    state = load_file(path) if path.is_file() else {}
    if "cpu" in state:
        torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


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


def _file(folder: Path, rank: int) -> Path:
    return folder / f"states-{rank:05}.safetensors"


def _files(folder: Path) -> list[Path]:
    """Those of all processes, asked for by name: a list of the folder may be older on another node."""
    return list(takewhile(Path.is_file, (_file(folder, rank) for rank in count())))


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _is_copy(shard: DTensor) -> bool:
    """Whether another process, on a node before, holds the same shard and writes it."""
    places = zip(shard.device_mesh.get_coordinate() or (), shard.placements, strict=True)
    return any(index > 0 and placement.is_replicate() for index, placement in places)


def _whole(entry: str, files: list[Any]) -> Tensor:
    shards = [file.get_tensor(entry) for file in files]
    return torch.cat(shards) if len(shards) > 1 else shards[0]  # FSDP2 cuts along the first dimension


def _placed(whole: Tensor, weight: nn.Parameter) -> Tensor:
    """Where and how the weight is held; a number that belongs to it is held by every process."""
    if isinstance(weight, DTensor) and whole.ndim:
        return distribute_tensor(whole.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
    return whole.to(weight.device)
