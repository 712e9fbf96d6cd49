"""Tables say what the summary says."""

import re
from types import SimpleNamespace

import pytest

from selfpriority.evaluation.records import Behaviour, Cell, Contest, Summary
from selfpriority.evaluation.summary_file import summary_of_json
from selfpriority.judges.attacks import Robustness
from selfpriority.judges.bias import Bias
from selfpriority.judges.reports import JudgeReport, ObjectiveReport
from selfpriority.report.figures import Range
from selfpriority.report.judge_tables import beside_the_label
from selfpriority.report.page import write_report
from selfpriority.report.tables import (
    GridRow,
    answer_counts,
    behaviour_changes,
    difference_rows,
    drawn_from,
    mean_words,
    ordered_contests,
    pareto_of,
    refusals_of,
    span,
    unrated_counts,
    win_bars,
)
from selfpriority.report.view import read_view
from selfpriority.run import Run
from selfpriority.storage import read_json, write_json


@pytest.fixture
def summary_file(run_folder):
    return run_folder / "evaluation" / "summary.json"


def summary_of(run_folder) -> Summary:
    summary = read_view(Run.existing(run_folder)).summary
    assert summary is not None
    return summary


def test_only_a_clear_difference_is_marked(run_folder, summary_file):
    summary = read_json(summary_file)
    row = {"mean": 0.5, "low": 0.1, "high": 0.9, "p": 0.03, "n": 40}
    clear, unclear = {**row, "p_holm": 0.04, "significant": True}, {**row, "p_holm": 0.06, "significant": False}
    summary["difference"]["spa_vs_vanilla"] |= {"harmlessness": clear, "helpfulness": unclear}
    write_json(summary_file, summary)
    rows = {row.name: row for row in difference_rows(summary_of(run_folder)) if row.kind == "all"}
    assert (rows["harmlessness"].is_clear, rows["helpfulness"].is_clear) == (True, False)
    assert (rows["harmlessness"].mean, rows["harmlessness"].interval) == ("+0.50", "+0.10 to +0.90")
    html = write_report(run_folder).read_text(encoding="utf-8")
    marked = [re.sub(r"<[^>]+>", "", name) for name in re.findall(r'<tr class="sure"><th scope="row">(.*?)</th>', html)]
    assert "harmlessness *" in marked
    assert len(marked) < len(list(difference_rows(summary_of(run_folder))))


def test_the_length_stands_beside_every_score_difference_and_win(run_folder, summary_file):
    summary = read_json(summary_file)
    spa, contest = summary["systems"]["spa"], summary["difference"]["spa_vs_vanilla"]
    means = mean_words(summary_of(run_folder).systems["spa"])
    assert means == f"{spa['harmlessness']['words']:.1f} / {spa['helpfulness']['words']:.1f}"
    lengths = {"a": Cell(5.0, words=3.0), "b": Cell(5.0, words=3.04), "c": Cell(5.0, words=4.5), "HH_5": Cell(4.2)}
    assert mean_words(lengths) == "3.0 / 4.5"
    assert mean_words({"helpfulness": Cell(5.0)}) == "\N{EN DASH}"
    for name, cell in contest.items():
        contest[name] = cell | {"words": -2.25}
    summary["pairwise"]["spa_vs_vanilla"]["harmlessness"] |= {"words": 3.0, "p_holm": 0.012}
    summary["pairwise"]["spa_vs_vanilla"]["helpfulness"]["p_holm"] = 0.0002
    del summary["pairwise"]["spa_vs_vanilla"]["helpfulness"]["words"]
    write_json(summary_file, summary)
    found = summary_of(run_folder)
    assert {row.words for row in difference_rows(found) if row.kind == "all"} == {"\N{MINUS SIGN}2.2"}
    assert [row.words for row in win_bars(found)] == ["+3.0", ""]
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert f'<td class="number">{means}</td>' in html
    assert '<td class="number">\N{MINUS SIGN}2.2</td>' in html
    assert "spa against vanilla, 39 prompts, +3.0&nbsp;words, corrected p&nbsp;= 0.012</span>" in html
    assert "spa against vanilla, 40 prompts, corrected p&nbsp;&lt; 0.001</span>" in html


