"""SafeDPO, BFPO, KTO and TIS-DPO against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from selfpriority.method.loss import dpo_reward, pair_losses
from selfpriority.method.rival_losses import (
    Balance,
    bfpo_losses,
    bfpo_targets,
    kto_balance,
    kto_baseline,
    kto_losses,
    safedpo_targets,
    tis_rejected,
    tis_weights,
)

SAFE_CHOSEN = torch.tensor([1.0, 1.0, 0.0, 0.0])
SAFE_REJECTED = torch.tensor([1.0, 0.0, 1.0, 0.0])


def test_safedpo_asks_for_delta_more_where_the_rejected_alone_is_unsafe() -> None:
    targets = safedpo_targets(SAFE_CHOSEN, SAFE_REJECTED, 10.0)
    assert targets.tolist() == [0.0, 10.0, -10.0, 0.0]
    # beta h is 0.1 * (4 * 0.5 + 10 * 0.1) = 0.3; minus Delta for the second pair: ln(1 + e^9.7)
    rewards = dpo_reward(torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.9]), torch.tensor([4, 10]), beta=0.1)
    margins = (rewards[0] - rewards[1]).expand(2)
    losses = pair_losses(margins, torch.ones(2), targets[:2])
    assert losses.tolist() == pytest.approx([math.log(1 + math.exp(-0.3)), math.log(1 + math.exp(9.7))])


def test_bfpo_targets_by_who_is_safe() -> None:
    # b1 b3 = 1.5, b3 = 0.5, a = 0.5: (1.5 - 0.5 - 0.5), (1.5 - 0.5), (-0.5 - 0.5), -0.5, each over beta
    assert bfpo_targets(SAFE_CHOSEN, SAFE_REJECTED, 0.01).tolist() == pytest.approx([50.0, 100.0, -100.0, -50.0])
    losses = bfpo_losses(torch.tensor([3.0, 3.0]), torch.tensor([1.0, 0.5]), torch.tensor([5.0, -1.0]))
    assert losses.tolist() == [4.0, 8.0]


def test_z0_is_the_mean_log_ratio_of_whole_answers_and_not_below_zero() -> None:
    # 4 tokens, each 0.5 nats likelier than at the start: 2; 10 tokens each 0.1 less likely: -1; mean 0.5
    now, start, lengths = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.9]), torch.tensor([4, 10])
    assert kto_baseline(now, start, lengths) == pytest.approx(0.5)
    assert kto_baseline(start, now, lengths) == 0.0


def test_kto_losses_of_worked_answers() -> None:
    # D 2 and -1, beta 0.1, z0 0.5: rewards 0.2 and -0.1, baseline 0.05
    losses = kto_losses(torch.tensor([0.2, -0.1]), torch.tensor([1.0, -1.0]), baseline=0.05)
    assert losses.tolist() == pytest.approx([1 - 1 / (1 + math.exp(-0.15)), 1 - 1 / (1 + math.exp(-0.15))])
    turned = kto_losses(torch.tensor([0.2]), torch.tensor([-2.5]), baseline=0.05)  # of a side its sign counts
    assert turned.tolist() == pytest.approx([1 - 1 / (1 + math.exp(0.15))])


@pytest.mark.parametrize(
    ("n_desirable", "n_undesirable", "expected"),
    [
        (10, 10, Balance(1.0, 1.0)),
        (12, 10, Balance(1.0, 1.0)),  # 1.2 is between 1 and 4/3
        (5, 10, Balance(2.0, 1.0)),  # 2 * 5 to 10
        (30, 10, Balance(1.0, 2.25)),  # 30 to 22.5
    ],
)
def test_lambdas_keep_the_two_sides_between_one_and_four_thirds(n_desirable, n_undesirable, expected) -> None:
    found = kto_balance(n_desirable, n_undesirable)
    assert found == expected
    assert 1 <= found.desirable * n_desirable / (found.undesirable * n_undesirable) <= 4 / 3 + 1e-12


def test_tis_weights_go_from_0_7_to_1_3_by_rank() -> None:
    assert tis_weights(torch.tensor([0.5, -2.0, 9.0, 0.0])).tolist() == pytest.approx([1.1, 0.7, 1.3, 0.9])
    assert tis_weights(torch.tensor([1.0, 1.0, -1.0])).tolist() == pytest.approx([1.0, 1.3, 0.7])  # the first is lower
    assert tis_weights(torch.tensor([-4.0])).tolist() == [1.0]


def test_tis_loss_of_worked_tokens() -> None:
    # chosen: deltas 1, 2, -1 weigh 0.7, 1.3, 1.0, in all 2.3; rejected: deltas 0.5, -1 weigh 0.7, 1.3 as chosen, so
    # 1.3, 0.7 here, in all 0.65 - 0.7 = -0.05; with beta 0.1 the margin is 0.1 * 2.35
    plain, weighted = 0.1 * torch.tensor([2.0, -0.5]), 0.1 * torch.tensor([2.3, 0.35 - 1.3])
    margin = weighted[:1] - tis_rejected(plain, weighted)[1:]
    assert margin.item() == pytest.approx(0.235)
    assert pair_losses(margin, torch.ones(1), 0.0).item() == pytest.approx(math.log(1 + math.exp(-0.235)))
