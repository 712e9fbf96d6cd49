"""A policy to train from a model name or folder, in full or through low-rank adapters, and back to disk.

Full fine-tuning holds float32 weights whatever the arithmetic, for its updates are below bfloat16's resolution;
bfloat16 weights need `optimizer.MasterAdamW`. Knows peft and the recipe's `align.lora`; nothing of pools.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer, LoraVariant
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, set_seed
from transformers.utils import logging as transformers_logging

from selfpriority.errors import InputError
from selfpriority.models.arithmetic import device_of, dtype_of
from selfpriority.models.embedded import EMBEDDED
from selfpriority.models.files import adapter_base, folder_of
from selfpriority.models.weights import open_adapter, open_model, save_tokenizer, silent
from selfpriority.recipe import Align, Lora
from selfpriority.training.extras import missing_quantiser


@dataclass(frozen=True)
class Policy:
    """A trainable model with its tokenizer."""

    model: Any
    """A causal language model, or a `PeftModel` of one."""
    tokenizer: Any

    end_ids: list[int]
    """The model's own end-of-sequence ids."""

    base: str = ""
    """What an adapter notes as its base."""
    brings_embeddings: bool = False
    """The adapter it continues holds whole embeddings, and so must its successor."""

    @property
    def context(self) -> int:
        """Most tokens the model was made for; a very large number where it does not say."""
        config = self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None) or sys.maxsize


def load_policy(model: str | Path, settings: Align, seed: int, reads: bool = True) -> Policy:
    """The model as `settings` wants it trained.

    Args:
        model: an embedded name, a hub id, a folder, or the folder of a LoRA adapter. With `align.lora` the adapter's
            training continues; without, it is merged into its base, which is then trained in full.
        settings: `lora`, `dtype`, `weights` and `gradient_checkpointing` count here.
        seed: draws the new adapter's weights.
        reads: whether the model's weights are; else they have shapes and no numbers.

    Raises:
        InputError: the model cannot be loaded.
    """
    set_seed(seed)
    name = str(Path(model).absolute() if Path(model).is_dir() and model not in EMBEDDED else model)
    dtype, quantization = weight_dtype(settings), _quantization(settings)
    if settings.lora is None:
        opened = open_model(name, dtype, reads=reads)
    else:
        how = {"quantization_config": quantization, "device_map": _own_gpu()} if quantization else {}
        opened = open_adapter(name, dtype, reads, **how)
    policy = opened.model
    for layer in policy.modules() if quantization else ():
        # on some CPUs bitsandbytes repacks weights at the first evaluation, into a form without gradients
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    if settings.lora is None:
        policy.requires_grad_(True)
    elif not isinstance(policy, PeftModel):
        policy = adapted(policy, settings.lora)
    if settings.gradient_checkpointing:
        checkpoint_layers(policy)
    folder = folder_of(opened.source)
    base = (adapter_base(folder) if folder else None) or name
    return Policy(policy, opened.tokenizer, opened.end_ids, base, opened.brings_embeddings)


def adapted(model: Any, lora: Lora) -> Any:
    """The model under new adapters, which alone are trained.

    Raises:
        ValueError: it has none of the modules in `lora.targets`.
    """
    targets: str | list[str] = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a plain factor; peft only annotates int
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    with silent():
        return get_peft_model(model, config)


def checkpoint_layers(model: Any) -> None:
    """Makes the backward pass compute the activations within a layer again, from its input alone."""
    # renamed within transformers 5, where the old name warns
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def leave_casts_to_autocast(model: nn.Module) -> None:
    """Spares an adapter's layers their own cast of what comes in, for a model that only runs under autocast.

    peft turns it into the float32 of the adapter's weights, and autocast turns it back for the product: the same
    numbers, for two copies forward, one of them kept, and two backward. With `lora.dropout` what is left is then scaled
    in bfloat16.
    """
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.cast_input_dtype_enabled = False  # type: ignore[assignment]  # torch thinks of weights and modules


def scale_between(model: nn.Module) -> None:
    """Spares an adapter's layers the scaling of all that they put out, where what is scaled may as well be narrow.

    peft multiplies the product of both matrices, as wide as the layer; the rank is a fraction of that. By a power of
    two, or none, the numbers are the same bit for bit, and with no other factor is it done.
    """
    for layer in model.modules():
        if isinstance(layer, LoraLinear):
            for name, factor in layer.scaling.items():
                if name in layer.lora_A and math.frexp(factor)[0] == 0.5:
                    layer.lora_variant.setdefault(name, ScaledBetween())


class ScaledBetween(LoraVariant):
    """An adapter as it is, but for where it is scaled."""

    @staticmethod
    def forward(module: LoraLayer, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        """What the layer puts out, [..., wide], of x, [..., narrow], and of what its base puts out."""
        factor = module.scaling[active_adapter]
        inner = module.lora_A[active_adapter](module.lora_dropout[active_adapter](x))
        added: Tensor = module.lora_B[active_adapter](inner if factor == 1.0 else inner * factor)
        return result + added


def compute_dtype(settings: Align) -> torch.dtype:
    """Arithmetic of the forward pass; `auto` is bfloat16 where the hardware multiplies it or the weights are so."""
    if settings.weights == "bfloat16":
        return torch.bfloat16
    return dtype_of(settings.dtype, device_of("auto"))


def weight_dtype(settings: Align) -> torch.dtype:
    """What trained weights are held in; the frozen base under an adapter is in the type of the arithmetic."""
    if settings.lora is not None:
        return compute_dtype(settings)
    return torch.bfloat16 if settings.weights == "bfloat16" else torch.float32


def save_policy(policy: Policy, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Writes weights, configuration and tokenizer beside `folder`, then renames: whole or not at all.

    Args:
        policy: what was trained.
        folder: where it shall lie.
        weights: by name, where the model itself holds but a shard of them.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")  # a name that is nobody's
    partial.mkdir(parents=True)
    try:
        _write_policy(policy, partial, weights)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_policy(policy: Policy, folder: Path, weights: dict[str, Tensor] | None) -> None:
    model = policy.model
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # progress is the caller's to show
    how: dict[str, Any] = {}
    if isinstance(model, PeftModel):
        config = model.active_peft_config
        config.base_model_name_or_path = policy.base  # as the recipe says it, and not where that lies on this machine
        # peft would look for the base at the hub to find out
        how["save_embedding_layers"] = policy.brings_embeddings and not getattr(config, "modules_to_save", None)
    model.save_pretrained(folder, state_dict=weights, **how)
    if weights and not isinstance(model, PeftModel):  # it noted the type of the shards
        model.config.dtype = next(weight.dtype for weight in weights.values() if weight.is_floating_point())
        model.config.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty form, which names the base's place
    save_tokenizer(policy.tokenizer, folder)
    _as_readable_as_any(folder)


def _as_readable_as_any(folder: Path) -> None:
    """Gives all files here the mode of a file that is simply written: safetensors makes its own for the owner alone."""
    usual = folder / ".usual"
    usual.touch()
    mode = usual.stat().st_mode & 0o777
    usual.unlink()
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(mode)


def _quantization(settings: Align) -> BitsAndBytesConfig | None:
    if settings.lora is None or settings.lora.quantize == "none":
        return None
    if lines := list(missing_quantiser()):
        raise InputError(*lines)
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(settings),
    )


def _own_gpu() -> dict[str, int] | None:
    """Where this process trains: quantized weights have to be loaded there, others are moved later."""
    return {"": int(os.environ.get("LOCAL_RANK", "0"))} if torch.cuda.is_available() else None
