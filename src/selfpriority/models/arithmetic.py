"""Where a model runs and in which floating-point type: what `auto` means on this machine. Knows no model."""

from __future__ import annotations

import torch

from selfpriority.errors import InputError
from selfpriority.recipe import HfBackend


def device_of(name: str) -> torch.device:
    """The device of this name; `auto` is the fastest kind there is.

    Raises:
        InputError: it cannot be used here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
        reason = str(error).split("\n")[0]
        raise InputError(f"backend.device: {name} cannot be used here: {reason}") from error
    if device.type == "cuda":
        keep_attention_off_cudnn()
    return device


def keep_attention_off_cudnn() -> None:
    """Has torch compute attention with its other kernels, in this process.

    cuDNN makes a plan for every new shape, and here every token makes one: on an H200 the first 48 tokens of 120 rows
    took 9.7 s, the same shapes again 2.1 s (benchmarks/README.md).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The type of this name; `auto` is bfloat16 where the device multiplies it, float32 where it would emulate."""
    if name != "auto":
        return torch.float32 if name == "float32" else torch.bfloat16
    return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32


def bytes_per_weight(settings: HfBackend) -> int:
    """What a weight takes in the arithmetic that `settings` mean on this machine."""
    return dtype_of(settings.dtype, device_of(settings.device)).itemsize


def settled(settings: HfBackend) -> HfBackend:
    """The same with the device and the arithmetic that `auto` means on this machine."""
    device = device_of(settings.device)
    dtype = str(dtype_of(settings.dtype, device)).removeprefix("torch.")
    return settings.model_copy(update={"device": str(device), "dtype": dtype})


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":  # mkldnn's own check passes wherever it can emulate
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