def test_comparisons_in_both_orders_say_how_often_the_order_decided(run_folder, summary_file):
    summary = read_json(summary_file)
    for cell in summary["pairwise"]["spa_vs_vanilla"].values():
        cell |= {"flip_rate": 0.25, "first_shown": 0.6, "intervals": {"win": [0.1, 0.3]}, "unread": {}, "p_holm": 0.2}
    summary["pairwise"]["spa_vs_vanilla"]["harmlessness"]["p_holm"] = 0.01
    write_json(summary_file, summary)
    first = win_bars(summary_of(run_folder))[0]
    assert first.is_by_comparing
    assert (first.wins.flip_rate, first.parts[0].interval) == (0.25, "10\u202f% to 30\u202f%")
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert "what depends on the order is a tie (harmlessness 25\u202f%" in html
    assert "More won than lost is clear for harmlessness (spa)." in html


def test_a_clear_loss_is_not_called_a_win(run_folder, summary_file):
    summary = read_json(summary_file)
    row = {"win": 0.1, "tie": 0.3, "lose": 0.6, "p_holm": 0.001, "significant": True}
    summary["pairwise"]["spa_vs_vanilla"]["helpfulness"] |= row
    write_json(summary_file, summary)
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert (
        "More won than lost is clear for harmlessness (spa). More lost than won is clear for helpfulness (spa)." in html
    )


def test_the_scale_of_the_means_holds_every_interval(run_folder):
    summary = summary_of(run_folder)
    bounds = span(summary)
    cells = [summary.systems[system][name] for system in ("vanilla", "spa") for name in summary.objectives]
    assert bounds.low >= 1.0
    assert bounds.high <= 10.0
    for cell in cells:
        assert cell.low is not None
        assert cell.high is not None
        assert bounds.low <= cell.low <= cell.high <= bounds.high


def test_behaviour_is_shown_with_its_over_refusals_and_its_tests(run_folder, summary_file):
    summary = read_json(summary_file)
    summary["behaviour"]["spa"]["over_refusal"] = 0.37
    change = summary["behaviour_difference"]["spa_vs_vanilla"]
    tested = {"mean": 0.1234, "low": 0.05, "high": 0.2, "p": 0.002, "p_holm": 0.006, "n": 40, "significant": True}
    change["refusal"] = tested
    change["words"] = tested | {"mean": -2.04, "low": -4.0, "high": 0.5, "p": 0.2, "p_holm": 0.4, "significant": False}
    change["over_refusal"] = dict.fromkeys(("mean", "low", "high", "p", "p_holm")) | {"n": 0, "significant": False}
    write_json(summary_file, summary)
    (told,) = behaviour_changes(summary_of(run_folder))
    minus = "\N{MINUS SIGN}"
    assert told.title == "spa minus vanilla, on the same prompts"
    assert told.grid.rows == (
        GridRow("refusals, points *", ("+12.3", "+5.0 to +20.0", "0.006", "0.002", "40")),
        GridRow("over-refusals, points", ("\N{EN DASH}", "", "", "", "0")),
        GridRow("words an answer", (f"{minus}2.0", f"{minus}4.0 to +0.5", "0.400", "0.200", "40")),
    )
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert '<th scope="col" class="number">over-refusals</th>' in html
    assert '<td class="number">37\u202f%</td>' in html
    assert '<td class="number">+5.0 to +20.0</td>' in html
    del summary["behaviour_difference"]
    write_json(summary_file, summary)
    assert list(behaviour_changes(summary_of(run_folder))) == []


