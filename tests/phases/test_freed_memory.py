"""Memory of one model after the other, in a process that keeps what was freed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from selfpriority.phases.freed_memory import KEEP_FREED_MEMORY

GAPS = """
import torch
from selfpriority.phases.freed_memory import return_freed_memory

def held():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))

before = held()
large, small = [], []
for _ in range(40):  # in turn, so that a small one that stays lies behind every large one
    large.append(torch.ones(4 * 2**20))
    small.append(torch.ones(64))
large.clear()
gaps = held()
return_freed_memory()
print(before, gaps, held())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="how glibc keeps memory")
def test_gaps_between_what_stays_are_given_back() -> None:
    environment = {**os.environ, **KEEP_FREED_MEMORY}
    done = subprocess.run([sys.executable, "-c", GAPS], capture_output=True, text=True, check=True, env=environment)
    before, gaps, after = map(int, done.stdout.split())
    assert gaps - before > 500  # 40 times 16 MB, of which nothing is in use any more
    assert after - before < 100
