"""TIS-DPO: tokens weigh by what a good persona finds likelier than a bad one, the other way round where rejected."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid

from selfpriority.recipe import Align
from selfpriority.training.align import Places, train
from selfpriority.training.checkpoints import Checkpoints
from selfpriority.training.engines import accelerator_for
from selfpriority.training.groups import Step, plan_steps
from selfpriority.training.logps import Form
from selfpriority.training.passes import Course
from selfpriority.training.trainer import Trainer
from tests.training.test_kto import moved


def token_logps(model, prompt, ids):
    """Log-probability of every token, one unpadded pass."""
    row = torch.tensor([prompt + ids])
    return model(row).logits[0, len(prompt) - 1 : -1].log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]


def weights_of(model, pool, ids):
    """The definition, a token at a time: 0.7 for the lowest ratio up to 1.3 for the highest, in equal steps."""
    good, bad = (token_logps(model, prompt, ids).tolist() for prompt in pool.persona_ids)
    ratios = [x - y for x, y in zip(good, bad, strict=True)]
    ranks = [sum(other < ratio for other in ratios) for ratio in ratios]
    return [0.7 + 0.6 * rank / (len(ids) - 1) for rank in ranks]


def plain_tis(model, start, pools, beta):
    losses = []
    for pool in pools:
        for chosen, rejected in pool.pairs:
            sums = []
            for index, is_rejected in ((chosen, False), (rejected, True)):
                ids = pool.response_ids[index]
                weights = torch.tensor(weights_of(start, pool, ids))
                weights = 2.0 - weights if is_rejected else weights  # 1.3 for the lowest ratio, 0.7 for the highest
                now, before = token_logps(model, pool.prompt_ids, ids), token_logps(start, pool.prompt_ids, ids)
                sums.append((weights * (now - before.detach())).sum())
            losses.append(-logsigmoid(beta * (sums[0] - sums[1])))
    return torch.stack(losses).mean()


def with_personas(pools):
    return [replace(p, persona_ids=((9, 8, *p.prompt_ids), (7, 6, 5, *p.prompt_ids))) for p in pools]


def trainer_of(model, pools, settings, folder):
    course = Course(pools, plan_steps(pools, settings, 0), Form(True, True), settings, torch.float32)
    return Trainer(model, course, accelerator_for(settings), 0, Checkpoints(folder, ""))


@pytest.mark.parametrize("budget", [10, 70, 10_000], ids=["in pieces", "some", "all at once"])
def test_loss_and_gradient_are_those_of_the_formula_however_the_batch_is_cut(llama, encoded_pools, tmp_path, budget):
    pools = with_personas(encoded_pools(4))
    settings = Align(method="tis_dpo", dtype="float32", tokens_per_batch=budget, beta=0.5)
    policy, now = copy.deepcopy(llama), moved(llama)
    trainer = trainer_of(policy, pools, settings, tmp_path)
    trainer.passes.measure(trainer.reference)
    policy.load_state_dict(now.state_dict())
    wanted = plain_tis(now, llama, pools, settings.beta)
    batch = trainer.passes.gradients(Step(0, trainer.course.plan.steps[0].micro_batches), trainer.reference)
    n_pairs = sum(len(pool.pairs) for pool in pools)
    assert batch.tallies["loss"] == pytest.approx(wanted.item(), rel=1e-5)
    assert batch.tallies["margin"] / n_pairs != pytest.approx(0.0, abs=1e-3)
    got = torch.cat([weight.grad.flatten() for weight in policy.parameters()])
    want = torch.cat([grad.flatten() for grad in torch.autograd.grad(wanted, list(now.parameters()))])
    assert float((got - want).norm() / want.norm()) < 1e-4


def test_what_is_measured_at_the_start_is_in_every_checkpoint(llama, encoded_pools, tmp_path):
    pools, settings = with_personas(encoded_pools(4)), Align(method="tis_dpo", dtype="float32")
    first = trainer_of(copy.deepcopy(llama), pools, settings, tmp_path)
    first.passes.measure(first.reference)
    first._save(0)
    (checkpoint,) = tmp_path.iterdir()
    again = trainer_of(moved(llama), pools, settings, tmp_path)  # which has moved on, and must not be asked
    again._load(checkpoint)
    assert [pool.token_weights for pool in again.passes.course.pools] == [
        pool.token_weights for pool in first.passes.course.pools
    ]
    assert sorted(first.passes.course.pools[0].token_weights[0])[0] == pytest.approx(0.7)
    assert all(torch.equal(a, b) for a, b in zip(again.reference.by_pool, first.reference.by_pool, strict=True))


def test_a_training_by_texts_moves_the_model_and_shows_the_personas_to_nobody_else(tiny_model, paired_pool, tmp_path):
    pools = [paired_pool(f"{place} safe?", ("No.", "Yes, go.", "I see.")) for place in ("Is the river", "Are you")]
    rates = {"learning_rate": 1e-3, "dtype": "float32", "epochs": 2}
    places = [Places(tmp_path / m, tmp_path / f"{m}.jsonl", tmp_path / f"{m}-checkpoints") for m in ("tis_dpo", "dpo")]
    for place in places:
        train(pools, tiny_model, Align(method=place.policy.name, alpha=0, beta=0.1, **rates), 0, place)
    tis, dpo = ([json.loads(line) for line in place.log.read_text().splitlines()] for place in places)
    assert tis[0]["margin"] == pytest.approx(0.0, abs=1e-6)  # the policy is its own reference, whatever tokens weigh
    assert tis[0]["chosen_logp"] == pytest.approx(dpo[0]["chosen_logp"], abs=1e-5)
    assert tis[-1]["margin"] > 0
    assert tis[-1]["loss"] != pytest.approx(dpo[-1]["loss"], rel=1e-6)
    assert {row["n_pairs"] for row in tis} == {6}
