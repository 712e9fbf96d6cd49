"""Questions oriented and weighted by labels: by hand, and that noise looks good only where it was fitted."""

from __future__ import annotations

import numpy as np
import pytest

from selfpriority.intervals import auc
from selfpriority.judges.heads import rating_of
from selfpriority.judges.orientation import Orientation, Weighed, answered, orient, orient_without
from selfpriority.records import Rating, Unrated

NAN = float("nan")


def test_sign_weight_and_z_scores_by_hand() -> None:
    """Two good and two bad answers; one question that is right, one that is upside down, one that says nothing."""
    values = np.array([[3.0, -1.0, 1.0], [1.0, -1.0, 2.0], [1.0, 1.0, 1.0], [-1.0, 1.0, 2.0]])
    found = orient(("up", "down", "noise"), values, [True, True, False, False])
    up, down, noise = found.questions
    # up: of 4 pairs 3 are won and one is a tie; mean 1, deviations 2 0 0 -2
    assert (up.auc, up.sign, up.weight, up.mean) == (0.875, 1, 0.75, 1.0)
    assert up.sd == pytest.approx(np.sqrt(2.0))
    assert (down.auc, down.sign, down.weight, down.mean, down.sd) == (0.0, -1, 1.0, 0.0, 1.0)
    assert (noise.auc, noise.weight) == (0.5, 0.0)
    assert found.kept == ("up", "down")
    z = np.array([[2 / np.sqrt(2), 1.0], [0.0, 1.0], [0.0, -1.0], [-2 / np.sqrt(2), -1.0]])
    scores = (0.75 * z[:, 0] + 1.0 * z[:, 1]) / 1.75
    for row, expected in zip(answered(("up", "down", "noise"), values), scores, strict=True):
        assert found.score(row) == pytest.approx(expected)
    assert found.centre == pytest.approx(0.0)
    assert found.spread == pytest.approx(scores.std())
    verdict = found.rating({"up": 3.0, "down": -1.0, "noise": 7.0})
    assert isinstance(verdict, Rating)
    assert verdict.value == pytest.approx(rating_of(scores[0] / scores.std()))
    assert verdict.value > 5.5


@pytest.mark.parametrize(
    ("n_won", "kept"), [(44, True), (45, False), (50, False), (55, False), (56, True)], ids="{}".format
)
def test_what_is_near_chance_is_dropped_the_edges_too(n_won: int, kept: bool) -> None:
    """Ten good answers stand above `n_won` of the 100 pairs: n_won // 10 good ones above all, one above the rest."""
    bad = [float(i) for i in range(10)]
    good = [100.0] * (n_won // 10) + [n_won % 10 - 0.5] + [-100.0] * (9 - n_won // 10)
    values = np.array([*good, *bad])[:, None]
    (weighed,) = orient(("q",), values, [True] * 10 + [False] * 10).questions
    assert weighed.auc == pytest.approx(n_won / 100)
    assert bool(weighed.weight) is kept
    assert weighed.weight == pytest.approx(abs(2 * n_won / 100 - 1) if kept else 0.0)


def test_what_was_not_answered_is_left_out_and_too_little_is_no_rating() -> None:
    heavy, light = Weighed("heavy", 1, 0.6, 0.0, 1.0), Weighed("light", -1, 0.4, 1.0, 2.0)
    both = Orientation((heavy, light), 0.0, 1.0, 4)
    assert both.score({"heavy": 1.0, "light": 2.0}) == pytest.approx(0.6 * 1.0 - 0.4 * 0.5)
    assert both.score({"heavy": 1.0}) == pytest.approx(1.0)
    assert both.score({"light": 2.0}) is None  # under half of the weight
    unread, nothing = both.rating({"light": 2.0}), Orientation((), 0.0, 1.0, 4).rating({})
    assert isinstance(unread, Unrated)
    assert isinstance(nothing, Unrated)
    assert (unread.reason, nothing.reason) == ("low_mass", "no_question")
    missing = np.array([[NAN, 1.0], [NAN, 0.0]])
    assert [w.auc for w in orient(("a", "b"), missing, [True, False]).questions] == [None, 1.0]
    assert answered(("a", "b"), missing) == [{"b": 1.0}, {"b": 0.0}]


def test_noise_agrees_with_the_labels_it_was_fitted_on_and_with_no_others() -> None:
    inside, outside = [], []
    questions = tuple(f"q{i}" for i in range(40))
    for seed in range(20):
        draw = np.random.default_rng(seed)
        values = draw.normal(size=(144, 40))
        labels = [True, True, False] * 48
        groups = [f"prompt {row // 3}" for row in range(144)]
        rows = answered(questions, values)
        whole = orient(questions, values, labels)
        held = orient_without(questions, values, labels, groups)
        assert set(held) == set(groups)
        inside.append(auc([whole.score(row) or 0.0 for row in rows], labels))
        scores = [
            (held[g].score(row) or 0.0) / held[g].spread  # each fold's own scale
            for g, row in zip(groups, rows, strict=True)
        ]
        outside.append(auc(scores, labels))
    assert min(inside) > 0.6
    assert np.mean(inside) > 0.7
    assert np.mean(outside) == pytest.approx(0.5, abs=0.04)


def test_an_orientation_for_a_group_never_saw_it() -> None:
    """One group is upside down: fitted with it or without it is not the same."""
    draw = np.random.default_rng(0)
    labels = [True, False] * 10
    groups = [f"prompt {row // 2}" for row in range(20)]
    values = np.array([[draw.normal() + (2.0 if label else -2.0)] for label in labels])
    held = orient_without(("q",), values, labels, groups)
    for group in set(groups):
        changed = np.where(np.array(groups)[:, None] == group, 1e6 * np.array(labels)[:, None] - 5e5, values)
        again = orient_without(("q",), changed, labels, groups)
        assert again[group] == held[group]
    assert len({one.questions[0].mean for one in held.values()}) == 5


def test_rounding_is_no_answer() -> None:
    (weighed,) = orient(("q",), np.array([[1e-12], [2e-12], [0.0], [0.0]]), [True, True, False, False]).questions
    assert (weighed.weight, weighed.sd) == (0.0, 1.0)
