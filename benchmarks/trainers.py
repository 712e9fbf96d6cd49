"""One case of work and who does it: ours, its peers and the bare model. `align.py` runs each in a process of its own.

Everybody gets the same texts, the same pairs and the same settings, and is timed from the start of an optimizer step to
its end by the same callback. Peak memory is what a process needs above the loaded model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import tempfile
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # TRL reports home unless told not to
os.environ["DISABLE_VERSION_CHECK"] = "1"  # LLaMA-Factory's, which refuses newer libraries than it was released with
import torch

BETA, DPO_BETA, GAMMA, RATE = 2.5, 0.1, 1.375, 1e-6
LEAN_TOKENS = 2048  # of a forward pass in the lean setting
ADAPTER = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
SHAPES = {
    "llama-3.1-8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
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
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
"""Dense bfloat16 of a GPU whose name holds this; data sheets."""


class CannotRun(Exception):
    """A process of a case failed; the message says whose, and why."""


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

    def pairs(self, tokenizer: Any) -> list[dict[str, str]]:
        """Every pair as a row of a preference data set."""
        return [
            {"prompt": prompt, "chosen": responses[i], "rejected": responses[j]}
            for prompt, responses in self.texts(tokenizer)
            for i, j in combinations(range(len(responses)), 2)
        ]


class Steps:
    """Wall time of every optimizer step of any trainer."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0

    def begin(self) -> None:
        """A step begins."""
        _synchronize()
        self.began = time.perf_counter()

    def lap(self) -> None:
        """A step ends, and the next begins."""
        _synchronize()
        self.seconds.append(time.perf_counter() - self.began)
        self.began = time.perf_counter()

    def callback(self) -> Any:
        """What a peer's trainer calls around its steps."""
        from transformers import TrainerCallback

        steps = self

        class Timing(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                steps.begin()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                steps.lap()

        return Timing()


def ours(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    from selfpriority.recipe import Align
    from selfpriority.training.adapters import checkpoint_layers
    from selfpriority.training.checkpoints import Checkpoints
    from selfpriority.training.encode import EncodedPool
    from selfpriority.training.engines import accelerator_for
    from selfpriority.training.groups import plan_steps
    from selfpriority.training.journal import Journal
    from selfpriority.training.logps import choose_form
    from selfpriority.training.passes import Course
    from selfpriority.training.trainer import Trainer

    model, tokenizer = _model(options)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    pools = [
        EncodedPool(
            str(number),
            (bos, *_ids(tokenizer, prompt)),
            tuple((*_ids(tokenizer, response), eos) for response in responses),
            tuple(combinations(range(len(responses)), 2)),
            (1.0,) * (len(responses) * (len(responses) - 1) // 2),
            (1.0,) + (0.0,) * (len(responses) - 1),
        )
        for number, (prompt, responses) in enumerate(case.texts(tokenizer))
    ]
    assert sum(pool.n_tokens for pool in pools) == case.n_tokens
    is_dpo = options.peer == "trl-dpo"
    settings = Align(
        method="dpo" if is_dpo else "simpo",
        alpha=0.0,
        beta=DPO_BETA if is_dpo else BETA,
        gamma=GAMMA,
        learning_rate=RATE,
        epochs=options.steps,
        warmup=0.0,
        dtype=options.dtype,
        weights=options.weights,
        tokens_per_step=case.n_tokens,
        tokens_per_batch=max(LEAN_TOKENS if options.lean else options.tokens, case.prompt + case.response),
        gradient_checkpointing=options.lean,
        checkpoint_minutes=1e6,
    )
    if options.lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(**ADAPTER))
    if options.lean:
        checkpoint_layers(model)
    form = choose_form(model, max(pool.longest for pool in pools))
    course = Course(pools, plan_steps(pools, settings, 0, form.shares_prompt), form, settings, _dtype(options))
    steps, before = Steps(), _memory()
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "training.jsonl", 0, lambda _: steps.lap())
        trainer = Trainer(model, course, accelerator_for(settings), 0, Checkpoints(Path(folder), ""))
        steps.begin()
        trainer.train(None, journal)
        records = [json.loads(line) for line in (Path(folder) / "training.jsonl").read_text().splitlines()]
    return _result(steps, before, records)


def trl(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    loss = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": BETA, "simpo_gamma": GAMMA}
    return _trl(case, options, CPOTrainer, CPOConfig, loss)


def trl_dpo(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """With its fused head; the reference is measured before training, as ours is."""
    from trl import DPOConfig, DPOTrainer

    return _trl(case, options, DPOTrainer, DPOConfig, {"beta": DPO_BETA, "precompute_ref_log_probs": True})


def _trl(
    case: Case, options: argparse.Namespace, trainer_class: Any, config_class: Any, loss: dict[str, Any]
) -> dict[str, Any]:
    """One of TRL's trainers of pairs, told its loss."""
    from datasets import Dataset

    model, tokenizer = _model(options)
    rows = case.pairs(tokenizer)
    if options.peer == "trl-dpo":  # adds neither the first token nor the end token to a plain text
        bos, eos = tokenizer.bos_token, tokenizer.eos_token
        rows = [
            {"prompt": bos + row["prompt"], "chosen": row["chosen"] + eos, "rejected": row["rejected"] + eos}
            for row in rows
        ]
    steps, before = Steps(), _memory()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_class(
            model=model,
            args=config_class(**_usual(folder, case, options), **loss, max_length=case.prompt + case.response + 8),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=_adapter(options),
        )
        trainer.add_callback(steps.callback())
        trainer.train()
    return _result(steps, before, trainer.state.log_history)


def limit(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """The model's own forward and backward pass over as many tokens in one row; no optimizer."""
    model, _ = _model(options)
    if options.lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(**ADAPTER))
    ids = torch.randint(10, 1000, (1, case.n_tokens), device=model.device)
    steps, before, records = Steps(), _memory(), []
    for _ in range(options.steps):
        _synchronize()
        began = time.perf_counter()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=options.dtype == "bfloat16"):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        records.append({"loss": loss.item()})
        _synchronize()
        steps.seconds.append(time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    return _result(steps, before, records)


WHO = {"ours": ours, "trl": trl, "trl-dpo": trl_dpo, "limit": limit}


def per_token_flops(options: argparse.Namespace) -> float:
    """Of forward and backward on one distinct token, attention scores not counted: 6 a parameter, 4 if it is frozen."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPES[options.model]))
    embedding = model.get_input_embeddings().weight.numel()
    return float((4 if options.lora else 6) * (model.num_parameters() - embedding))


def peak_flops() -> float | None:
    """Of this machine's GPU, if it is a known one."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((flops for known, flops in PEAK_FLOPS.items() if known in name), None)


def _usual(folder: str, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """What every trainer built on `transformers.Trainer` is told: one optimizer step over all pairs of the case."""
    a_pair = 2 * (case.prompt + case.response)
    each = next(
        size for size in (4, 3, 2, 1) if case.n_pairs % size == 0 and (size * a_pair <= options.tokens or size == 1)
    )
    return {
        "output_dir": folder,
        "learning_rate": RATE,
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": each,
        "gradient_accumulation_steps": case.n_pairs // each,
        "max_steps": options.steps,
        "bf16": options.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _adapter(options: argparse.Namespace) -> Any:
    from peft import LoraConfig

    return LoraConfig(**ADAPTER) if options.lora else None


def _result(steps: Steps, before: int, records: list[dict[str, Any]]) -> dict[str, Any]:
    losses = [record["loss"] for record in records if "loss" in record]
    return {"seconds": steps.seconds, "memory": _peak() - before, "losses": losses}


def _model(options: argparse.Namespace) -> tuple[Any, Any]:
    """The model on a GPU if there is one, and its tokenizer; memory is measured from here."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from selfpriority.models.files import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("smollm2-135m"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if options.weights == "bfloat16" or options.lora else torch.float32
    dtype = dtype if options.dtype == "bfloat16" else torch.float32
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # not every release of transformers reads it
    torch.manual_seed(0)
    if options.model in SHAPES:
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPES[options.model]), dtype=dtype)
    else:
        model = AutoModelForCausalLM.from_pretrained(resolve(options.model), dtype=dtype).to(device)
    for weight in model.parameters():  # read in full: as pages of its file they would count as memory of the first step
        weight.data = weight.data.clone()
    model = model.train()
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
