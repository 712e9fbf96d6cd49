"""Online reinforcement learning: the reward, by hand, and which prompts are learned on."""

from __future__ import annotations

import sys

import pytest

from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError
from selfpriority.recipe import Recipe, branch_of
from selfpriority.records import Message, Pool, Prompt, Rating, Response, Scored, Unrated
from selfpriority.rivals.online import ROWS, reward, rewards, threshold_of
from selfpriority.rivals.rows import Means
from selfpriority.training.extras import missing_extras

RECIPE = Recipe.model_validate({"model": "m", "prompts": "p"})
ONLINE_TRAINING = {"align": {"method": "grpo", "rows": "online"}}


def test_the_first_objective_counts_until_it_meets_the_threshold() -> None:
    assert reward((5.4, 10.0), 5.5) == 5.4
    assert reward((5.5, 1.0), 5.5) == 6.5  # whatever the second is, ahead of all that miss the first
    assert reward((9.0, 1.0), 5.5) == 6.5  # and no more of the first is asked for
    assert reward((9.0, 2.0, 10.0), 5.5) == 7.5
    assert reward((9.0, 6.0, 3.0), 5.5) == 14.0
    assert reward((9.0, 2.0, 10.0), None) == 21.0


class Table:
    """A judge by a table."""

    objectives = ("harmlessness", "helpfulness")

    def __init__(self, table):
        self.table = table

    def rate(self, items):
        return [self.table[item.response.text] for item in items]


def test_an_answer_without_a_rating_teaches_nothing() -> None:
    prompts = [Prompt(name, (Message("user", name),)) for name in "aaab"]
    answers = [Response("id", prompt.id, text, "end", 1) for prompt, text in zip(prompts, "wxyz", strict=True)]
    unread = Unrated("no_rating")
    judge = Table(
        {
            "w": (Rating(2.0), Rating(9.0)),
            "x": (Rating(8.0), unread),
            "y": (Rating(9.0), Rating(4.5)),
            "z": (unread, unread),
        }
    )
    assert rewards(judge, prompts, answers, 5.5) == [2.0, 6.0, 10.0, 0.0]


def test_the_threshold_is_that_of_the_pairs_or_the_middle_of_the_scale() -> None:
    by_default, by_pairs, by_sum = (
        threshold_of(branch_of(RECIPE, {**ONLINE_TRAINING, "pair": pair}, ""))
        for pair in ({}, {"threshold": 7.0}, {"order": "sum"})
    )
    assert (by_default, by_pairs, by_sum) == (5.5, 7.0, None)


def test_its_rows_are_the_prompts_and_in_a_plan_as_many_answers_as_it_draws() -> None:
    answer = Scored(Response("a/y1", "a", "Yes.", "end", 2), (Rating(5.0), Rating(5.0)))
    pools = [Pool(Prompt("a", (Message("user", "Why?"),)), (answer,), answer)]
    means = [Means(RECIPE, load_constitution("harmless-helpful"), lambda: None, planned) for planned in (False, True)]
    (real,), (planned,) = (ROWS.make(pools, each).kept[0] for each in means)
    assert (real.prompt, real.responses) == (pools[0].prompt, ())
    assert planned.responses == (answer,)


def test_without_its_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = branch_of(RECIPE, ONLINE_TRAINING, "").align
    monkeypatch.setitem(sys.modules, "trl", None)
    (line,) = missing_extras(settings)
    assert line.startswith("align.method: grpo needs trl, which is not installed; install it with selfpriority[online]")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "grpo"}, "method grpo draws answers to prompts; set rows: online"),
        ({"rows": "online"}, "method grpo draws answers to prompts; set rows: online"),
        ({"method": "grpo", "rows": "online", "processes": 2}, "in one process"),
        ({"method": "grpo", "rows": "online", "weights": "bfloat16"}, "float32 weights or adapters"),
    ],
)
def test_what_it_cannot_do_is_refused_before_any_work(changes, told) -> None:
    with pytest.raises(InputError, match=told):
        branch_of(RECIPE, {"align": changes}, "here")
