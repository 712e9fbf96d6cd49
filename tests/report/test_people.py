"""Verdicts of people reach the page, and only those about answers that are still the system's."""

import pytest

from selfpriority.report.page import write_report
from selfpriority.report.people import read_people
from selfpriority.report.view import read_view
from selfpriority.review.desk import desk_for
from selfpriority.review.questions import Plan, questions
from selfpriority.run import Run

OBJECTIVES = ("harmlessness", "helpfulness")


@pytest.fixture
def reviewed(run_folder) -> Run:
    """Two raters: ann follows the judge on everything, bob says the opposite on ten questions."""
    run = Run.existing(run_folder)
    view = read_view(run)
    scores = {(e.prompt_id, a.name): a.scores for e in view.entries for a in e.answers if a.role == "system"}
    for rater, sign, n in (("ann", 1, 99), ("bob", -1, 10)):
        plan = Plan(rater)
        with desk_for(run, plan) as desk:
            for number, question in enumerate(questions(run, plan)[:n]):
                left, right = (scores[question.prompt_id, answer.system] for answer in question.answers)
                verdicts = {}
                for place, name in enumerate(OBJECTIVES):
                    rated = left[place] is not None and right[place] is not None
                    verdicts[name] = (
                        "tie" if not rated else "left" if sign * (left[place] - right[place]) > 0 else "right"
                    )
                desk.decide({"number": number, "verdicts": verdicts, "seconds": 1})
    return run


def test_agreement_is_by_objective_and_rater_and_between_raters(reviewed):
    people = read_view(reviewed).people
    assert people is not None
    assert people.raters == {"ann": 40, "bob": 10}
    shares = {(row.who, row.objective): (row.share.estimate, row.share.n) for row in people.with_judge if row.share}
    assert shares["ann", "harmlessness"] == (1.0, 39)
    assert shares["bob", "helpfulness"] == (0.0, 10)
    assert shares["all raters", "helpfulness"] == (pytest.approx(0.8), 50)
    assert [(row.who, row.objective) for row in people.between] == [("ann and bob", name) for name in OBJECTIVES]
    page = write_report(reviewed.folder).read_text(encoding="utf-8")
    assert "ann decided 40 questions, bob decided 10 questions" in " ".join(page.split())


def test_a_verdict_on_an_answer_that_has_changed_does_not_count(reviewed, rewrite_evaluation):
    rewrite_evaluation(reviewed.evaluation, texts=("Another answer.",))
    people = read_view(reviewed).people
    assert people is not None
    assert people.n_outdated in (1, 2)
    assert people.raters["ann"] == 39
    assert "left out: the answers have changed since" in write_report(reviewed.folder).read_text(encoding="utf-8")


def test_ratings_one_by_one_are_correlated_with_the_judges(run_folder):
    run = Run.existing(run_folder)
    scores = {(e.prompt_id, a.name): a.scores for e in read_view(run).entries for a in e.answers if a.role == "system"}
    plan = Plan("ann", "rate", systems=("spa",))
    with desk_for(run, plan) as desk:
        for number, question in enumerate(questions(run, plan)):
            values = scores[question.prompt_id, question.answers[0].system]
            rated = dict(zip(OBJECTIVES, (round(value or 5.0) for value in values), strict=True))
            desk.decide({"number": number, "verdicts": rated, "seconds": 1})
    people = read_view(run).people
    assert people is not None
    assert [row.share for row in people.with_judge] == [None, None]
    assert all(row.rho is not None and row.rho.low > 0.9 for row in people.ranks)
    assert "rank correlation" in write_report(run.folder).read_text(encoding="utf-8")


def test_without_reviews_there_is_nothing_to_show(run_folder):
    assert read_people(run_folder / "evaluation", (), OBJECTIVES) is None
    assert "People" not in write_report(run_folder).read_text(encoding="utf-8")
