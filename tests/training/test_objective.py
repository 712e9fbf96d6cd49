"""The loss of a batch: against plain pair-wise SimPO, and the same for every way of cutting it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from selfpriority.recipe import Align
from selfpriority.training.encode import EncodedPool
from selfpriority.training.groups import plan_steps
from selfpriority.training.logps import Form, response_logps
from selfpriority.training.objective import TALLIES, n_light, part_loss, weigh

SPLITS = {"8x1": [1] * 8, "4x2": [2] * 4, "1x8": [8], "ragged": [5, 1, 2]}


def batch_loss(model, pools, settings, split=None, form=Form(True, True), start=None):  # noqa: B008 - frozen
    references = None
    if start is not None:
        with torch.no_grad():
            references = [response_logps(start, [pool], Form(False, False)) for pool in pools]
    batch = weigh(pools, settings, references)
    loss, sums = torch.zeros(()), torch.zeros(len(TALLIES))
    start = 0
    for n in split or [len(pools)]:
        part = batch[start : start + n]
        part_of_loss, tallies = part_loss(response_logps(model, pools[start : start + n], form), part, settings)
        loss, sums = loss + part_of_loss, sums + tallies
        start += n
    return loss, dict(zip(TALLIES, sums.tolist(), strict=True))


def distance(got, want):
    return float((got - want).norm() / want.norm())


def gradients(model, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.fixture
def two_threads():
    """Sums as two threads cut them: with one, float32 rounds to 1.4e-6 where the bound is 1e-6."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("form", [Form(True, True), Form(False, True)])
@pytest.mark.parametrize(
    "settings",
    [Align(), Align(alpha=0.0), Align(alpha=2.0, beta=10.0, gamma=0.3), Align(count="pools")],
    ids=["spa", "simpo", "alpha 2", "pools"],
)
def test_equals_pairwise_simpo(llama, encoded_pools, pairwise_simpo, settings, form, two_threads):
    pools = encoded_pools(4)
    wanted = pairwise_simpo(llama, pools, settings)
    loss, _ = batch_loss(llama, pools, settings, form=form)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    in_float32, of_reference = gradients(llama, loss), gradients(llama, wanted)
    exact = copy.deepcopy(llama).double()
    loss, wanted = batch_loss(exact, pools, settings, form=form)[0], pairwise_simpo(exact, pools, settings)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-7)
    truth = gradients(exact, wanted)
    assert distance(gradients(exact, loss), truth) < 3e-7
    # how far float32 is from the truth is the processor's; ours may be no further than the plain formula's by much
    assert distance(in_float32.double(), truth) < 2 * distance(of_reference.double(), truth)


def test_alpha_zero_is_simpo_without_weights(llama, encoded_pools):
    pools = encoded_pools(3)
    settings = Align(alpha=0.0)
    batch = weigh(pools, settings)
    assert all((weighted.weights == 1).all() for weighted in batch)
    logps = response_logps(llama, pools, Form(True, True))
    first = 0
    losses = []
    for pool in pools:
        for chosen, rejected in pool.pairs:
            margin = settings.beta * (logps[first + chosen] - logps[first + rejected])
            losses.append(math.log1p(math.exp(settings.gamma - margin.item())))
        first += len(pool.response_ids)
    assert batch_loss(llama, pools, settings)[0].item() == pytest.approx(sum(losses) / len(losses), rel=1e-6)


@pytest.mark.parametrize("count", ["pairs", "pools"])
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_loss_gradients_and_tallies_do_not_depend_on_the_split(llama, encoded_pools, split, count):
    pools, settings = encoded_pools(8), Align(count=count)
    whole, tallies = batch_loss(llama, pools, settings)
    parts, summed = batch_loss(llama, pools, settings, split)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-6)
    want, got = gradients(llama, whole), gradients(llama, parts)
    assert float((got - want).norm() / want.norm()) < 1e-6
    assert summed == pytest.approx(tallies, rel=1e-5)


def test_weights_are_over_the_whole_batch_and_average_one(encoded_pools):
    pools = encoded_pools(8)
    batch = weigh(pools, Align())
    weights = torch.cat([weighted.weights for weighted in batch])
    gaps = torch.tensor([gap for pool in pools for gap in pool.gaps])
    assert weights.mean().item() == pytest.approx(1.0)
    torch.testing.assert_close(weights, gaps / gaps.mean())


def test_no_gap_at_all_trains_every_pair_alike(encoded_pools):
    pools = [replace(pool, gaps=(0.0,) * len(pool.pairs)) for pool in encoded_pools(2)]
    assert all((weighted.weights == 1).all() for weighted in weigh(pools, Align()))


