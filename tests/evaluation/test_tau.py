"""The curve of two judges whose disagreement is known: they agree on what is close and part where ratings spread."""

from __future__ import annotations

import numpy as np
import pytest

from selfpriority.evaluation.tau import LEAST, TwiceRated, curve


def prompts(n: int, noise_from: float, seed: int = 0) -> list[TwiceRated]:
    """Spread grows with the prompt's number; from a share on, the strong judge says something else."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(n):
        centre = random.normal(5.5, 1.5, size=2)
        weak = centre + random.normal(size=(6, 2)) * (0.1 + i / n)
        strong = weak + random.normal(size=(6, 2)) * (4.0 if i >= noise_from * n else 0.1)
        made.append(TwiceRated(tuple(map(tuple, weak.tolist())), tuple(map(tuple, strong.tolist()))))
    return made


def test_agreement_falls_where_the_judges_part_and_tau_stops_there():
    found = curve(prompts(100, noise_from=0.5), epsilon=1e-6)
    assert [point.n for point in found.points] == sorted(point.n for point in found.points)
    assert found.points[0].n == LEAST
    assert found.points[-1].share == 1.0
    assert found.points[0].rv > 0.95 > 0.7 > found.points[-1].rv
    assert found.suggested is not None
    assert 0.35 <= found.suggested.share <= 0.6
    assert found.suggested.max_det == max(p.det for p in prompts(100, 0.5) if p.det <= found.suggested.max_det)


def test_judges_that_agree_everywhere_keep_all():
    found = curve(prompts(60, noise_from=2.0), epsilon=1e-6)
    assert found.suggested is not None
    assert found.suggested.share == 1.0
    assert found.points[-1].rv_within == pytest.approx(1.0, abs=0.05)


def test_agreement_on_prompts_alone_is_not_agreement_within_them():
    random = np.random.default_rng(3)
    made = []
    for _ in range(40):
        centre = random.normal(5.5, 3, size=2)
        weak, strong = (centre + random.normal(size=(6, 2)) * 0.3 for _ in range(2))
        made.append(TwiceRated(tuple(map(tuple, weak.tolist())), tuple(map(tuple, strong.tolist()))))
    last = curve(made, epsilon=1e-6).points[-1]
    assert last.rv > 0.9
    assert last.rv_within < 0.1


def test_prompts_without_spread_are_counted_and_too_few_make_no_curve():
    flat = TwiceRated(((5.0, 5.0),) * 4, ((4.0, 4.0),) * 4)
    found = curve([flat] * 7 + prompts(LEAST - 1, 2.0), epsilon=1e-6)
    assert (found.points, found.suggested, found.n_flat) == ((), None, 7)
