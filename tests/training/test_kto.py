"""KTO as a whole: who is desirable, the answers to other prompts, and one number z0 however a batch is cut."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import combinations, permutations

import pytest
import torch

from selfpriority.errors import WorkFailed
from selfpriority.method.rival_losses import Balance
from selfpriority.recipe import Align
from selfpriority.training.checkpoints import Checkpoints
from selfpriority.training.desirable import Kto, balance_of, mismatched, sides, signed_shares
from selfpriority.training.encode import EncodedPool
from selfpriority.training.engines import accelerator_for
from selfpriority.training.groups import Step, plan_steps
from selfpriority.training.journal import Journal
from selfpriority.training.logps import Form, response_logps
from selfpriority.training.objective import part_loss, weigh
from selfpriority.training.passes import Course
from selfpriority.training.trainer import Trainer


def pool_of(n, pairs, prompt=(1, 9), name="p"):
    return EncodedPool(name, prompt, tuple((5,) * (index + 1) for index in range(n)), pairs, (1.0,) * len(pairs), ())


@pytest.mark.parametrize(("n", "wanted"), [(2, [1, -1]), (4, [1, 1, -1, -1]), (5, [1, 1, 0, -1, -1])])
def test_of_a_whole_order_those_above_the_median_are_desirable(n, wanted):
    assert sides(pool_of(n, tuple(combinations(range(n), 2)))) == wanted


def test_ties_are_of_the_side_that_they_win_more_pairs_on():
    # keys 1, 2, 2: the two winners lose to nobody; keys 1, 1, 2: the two losers win against nobody
    assert sides(pool_of(3, ((1, 0), (2, 0)))) == [-1, 1, 1]
    assert sides(pool_of(3, ((2, 0), (2, 1)))) == [-1, -1, 1]


def test_every_pool_has_both_sides_whatever_its_order():
    for order in permutations(range(4)):
        pairs = tuple((a, b) for a in range(4) for b in range(4) if order[a] > order[b] + 1)
        assert {1, -1} <= set(sides(pool_of(4, pairs)))


def test_shares_are_a_mean_over_answers_times_lambda():
    a, b = pool_of(2, ((0, 1),)), pool_of(3, ((0, 1), (0, 2)))
    assert balance_of([a, b]) == Balance(1.5, 1.0)  # 2 to 3
    shares = signed_shares([a, b], balance_of([a, b]), "pairs")
    assert torch.cat(shares).tolist() == pytest.approx([0.3, -0.2, 0.3, -0.2, -0.2])
    shares = signed_shares([a, b], Balance(1.0, 1.0), "pools")
    assert torch.cat(shares).tolist() == pytest.approx([1 / 4, -1 / 4, 1 / 6, -1 / 6, -1 / 6])


def test_pools_whose_pairs_stand_both_ways_weigh_nothing():
    both = replace(pool_of(2, ((0, 1), (1, 0))), learned=(0.0, 0.0))
    balance = balance_of([both])
    assert balance == Balance(1.0, 1.0)
    for count in ("pairs", "pools"):
        assert [share.tolist() for share in signed_shares([both], balance, count)] == [[0.0, 0.0]]
    assert all(bool(torch.isfinite(each.desired).all()) for each in weigh([both], Align(method="kto")))


def test_mismatched_answers_are_those_of_the_next_pool_cut_where_nothing_was_longer():
    first, second = pool_of(2, ((0, 1),), (1, 9)), pool_of(5, ((0, 1),), (1, 7, 8))
    others = mismatched([first, second])
    assert [other.prompt_ids for other in others] == [first.prompt_ids, second.prompt_ids]
    assert others[0].response_ids == second.response_ids
    assert others[1].response_ids == first.response_ids
    long = replace(first, prompt_ids=(1,) * 6)  # with the 5 tokens of the last answer 11, where 8 were the most
    assert [len(ids) for ids in mismatched([long, second])[0].response_ids] == [1, 2, 2, 2, 2]


def test_one_pool_has_no_other_to_compare_with():
    with pytest.raises(WorkFailed, match="kto compares with answers to other prompts, but 1 pool is left"):
        mismatched([pool_of(2, ((0, 1),))])


def moved(model):
    other = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.02 * torch.randn_like(weight)
    return other


def plain_kto(model, start, pools, settings):
    """One unpadded pass an answer, own and mismatched, then the paper's formulas; loss and z0."""

    def log_ratio(prompt, ids):
        row = torch.tensor([prompt + ids])
        now, before = (which(row).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for which in (model, start))
        targets = torch.tensor(ids)[:, None]
        return (now.gather(1, targets) - before.detach().gather(1, targets)).sum()

    away = [log_ratio(p.prompt_ids, ids).detach() for p in mismatched(pools) for ids in p.response_ids]
    z0 = torch.stack(away).mean().clamp(min=0)
    told = [(p, *each) for p in pools for each in zip(p.response_ids, sides(p), strict=True)]
    own = [(log_ratio(p.prompt_ids, ids), side) for p, ids, side in told]
    n = {side: sum(s == side for _, s in own) for side in (1, -1)}
    balance = balance_of(pools)
    beta = settings.beta
    desirable = [balance.desirable * (1 - torch.sigmoid(beta * (d - z0))) for d, side in own if side > 0]
    undesirable = [balance.undesirable * (1 - torch.sigmoid(beta * (z0 - d))) for d, side in own if side < 0]
    return torch.stack([*desirable, *undesirable]).sum() / (n[1] + n[-1]), float(z0)