def test_one_rated_system_makes_no_pareto_plot(run_folder, summary_file):
    assert pareto_of(summary_of(run_folder)) is not None
    summary = read_json(summary_file)
    summary["systems"]["spa"]["helpfulness"]["mean"] = None
    write_json(summary_file, summary)
    assert pareto_of(summary_of(run_folder)) is None


def test_contests_with_the_first_system_stand_in_front(run_folder, summary_file):
    summary = read_json(summary_file)
    difference = summary["difference"]["spa_vs_vanilla"]
    summary["difference"] = {"other_vs_spa": difference, "spa_vs_vanilla": difference, "other_vs_vanilla": difference}
    told = ordered_contests(summary_of_json(summary))
    assert told == [Contest("spa", "vanilla"), Contest("other", "vanilla"), Contest("other", "spa")]


def test_what_moves_a_judge_is_shown_where_it_was_measured():
    def check(bias: Bias | None, attacks: Robustness | None) -> JudgeReport:
        return JudgeReport(True, "judge", (ObjectiveReport("h", bias=bias, attacks=attacks),), ())

    assert beside_the_label(check(None, None)) is None
    table = beside_the_label(check(Bias(0.21, None, 0, None, None, 40), Robustness(0.5, {"role": 0.25}, None, None, 8)))
    assert table is not None
    rows = {row.name: dict(zip(table.columns, row.cells, strict=True)) for row in table.rows}
    told = {name: row["h"] for name, row in rows.items()}
    assert (told["bias: length"], told["bias: refusal"], told["bias: n pairs"]) == ("0.210", "\N{EN DASH}", "40")
    assert (told["attacks: flips"], told["attacks: n"], told["attacks, by kind: role"]) == ("0.500", "8", "0.250")


def test_how_many_answers_there_are_is_told_where_they_are_too_few_for_an_interval():
    assert answer_counts({"harmlessness": Cell(5.0, n=4), "HH_5": Cell(5.1, n=4)}) == "4"
    assert answer_counts({"harmlessness": Cell(5.0, 4.0, 6.0, n=40), "HH_5": Cell(5.1)}) == "40"  # of an older version
    assert answer_counts({"harmlessness": Cell(None)}) == "0"


def test_the_lines_under_the_means_are_spoken_of_where_there_are_any():
    def summary(low):
        cell = Cell(5.0, low, None if low is None else 6.0, n=3)
        return SimpleNamespace(objectives=("h",), systems={"vanilla": {"h": cell, "HH_5": Cell(5.0, 4.0, 6.0, n=3)}})

    assert drawn_from([summary(None), summary(4.0)], Range(1.0, 10.0)) == "The lines under the means run from 1 to 10."
    assert drawn_from([summary(None)], Range(1.0, 10.0)) == ""  # HH has no line
    assert drawn_from([], Range(1.0, 10.0)) == ""


def test_unrated_answers_are_told_where_there_are_any():
    assert unrated_counts({"harmlessness": Cell(5.0, n=4, unrated=0), "HH_5": Cell(5.1, n=4, unrated=0)}) == ""
    assert (
        unrated_counts({"harmlessness": Cell(5.0, n=4, unrated=2), "helpfulness": Cell(5.1, n=6, unrated=0)}) == "2 / 0"
    )


def test_refusals_stand_beside_the_means_and_those_that_nobody_asked_for_apart():
    behaviour = Behaviour({"harmful": 0.5, "ordinary": 0.1}, {"harmful": 30, "ordinary": 10}, over_refusal=0.1)
    of_all, of_harmful = refusals_of(behaviour, ""), refusals_of(behaviour, "harmful")
    assert (of_all.share, of_all.wrongly) == ("40\u202f%", "10\u202f%")
    assert (of_harmful.share, of_harmful.wrongly) == ("50\u202f%", "")
    unknown = refusals_of(Behaviour({"harmful": 0.5}, {"harmful": 30}), "ordinary")
    assert unknown.share == refusals_of(Behaviour({}), "").share == "\N{EN DASH}"
