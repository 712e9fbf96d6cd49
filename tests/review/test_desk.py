"""The desk shows no names, takes only whole verdicts, and goes on where the rater stopped."""

import json

import pytest

from selfpriority.review.desk import Refused, desk_for
from selfpriority.review.questions import Plan, questions
from selfpriority.review.reviews import read_reviews

BOTH = {"harmlessness": "left", "helpfulness": "tie"}


def verdict(number: int, verdicts: object = BOTH, seconds: object = 2.0) -> dict:
    return {"number": number, "verdicts": verdicts, "seconds": seconds}


def test_nothing_that_is_shown_names_a_system(run):
    with desk_for(run, Plan("ann")) as desk:
        shown = json.dumps([desk.question(n) for n in range(desk.n_asked)] + [desk.decide(verdict(0))])
    assert "vanilla" not in shown
    assert "spa" not in shown
    assert "p0" not in shown


def test_a_verdict_is_stored_by_system_and_shown_by_side(run):
    asked = questions(run, Plan("ann"))
    with desk_for(run, Plan("ann")) as desk:
        assert desk.decide(verdict(0))["number"] == 1
        assert desk.question(0)["verdicts"] == BOTH
    [stored] = read_reviews(run.evaluation)
    left = asked[0].answers[0].system
    assert (stored.prompt_id, stored.verdicts) == (asked[0].prompt_id, {"harmlessness": left, "helpfulness": "tie"})
    assert stored.systems[0] == left
    assert stored.digests == tuple(answer.digest for answer in asked[0].answers)


def test_a_rater_goes_on_where_they_stopped_and_others_start_anew(run):
    with desk_for(run, Plan("ann")) as desk:
        desk.decide(verdict(0))
        desk.decide(verdict(1))
    with desk_for(run, Plan("ann")) as desk:
        assert (desk.n_done, desk.next()["number"]) == (2, 2)
        for number in range(2, 5):
            last = desk.decide(verdict(number))
        assert last == {"total": 5, "done": 5, "finished": True}
    with desk_for(run, Plan("bob")) as desk:
        assert (desk.n_done, desk.next()["number"]) == (0, 0)
    with desk_for(run, Plan("ann", "rate")) as desk:
        assert desk.n_done == 0


def test_a_second_thought_replaces_the_first(run):
    with desk_for(run, Plan("ann")) as desk:
        desk.decide(verdict(0))
        desk.decide(verdict(0, {"harmlessness": "right", "helpfulness": "right"}))
        assert desk.n_done == 1
    [stored] = read_reviews(run.evaluation)
    assert len(set(stored.verdicts.values())) == 1


def test_ratings_are_whole_numbers_on_the_scale(run):
    with desk_for(run, Plan("ann", "rate")) as desk:
        desk.decide(verdict(0, {"harmlessness": 10, "helpfulness": 1}))
        for wrong in (0, 11, 5.5, True, "5", None):
            with pytest.raises(Refused):
                desk.decide(verdict(1, {"harmlessness": wrong, "helpfulness": 5}))
    assert [review.verdicts for review in read_reviews(run.evaluation)] == [{"harmlessness": 10, "helpfulness": 1}]


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        {"number": "0"},
        {"number": True},
        verdict(5),
        verdict(-1),
        verdict(0, {"harmlessness": "left"}),
        verdict(0, {**BOTH, "beauty": "left"}),
        verdict(0, {"harmlessness": "spa", "helpfulness": "tie"}),
        verdict(0, {"harmlessness": ["left"], "helpfulness": "tie"}),
        verdict(0, BOTH, float("nan")),
        verdict(0, BOTH, float("-inf")),
        verdict(0, BOTH, 10**400),
        verdict(0, BOTH, "2"),
    ],
)
def test_what_is_no_verdict_is_refused_and_not_stored(run, given):
    with desk_for(run, Plan("ann")) as desk:
        with pytest.raises(Refused):
            desk.decide(given)
        assert desk.n_done == 0
    assert read_reviews(run.evaluation) == []
