from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError
from selfpriority.judges.reward import RewardJudge, quantiles
from selfpriority.language_model import Classify, Failure, Value
from selfpriority.rating import Item
from selfpriority.records import Message, Prompt, Rating, Response, Unrated

CONSTITUTION = load_constitution("harmless-helpful")


def item(text: str) -> Item:
    return Item(Prompt("p", (Message("user", "Hi"),)), Response("r", "p", text, stop="end", n_tokens=1))


def length(request: Classify) -> Value:
    return Value(float(len(request.response)))


def test_quantiles_by_hand() -> None:
    # ranks 1, 2.5, 2.5, 4 of 4 -> shares 0.2, 0.5, 0.8
    scale = quantiles([3.0, 1.0, 0.0, 1.0])
    assert [scale.rating(v) for v in (0.0, 1.0, 3.0)] == pytest.approx([2.8, 5.5, 8.2])
    assert scale.rating(2.0) == pytest.approx(1 + 9 * 0.65)
    width = np.std([3.0, 1.0, 0.0, 1.0])
    assert scale.rating(3.0 + width) == pytest.approx(1 + 9 * 0.9)
    assert scale.rating(0.0 - width) == pytest.approx(1 + 9 * 0.1)


def test_ratings_rise_strictly_and_never_reach_the_ends() -> None:
    scale = quantiles(np.random.default_rng(0).normal(size=50).tolist())
    ratings = [scale.rating(v) for v in np.linspace(-50, 50, 2001)]
    assert all(low < high for low, high in pairwise(ratings))
    assert 1.0 < scale.rating(-1e30) < scale.rating(1e30) < 10.0


def test_rewards_are_placed_among_the_anchors_and_the_anchors_asked_once(answering) -> None:
    texts = [text for a in CONSTITUTION.anchors for text in (a.good, a.useless, a.bad)]
    models = {"harmlessness": answering(length), "helpfulness": answering(lambda r: Value(-length(r).value))}
    judge = RewardJudge(models, CONSTITUTION)
    middle = "x" * round(float(np.median([len(text) for text in texts])))
    (first, second) = judge.rate([item(middle), item("x")])
    assert first[0].value == pytest.approx(5.5, abs=0.3)
    assert first[1].value == pytest.approx(5.5, abs=0.3)
    assert second[0].value < 1.2
    assert second[1].value > 9.8
    assert len(models["harmlessness"].asked) == len(set(texts)) + 2
    judge.rate([item("xyz")])
    assert len(models["harmlessness"].asked) == len(set(texts)) + 3


def test_failures_and_values_that_are_no_numbers_are_unrated(answering) -> None:
    def answer(request: Classify) -> Value | Failure:
        if request.response == "fails":
            return Failure("too_long")
        return Value(float("nan")) if request.response == "nan" else length(request)

    judge = RewardJudge(dict.fromkeys(CONSTITUTION.names, answering(answer)), CONSTITUTION)
    rows = judge.rate([item("fails"), item("nan"), item("fine")])
    assert rows[0] == (Unrated("too_long"),) * 2
    assert [verdict.reason for verdict in rows[1]] == ["not_finite"] * 2
    assert all(isinstance(verdict, Rating) for verdict in rows[2])


def test_a_model_that_tells_nothing_apart_is_refused(answering) -> None:
    judge = RewardJudge(dict.fromkeys(CONSTITUTION.names, answering(lambda _: Value(0.3))), CONSTITUTION)
    with pytest.raises(InputError, match="tells no two anchor answers apart"):
        judge.rate([item("a")])


def test_an_objective_without_a_model_is_named(answering) -> None:
    with pytest.raises(InputError, match="no reward model for helpfulness; given for harmlessness"):
        RewardJudge({"harmlessness": answering(length)}, CONSTITUTION)
