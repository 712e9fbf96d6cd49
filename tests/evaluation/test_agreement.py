"""Krippendorff's alpha against his own worked example, RV against what it must be blind to."""

import numpy as np
import pytest

from selfpriority.evaluation.agreement import agreement, alpha, rv
from selfpriority.evaluation.records import Alpha, Contest, Rv

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: four observers, twelve units
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
UNITS = [[float(v) for v in unit if v is not None] for unit in zip(*OBSERVERS, strict=True)]


def test_alpha_is_that_of_its_authors_example():
    assert alpha(UNITS) == pytest.approx(0.849, abs=0.0005)
    assert alpha(UNITS, ordinal=True) == pytest.approx(0.815, abs=0.0005)


def test_alpha_at_its_ends():
    assert alpha([[1.0, 1.0], [5.0, 5.0]]) == 1.0
    assert alpha([[1.0, 5.0], [5.0, 1.0]]) < 0
    assert alpha([[1.0], [2.0]]) is None
    assert alpha([[3.0, 3.0], [3.0, 3.0]]) is None
    random = np.random.default_rng(0)
    assert alpha(random.normal(size=(2000, 2)).tolist()) == pytest.approx(0.0, abs=0.05)


def test_a_judge_that_is_shifted_agrees_in_shape_and_not_in_value():
    scores = np.random.default_rng(1).normal(5, 2, size=(50, 2))
    turned = scores @ np.array([[0.6, -0.8], [0.8, 0.6]]) * 3 + 7
    assert rv(scores, turned) == pytest.approx(1.0)
    assert alpha(np.stack([scores[:, 0], scores[:, 0] + 4], axis=1).tolist()) < 0.5


def test_rv_of_what_is_unrelated_is_small_and_of_one_column_the_squared_correlation():
    random = np.random.default_rng(2)
    assert rv(random.normal(size=(5000, 2)), random.normal(size=(5000, 2))) < 0.01
    x, y = random.normal(size=(2, 30, 1))
    assert rv(x, y) == pytest.approx(np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2)
    assert rv([[1.0, 2.0]], [[1.0, 2.0]]) is None
    assert rv([[1.0, 2.0]] * 5, random.normal(size=(5, 2))) is None


def test_unrated_answers_leave_the_comparison_and_are_counted():
    one = {"a": [1.0, 2.0], "b": [4.0, None], "c": [7.0, 3.0]}
    two = {"a": [1.0, 2.0], "b": [4.0, 5.0], "c": [7.0, 3.0]}
    found = agreement({"judge": one, "big": two}, ("harmlessness", "helpfulness"))
    assert found.judges == ("judge", "big")
    assert found.alpha["harmlessness"] == Alpha(1.0, 1.0, 3)
    assert found.alpha["helpfulness"].n == 2
    assert found.rv == {Contest("judge", "big"): Rv(pytest.approx(1.0), 2)}