def test_pools_count_equally_whatever_their_number_of_pairs(encoded_pools):
    pools = encoded_pools(6)
    shares = [weighted.share * len(weighted.pool.pairs) for weighted in weigh(pools, Align(count="pools"))]
    assert shares == pytest.approx([1 / 6] * 6)


def test_light_pairs_are_counted(encoded_pools):
    pools = encoded_pools(5)
    gaps = torch.tensor([gap for pool in pools for gap in pool.gaps])
    assert n_light(weigh(pools, Align())) == int((gaps < 0.1 * gaps.mean()).sum())


def test_padding_is_not_counted_as_answer(llama, encoded_pools):
    """Pools of unlike length in one forward pass give each the loss it has alone (open-instruct#1900)."""
    short, long = sorted(encoded_pools(8), key=lambda pool: pool.n_tokens)[::7]
    for form in (Form(True, True), Form(False, True)):
        together = response_logps(llama, [short, long], form)
        alone = torch.cat([response_logps(llama, [pool], form) for pool in (short, long)])
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)


def test_tallies_are_those_of_the_pairs(llama, encoded_pools):
    pools, settings = encoded_pools(2), Align()
    logps = response_logps(llama, pools, Form(True, True)).tolist()
    ends = [len(pools[0].response_ids)]
    pairs = [*pools[0].pairs, *((ends[0] + a, ends[0] + b) for a, b in pools[1].pairs)]
    margins = [settings.beta * (logps[a] - logps[b]) for a, b in pairs]
    _, tallies = batch_loss(llama, pools, settings)
    assert tallies["margin"] == pytest.approx(sum(margins), rel=1e-5)
    assert tallies["accuracy"] == sum(margin > 0 for margin in margins)
    assert tallies["chosen_logp"] == pytest.approx(sum(logps[a] for a, _ in pairs), rel=1e-5)
    assert tallies["rejected_logp"] == pytest.approx(sum(logps[b] for _, b in pairs), rel=1e-5)
    assert tallies["nonfinite"] == 0


def naive_nll(model, pools, weights=None):
    """Mean per token over all answers that are chosen in a pair or have a weight, one unpadded pass each."""
    losses, n_tokens = [], 0.0
    chosen = [dict.fromkeys({a for a, _ in pool.pairs}, 1.0) for pool in pools]
    for pool, of_pool in zip(pools, weights or chosen, strict=True):
        for index, weight in of_pool.items():
            ids = pool.response_ids[index]
            logits = model(torch.tensor([pool.prompt_ids + ids])).logits[0, len(pool.prompt_ids) - 1 : -1]
            losses.append(weight * torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum"))
            n_tokens += weight * len(ids)
    return torch.stack(losses).sum() / n_tokens


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_likelihood_of_chosen_answers_is_added_once_each_however_the_batch_is_cut(
    llama, encoded_pools, pairwise_simpo, split
):
    pools, settings = encoded_pools(8), Align(nll=0.7)
    assert any(len(pool.pairs) > len({chosen for chosen, _ in pool.pairs}) for pool in pools)
    nll = naive_nll(llama, pools)
    wanted = pairwise_simpo(llama, pools, settings) + 0.7 * nll
    loss, tallies = batch_loss(llama, pools, settings, split)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert tallies["nll"] == pytest.approx(nll.item(), rel=1e-6)
    assert distance(gradients(llama, loss), gradients(llama, wanted)) < 2e-6


METHODS = {
    "simpo": Align(method="simpo", alpha=3.0),
    "dpo": Align(method="dpo"),
    "plain dpo": Align(method="dpo", alpha=0.0, beta=0.5),
    "dpo, pools": Align(method="dpo", count="pools"),
    "ipo": Align(method="ipo"),
    "ipo, alpha 2": Align(method="ipo", alpha=2.0, beta=1.5, count="pools"),
    "bfpo": Align(method="bfpo"),
    "safedpo, pools": Align(method="safedpo", count="pools"),
}


@pytest.mark.parametrize("form", [Form(True, True), Form(False, True)])
@pytest.mark.parametrize("settings", METHODS.values(), ids=METHODS)
def test_other_losses_equal_their_pairwise_form(llama, encoded_pools, pairwise, settings, form):
    pools = encoded_pools(5)
    start = moved(llama)
    wanted = pairwise(llama, pools, settings, start)
    loss, _ = batch_loss(llama, pools, settings, form=form, start=start)
    assert loss.item() == pytest.approx(wanted.item(), rel=4e-6)
    exact, exact_start = copy.deepcopy(llama).double(), copy.deepcopy(start).double()
    wanted = pairwise(exact, pools, settings, exact_start)
    loss, _ = batch_loss(exact, pools, settings, form=form, start=exact_start)
    # float32 rounds sums of log-probabilities at 1e-6 of their size, in another order on each side: float64 decides
    assert loss.item() == pytest.approx(wanted.item(), rel=2e-7)
    assert distance(gradients(exact, loss), gradients(exact, wanted)) < 2e-7


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("method", ["simpo", "dpo", "ipo", "bfpo", "safedpo", "sft"])
def test_no_loss_depends_on_the_split(llama, encoded_pools, method, split):
    pools, settings, start = encoded_pools(8), Align(method=method), moved(llama)
    whole, tallies = batch_loss(llama, pools, settings, start=start)
    parts, summed = batch_loss(llama, pools, settings, split, start=start)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-5)
    assert distance(gradients(llama, parts), gradients(llama, whole)) < 1e-5
    assert summed == pytest.approx(tallies, rel=1e-4)