def passes_of(model, pools, settings, tmp_path):
    course = Course(pools, plan_steps(pools, settings, 0), Form(True, True), settings, torch.float32)
    return Trainer(model, course, accelerator_for(settings), 0, Checkpoints(tmp_path, ""))


@pytest.mark.parametrize("budget", [10, 70, 10_000])
def test_loss_gradient_and_z0_are_those_of_the_formula_however_the_batch_is_cut(llama, encoded_pools, tmp_path, budget):
    pools, settings = encoded_pools(6), Align(method="kto", dtype="float32", tokens_per_batch=budget, beta=0.5)
    policy, now = copy.deepcopy(llama), moved(llama)
    trainer = passes_of(policy, pools, settings, tmp_path)
    trainer.passes.measure(trainer.reference)
    policy.load_state_dict(now.state_dict())  # it has moved on from what was measured
    wanted, z0 = plain_kto(now, llama, pools, settings)
    assert z0 > 0.01
    step = Step(0, trainer.course.plan.steps[0].micro_batches)
    assert len(step.pools) == 6
    batch = trainer.passes.gradients(step, trainer.reference)
    assert batch.kto is not None
    assert batch.kto.z0 == pytest.approx(z0, rel=1e-4)
    assert batch.tallies["loss"] == pytest.approx(wanted.item(), rel=1e-5)
    got = torch.cat([weight.grad.flatten() for weight in policy.parameters()])
    want = torch.cat([grad.flatten() for grad in torch.autograd.grad(wanted, list(now.parameters()))])
    assert float((got - want).norm() / want.norm()) < 1e-4


@pytest.mark.parametrize("split", [[1] * 6, [2, 4], [6]], ids=["6x1", "2 and 4", "1x6"])
@pytest.mark.parametrize("count", ["pairs", "pools"])
def test_the_loss_of_the_parts_is_that_of_the_whole(llama, encoded_pools, split, count):
    pools, settings, start = encoded_pools(6), Align(method="kto", count=count, nll=0.3), moved(llama)
    with torch.no_grad():
        references = [response_logps(start, [pool], Form(True, True)) for pool in pools]
        logps = [response_logps(llama, [pool], Form(True, True)) for pool in pools]
    batch = weigh(pools, settings, references, Kto(Balance(1.5, 1.0), 0.7))
    whole, tallies = part_loss(torch.cat(logps), batch, settings)
    parts, first = [], 0
    for n in split:
        parts.append(part_loss(torch.cat(logps[first : first + n]), batch[first : first + n], settings))
        first += n
    assert sum(loss.item() for loss, _ in parts) == pytest.approx(whole.item(), rel=1e-5)
    torch.testing.assert_close(sum(tally for _, tally in parts), tallies, rtol=1e-4, atol=1e-5)


def test_training_starts_at_half_and_tells_z0(llama, encoded_pools, tmp_path):
    pools = encoded_pools(5)
    settings = Align(method="kto", learning_rate=1e-3, dtype="float32", warmup=0.0, epochs=4)
    records = []
    course = Course(pools, plan_steps(pools, settings, 3), Form(True, True), settings, torch.float32)
    trainer = Trainer(llama, course, accelerator_for(settings), 3, Checkpoints(tmp_path / "checkpoints", "mark"))
    trainer.train(None, Journal(tmp_path / "training.jsonl", 0, records.append))
    balance = balance_of(pools)
    n = [sum(s == side for pool in pools for s in sides(pool)) for side in (1, -1)]
    first = (balance.desirable * n[0] + balance.undesirable * n[1]) / sum(n) / 2
    assert records[0]["loss"] == pytest.approx(first, rel=1e-5)
    assert records[0]["z0"] == pytest.approx(0.0, abs=1e-5)
    assert records[-1]["loss"] < first
    assert records[-1]["margin"] > 0
