"""What a training needs beside the package itself: trackers, a quantiser, as many GPUs as processes.

Imports none of it until it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence

from selfpriority.recipe import Align

BITSANDBYTES, TRL = "bitsandbytes", "trl"


def missing_extras(settings: Align) -> Iterator[str]:
    """One line for everything that is asked for and is not on this machine: field, value, remedy."""
    yield from missing_trackers(settings.report_to)
    if settings.lora is not None and settings.lora.quantize == "nf4":
        yield from missing_quantiser()
    if settings.method == "grpo" and (why := _trouble(TRL)):
        yield f"align.method: grpo needs {TRL}, which {why}; install it with selfpriority[online]"
    if line := missing_gpus(settings.processes):
        yield line


def missing_gpus(n_processes: int) -> str:
    """A line where there are GPUs, and fewer than processes; without any the processes share the CPU."""
    if n_processes == 1:
        return ""
    import torch

    n_gpus = torch.cuda.device_count()
    enough = n_gpus == 0 or n_gpus >= n_processes
    return "" if enough else f"align.processes: {n_processes}, but this machine has {n_gpus} GPUs, one a process"


def missing_trackers(names: Sequence[str]) -> Iterator[str]:
    """One line for every tracker whose package cannot be imported."""
    for name in names:
        if why := _trouble(name):
            yield f"align.report_to: {name} {why}; pip install {name}, or leave it out"


def missing_quantiser() -> Iterator[str]:
    """A line where the package for 4 bits cannot be imported."""
    if why := _trouble(BITSANDBYTES):
        yield f"align.lora.quantize: nf4 needs {BITSANDBYTES}, which {why}; install it with selfpriority[qlora]"


def _trouble(package: str) -> str:
    """Why a package cannot be imported: it is not there, or what it needs is not; empty where it can."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        return "is not installed" if error.name == package else f"cannot be imported ({error})"
    except Exception as error:  # whatever an extra does as it loads, a CUDA library that it does not find for one
        return f"cannot be imported ({(str(error).strip() or type(error).__name__).splitlines()[0]})"
    return ""