def test_sft_is_the_likelihood_of_the_chosen_and_nothing_else(llama, encoded_pools):
    pools = encoded_pools(5)
    wanted = naive_nll(llama, pools)
    loss, tallies = batch_loss(llama, pools, Align(method="sft"))
    assert loss.item() == tallies["loss"] == tallies["nll"] == pytest.approx(wanted.item(), rel=1e-6)
    assert distance(gradients(llama, loss), gradients(llama, wanted)) < 2e-6


def weighted_pools(pools):
    """The pools with weights as `best` and `winners` give them, by turns: 1 a pool; and the weights by index."""
    weights = [{1: 1.0} if n % 2 else dict.fromkeys(range(len(p.response_ids) - 1), 0.5) for n, p in enumerate(pools)]
    learned = [tuple(w.get(i, 0.0) for i in range(len(p.response_ids))) for p, w in zip(pools, weights, strict=True)]
    return [replace(p, learned=of_pool) for p, of_pool in zip(pools, learned, strict=True)], weights


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("settings", [Align(method="sft"), Align(nll=0.7)], ids=["sft", "nll"])
def test_only_answers_with_a_weight_are_learned_and_by_it_however_the_batch_is_cut(
    llama, encoded_pools, pairwise_simpo, settings, split
):
    pools, weights = weighted_pools(encoded_pools(8))
    nll = naive_nll(llama, pools, weights)
    assert abs(nll.item() - naive_nll(llama, pools).item()) > 1e-4  # the pools can tell the two apart
    wanted = nll if settings.method == "sft" else pairwise_simpo(llama, pools, settings) + 0.7 * nll
    loss, tallies = batch_loss(llama, pools, settings, split)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert tallies["nll"] == pytest.approx(nll.item(), rel=1e-6)
    assert distance(gradients(llama, loss), gradients(llama, wanted)) < 2e-6


def test_shares_of_a_hand_worked_batch():
    # best of a: 4 tokens; winners of b: 2 and 6 tokens at a half each; 4 + 1 + 3 = 8
    a = EncodedPool("a", (1,), ((5,) * 4, (5,) * 3), ((0, 1),), (1.0,), (1.0, 0.0))
    b = EncodedPool("b", (1,), ((5,) * 2, (5,) * 6, (5,)), ((0, 2), (1, 2)), (1.0, 1.0), (0.5, 0.5, 0.0))
    shares = [weighted.token_shares.tolist() for weighted in weigh([a, b], Align(method="sft"))]
    assert shares == [[0.5, 0.0], [0.125, 0.375, 0.0]]
    logps = torch.tensor([-1.0, -7.0, -2.0, -4.0, -9.0])
    loss, _ = part_loss(logps, weigh([a, b], Align(method="sft")), Align(method="sft"))
    assert loss.item() == 0.5 * 1 + 0.125 * 2 + 0.375 * 4


def moved(model):
    """Another model near this one."""
    other = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.02 * torch.randn_like(weight)
    return other


def test_micro_batches_of_a_plan_add_up_to_the_batch(llama, encoded_pools, pairwise_simpo):
    pools = encoded_pools(8)
    plan = plan_steps(pools, Align(tokens_per_batch=80), seed=0)
    assert len(plan.steps) == 1
    step = plan.steps[0]
    assert len(step.micro_batches) > 2
    ordered = [pools[index] for index in step.pools]
    loss, _ = batch_loss(llama, ordered, Align(), [len(part) for part in step.micro_batches])
    assert loss.item() == pytest.approx(pairwise_simpo(llama, pools, Align()).item(), rel=1e-6)
