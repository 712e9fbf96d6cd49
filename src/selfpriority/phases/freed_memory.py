"""What becomes of memory that was freed: how glibc is told when a process starts, and how all of it is given back."""

from __future__ import annotations

import ctypes
import gc
import sys

# glibc hands every large freed tensor back to the system, which on a virtual machine costs more than the copy into the
# next one (3 against 20 GB/s); kept, it makes ratings and generation about a tenth faster on a CPU
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34)}
# who asks for less memory gets the opposite: what is freed in between stays no part of the peak
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


def return_freed_memory() -> None:
    """Gives back what was freed, wherever it lies.

    What is kept is of the sizes of one model and its prompts; the next one's fit into some of the gaps, so of many
    models one after the other each would leave some hundred megabytes more.
    """
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # musl has none
        libc.malloc_trim(0)
