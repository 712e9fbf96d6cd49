"""Ten steps of DPO, IPO and KTO beside TRL's trainers on the same rows; skipped without TRL (`make bench` has it)."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from selfpriority.chat import Chat
from selfpriority.recipe import Align
from selfpriority.records import Pair, PairedPool
from selfpriority.training.checkpoints import Checkpoints
from selfpriority.training.encode import EncodedPool, encode_all
from selfpriority.training.engines import accelerator_for
from selfpriority.training.groups import plan_steps
from selfpriority.training.journal import Journal
from selfpriority.training.logps import Form
from selfpriority.training.passes import Course
from selfpriority.training.trainer import Trainer

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("trl", reason="TRL is not installed: `make bench`, or pip install --no-deps trl, does so")

pytestmark = pytest.mark.filterwarnings("ignore")  # those are TRL's own
N_STEPS, RATE, BETA = 10, 3e-4, 0.1
ANSWERS = ("No, that is not safe.", "Yes, go.", "The lazy dog.")


@pytest.fixture
def tokenizer(tiny_model) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def paired(paired_pool) -> list[PairedPool]:
    """Four prompts whose first answer beats two others: one desirable to two undesirable answers."""
    pools = [paired_pool(f"Question {n}?" + " a" * n, tuple(f"{n} {text}" for text in ANSWERS)) for n in range(4)]
    pairs = tuple(Pair(0, other, 0, 3.0, 1.0) for other in (1, 2))
    return [PairedPool(each.pool, pairs) for each in pools]


def ours(model: Any, pools: Sequence[EncodedPool], method: str, tmp_path: Any) -> list[dict[str, Any]]:
    """Records of ten steps over all pools at once."""
    settings = Align(
        method=method, alpha=0.0, beta=BETA, learning_rate=RATE, warmup=0.0, epochs=N_STEPS, dtype="float32"
    )
    records: list[dict[str, Any]] = []
    course = Course(pools, plan_steps(pools, settings, 0), Form(True, True), settings, torch.float32)
    trainer = Trainer(model, course, accelerator_for(settings), 0, Checkpoints(tmp_path / "checkpoints", ""))
    trainer.train(None, Journal(tmp_path / "log", 0, records.append))
    return records


def usual(tmp_path: Any, n_rows: int) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path / "trl"),
        "beta": BETA,
        "learning_rate": RATE,
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": n_rows,
        "max_steps": N_STEPS,
        "precompute_ref_log_probs": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def theirs_of(trainer: Any) -> list[dict[str, float]]:
    trainer.train()
    return [record for record in trainer.state.log_history if "loss" in record]


def losses(records: Sequence[dict[str, Any]]) -> list[float]:
    assert len(records) == N_STEPS
    return [record["loss"] for record in records]


def ids_of(trainer: Any, *columns: str) -> set[tuple[int, ...]]:
    return {tuple(row["prompt_ids"] + row[column]) for row in trainer.train_dataset for column in columns}


def all_ids(pools: Sequence[EncodedPool]) -> set[tuple[int, ...]]:
    return {pool.prompt_ids + ids for pool in pools for ids in pool.response_ids}


def prompt_of(pool: EncodedPool, tokenizer: Any) -> str:
    return str(tokenizer.decode(list(pool.prompt_ids)))


def encoded(paired: Sequence[PairedPool], tokenizer: Any) -> tuple[EncodedPool, ...]:
    return encode_all(paired, Chat(tokenizer, (tokenizer.eos_token_id,)), 200, Align()).kept


@pytest.mark.parametrize(("method", "loss_type"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_ten_steps_have_the_losses_of_trls_dpo_trainer(llama, tokenizer, paired, tmp_path, method, loss_type):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    pools = encoded(paired, tokenizer)
    rows = [
        {
            "prompt": prompt_of(pool, tokenizer),
            "chosen": entry.pool.responses[pair.chosen].response.text,
            "rejected": entry.pool.responses[pair.rejected].response.text,
        }
        for entry, pool in zip(paired, pools, strict=True)
        for pair in entry.pairs
    ]
    trainer = DPOTrainer(
        model=copy.deepcopy(llama),
        args=DPOConfig(**usual(tmp_path, len(rows)), loss_type=[loss_type], max_length=200),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    assert ids_of(trainer, "chosen_ids", "rejected_ids") == all_ids(pools)
    theirs = losses(theirs_of(trainer))
    assert theirs[-1] < 0.95 * theirs[0]
    assert losses(ours(llama, pools, method, tmp_path)) == pytest.approx(theirs, abs=1e-3)


def test_ten_steps_have_the_losses_of_trls_kto_trainer(llama, tokenizer, paired, tmp_path):
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    pools = encoded(paired, tokenizer)
    # TRL compares the answer of the row before: so every prompt meets all answers to the next one
    rows = [
        {
            "prompt": prompt_of(pools[n], tokenizer),
            "completion": paired[n].pool.responses[answer].response.text,
            "label": answer == 0,
        }
        for answer in range(len(ANSWERS))
        for n in reversed(range(len(pools)))
    ]
    # one desirable answer to two: lambda_D 2 makes the sides equal
    trainer = KTOTrainer(
        model=copy.deepcopy(llama),
        args=KTOConfig(
            **usual(tmp_path, len(rows)),
            desirable_weight=2.0,
            undesirable_weight=1.0,
            max_length=200,
            train_sampling_strategy="sequential",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    assert ids_of(trainer, "completion_ids") == all_ids(pools)
    theirs, own = theirs_of(trainer), ours(llama, pools, "kto", tmp_path)
    assert losses(theirs)[-1] < 0.98 * losses(theirs)[0]
    assert losses(own) == pytest.approx(losses(theirs), abs=1e-3)
    kl = [record["kl"] for record in theirs]
    assert max(kl) > 0.01
    assert [record["z0"] for record in own] == pytest.approx(kl, abs=1e-3)
