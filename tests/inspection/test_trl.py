"""TRL as it is on what `spa export` writes: its trainer takes steps, and puts end tokens behind whole answers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfpriority.inspection.export import Wanted, export
from selfpriority.run import Run

trl = pytest.importorskip("trl", reason="trl is not installed: pip install trl")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # what TRL warns of is TRL's


def trainer(rows: Path, model: Path, folder: Path) -> Any:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = trl.DPOConfig(
        output_dir=str(folder), max_steps=3, per_device_train_batch_size=2, learning_rate=1e-3,
        report_to=[], use_cpu=True, save_strategy="no", logging_steps=1, bf16=False, disable_tqdm=True,
    )  # fmt: skip
    data = load_dataset("json", data_files=str(rows), split="train", cache_dir=str(folder / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    return trl.DPOTrainer(
        AutoModelForCausalLM.from_pretrained(model), args=settings, train_dataset=data, processing_class=tokenizer
    )


def answers(given: Any) -> list[list[int]]:
    """Token ids of every answer, as the trainer made them."""
    columns = [name for name in ("chosen_ids", "rejected_ids") if name in given.train_dataset.column_names]
    assert columns == ["chosen_ids", "rejected_ids"], given.train_dataset.column_names
    return [ids for row in given.train_dataset for ids in (row["chosen_ids"], row["rejected_ids"])]


def test_trl_trains_on_an_export_in_which_every_answer_has_ended(finished_run: Path, tmp_path: Path) -> None:
    written = export(Run(finished_run / "run"), tmp_path / "pairs", Wanted())
    assert (written.rows, written.n_cut) == (11, 49)
    given = trainer(written.path, finished_run / "model", tmp_path / "out")
    end = given.processing_class.eos_token_id
    assert len(answers(given)) == 22
    assert all(ids.count(end) == 1 for ids in answers(given))
    before = {name: weight.detach().clone() for name, weight in given.model.named_parameters()}
    given.train()
    losses = [row["loss"] for row in given.state.log_history if "loss" in row]
    assert len(losses) == 3
    assert losses[0] == pytest.approx(0.693, abs=1e-3)  # before the first step the policy is the reference
    assert any(not weight.equal(before[name]) for name, weight in given.model.named_parameters())


def test_trl_would_end_an_answer_that_was_cut_which_is_why_those_stay_out(finished_run: Path, tmp_path: Path) -> None:
    written = export(Run(finished_run / "run"), tmp_path / "pairs", Wanted(keep_cut=True))
    given = trainer(written.path, finished_run / "model", tmp_path / "out")
    end = given.processing_class.eos_token_id
    rows = given.train_dataset
    cut = [row["chosen_ids"] for row in rows if row["stop_chosen"] == "length"]
    assert cut
    assert all(end in ids for ids in cut)
