"""What the systems still know, on the page: right answers, perplexity with its alarm, MT-Bench with who judged."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import pytest
from pydantic import TypeAdapter

from selfpriority.evaluation.perplexity import alarms_in_words, perplexities
from selfpriority.evaluation.utility_records import MtBenchResult
from selfpriority.report.page import write_report
from selfpriority.report.utility_tables import FEW, known, losses, mt_bench_grid
from selfpriority.report.view import View, read_view
from selfpriority.run import Run
from selfpriority.storage import read_json, write_json


def cell(mean: float | None, n: int = 20) -> dict[str, float | None]:
    return {"mean": mean, "low": mean and mean - 0.5, "high": mean and mean + 0.5, "n": n, "p_holm": mean and 0.25}


def told() -> dict:
    def row(base: float, unrated: dict) -> dict:
        means = {"overall": cell(base), "turn_1": cell(base + 1), "turn_2": cell(base - 1)}
        categories = {"writing": cell(base, n=3), "maths & logic": cell(None)}
        return {**means, "categories": categories, "unrated": unrated, "words": 41.6, "cut": 0.125}

    measured = {"source": "card", "objective": "helpfulness", "estimate": 0.84, "low": 0.81, "high": 0.86, "n": 695}
    return {
        "judge": {"judge": "demo-eval", "method": "probe", "objective": "helpfulness", "agreement": measured},
        "n_questions": 20,
        "max_new_tokens": 64,
        "systems": {
            "vanilla": row(4.0, {"turn_1": {}, "turn_2": {"no_rating": 2}}),
            "spa": row(4.25, {"turn_1": {}, "turn_2": {}}),
        },
        "difference": {"spa_vs_vanilla": {k: v for k, v in row(0.25, {}).items() if k != "unrated"}},
    }


def test_rows_are_measures_and_columns_systems_and_their_difference():
    grid = mt_bench_grid(TypeAdapter(MtBenchResult).validate_python(told()))
    assert grid is not None
    assert grid.columns == ("vanilla", "spa", "spa against vanilla", "p, corrected")
    rows = {row.name: row.cells for row in grid.rows}
    assert rows["overall"] == ("4.00 (3.50 to 4.50)", "4.25 (3.75 to 4.75)", "+0.25 (\u22120.25 to +0.75)", "0.250")
    assert rows["writing"][0] == "4.00 (3.50 to 4.50), n\u00a03"
    assert rows["maths & logic"] == ("not rated", "not rated", "\u2013", "\u2013")
    assert rows["unrated"][:2] == ("turn 2: no rating 2", "0")
    assert rows["cut at the limit"][0] == "12\u202f%"
    assert "a probe and not a judge in words" in grid.note
    assert "0.84 (0.81 to 0.86)" in grid.note


def test_nobody_asked_is_no_table():
    assert mt_bench_grid(None) is None


def asked(difference: float, significant: bool) -> dict:
    """As `spa utility --mmlu` leaves it."""
    low, high, p = difference - 0.01, difference + 0.01, 0.001 if significant else 0.3
    change = {"mean": difference, "low": low, "high": high, "p_holm": p, "significant": significant, "n": 1140}
    systems = {
        "vanilla": {"mean": 0.3, "low": 0.28, "high": 0.32, "n": 1140},
        "spa": {"mean": 0.3 + difference, "low": 0.2, "high": 0.3, "n": 1140},
    }
    return {
        "systems": {},
        "trained": "0",
        "n_fewshot": 5,
        "tasks": {"mmlu": {"systems": systems, "difference": {"spa_vs_vanilla": change}}},
    }


@dataclass(frozen=True)
class Likelihood:
    nats: float
    n_tokens: int


def prose(ratio: float) -> dict:
    spa = Likelihood(36.9 + 10 * math.log(ratio), 10)
    return asdict(perplexities({"vanilla": [Likelihood(36.9, 10)], "spa": [spa]}))


def view_with(run_folder, utility: dict | None, perplexity: dict | None) -> View:
    if utility:
        write_json(run_folder / "evaluation" / "utility.json", utility)
    path = run_folder / "evaluation" / "summary.json"
    write_json(path, read_json(path) | ({"perplexity": perplexity} if perplexity else {}))
    return read_view(Run.existing(run_folder))


def test_right_answers_and_perplexity_stand_in_one_table(run_folder):
    view = view_with(run_folder, asked(-0.02, False), prose(1.05))
    grid = known(view)
    assert grid is not None
    assert grid.columns == ("vanilla", "spa", "spa against vanilla", "p, corrected")
    rows = {row.name: row.cells for row in grid.rows}
    right = rows["MMLU, 5 examples, 1,140 questions"]
    assert right[0] == "30.0 (28.0 to 32.0)"
    assert right[2:] == ("\u22122.0 (\u22123.0 to \u22121.0)", "0.300")
    assert rows["perplexity on plain prose"] == ("40.0", "42.0, 1.05 times", "\u2013", "\u2013")
    assert list(losses(view)) == []


def test_of_many_systems_each_has_a_row(run_folder):
    """And each comparison, with its p beside the change."""
    many = {f"system-{i}": [Likelihood(36.9 + i, 10)] for i in range(FEW)}
    found = asdict(perplexities({"vanilla": [Likelihood(36.9, 10)], **many}))
    grid = known(view_with(run_folder, asked(-0.02, False), found))
    assert grid is not None
    assert grid.columns == ("MMLU, 5 examples, 1,140 questions", "perplexity on plain prose")
    rows = {row.name: row.cells for row in grid.rows}
    assert list(rows) == ["vanilla", "spa", *many, "spa against vanilla"]
    assert rows["vanilla"] == ("30.0 (28.0 to 32.0)", "40.0")
    assert rows["system-1"][0] == "\u2013"
    assert rows["spa against vanilla"] == ("\u22122.0 (\u22123.0 to \u22121.0), p 0.300", "\u2013")


def test_what_is_lost_is_said_at_the_top(run_folder):
    view = view_with(run_folder, asked(-0.02, True), prose(1.36))
    said = list(losses(view))
    assert said[0].startswith("spa finds plain prose less likely than vanilla: its perplexity is 1.36 times as high")
    assert said[1:] == ["spa answers 2.0\u202f% fewer of the questions of MMLU rightly than vanilla."]
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert html.index("its perplexity is 1.36 times") < html.index('id="result"') < html.index('id="utility"')


def test_many_that_lost_something_are_one_sentence_the_worst_first():
    many = {name: [Likelihood(nats, 10)] for name, nats in (("vanilla", 30.0), ("a", 31.5), ("b", 30.0), ("c", 32.0))}
    (said,) = alarms_in_words(perplexities(many))
    assert said.startswith(
        "c and a find plain prose less likely than vanilla: their perplexity is 1.22 and 1.16 times "
    )
    assert said.endswith(" They may have lost some of what they could do.")
    assert alarms_in_words(perplexities({"vanilla": many["vanilla"], "b": many["b"]})) == []


def test_the_evaluation_alone_has_perplexity_and_neither_is_no_section(run_folder):
    assert known(view_with(run_folder, None, None)) is None
    assert 'id="utility"' not in write_report(run_folder).read_text(encoding="utf-8")
    grid = known(view_with(run_folder, None, prose(1.0)))
    assert grid is not None
    assert (grid.columns, [row.name for row in grid.rows]) == (("vanilla", "spa"), ["perplexity on plain prose"])


def test_the_page_shows_the_table_with_its_note(run_folder):
    perplexity = {"systems": {"vanilla": {"perplexity": 17.25, "ratio": 1.0}}, "alarm": []}
    parts = {"systems": {"vanilla": "hash-of-weights"}, "trained": "0", "mt_bench": told(), "perplexity": perplexity}
    write_json(run_folder / "evaluation" / "utility.json", parts)
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert "<h3>MT-Bench</h3>" in html
    assert "maths &amp; logic" in html
    assert "judged by demo-eval, a probe" in html
    assert "17.2" in html
    assert "hash-of-weights" not in html
    assert "is about other weights" not in html


@pytest.mark.parametrize("trained", [{"trained": "the key of another training"}, {}])
def test_figures_of_other_weights_are_left_out_and_the_page_says_so(run_folder, trained):
    write_json(run_folder / "evaluation" / "utility.json", {"systems": {}, **trained, "mt_bench": told()})
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert "<h3>MT-Bench</h3>" not in html
    assert html.count("is about other weights than there are now, so it is left out") == 1
