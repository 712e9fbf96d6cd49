"""MT-Bench on the page: means, differences and who judged, in a table of its own."""

from __future__ import annotations

import pytest

from selfpriority.report.page import write_report
from selfpriority.report.utility import mt_bench_grid, other_utility
from selfpriority.run import write_json


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
        "systems": {
            "vanilla": row(4.0, {"turn_1": {}, "turn_2": {"no_rating": 2}}),
            "spa": row(4.25, {"turn_1": {}, "turn_2": {}}),
        },
        "difference": {"spa_vs_vanilla": {k: v for k, v in row(0.25, {}).items() if k != "unrated"}},
    }


def test_rows_are_measures_and_columns_systems_and_their_difference():
    grid = mt_bench_grid({"mt_bench": told()})
    assert grid is not None
    assert grid.columns == ("vanilla", "spa", "spa against vanilla", "p, corrected")
    rows = dict(grid.rows)
    assert rows["overall"] == ("4.00 (3.50 to 4.50)", "4.25 (3.75 to 4.75)", "+0.25 (\u22120.25 to +0.75)", "0.250")
    assert rows["writing"][0] == "4.00 (3.50 to 4.50), n\u00a03"
    assert rows["maths & logic"] == ("not rated", "not rated", "\u2013", "\u2013")
    assert rows["unrated"][:2] == ("turn 2: no rating 2", "0")
    assert rows["cut at the limit"][0] == "12\u2009%"
    assert "a probe and not a judge in words" in grid.note
    assert "0.84 (0.81 to 0.86)" in grid.note


def test_nobody_asked_is_no_table():
    assert mt_bench_grid(None) is None
    assert mt_bench_grid({"perplexity": {}}) is None
    assert other_utility({"systems": {"spa": "0f"}, "mt_bench": {}, "tasks": {}}) == {"tasks": {}}


def test_the_page_shows_the_table_with_its_note(run_folder):
    perplexity = {"systems": {"vanilla": {"perplexity": 17.25, "ratio": 1.0}}}
    parts = {"systems": {"vanilla": "hash-of-weights"}, "trained": "0", "mt_bench": told(), "perplexity": perplexity}
    write_json(run_folder / "evaluation" / "utility.json", parts)
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert "<h3>MT-Bench</h3>" in html
    assert "maths &amp; logic" in html
    assert "judged by demo-eval, a probe" in html
    assert "17.25" in html
    assert "hash-of-weights" not in html
    assert "is about other weights" not in html


@pytest.mark.parametrize("trained", [{"trained": "the key of another training"}, {}])
def test_figures_of_other_weights_are_left_out_and_the_page_says_so(run_folder, trained):
    write_json(run_folder / "evaluation" / "utility.json", {"systems": {}, **trained, "mt_bench": told()})
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert "<h3>MT-Bench</h3>" not in html
    assert html.count("is about other weights than there are now, so it is left out") == 1
