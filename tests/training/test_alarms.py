"""What records alarm for, on records made by hand."""

from __future__ import annotations

import pytest

from selfpriority.training.alarms import WINDOW, Fall, alarms, fall, spikes


def records(chosen, rejected, norms=None):
    return [
        {"chosen_logp": a, "rejected_logp": b, "grad_norm": norm}
        for a, b, norm in zip(chosen, rejected, norms or [1.0] * len(chosen), strict=True)
    ]


def test_the_fall_is_from_the_first_step_to_the_mean_of_the_last_ten():
    chosen = [-1.0, *[-9.0] * 5, *[-2.0] * 5, *[-3.0] * 5]
    assert fall(records(chosen, [-1.5] * 16)) == Fall(1.5, 0.0)
    assert fall(records(chosen[: WINDOW - 1], [-1.5] * (WINDOW - 1))) == Fall(0.0, 0.0)


def test_only_what_both_lose_is_a_collapse():
    down, level = [-1.0 - 0.5 * step for step in range(15)], [-1.0] * 15
    assert alarms(records(down, down), stop_at=None) == ["collapse"]
    assert alarms(records(level, down), stop_at=None) == []  # what an alignment is for
    assert alarms(records(down, level), stop_at=None) == []
    slowly = [-1.0 - 0.1 * step for step in range(15)]
    assert fall(records(slowly, down)).common == pytest.approx(0.95)
    assert alarms(records(slowly, down), stop_at=None) == []
    assert alarms(records(slowly, down), stop_at=0.5) == ["collapse"]
    assert alarms(records(down, down), stop_at=50.0) == ["collapse"]  # alarming long before it stops


def test_a_gradient_norm_far_above_the_last_ten_is_a_spike():
    level = [-1.0] * 12
    assert spikes(records(level, level, [*[2.0] * 11, 20.1]))
    assert not spikes(records(level, level, [*[2.0] * 11, 19.9]))
    assert not spikes(records(level[:5], level[:5], [*[2.0] * 4, 99.0]))  # too few to know what is usual
    assert alarms(records(level, level, [*[2.0] * 11, 20.1]), None) == ["gradient_norm"]
