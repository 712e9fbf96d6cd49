"""How much faster and leaner is a training step than a peer's, on the same pairs, with the same loss?

    python benchmarks/align.py                                                              the table of the README
    python benchmarks/align.py --n 8 --prompt 64 --response 96 --dtype float32 --json       one case, one JSON object
    python benchmarks/align.py --gpu                                                        an 8B shape, 10 minutes

A pool holds n candidates and a refined answer, and every pair of them is trained on. The peers (`--peer`) get the same
pairs, one optimizer step a pool: `trl` is TRL's `CPOTrainer(loss_type="simpo", cpo_alpha=0)`, `trl-dpo` its
`DPOTrainer` with the fused head against our `method: dpo`. The limit is a bare forward and backward pass of the model
over as many distinct tokens in one sequence. Every measurement is a process of its own, ours and the peer's in turn.
Peak memory is what a process needs above the loaded model. On CPUs everybody runs with the settings of the allocator
that `spa` gives its own processes; `--lean` with those it gives them under `align.gradient_checkpointing`.

Needs `pip install --no-deps trl==1.16.0` for the peers. `--model llama-3.1-8b` is that shape with random weights (GPU).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from trainers import SHAPES, WHO, CannotRun, Case, peak_flops, per_token_flops

from selfpriority.phases.freed_memory import KEEP_FREED_MEMORY, RETURN_FREED_MEMORY

TABLE = [  # n, prompt, response
    *((n, 64, response) for n in (2, 4, 8) for response in (64, 96, 256)),
    (8, 512, 128),
    (1, 64, 96),
    (1, 512, 128),
]
GPU_TABLE = [(1, 512, 256), *((n, 512, response) for n in (2, 4, 8) for response in (64, 256, 1024))]
GPU_MINUTES = 9.5  # no case begins later


def compare(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Ours, the peer and the limit in turn, as often as asked; medians without each process's first step.

    Raises:
        CannotRun: ours failed. If only the peer or the limit failed, their figures are missing, and `reasons` says why.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ("ours", options.peer, "limit")}
    reasons: dict[str, str] = {}
    for _ in range(options.rounds):
        for name, measured in results.items():
            if name not in reasons:
                try:
                    measured.append(_child(name, case, options))
                except CannotRun as reason:
                    if name == "ours":
                        raise
                    reasons[name] = str(reason)
    seconds = {
        name: statistics.median(s for r in runs for s in r["seconds"][1:])
        for name, runs in results.items()
        if name not in reasons
    }
    memory = {name: max(r["memory"] for r in runs) for name, runs in results.items() if name not in reasons}
    result: dict[str, Any] = {
        **{"n": case.n, "prompt": case.prompt, "response": case.response},
        **{"model": options.model, "dtype": options.dtype, "weights": options.weights, "lora": options.lora},
        **{"peer": options.peer, "lean": options.lean},
        "pairs_per_second": round(case.n_pairs / seconds["ours"], 3),
        "tokens_per_second": round(case.n_tokens / seconds["ours"], 1),
        "memory_gb": round(memory["ours"] / 1e9, 2),
        "losses": results["ours"][0]["losses"],
        "reasons": reasons,
    }
    if (flops := peak_flops()) and options.model in SHAPES:
        result["mfu"] = round(per_token_flops(options) * case.n_tokens / seconds["ours"] / flops, 3)
    if options.peer in seconds:
        result |= {
            "peer_pairs_per_second": round(case.n_pairs / seconds[options.peer], 3),
            "peer_memory_gb": round(memory[options.peer] / 1e9, 2),
            "speed_ratio": round(seconds[options.peer] / seconds["ours"], 2),
            "memory_ratio": round(memory["ours"] / memory[options.peer], 3),
            # of the first step and of those after updates: a DPO loss says nothing before the first
            "loss_difference": max(
                abs(mine - theirs)
                for mine, theirs in zip(results["ours"][0]["losses"], results[options.peer][0]["losses"], strict=False)
            ),
        }
    if "limit" in seconds:
        result["limit_tokens_per_second"] = round(case.n_tokens / seconds["limit"], 1)
        result["limit_ratio"] = round(seconds["limit"] / seconds["ours"], 3)
    return result


def main() -> int:
    options = _options()
    if options.child:
        case = Case(options.n, options.prompt, options.response)
        print(json.dumps(WHO[options.child](case, options)))
        return 0
    rows = [(options.n, options.prompt, options.response)] if options.n else GPU_TABLE if options.gpu else TABLE
    began, results = time.monotonic(), []
    for row in rows:
        if options.gpu and time.monotonic() - began > 60 * GPU_MINUTES:
            print(f"no time is left for {Case(*row)} and what follows", file=sys.stderr)
            break
        try:
            results.append(compare(Case(*row), options))
        except CannotRun as reason:
            print(reason, file=sys.stderr, flush=True)
            continue
        for reason in results[-1]["reasons"].values():
            print(reason, file=sys.stderr, flush=True)
        if not options.json:
            print(_row(results[-1]), flush=True)
    if options.json and results:
        print(json.dumps(results[0] if len(results) == 1 else results))
    return 0 if results else 1


def _child(name: str, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", name, "--peer", options.peer, "--n", str(case.n)]
    command += ["--prompt", str(case.prompt), "--response", str(case.response), "--model", options.model]
    command += ["--dtype", options.dtype, "--weights", options.weights, "--tokens", str(options.tokens)]
    steps = options.steps if name in ("ours", "limit") else options.peer_steps
    command += ["--steps", str(steps), *(f"--{name}" for name in ("lean", "lora") if getattr(options, name))]
    freed = RETURN_FREED_MEMORY if options.lean and name == "ours" else KEEP_FREED_MEMORY
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **freed})
    if done.returncode:
        last = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
        raise CannotRun(f"{name} cannot run {case}: {last}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _row(r: dict[str, Any]) -> str:
    def both(name: str, digits: int) -> str:
        peer = f"{r[f'peer_{name}']:.{digits}f}" if f"peer_{name}" in r else "-"
        return f"{r[name]:.{digits}f} / {peer}"

    def given(name: str, form: str) -> str:
        return format(r[name], form) if name in r else "-"

    cells = [
        str(r["n"]),
        str(r["prompt"]),
        str(r["response"]),
        both("pairs_per_second", 2),
        given("speed_ratio", ".1f"),
    ]
    tokens = f"{r['tokens_per_second']:.0f} / {given('limit_tokens_per_second', '.0f')}"
    cells += [both("memory_gb", 1), given("memory_ratio", ".2f"), tokens]
    cells += [
        given("limit_ratio", ".2f"),
        given("loss_difference", ".0e"),
        *([given("mfu", ".0%")] if "mfu" in r else []),
    ]
    return f"| {' | '.join(cells)} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    peers = sorted(set(WHO) - {"ours", "limit"})
    parser.add_argument("--peer", choices=peers, default="trl", help="who it is compared with")
    parser.add_argument("--n", type=int, help="candidates a pool; 1 is one ordinary pair; default: the whole table")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of the prompt")
    parser.add_argument("--response", type=int, default=96, help="tokens of each response")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="arithmetic")
    parser.add_argument("--weights", choices=["float32", "bfloat16"], default="float32", help="of full fine-tuning")
    parser.add_argument("--lora", action="store_true", help="adapters of rank 16 instead of full fine-tuning")
    parser.add_argument("--model", default="smollm2-135m", help=f"a model, or a random one: {', '.join(SHAPES)}")
    parser.add_argument("--tokens", type=int, default=16384, help="most tokens of a forward pass, ours and the peer's")
    parser.add_argument("--steps", type=int, default=5, help="steps of ours and of the limit; the first is not timed")
    parser.add_argument("--peer-steps", type=int, default=2, help="steps of the peer; the first is not timed")
    parser.add_argument("--rounds", type=int, default=2, help="how often everybody has a turn")
    parser.add_argument("--lean", action="store_true", help="ours with less memory: checkpoints, large pools in pieces")
    parser.add_argument("--gpu", action="store_true", help="8B shape, bfloat16; adapters, or --weights bfloat16")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--child", choices=sorted(WHO), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.gpu:
        wanted = {"dtype": "bfloat16", "lora": options.weights == "float32", "tokens": 8192, "steps": 3, "rounds": 1}
        vars(options).update(
            {name: value for name, value in wanted.items() if getattr(options, name) == parser.get_default(name)}
        )
        options.model = "llama-3.1-8b" if options.model == parser.get_default("model") else options.model
    return options


if __name__ == "__main__":
    sys.exit(main())
