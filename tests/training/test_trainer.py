"""The trainer: one record a step, exact over micro-batches, stops on what is not finite."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from selfpriority.errors import WorkFailed
from selfpriority.recipe import Align, Lora
from selfpriority.training.adapters import load_policy
from selfpriority.training.checkpoints import Checkpoints
from selfpriority.training.engines import accelerator_for
from selfpriority.training.groups import plan_steps
from selfpriority.training.journal import Journal
from selfpriority.training.logps import Form
from selfpriority.training.passes import Course
from selfpriority.training.trainer import Trainer, learning_rate_factor


def settings(**changes) -> Align:
    return Align(**{"learning_rate": 1e-3, "dtype": "float32", "warmup": 0.0, **changes})


def trained(model, pools, align, folder, dtype=torch.float32, form=Form(True, True)):  # noqa: B008 - frozen
    """Runs the whole course; the model is changed in place. Returns the records."""
    records = []
    course = Course(pools, plan_steps(pools, align, 3, form.shares_prompt), form, align, dtype)
    journal = Journal(folder / "training.jsonl", 0, records.append)
    Trainer(model, course, accelerator_for(align), 3, Checkpoints(folder / "checkpoints", "mark")).train(None, journal)
    return records


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_first_loss_is_that_of_plain_simpo(llama, encoded_pools, pairwise_simpo, tmp_path):
    pools, align = encoded_pools(6), settings()
    wanted = pairwise_simpo(llama, pools, align).item()
    (record,) = trained(llama, pools, align, tmp_path)
    assert record["loss"] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("count", ["pairs", "pools"])
def test_training_does_not_depend_on_micro_batches(tiny_model, encoded_pools, tmp_path, count):
    pools = encoded_pools(8)
    results = []
    for budget, n_micro in ((1, 8), (10_000, 1)):
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        align = settings(tokens_per_batch=budget, count=count, learning_rate=1e-4)
        assert len(plan_steps(pools, align, seed=3).steps[0].micro_batches) == n_micro
        results.append((trained(model, pools, align, tmp_path / str(n_micro))[0], weights_of(model)))
    (apart, weights_apart), (together, weights_together) = results
    for name in ("loss", "margin", "accuracy", "chosen_logp", "rejected_logp", "grad_norm"):
        assert apart[name] == pytest.approx(together[name], rel=1e-5)
    torch.testing.assert_close(weights_apart, weights_together, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("method", ["simpo", "dpo", "ipo", "kto", "bfpo", "safedpo", "sft"])
def test_pools_in_pieces_train_every_method_alike(tiny_model, encoded_pools, tmp_path, method):
    pools = encoded_pools(5)
    runs = []
    for budget in (1, 10_000):
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        align = settings(method=method, tokens_per_batch=budget, epochs=3, learning_rate=1e-4, nll=0.0)
        runs.append((trained(model, pools, align, tmp_path / str(budget)), weights_of(model)))
    (apart, weights_apart), (together, weights_together) = runs
    for pieces, whole in zip(apart, together, strict=True):
        for name in ("loss", "margin", "nll", "chosen_logp", "rejected_logp", "grad_norm"):
            assert pieces[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-5)
    torch.testing.assert_close(weights_apart, weights_together, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("method", "first"), [("dpo", math.log(2)), ("ipo", (1 / (2 * 0.1)) ** 2)])
def test_the_reference_is_the_starting_model_and_stays_it(llama, encoded_pools, pairwise, tmp_path, method, first):
    pools = encoded_pools(6)
    start = copy.deepcopy(llama)
    align = settings(method=method, epochs=3)
    records = trained(llama, pools, align, tmp_path)
    assert records[0]["loss"] == pytest.approx(first, rel=1e-6)  # weights average 1
    assert records[0]["margin"] == pytest.approx(0, abs=1e-6)
    assert records[2]["margin"] > records[1]["margin"] > 0
    assert all(record["loss"] < first for record in records[1:])
    again = trained(llama, pools, align.model_copy(update={"epochs": 1}), tmp_path / "again")
    assert again[0]["loss"] == pytest.approx(first, rel=1e-6)
    assert pairwise(llama, pools, align, start).item() < records[2]["loss"]


def test_the_reference_knows_no_dropout(tiny_model, encoded_pools, tmp_path):
    align = settings(method="dpo", lora=Lora(r=4, dropout=0.5))
    policy = load_policy(tiny_model, align, seed=0)
    (record,) = trained(policy.model, encoded_pools(3), align, tmp_path)
    assert record["loss"] == pytest.approx(math.log(2), rel=1e-5)  # a fresh adapter adds nothing, dropped out or not


@pytest.mark.parametrize("form", [Form(True, True), Form(False, True)], ids=["packed", "plain"])
@pytest.mark.parametrize("lora", [None, Lora(r=4, dropout=0.3)], ids=["full", "lora"])
def test_computing_activations_again_changes_memory_and_nothing_else(tiny_model, encoded_pools, tmp_path, lora, form):
    runs = []
    for again in (False, True):
        align = settings(lora=lora, gradient_checkpointing=again, epochs=2, tokens_per_batch=60)
        model = load_policy(tiny_model, align, seed=0).model
        calls = []
        # the first module of a layer: the second run stops as soon as it has what the gradients need
        name = "model.layers.0.input_layernorm"
        layer = model.get_submodule(f"base_model.model.{name}" if lora else name)
        layer.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        records = trained(model, encoded_pools(5), align, tmp_path / str(again), form=form)
        runs.append(([record["loss"] for record in records], weights_of(model), len(calls)))
    (losses, weights, n_calls), (losses_again, weights_again, n_calls_again) = runs
    assert losses == losses_again
    assert torch.equal(weights, weights_again)
    assert n_calls_again == 2 * n_calls


def test_bfloat16_weights_follow_float32_weights(tiny_model, encoded_pools, tmp_path):
    ends = []
    for kind in ("float32", "bfloat16"):
        align = settings(weights=kind, dtype="bfloat16", epochs=6, learning_rate=1e-3)
        model = load_policy(tiny_model, align, seed=0).model
        ends.append(trained(model, encoded_pools(6), align, tmp_path / kind, torch.bfloat16)[-1])
    assert ends[1]["margin"] == pytest.approx(ends[0]["margin"], rel=0.05)
    assert ends[1]["loss"] == pytest.approx(ends[0]["loss"], rel=0.05)


def test_one_step_is_adamw_on_the_clipped_gradient_of_plain_simpo(tiny_model, encoded_pools, pairwise_simpo, tmp_path):
    pools = encoded_pools(5)
    align = settings(max_grad_norm=0.01, learning_rate=1e-3)
    ours, plain = (AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32) for _ in range(2))
    (record,) = trained(ours, pools, align, tmp_path)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.0)
    pairwise_simpo(plain.train(), pools, align).backward()
    norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
    assert record["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    optimizer.step()
    torch.testing.assert_close(weights_of(ours), weights_of(plain), atol=2e-5, rtol=1e-4)


def test_a_record_holds_everything_a_step_reports(llama, encoded_pools, tmp_path):
    pools = encoded_pools(9)
    records = trained(llama, pools, settings(tokens_per_step=120, epochs=2), tmp_path)
    assert [record["step"] for record in records] == [*range(1, len(records) + 1)]
    assert [record["epoch"] for record in records] == sorted(record["epoch"] for record in records)
    assert sum(record["n_pools"] for record in records) == 2 * len(pools)
    assert sum(record["n_pairs"] for record in records) == 2 * sum(len(pool.pairs) for pool in pools)
    assert set(records[0]) == {
        *("step", "epoch", "loss", "nll", "margin", "accuracy", "chosen_logp", "rejected_logp", "grad_norm"),
        *("learning_rate", "tokens_per_second", "n_pairs", "n_pools", "light_share", "nonfinite", "n_steps"),
    }
    assert all(record["tokens_per_second"] > 0 for record in records)


def test_margin_rises(llama, encoded_pools, tmp_path):
    records = trained(llama, encoded_pools(6), settings(epochs=12, learning_rate=3e-3), tmp_path)
    assert records[-1]["margin"] > records[0]["margin"] + 1.0
    assert records[-1]["accuracy"] > 0.9
    assert records[-1]["loss"] < records[0]["loss"]


def test_bfloat16_arithmetic_trains_float32_weights(llama, encoded_pools, pairwise_simpo, tmp_path):
    pools = encoded_pools(6)
    wanted = pairwise_simpo(llama, pools, settings()).item()
    records = trained(llama, pools, settings(epochs=4, learning_rate=1e-5), tmp_path, torch.bfloat16)
    assert records[0]["loss"] == pytest.approx(wanted, rel=0.02)
    assert records[0]["loss"] != pytest.approx(wanted, rel=1e-7)
    assert {parameter.dtype for parameter in llama.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_that_is_not_finite_stops_before_the_optimizer(llama, encoded_pools, tmp_path, dtype):
    with torch.no_grad():
        llama.lm_head.weight[5, 0] = float("nan")
    before = weights_of(llama).clone()
    with pytest.raises(WorkFailed, match=r"stopped at step 1: loss nan.*not finite"):
        trained(llama, encoded_pools(3), settings(), tmp_path, dtype)
    torch.testing.assert_close(weights_of(llama), before, equal_nan=True, atol=0, rtol=0)


def test_a_gradient_that_is_not_finite_stops_before_the_optimizer(llama, encoded_pools, tmp_path):
    llama.lm_head.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = weights_of(llama).clone()
    with pytest.raises(WorkFailed, match=r"step 1: loss [0-9.]+, gradient norm (nan|inf)"):
        trained(llama, encoded_pools(3), settings(), tmp_path)
    assert torch.equal(weights_of(llama), before)


def test_learning_rate_rises_then_falls_and_is_never_zero():
    factors = [learning_rate_factor(step, n_warmup=2, n_steps=10) for step in range(10)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factors[6] == pytest.approx(0.5)
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert min(factors) > 0
    assert learning_rate_factor(0, n_warmup=0, n_steps=1) == 1.0


def test_scheduled_rate_is_logged(llama, encoded_pools, tmp_path):
    records = trained(llama, encoded_pools(4), settings(epochs=5, warmup=0.2, learning_rate=2e-4), tmp_path)
    wanted = [2e-4 * learning_rate_factor(step, 1, 5) for step in range(5)]
    assert [record["learning_rate"] for record in records] == pytest.approx(wanted)
