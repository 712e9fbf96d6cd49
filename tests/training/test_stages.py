"""SACPO, stage after stage: every loss of the second worked by hand from plain forward passes."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from selfpriority.training.checkpoints import Checkpoints
from selfpriority.training.engines import accelerator_for
from selfpriority.training.groups import plan_steps
from selfpriority.training.journal import Journal
from selfpriority.training.logps import Form
from selfpriority.training.passes import Course
from selfpriority.training.trainer import Trainer
from tests.training.test_trainer import settings


def sacpo(beta, **changes):
    return settings(method="dpo", beta=beta, alpha=0.0, nll=0.0, epochs=3, **changes)


def turned_round(pools):
    """The pairs of the other objective, which prefers the other answer of each."""
    return [replace(pool, pairs=tuple((b, a) for a, b in pool.pairs)) for pool in pools]


def trained(model, pools, align, folder):
    """Trains in place; of every step its record and a copy of the policy after it."""
    seen = []
    form = Form(True, True)
    course = Course(pools, plan_steps(pools, align, 3, form.shares_prompt), form, align, torch.float32)
    journal = Journal(folder / "training.jsonl", 0, lambda record: seen.append((record, copy.deepcopy(model))))
    trainer = Trainer(model, course, accelerator_for(align), 3, Checkpoints(folder / "checkpoints", "mark"))
    trainer.train(None, journal)
    return seen


def log_probability(model, prompt, answer):
    """log pi(y|x): one row, its logits in float64, the tokens of the answer summed."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double()
    rows = logits.log_softmax(-1)
    return sum(float(rows[len(prompt) - 1 + place, token]) for place, token in enumerate(answer))


def by_hand(policy, reference, pools, beta):
    """Mean over pairs of -log sigmoid(beta (log pi/pi_ref of the chosen - log pi/pi_ref of the rejected))."""
    losses = []
    for pool in pools:
        ratios = [
            log_probability(policy, pool.prompt_ids, answer) - log_probability(reference, pool.prompt_ids, answer)
            for answer in pool.response_ids
        ]
        losses += [math.log1p(math.exp(-beta * (ratios[a] - ratios[b]))) for a, b in pool.pairs]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("beta", [0.1, 0.01])
def test_the_second_stage_asks_the_other_objective_against_the_first_stage(llama, encoded_pools, tmp_path, beta):
    pools, base = encoded_pools(4), copy.deepcopy(llama)
    first = trained(llama, pools, sacpo(0.1), tmp_path / "first")
    after_first = copy.deepcopy(llama)
    assert by_hand(after_first, base, pools, 0.1) < math.log(2) - 1e-3  # it has learned what it was asked
    others = turned_round(pools)
    second = trained(llama, others, sacpo(beta), tmp_path / "second")
    assert [record["n_pairs"] for record, _ in second] == [sum(len(pool.pairs) for pool in pools)] * 3
    policies = [after_first, *(policy for _, policy in second)]
    for (record, _), policy in zip(second, policies, strict=False):  # a record tells of the policy before its step
        assert record["loss"] == pytest.approx(by_hand(policy, after_first, others, beta), abs=1e-5)
    assert second[0][0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    against_base = by_hand(policies[1], base, others, beta)
    assert abs(second[1][0]["loss"] - against_base) > 1e-4  # the model before both stages is another reference
    assert [record["loss"] for record, _ in first] != [record["loss"] for record, _ in second]
