from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from selfpriority.inspection.first_loss import FirstLoss, plain_loss, plain_nll
from selfpriority.method.pair import pair
from selfpriority.recipe import Align, PairRules
from selfpriority.records import Message, PairedPool, Pool, Prompt, Rating, Response, Scored
from selfpriority.training.encode import EncodedPool
from selfpriority.training.objective import part_loss, weigh


def paired(name: str, *scores: tuple[float, float]) -> PairedPool:
    rated = tuple(
        Scored(Response(f"{name}/y{i}", name, "text", "end", 2), tuple(map(Rating, s))) for i, s in enumerate(scores)
    )
    return pair([Pool(Prompt(name, (Message("user", "x"),)), rated)], PairRules()).kept[0]


def test_the_loss_of_hand_worked_pairs():
    # a: y0 over y1, gap 4; b: y1 over y0, gap 2; the mean gap is 3
    pools = [paired("a", (8, 5), (5, 4)), paired("b", (4, 4), (6, 4))]
    logps = [{0: -1.0, 1: -1.5}, {0: -2.0, 1: -2.2}]
    settings = Align(beta=2.0, gamma=0.5, alpha=1.0)
    first = -4 / 3 * math.log(1 / (1 + math.exp(-0.5)))  # margin 2 * 0.5 - 0.5
    second = -2 / 3 * math.log(1 / (1 + math.exp(0.9)))  # margin 2 * -0.2 - 0.5
    assert plain_loss(pools, logps, settings) == pytest.approx((first + second) / 2, abs=1e-12)
    simpo = plain_loss(pools, logps, Align(beta=2.0, gamma=0.5, alpha=0.0))
    assert simpo == pytest.approx((first * 3 / 4 + second * 3 / 2) / 2, abs=1e-12)


def test_pools_count_equally_where_asked():
    pools = [paired("a", (8, 5), (5, 4)), paired("b", (4, 4), (6, 4), (8, 4))]
    logps = [{0: 0.0, 1: 0.0}, {0: 0.0, 1: 0.0, 2: 0.0}]
    settings = Align(gamma=0.0, alpha=1.0, count="pools")
    # gaps 4 and 2, 4, 2: mean 3; every margin is 0
    expected = math.log(2) * (4 / 3 + (2 / 3 + 4 / 3 + 2 / 3) / 3) / 2
    assert plain_loss(pools, logps, settings) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # three answers, best y1: it wins 2, y2 wins 1 and loses 1, y0 loses 2; of 3, 5 and 2 tokens
        (Align(method="sft"), (5 * 1.5 + 4 * 0.25) / 9),
        (Align(nll=1.0), (5 * 1.5 + 2 * 0.5 + 4 * 0.25) / 11),
        (Align(method="sft", learn="winners"), (5 * 1.5 + 4 * 0.25) / 9),
    ],
    ids=["best", "chosen", "winners"],
)
def test_the_likelihood_of_hand_worked_pools(settings, expected):
    pools = [paired("a", (2, 5), (8, 5), (5, 5)), paired("b", (8, 5), (5, 4))]
    logps = [{0: -3.0, 1: -1.5, 2: -0.5}, {0: -0.25, 1: -1.0}]
    encoded = [
        EncodedPool("a", (1,), ((5,) * 3, (5,) * 5, (5,) * 2), (), (), ()),
        EncodedPool("b", (1,), ((5,) * 4, (5,) * 9), (), (), ()),
    ]
    assert plain_nll(pools, logps, encoded, settings) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # one desirable answer to one in b, one to two in c: lambda_D 3/2, and every loss a half
        (Align(method="kto"), (2 * 1.5 + 3) / 5 / 2),
        (Align(method="kto", count="pools"), ((1.5 + 1) / 2 + (1.5 + 2) / 3) / 2 / 2),
        # b: the rejected alone is unsafe; c: both safe, then the rejected unsafe
        (Align(method="safedpo", unsafe_margin=2.0), (2 * math.log1p(math.exp(2)) + math.log(2)) / 3),
        (Align(method="bfpo", beta=0.5), (2 * 2.0**2 + 1.0**2) / 3),
    ],
    ids=["kto", "kto, pools", "safedpo", "bfpo"],
)
def test_the_rivals_first_loss_by_hand_and_as_training_computes_it(settings, expected):
    c = paired("c", (9, 5), (6, 5), (2, 5))
    pools = [paired("b", (8, 5), (5, 4)), replace(c, pairs=tuple(p for p in c.pairs if p.chosen == 0))]
    assert plain_loss(pools, [dict.fromkeys(range(3), -1.0)] * 2, settings) == pytest.approx(expected, abs=1e-12)
    encoded = [
        EncodedPool("b", (1,), ((5,), (5,)), ((0, 1),), (4.0,), (0.0,) * 2, (True, False)),
        EncodedPool("c", (1,), ((5,),) * 3, ((0, 1), (0, 2)), (3.0, 7.0), (0.0,) * 3, (True, True, False)),
    ]
    logps = torch.full((5,), -1.0)
    loss, _ = part_loss(logps, weigh(encoded, settings, torch.split(logps, [2, 3])), settings)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_without_any_gap_every_pair_weighs_one():
    pools = [paired("a", (8, 2), (5, 5))]
    logps = [{0: 0.0, 1: 0.0}]
    assert plain_loss(pools, logps, Align(gamma=0.0)) == pytest.approx(math.log(2))
    # 3 apart on harmlessness, 6 in L1: either alone is also the mean
    assert plain_loss(pools, logps, Align(gamma=0.0, weight_gap="l1")) == pytest.approx(math.log(2))


def test_agreement_is_within_float32_rounding():
    assert FirstLoss(1.00005, 1.0, 1, 3).agrees
    assert not FirstLoss(1.0002, 1.0, 1, 3).agrees
    assert FirstLoss(100.005, 100.0, 1, 3).agrees
    assert not FirstLoss(math.nan, 1.0, 1, 3).agrees
