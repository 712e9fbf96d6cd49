"""Eq. 3 against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from selfpriority.method.loss import (
    dpo_reward,
    gap_weights,
    ipo_losses,
    negative_log_likelihood,
    pair_losses,
    pair_shares,
    reward,
    token_shares,
)


def test_reward_is_beta_times_the_mean_log_probability():
    assert reward(torch.tensor([-0.4, -1.2]), beta=2.5).tolist() == pytest.approx([-1.0, -3.0])


def test_weights_are_gaps_over_the_mean_gap_to_the_power_alpha():
    gaps = torch.tensor([1.0, 2.0, 6.0])
    assert gap_weights(gaps, mean_gap=3.0, alpha=1.0).tolist() == pytest.approx([1 / 3, 2 / 3, 2.0])
    assert gap_weights(gaps, mean_gap=3.0, alpha=2.0).tolist() == pytest.approx([1 / 9, 4 / 9, 4.0])


def test_alpha_zero_weighs_every_pair_one_even_without_a_gap():
    assert gap_weights(torch.tensor([0.0, 2.0]), mean_gap=1.0, alpha=0.0).tolist() == [1.0, 1.0]


def test_mean_gap_zero_makes_every_ratio_one():
    assert gap_weights(torch.tensor([0.0, 0.0]), mean_gap=0.0, alpha=1.0).tolist() == [1.0, 1.0]


def test_a_pair_with_a_loss_on_both_sides_weighs_nothing():
    assert gap_weights(torch.tensor([0.0, 4.0]), mean_gap=2.0, alpha=1.0).tolist() == [0.0, 2.0]


@pytest.mark.parametrize(("count", "expected"), [("pairs", [0.25, 0.25]), ("pools", [0.5, 1 / 6])])
def test_shares_of_a_pool_with_one_pair_and_one_with_three(count, expected):
    shares = pair_shares([1, 3], count)
    assert shares == pytest.approx(expected)
    assert shares[0] * 1 + shares[1] * 3 == pytest.approx(1.0)


def test_loss_of_worked_pairs():
    # r = 2.5 * (-0.4) and 2.5 * (-1.2): margin 2, minus gamma 1.375 is 0.625; the loss is ln(1 + e^-0.625)
    margins = reward(torch.tensor([-0.4]), 2.5) - reward(torch.tensor([-1.2]), 2.5)
    losses = pair_losses(margins, torch.tensor([2.0]), gamma=1.375)
    assert losses.tolist() == pytest.approx([2 * math.log(1 + math.exp(-0.625))])
    assert losses.tolist() == pytest.approx([2 * 0.428688], abs=1e-4)


def test_equal_answers_without_target_margin_cost_ln_two():
    assert pair_losses(torch.zeros(1), torch.ones(1), gamma=0.0).tolist() == pytest.approx([math.log(2)])


def test_gamma_is_absolute_and_not_scaled_by_beta():
    first = pair_losses(reward(torch.tensor([0.5]), 2.0), torch.ones(1), gamma=1.0)
    second = pair_losses(reward(torch.tensor([0.25]), 4.0), torch.ones(1), gamma=1.0)
    assert first.tolist() == pytest.approx([math.log(2)])
    assert first.tolist() == pytest.approx(second.tolist())


def test_gradient_of_the_loss_is_the_weighted_sigmoid():
    margins = torch.tensor([0.3], requires_grad=True)
    pair_losses(margins, torch.tensor([1.5]), gamma=1.0).sum().backward()
    assert margins.grad is not None
    assert margins.grad.item() == pytest.approx(-1.5 / (1 + math.exp(0.3 - 1.0)))


def test_likelihood_is_a_mean_over_tokens_and_not_over_answers():
    # 4 tokens at -1 and 1 token at -6: 10 nats over 5 tokens; the third answer is not learned
    shares = token_shares(torch.tensor([4, 1, 0]), n_tokens=5)
    assert negative_log_likelihood(torch.tensor([-1.0, -6.0, -9.0]), shares).item() == pytest.approx(2.0)


def test_dpo_rewards_sums_over_tokens():
    # 4 tokens, each 0.5 nats likelier than at the start, and 10 tokens each 0.1 less likely
    rewards = dpo_reward(torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.9]), torch.tensor([4, 10]), beta=0.1)
    assert rewards.tolist() == pytest.approx([0.2, -0.1])
    loss = pair_losses(rewards[:1] - rewards[1:], torch.tensor([2.0]), gamma=0.0)
    assert loss.item() == pytest.approx(2 * math.log(1 + math.exp(-0.3)))


def test_gradient_of_dpo_is_beta_times_the_length_times_the_sigmoid():
    means = torch.tensor([-1.0, -2.0], requires_grad=True)
    rewards = dpo_reward(means, torch.tensor([-1.5, -1.9]), torch.tensor([4, 10]), beta=0.1)
    pair_losses(rewards[:1] - rewards[1:], torch.ones(1), gamma=0.0).sum().backward()
    slope = 1 / (1 + math.exp(0.3))
    assert means.grad is not None
    assert means.grad.tolist() == pytest.approx([-0.1 * 4 * slope, 0.1 * 10 * slope])


def test_ipo_asks_for_a_margin_and_no_more():
    margins = torch.tensor([0.0, 5.0, 7.0], requires_grad=True)
    losses = ipo_losses(margins, torch.tensor([1.0, 1.0, 0.5]), beta=0.1)
    assert losses.tolist() == pytest.approx([25.0, 0.0, 2.0])
    losses.sum().backward()
    assert margins.grad is not None
    assert margins.grad.tolist() == pytest.approx([-10.0, 0.0, 2.0])
