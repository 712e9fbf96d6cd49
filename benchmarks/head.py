"""Is torch's fused head as fast, as lean and as exact as ours? One JSON line.

    python benchmarks/head.py                                    SmolLM2-135M's shape; 200, 900 and 4,000 tokens

Ours is `training/head.py`; torch's is `linear_cross_entropy` with chunks of its own choice, of 128 tokens, and none
(`plain`). Every measurement is a process of its own, all in turn; medians of the processor's seconds (not the
clock's: the machine may be shared), and peak memory above the tensors given.
`difference` is the largest of values and of both gradients, relative to the largest entry of the exact ones (float64).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import linear_cross_entropy

from selfpriority.phases.freed_memory import KEEP_FREED_MEMORY
from selfpriority.training.head import token_logps

HIDDEN, VOCABULARY = 576, 49_152
WHO = ("ours", "torch", "torch-128", "plain")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[200, 900, 4000])
    parser.add_argument("--rounds", type=int, default=3, help="how often everybody has a turn")
    parser.add_argument("--who", nargs="+", choices=WHO, default=WHO)
    parser.add_argument("--child", choices=WHO, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_measured(options.child, options.tokens[0])))
        return 0
    print(json.dumps([_compared(n, options) for n in options.tokens]))
    return 0


def _compared(n: int, options: argparse.Namespace) -> dict[str, float]:
    found: dict[str, list[dict[str, float]]] = {who: [] for who in options.who}
    for _ in range(options.rounds):
        for who, runs in found.items():
            command = [sys.executable, __file__, "--child", who, "--tokens", str(n)]
            done = subprocess.run(command, check=True, capture_output=True, env={**os.environ, **KEEP_FREED_MEMORY})
            runs.append(json.loads(done.stdout))
    row: dict[str, float] = {"tokens": n}
    for who, runs in found.items():
        row[f"{who}_seconds"] = round(statistics.median(run["seconds"] for run in runs), 4)
        row[f"{who}_mb"] = round(statistics.median(run["mb"] for run in runs), 1)
        row[f"{who}_difference"] = max(run["difference"] for run in runs)
    return row


def _measured(who: str, n: int) -> dict[str, float]:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, HIDDEN, generator=draw).requires_grad_()
    weight = (0.05 * torch.randn(VOCABULARY, HIDDEN, generator=draw)).requires_grad_()
    targets = torch.randint(VOCABULARY, (n,), generator=draw)
    slopes = torch.randn(n, generator=draw)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident set counts from here
    seconds = []
    for _ in range(3):
        hidden.grad = weight.grad = None
        began = time.process_time()
        values = _logps(who, hidden, weight, targets)
        values.backward(slopes)
        seconds.append(time.process_time() - began)
    peak = _resident("VmHWM") - before
    return {
        "seconds": statistics.median(seconds[1:]),
        "mb": peak / 1e6,
        "difference": _difference(hidden, weight, targets, slopes, values.detach()),
    }


def _logps(who: str, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    if who == "ours":
        return token_logps(hidden, weight, targets)
    chosen = {"torch": nn.LinearCrossEntropyOptions(), "torch-128": nn.LinearCrossEntropyOptions(batch_chunk_size=128)}
    options = chosen.get(who)
    return -linear_cross_entropy(hidden, weight, targets, reduction="none", options=options)


def _difference(hidden: Tensor, weight: Tensor, targets: Tensor, slopes: Tensor, values: Tensor) -> float:
    exact_hidden, exact_weight = (given.detach().double().requires_grad_() for given in (hidden, weight))
    exact = (exact_hidden @ exact_weight.T).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    exact.backward(slopes.double())
    assert hidden.grad is not None
    assert weight.grad is not None
    pairs = [(values, exact.detach()), (hidden.grad, exact_hidden.grad), (weight.grad, exact_weight.grad)]
    return max(float((got - wanted).abs().max() / wanted.abs().max()) for got, wanted in pairs if wanted is not None)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    sys.exit(main())
