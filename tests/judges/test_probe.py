from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selfpriority.errors import InputError
from selfpriority.judges.heads import Head, Heads
from selfpriority.judges.probe import ProbeJudge, far_from_fitted
from selfpriority.language_model import Embed, Failure, Vectors
from selfpriority.rating import Item
from selfpriority.records import Message, Prompt, Rating, Response, Unrated

NAMES = ("harmlessness", "helpfulness")


def head(objective: str, layer: int, weights: tuple[float, float]) -> Head:
    w = np.asarray(weights)
    return Head(objective, (layer,), "mean", np.zeros(2), np.ones(2), w, bias=0.0, centre=0.0, spread=1.0)


HEADS = Heads(
    "tiny",
    {"helpfulness": head("helpfulness", 7, (0.0, 1.0)), "harmlessness": head("harmlessness", 3, (1.0, 0.0))},
    {},
)


def item(text: str) -> Item:
    return Item(Prompt("p", (Message("user", "Hi"),)), Response("r", "p", text, stop="end", n_tokens=1))


def states(request: Embed) -> Vectors | Failure:
    if request.response == "long":
        return Failure("too_long", "900 tokens")
    x = float(request.response)
    return Vectors(tuple((x, -x) if layer == 3 else (99.0, x + 1) for layer in request.layers))


def test_one_request_rates_every_objective_from_its_own_layer(answering) -> None:
    model = answering(states)
    rows = ProbeJudge(model, HEADS, NAMES).rate([item("0"), item("2"), item("long")])
    assert [request.layers for request in model.asked] == [(3, 7)] * 3
    assert [[verdict.value for verdict in row if isinstance(verdict, Rating)] for row in rows] == [
        pytest.approx([5.5, 1 + 9 / (1 + np.exp(-0.8))]),
        pytest.approx([1 + 9 / (1 + np.exp(-1.6)), 1 + 9 / (1 + np.exp(-2.4))]),
        [],
    ]
    assert rows[2] == (Unrated("too_long", "900 tokens"),) * 2


def test_only_the_layers_of_the_asked_objectives_are_needed(answering) -> None:
    model = answering(states)
    ((verdict,),) = ProbeJudge(model, HEADS, ("helpfulness",)).rate([item("-1")])
    assert verdict == Rating(pytest.approx(5.5))
    assert model.asked[0].layers == (7,)


def test_an_objective_without_a_head_names_those_there_are(answering) -> None:
    with pytest.raises(InputError, match="no fitted head for honesty; there are heads for helpfulness, harmlessness"):
        ProbeJudge(answering(states), HEADS, ("harmlessness", "honesty"))


def test_heads_of_another_hidden_size_are_refused(answering) -> None:
    model = answering(lambda request: Vectors(((1.0, 2.0, 3.0),) * len(request.layers)))
    with pytest.raises(InputError, match="hidden size 2; this model has 3"):
        ProbeJudge(model, HEADS, NAMES).rate([item("0")])


def test_the_fingerprint_depends_on_model_heads_and_objectives(answering) -> None:
    other = Heads("tiny", {**HEADS.by_objective, "harmlessness": head("harmlessness", 3, (1.0, 0.1))}, {})
    judges = [
        ProbeJudge(answering(states, "a"), HEADS, NAMES),
        ProbeJudge(answering(states, "b"), HEADS, NAMES),
        ProbeJudge(answering(states, "a"), other, NAMES),
        ProbeJudge(answering(states, "a"), HEADS, NAMES[::-1]),
    ]
    assert len({judge.fingerprint for judge in judges}) == 4
    assert ProbeJudge(answering(states, "a"), HEADS, NAMES).fingerprint == judges[0].fingerprint


def test_a_cut_answer_is_asked_for_as_cut(answering) -> None:
    model = answering(states)
    whole, other = item("1"), item("2")
    cut = Item(other.prompt, replace(other.response, stop="length"))
    ProbeJudge(model, HEADS, NAMES).rate([whole, cut])
    assert {request.response: request.stop for request in model.asked} == {"1": "end", "2": "length"}


def test_it_tells_how_far_from_what_was_fitted_the_answers_lie(answering) -> None:
    judge = ProbeJudge(answering(states), HEADS, NAMES)
    assert judge.distances == {}
    assert far_from_fitted(judge.distances) == ""
    judge.rate([item("1"), item("-1"), item("long")])  # what has no states is no answer
    assert judge.distances["harmlessness"] == pytest.approx(1.0)
    near = ProbeJudge(answering(states), HEADS, ("harmlessness",))
    near.rate([item("1"), item("1.1")])
    assert far_from_fitted(near.distances) == ""
    near.rate([item("3")])
    assert "far from what the heads were fitted on, of harmlessness (3.7)" in far_from_fitted(near.distances)
