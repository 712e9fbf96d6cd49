"""How much faster and leaner is a training step than TRL's, on the same pairs, with the same loss?

    python benchmarks/align.py                                                              the table of the README
    python benchmarks/align.py --n 8 --prompt 64 --response 96 --dtype float32 --json       one case, one JSON object

A pool holds n candidates and a refined answer, and every pair of them is trained on. The peer is TRL's
`CPOTrainer(loss_type="simpo", cpo_alpha=0)` on the same pairs, one optimizer step a pool; the limit is a bare forward
and backward pass of the model over as many distinct tokens in one sequence. Every measurement is a process of its own,
ours and the peer's in turn. Peak memory is what a process needs above the loaded model.

Needs `pip install trl==1.16.0` for the peer. `--model llama-3.1-8b` is that shape with random weights (GPU).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # TRL reports home unless told not to
import torch

BETA, GAMMA, RATE = 2.5, 1.375, 1e-6
TABLE = [  # n, prompt, response
    *((n, 64, response) for n in (2, 4, 8) for response in (64, 96, 256)),
    (8, 512, 128),
    (1, 64, 96),
    (1, 512, 128),
]
SHAPES = {
    "llama-3.1-8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "tiny": {
        "vocab_size": 49152,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


@dataclass(frozen=True)
class Case:
    """One piece of work, the same for everybody."""

    n: int
    prompt: int
    response: int
    """Tokens, the end token included; those of the prompt with its first token."""

    @property
    def n_responses(self) -> int:
        """Of a pool: the candidates and the refined answer, or the two of an ordinary pair."""
        return 2 if self.n == 1 else self.n + 1

    @property
    def pools(self) -> int:
        """Pools a step: one, or four where a pool is one ordinary preference pair."""
        return 4 if self.n == 1 else 1

    @property
    def n_pairs(self) -> int:
        """Of a step."""
        return self.pools * self.n_responses * (self.n_responses - 1) // 2

    @property
    def n_tokens(self) -> int:
        """Distinct tokens of a step."""
        return self.pools * (self.prompt + self.n_responses * self.response)

    def texts(self, tokenizer: Any) -> list[tuple[str, list[str]]]:
        """(prompt, responses) of every pool, made of words of one token."""
        draw = random.Random(repr(self))
        words = sorted(w[1:] for w in tokenizer.get_vocab() if re.fullmatch("Ġ[a-z]{3,}", w))

        def text(n: int) -> str:
            return "".join(f" {word}" for word in draw.choices(words, k=n))

        return [
            (text(self.prompt - 1), [text(self.response - 1) for _ in range(self.n_responses)])
            for _ in range(self.pools)
        ]


class Steps:
    """Wall time of every optimizer step of either trainer."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0

    def callback(self) -> Any:
        """What a trainer calls around its steps."""
        from transformers import TrainerCallback

        steps = self

        class Timing(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                _synchronize()
                steps.began = time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                _synchronize()
                steps.seconds.append(time.perf_counter() - steps.began)

        return Timing()


def ours(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    from selfpriority.recipe import Align
    from selfpriority.training.encode import EncodedPool
    from selfpriority.training.groups import plan_steps
    from selfpriority.training.journal import Journal
    from selfpriority.training.logps import choose_form
    from selfpriority.training.trainer import Course, PoolTrainer, training_arguments

    model, tokenizer = _model(options)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    pools = [
        EncodedPool(
            str(number),
            (bos, *_ids(tokenizer, prompt)),
            tuple((*_ids(tokenizer, response), eos) for response in responses),
            tuple(combinations(range(len(responses)), 2)),
            (1.0,) * (len(responses) * (len(responses) - 1) // 2),
        )
        for number, (prompt, responses) in enumerate(case.texts(tokenizer))
    ]
    assert sum(pool.n_tokens for pool in pools) == case.n_tokens
    settings = Align(
        alpha=0.0,
        beta=BETA,
        gamma=GAMMA,
        learning_rate=RATE,
        epochs=options.steps,
        warmup=0.0,
        dtype=options.dtype,
        tokens_per_step=case.n_tokens,
        tokens_per_batch=case.prompt + 2 * case.response if options.lean else max(case.n_tokens, 4096),
        checkpoint_minutes=1e6,
    )
    form = choose_form(model, max(pool.longest for pool in pools))
    course = Course(pools, plan_steps(pools, settings, 0, form.shares_prompt), form, settings, _dtype(options))
    steps, before = Steps(), _memory()
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "training.jsonl", 0, None)
        trainer = PoolTrainer(model, course, training_arguments(Path(folder), settings, 0), journal)
        trainer.add_callback(steps.callback())
        trainer.train()
        loss = json.loads((Path(folder) / "training.jsonl").read_text().splitlines()[0])["loss"]
    return {"seconds": steps.seconds, "memory": _peak() - before, "loss": loss}


def trl(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    model, tokenizer = _model(options)
    rows = [
        {"prompt": prompt, "chosen": responses[i], "rejected": responses[j]}
        for prompt, responses in case.texts(tokenizer)
        for i, j in combinations(range(len(responses)), 2)
    ]
    each = next(size for size in (4, 3, 2, 1) if len(rows) % size == 0)
    steps, before = Steps(), _memory()
    with tempfile.TemporaryDirectory() as folder:
        arguments = CPOConfig(
            output_dir=folder,
            loss_type="simpo",
            cpo_alpha=0.0,
            beta=BETA,
            simpo_gamma=GAMMA,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_length=case.prompt + case.response + 8,
            per_device_train_batch_size=each,
            gradient_accumulation_steps=len(rows) // each,
            max_steps=options.steps,
            bf16=options.dtype == "bfloat16",
            gradient_checkpointing=False,
            use_cpu=not torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = CPOTrainer(
            model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )
        trainer.add_callback(steps.callback())
        trainer.train()
    return {"seconds": steps.seconds, "memory": _peak() - before, "loss": trainer.state.log_history[0]["loss"]}


def limit(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    model, _ = _model(options)
    ids = torch.randint(10, 1000, (1, case.n_tokens), device=model.device)
    seconds, before = [], _memory()
    for _ in range(options.steps):
        _synchronize()
        began = time.perf_counter()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=options.dtype == "bfloat16"):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        _synchronize()
        seconds.append(time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    return {"seconds": seconds, "memory": _peak() - before, "loss": float(loss)}


class CannotRun(Exception):
    """A process of a case failed; the message says whose, and why."""


WHO = {"ours": ours, "trl": trl, "limit": limit}


def compare(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Ours, the peer and the limit in turn, as often as asked; medians without each process's first step."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ("ours", options.peer, "limit")}
    for _ in range(options.rounds):
        for name, measured in results.items():
            measured.append(_child(name, case, options))
    seconds = {name: statistics.median(s for r in runs for s in r["seconds"][1:]) for name, runs in results.items()}
    memory = {name: max(r["memory"] for r in runs) for name, runs in results.items()}
    peer = options.peer
    return {
        "n": case.n,
        "prompt": case.prompt,
        "response": case.response,
        "dtype": options.dtype,
        "peer": peer,
        "lean": options.lean,
        "pairs_per_second": round(case.n_pairs / seconds["ours"], 3),
        "peer_pairs_per_second": round(case.n_pairs / seconds[peer], 3),
        "tokens_per_second": round(case.n_tokens / seconds["ours"], 1),
        "limit_tokens_per_second": round(case.n_tokens / seconds["limit"], 1),
        "memory_gb": round(memory["ours"] / 1e9, 2),
        "peer_memory_gb": round(memory[peer] / 1e9, 2),
        "speed_ratio": round(seconds[peer] / seconds["ours"], 2),
        "memory_ratio": round(memory["ours"] / memory[peer], 3),
        "loss_difference": abs(results["ours"][0]["loss"] - results[peer][0]["loss"]),
        "limit_ratio": round(seconds["limit"] / seconds["ours"], 3),
    }


def main() -> int:
    options = _options()
    if options.child:
        case = Case(options.n, options.prompt, options.response)
        print(json.dumps(WHO[options.child](case, options)))
        return 0
    cases = [Case(*row) for row in TABLE] if options.n is None else [Case(options.n, options.prompt, options.response)]
    results = []
    for case in cases:
        try:
            results.append(compare(case, options))
        except CannotRun as reason:
            print(reason, file=sys.stderr, flush=True)
            continue
        if not options.json:
            print(_row(results[-1]), flush=True)
    if options.json and results:
        print(json.dumps(results[0] if len(results) == 1 else results))
    return 0 if results else 1


def _child(name: str, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", name, "--n", str(case.n), "--prompt", str(case.prompt)]
    command += ["--response", str(case.response), "--dtype", options.dtype, "--model", options.model]
    command += ["--steps", str(options.steps), *(["--lean"] if options.lean else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"{name} cannot run {case}: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _model(options: argparse.Namespace) -> tuple[Any, Any]:
    """The model with float32 weights, on a GPU if there is one, and its tokenizer; memory is measured from here."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from selfpriority.backends.weights import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("smollm2-135m"))
    torch.manual_seed(0)
    if options.model in SHAPES:
        model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPES[options.model]))
    else:
        model = AutoModelForCausalLM.from_pretrained(resolve(options.model), dtype=torch.float32)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the highest resident set counts from here
    return model, tokenizer


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _dtype(options: argparse.Namespace) -> torch.dtype:
    return torch.bfloat16 if options.dtype == "bfloat16" else torch.float32


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _memory() -> int:
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else _status("VmRSS")


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _row(r: dict[str, Any]) -> str:
    return (
        f"| {r['n']} | {r['prompt']} | {r['response']} "
        f"| {r['pairs_per_second']:.2f} / {r['peer_pairs_per_second']:.2f} | "
        f"{r['speed_ratio']:.1f} | {r['memory_gb']:.1f} / {r['peer_memory_gb']:.1f} | {r['memory_ratio']:.2f} | "
        f"{r['limit_ratio']:.2f} | {r['loss_difference']:.0e} |"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--peer", choices=["trl"], default="trl", help="who it is compared with")
    parser.add_argument("--n", type=int, help="candidates a pool; 1 is one ordinary pair; default: the whole table")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of the prompt")
    parser.add_argument("--response", type=int, default=96, help="tokens of each response")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="arithmetic; weights: float32"
    )
    parser.add_argument("--model", default="smollm2-135m", help=f"a model, or a random one: {', '.join(SHAPES)}")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps a process; the first is not timed")
    parser.add_argument("--rounds", type=int, default=2, help="how often everybody has a turn")
    parser.add_argument("--lean", action="store_true", help="ours in pieces of two responses (align.tokens_per_batch)")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--child", choices=sorted(WHO), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
