"""What further judges say stands beside the evaluation judge's word, and contradicts it at the top of the page."""

from __future__ import annotations

import pytest

from selfpriority.report.further_judges import other_judges, unconfirmed
from selfpriority.report.page import write_report
from selfpriority.report.verdict import alarms, headline
from selfpriority.report.view import View, read_view
from selfpriority.run import Run
from selfpriority.storage import read_json, write_json


def change(mean: float, significant: bool) -> dict:
    p = 0.001 if significant else 0.6
    edges = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}
    return {**edges, "p": p, "p_holm": p, "significant": significant, "n": 40, "words": 1.0}


def view_with(run_folder, ours: dict, theirs: dict) -> View:
    path = run_folder / "evaluation" / "summary.json"
    summary = read_json(path)
    summary["difference"]["spa_vs_vanilla"] |= ours
    summary["judges"] = {"second": {"systems": summary["systems"], "difference": {"spa_vs_vanilla": theirs}}}
    summary["agreement"] = {
        "judges": ["judge", "second"],
        "alpha": {
            "harmlessness": {"interval": 0.41, "ordinal": 0.38, "n": 80},
            "helpfulness": {"interval": None, "ordinal": None, "n": 0},
        },
        "rv": {"judge_vs_second": {"value": 0.27, "n": 80}},
    }
    write_json(path, summary)
    return read_view(Run.existing(run_folder))


CLEAR = {"harmlessness": change(0.5, True), "helpfulness": change(0.4, True)}


def test_every_judge_has_a_row_and_alpha_and_rv_stand_below(run_folder):
    grid = other_judges(view_with(run_folder, CLEAR, {"harmlessness": change(0.3, True)}).summary)
    assert grid is not None
    assert grid.columns == ("harmlessness", "helpfulness")
    rows = {row.name: row.cells for row in grid.rows}
    assert rows["evaluation judge"][0] == "+0.50 (+0.40 to +0.60) *"
    assert rows["second"] == ("+0.30 (+0.20 to +0.40) *", "\u2013")
    assert rows["alpha, interval"] == ("+0.41", "\u2013")
    assert grid.note.startswith("Differences: spa minus vanilla. ")
    assert grid.note.endswith("all objectives together: evaluation judge and second 0.27.")


@pytest.mark.parametrize(
    ("theirs", "sees"),
    [
        (change(0.3, True), None),
        (change(0.3, False), "no clear change"),
        (change(-0.3, True), "the opposite"),
    ],
)
def test_a_claim_that_another_judge_does_not_share_is_doubted_at_the_top(run_folder, theirs, sees):
    ours = {"harmlessness": change(0.5, True), "helpfulness": change(0.1, False)}
    view = view_with(run_folder, ours, {"harmlessness": theirs, "helpfulness": change(-0.3, True)})
    said = f"second, a further judge of the same answers, sees {sees} in harmlessness."
    assert list(unconfirmed(view.summary)) == ([said] if sees else [])
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert (said in html.partition('id="result"')[0]) is bool(sees)


FALLS = change(-0.3, True)


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (change(0.1, False), FALLS, "; but second, a further judge, sees helpfulness fall by 0.30."),
        (change(0.4, True), FALLS, "; but second, a further judge, sees helpfulness fall by 0.30."),
        (FALLS, FALLS, "; helpfulness fell by 0.30."),
        (change(0.1, False), change(-0.3, False), "; helpfulness shows no clear change."),
        (change(0.1, False), change(0.3, True), "; helpfulness shows no clear change."),
    ],
    ids=["unseen", "the opposite", "both", "chance", "a rise"],
)
def test_the_headline_tells_what_a_further_judge_alone_sees_fall(run_folder, ours, theirs, told):
    rose = change(0.5, True)
    both = {"harmlessness": rose, "helpfulness": ours}, {"harmlessness": rose, "helpfulness": theirs}
    view = view_with(run_folder, *both)
    assert headline(view).endswith(told)
    assert alarms(view) == []


def test_a_fall_of_the_first_objective_for_a_further_judge_is_an_alarm(run_folder):
    view = view_with(run_folder, {"harmlessness": change(0.5, True)}, {"harmlessness": FALLS})
    assert alarms(view) == [
        "The first objective fell for second, a further judge: spa is rated 0.30 lower in harmlessness than vanilla, "
        "beyond chance (corrected p = 0.001)."
    ]
    assert "; but second, a further judge, sees harmlessness fall by 0.30." in headline(view)


def test_one_judge_alone_needs_no_table(run_folder):
    view = read_view(Run.existing(run_folder))
    assert other_judges(view.summary) is None
    assert list(unconfirmed(view.summary)) == []
