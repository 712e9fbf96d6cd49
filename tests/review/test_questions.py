"""The order is the rater's own and stays; nothing equal is compared."""

import pytest

from selfpriority.errors import InputError
from selfpriority.review.questions import Plan, mode_named, questions
from selfpriority.storage import write_text


def sides(run, rater: str, seed: int = 0) -> dict[str, tuple[str, ...]]:
    return {q.prompt_id: tuple(a.system for a in q.answers) for q in questions(run, Plan(rater, seed=seed))}


def test_two_different_answers_are_compared_once(run):
    asked = questions(run, Plan("ann"))
    assert sorted(question.prompt_id for question in asked) == ["p0", "p1", "p2", "p3", "p4"]
    assert all({answer.system for answer in question.answers} == {"vanilla", "spa"} for question in asked)


def test_every_answer_is_rated(run):
    asked = questions(run, Plan("ann", "rate"))
    assert len(asked) == 12
    assert {len(question.answers) for question in asked} == {1}


def test_order_depends_on_rater_and_seed_and_on_nothing_else(run):
    assert list(sides(run, "ann").items()) == list(sides(run, "ann").items())
    orders = {tuple(sides(run, rater, seed).items()) for rater in ("ann", "bob", "cy") for seed in (0, 1)}
    assert len(orders) == 6
    firsts = {first for rater in ("ann", "bob", "cy") for first, _ in sides(run, rater).values()}
    assert firsts == {"vanilla", "spa"}


def test_the_key_of_a_question_is_the_same_for_every_rater(run):
    keys = [{question.key for question in questions(run, Plan(rater))} for rater in ("ann", "bob")]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 5


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan("ann", systems=("vanilla", "dpo")), "no answers of 'dpo'; there are vanilla, spa"),
        (Plan("ann", systems=("spa",)), "compare takes two systems"),
    ],
)
def test_a_wrong_choice_of_systems_is_named(run, plan, said):
    with pytest.raises(InputError, match=said):
        questions(run, plan)


def test_a_run_without_answers_says_what_makes_them(run):
    for path in run.evaluation.glob("answers-*.jsonl"):
        path.unlink()
    with pytest.raises(InputError, match="spa evaluate"):
        questions(run, Plan("ann"))


def test_two_systems_that_always_answer_alike_leave_nothing_to_compare(run):
    text = (run.evaluation / "answers-spa.jsonl").read_text(encoding="utf-8")
    write_text(run.evaluation / "answers-vanilla.jsonl", [text])
    with pytest.raises(InputError, match="the same answer to every prompt"):
        questions(run, Plan("ann"))


def test_modes_have_names():
    assert mode_named("rate") == "rate"
    with pytest.raises(InputError, match="neither compare nor rate"):
        mode_named("guess")
