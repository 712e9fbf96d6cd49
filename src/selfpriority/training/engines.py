"""Which engine trains on several processes: whole copies (DDP), FSDP2's shards, or a copy in shards on every node.

What an engine is told stands in `accelerate/*.yaml`, files that `accelerate launch` reads too; started by it, the
launcher's word counts and nothing is said here. Knows processes and settings; nothing of pools.
"""

from __future__ import annotations

import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator, DistributedType
from accelerate.parallelism_config import ParallelismConfig
from accelerate.utils import DistributedDataParallelKwargs, FullyShardedDataParallelPlugin, InitProcessGroupKwargs

from selfpriority.errors import InputError
from selfpriority.models.arithmetic import keep_attention_off_cudnn
from selfpriority.recipe import Align
from selfpriority.training.extras import missing_gpus

CONFIGS = Path(__file__).parent / "accelerate"
FILES = {"ddp": "ddp.yaml", "fsdp": "fsdp2.yaml"}
"""By `align.parallel`: `hsdp` is told what `fsdp` is, and a grid of processes beside it."""

_PATIENCE = timedelta(hours=1)
"""That processes wait for the main one, which reads all weights first and writes them last; torch waits ten minutes."""


def check_engine(settings: Align) -> None:
    """Raises InputError when the recipe asks for GPUs that are not there."""
    if line := missing_gpus(settings.processes):
        raise InputError(line)


def accelerator_for(settings: Align) -> Accelerator:
    """Knows the engine: the launcher's, else the recipe's, none for one process.

    Raises:
        InputError: the launcher asks for another engine, shards the model and the recipe needs it whole, or started as
            many processes as do not spread over the nodes.
    """
    shards = shard_arguments(settings)
    grid = _grid(settings) if shards else None
    has_gpu = torch.accelerator.is_available()
    keep_attention_off_cudnn()
    # unused weights are those of a mixture's other experts; looking for them breaks recomputed activations
    copies = DistributedDataParallelKwargs(find_unused_parameters=not settings.gradient_checkpointing)
    plugin = FullyShardedDataParallelPlugin(**shards) if shards else None
    # `cpu` unsaid, several processes on a CPU do not find each other
    handlers = [copies, InitProcessGroupKwargs(timeout=_PATIENCE)]
    if has_gpu:
        return Accelerator(kwargs_handlers=handlers, fsdp_plugin=plugin, parallelism_config=grid)
    accelerator = Accelerator(cpu=True, kwargs_handlers=handlers)
    if plugin:  # accelerate shards on accelerators only: the way to try FSDP without any
        accelerator.state.fsdp_plugin = plugin
        accelerator.state.distributed_type = DistributedType.FSDP
    if grid:
        accelerator.state.parallelism_config = grid
        accelerator.state.device_mesh = grid.get_device_mesh(accelerator.device.type)
    return accelerator


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether every process holds a part of the model."""
    # not by its type, which accelerate forgets on a CPU
    return getattr(accelerator.state, "fsdp_plugin", None) is not None


def shard_arguments(settings: Align) -> dict[str, Any]:
    """What accelerate's plugin is told about shards; nothing where the launcher has said it or nothing is sharded.

    Raises:
        InputError: as `accelerator_for`.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        raise InputError("DeepSpeed is not supported; let the launcher use FSDP2 (fsdp2.yaml)")
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        if settings.needs_copies:
            lack = "needs parallel: ddp; this launcher has processes hold shards"
            raise InputError(f"align.{settings.needs_copies} {lack}")
        return {}
    if _n_started() == 1:
        return {}
    check_engine(settings)
    if settings.parallel == "ddp":
        return {}
    config = yaml.safe_load((CONFIGS / FILES["fsdp"]).read_text(encoding="utf-8"))["fsdp_config"]
    arguments = {name.removeprefix("fsdp_"): value for name, value in config.items()}  # the plugin's own names
    others = {"fsdp_version": arguments.pop("version"), "cpu_offload": arguments.pop("offload_params")}
    return {**arguments, **others}


def _grid(settings: Align) -> ParallelismConfig | None:
    """Nodes as rows, the processes of a node as columns: a copy a row, a shard a column; None for one line of shards.

    Raises:
        InputError: the nodes cannot have equally many processes, or have one each.
    """
    if settings.parallel != "hsdp" or settings.nodes == 1:
        return None
    n_shards, over = divmod(_n_started(), settings.nodes)
    if over or n_shards < 2:
        raise InputError(
            f"align.parallel: hsdp wants two or more processes on each of {settings.nodes} nodes (align.nodes), "
            f"and {_n_started()} were started in all"
        )
    warnings.filterwarnings("ignore", message="Slicing a flattened dim")  # accelerate's own way to its grid
    return ParallelismConfig(dp_replicate_size=settings.nodes, dp_shard_size=n_shards)


def _n_started() -> int:
    """Processes that the launcher started, on all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))
