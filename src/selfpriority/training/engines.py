"""Which engine trains on several processes: whole copies (DDP), FSDP2's shards or DeepSpeed's ZeRO-3.

What an engine is told stands in `accelerate/*.yaml`, files that `accelerate launch` reads too; started by it, the
launcher's word counts and nothing is said here. Knows processes and settings; nothing of pools.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator, DistributedType
from accelerate.utils import FullyShardedDataParallelPlugin

from selfpriority.errors import InputError
from selfpriority.recipe import Align

CONFIGS = Path(__file__).parent / "accelerate"
FILES = {"ddp": "ddp.yaml", "fsdp": "fsdp2.yaml", "zero3": "zero3.yaml"}


def check_engine(settings: Align) -> None:
    """Raises InputError when the recipe asks for an engine that is not installed, or for GPUs that are not there."""
    n_gpus = torch.cuda.device_count()
    if 0 < n_gpus < settings.processes:
        raise InputError(f"align.processes: {settings.processes}, but this machine has {n_gpus} GPUs, one a process")
    if settings.parallel == "zero3" and importlib.util.find_spec("deepspeed") is None:
        raise InputError("align.parallel: zero3 needs deepspeed, which is not installed: pip install deepspeed")


def engine_arguments(settings: Align) -> dict[str, Any]:
    """What `TrainingArguments` is told about the engine: the launcher's, else the recipe's, none for one process.

    Raises:
        InputError: the launcher shards the model, and the recipe needs it whole.
    """
    shards = any(os.environ.get(name) == "true" for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"))
    if shards and settings.needs_copies:
        raise InputError(f"align.{settings.needs_copies} needs parallel: ddp; this launcher has processes hold shards")
    clips = {"max_grad_norm": settings.max_grad_norm}  # DeepSpeed clips on its own, within the backward pass
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return clips
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return {}
    check_engine(settings)
    config = yaml.safe_load((CONFIGS / FILES[settings.parallel]).read_text(encoding="utf-8"))
    if settings.parallel == "zero3":
        return {"deepspeed": _deepspeed(config["deepspeed_config"]), **clips}
    return {"fsdp": True, "fsdp_config": config["fsdp_config"]} if settings.parallel == "fsdp" else {}


def engine_family(settings: Align) -> str:
    """Whose checkpoints this training writes and reads: DeepSpeed's own, or the form that all other engines share."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return "deepspeed"
    is_told = os.environ.get("ACCELERATE_USE_FSDP") == "true" or int(os.environ.get("WORLD_SIZE", "1")) == 1
    return "deepspeed" if settings.parallel == "zero3" and not is_told else "torch"


def shard_on_cpu(accelerator: Accelerator, plugin_arguments: dict[str, Any]) -> None:
    """Makes accelerate shard on CPUs too, which it does on accelerators only: the way to try FSDP without any."""
    state = accelerator.state
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**plugin_arguments)
    state.distributed_type = DistributedType.FSDP


def _deepspeed(config: dict[str, Any]) -> dict[str, Any]:
    """The same settings as DeepSpeed writes them; `Trainer` fills in `auto`."""
    return {
        "zero_optimization": {
            "stage": config["zero_stage"],
            "stage3_gather_16bit_weights_on_model_save": config["zero3_save_16bit_model"],
            "offload_optimizer": {"device": config["offload_optimizer_device"]},
            "offload_param": {"device": config["offload_param_device"]},
        },
        "gradient_clipping": config["gradient_clipping"],
        "gradient_accumulation_steps": config["gradient_accumulation_steps"],
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
    }
