"""Figures show what the numbers say: lengths, order and places are read off the drawing as the eye reads them."""

import itertools
import math

import pytest

from selfpriority.judges.bias import Bin
from selfpriority.report.figures import (
    Estimate,
    Range,
    Scale,
    Series,
    calibration,
    curves,
    flow,
    scatter,
    share_curves,
    shares,
    whisker,
)
from selfpriority.report.pareto import FEW, Place, pareto
from selfpriority.report.rounds import Point
from tests.report.drawing import Drawing, is_rising, number, points

BINS = [Bin(1.0, 2.0, 1.5, 0.0, 10), Bin(5.0, 6.0, 5.5, 0.5, 10), Bin(9.0, 10.0, 9.5, 1.0, 20)]


def test_scale_maps_and_keeps_inside():
    scale = Scale(1.0, 10.0, 0.0, 90.0)
    assert [scale(value) for value in (1.0, 5.5, 10.0, 12.0)] == [0.0, 45.0, 90.0, 90.0]


def test_a_whisker_stands_where_its_value_stands_on_the_axis():
    drawn = Drawing(whisker(Estimate(0.75, 0.5, 0.875), Range(0.0, 1.0), 0.5, "AUC <0.75>"))
    axis = drawn.one("line", "axis")
    left, right = number(axis, "x1"), number(axis, "x2")

    def share(x: float) -> float:
        return (x - left) / (right - left)

    assert share(number(drawn.one("circle", "dot"), "cx")) == pytest.approx(0.75)
    assert [share(number(drawn.one("line", "range"), x)) for x in ("x1", "x2")] == pytest.approx([0.5, 0.875])
    assert share(number(drawn.one("line", "mark"), "x1")) == pytest.approx(0.5)
    assert drawn.title == "AUC <0.75>"
    assert drawn.frame_holds_everything()


def test_a_whisker_outside_its_scale_stays_inside_the_frame():
    drawn = Drawing(whisker(Estimate(3.0, -2.0, 5.0), Range(-1.0, 1.0), 0.0, "far out"))
    assert drawn.frame_holds_everything()


def test_shares_fill_the_bar_in_proportion_and_side_by_side():
    drawn = Drawing(shares({"win": 0.5, "tie": 0.3, "lose": 0.2, "none": 0.0}, "t"))
    bars = drawn.all("rect")
    assert [bar.get("class") for bar in bars] == ["win", "tie", "lose"]
    assert [number(bar, "width") / drawn.width for bar in bars] == pytest.approx([0.5, 0.3, 0.2])
    ends = [number(bar, "x") + number(bar, "width") for bar in bars]
    assert [number(bar, "x") for bar in bars] == pytest.approx([0.0, *ends[:-1]])


def test_calibration_rises_with_the_share_and_marks_that_of_all():
    drawn = Drawing(calibration(BINS, "by rating <all>"))
    corners = points(drawn.one("polyline"))
    assert is_rising([x for x, _ in corners])
    (_, bottom), (_, middle), (_, top) = corners
    assert middle == pytest.approx((bottom + top) / 2)
    assert top < bottom
    base = number(drawn.one("line", "base"), "y1")
    assert (bottom - base) / (bottom - top) == pytest.approx(25 / 40)  # ten halves and twenty of forty
    assert [(number(dot, "cx"), number(dot, "cy")) for dot in drawn.all("circle")] == corners
    assert drawn.title == "by rating <all>"
    assert drawn.frame_holds_everything()


def test_a_better_answer_lies_further_right_and_higher_in_the_scatter():
    rated = [Point(2.0, 3.0, False, True), Point(4.0, 5.0, False, False), Point(6.0, 7.0, True, True)]
    drawn = Drawing(scatter([*rated, Point(5.0, 1.0, False, None)], ("harm<less", "help"), "ratings"))
    kept, dropped, undecided = (drawn.one("circle", kind) for kind in ("kept", "dropped", "open"))
    assert is_rising([number(dot, "cx") for dot in (kept, dropped, undecided)])
    assert is_rising([number(dot, "cy") for dot in (dropped, kept, undecided)])
    assert drawn.one("path", "refined").get("class") == "refined kept"
    assert drawn.text("harm<less") is not None
    assert drawn.frame_holds_everything()


def test_equal_points_still_have_a_scale():
    drawn = Drawing(scatter([Point(5.0, 5.0, False, True)], ("a", "b"), "one point"))
    assert drawn.frame_holds_everything()
    assert math.isfinite(number(drawn.one("circle"), "cx"))


def test_curves_leave_a_gap_where_a_value_is_not_finite():
    drawn = Drawing(curves((1.0, 2.0, 3.0, 4.0), [Series("loss", (1.0, 2.0, math.nan, 4.0))], "nats", "loss"))
    before, after = (points(line) for line in drawn.all("polyline"))
    assert (len(before), len(after)) == (2, 1)
    assert is_rising([x for x, _ in before + after])
    assert is_rising([-y for _, y in before + after])
    last = drawn.one("circle")
    assert (number(last, "cx"), number(last, "cy")) == after[-1]
    assert drawn.frame_holds_everything()


def test_a_single_step_is_drawn():
    drawn = Drawing(curves((1.0,), [Series("loss", (0.7,))], "nats", "loss"))
    assert len(drawn.all("circle")) == 1
    assert drawn.frame_holds_everything()


def test_flow_shows_what_came_in_and_what_left_as_shares_of_the_widest_step():
    drawn = Drawing(flow(60, 30, 120))
    came, left = (number(drawn.one("rect", kind), "width") / drawn.width for kind in ("in", "out"))
    assert (came, left) == pytest.approx((0.5, 0.25))
    assert [number(bar, "width") for bar in Drawing(flow(0, 0, 0)).all("rect")] == [0.0, 0.0]


def test_share_curves_are_a_file_of_their_own_with_both_lines_and_the_mark():
    series = [Series("all <scores>", (0.0, 0.5, 1.0)), Series("within", (0.25, math.nan, 0.75))]
    file = share_curves((0.0, 0.5, 1.0), series, "prompts", 0.5, "RV <of two>")
    assert file.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    drawn = Drawing(file)
    (left, bottom), middle, (right, top) = points(drawn.one("polyline", "line-0"))
    assert middle == pytest.approx(((left + right) / 2, (bottom + top) / 2))
    assert (bottom - points(drawn.all("polyline", "line-1")[0])[0][1]) / (bottom - top) == pytest.approx(0.25)
    assert len(drawn.all("polyline", "line-1")) == 2
    mark = drawn.one("line", "mark")
    assert number(mark, "x1") == number(mark, "x2") == pytest.approx(middle[0])
    style = drawn.one("style").text or ""
    assert all(name in style for name in ("text", "polyline.line-1", ".mark", ".grid"))
    assert drawn.text("all <scores>").get("class") == "line-0"
    assert drawn.title == "RV <of two>"
    assert drawn.frame_holds_everything()
    assert not Drawing(share_curves((0.0, 1.0), series[:0], "prompts", None, "empty")).all("line", "mark")


def place(name: str, primary: float, secondary: float) -> Place:
    return Place(name, Estimate(primary, primary - 0.2, primary + 0.2), Estimate(secondary, secondary - 0.3, secondary))


def test_pareto_joins_the_systems_that_no_other_beats_on_both():
    places = [place("vanilla", 5.0, 5.0), place("spa", 7.0, 6.0), place("so<ft", 6.0, 7.0), place("sft", 6.5, 5.5)]
    drawn = Drawing(pareto(places, ("harm", "help"), "systems"))
    dots = drawn.all("circle")
    assert [dot.get("class") for dot in dots] == ["first", "best", "best", "beaten"]
    vanilla, spa, soft, sft = dots
    assert is_rising([number(dot, "cx") for dot in (vanilla, soft, sft, spa)])
    assert is_rising([number(dot, "cy") for dot in (soft, spa, sft, vanilla)])
    start, height, end = drawn.one("path", "front").attrib["d"].removeprefix("M").replace("V", "H").split("H")
    assert start == f"{soft.attrib['cx']} {soft.attrib['cy']}"
    assert (height, end) == (spa.attrib["cy"], spa.attrib["cx"])
    assert drawn.text("so<ft").get("class") == "system"
    assert drawn.frame_holds_everything()


@pytest.mark.parametrize("n", [2, 4, 8, 20])
def test_names_in_the_pareto_plot_do_not_cover_each_other(n):
    """All at one point; of more than a few systems the picture is larger."""
    names = [f"system-{i}" for i in range(n)]
    drawn = Drawing(pareto([place(name, 5.0, 5.0) for name in names], ("harm", "help"), "systems"))
    texts = drawn.all("text", "system")
    assert len(texts) == n
    for one, other in itertools.combinations(texts, 2):
        apart = abs(number(one, "y") - number(other, "y")) >= 12.9
        beside = abs(number(one, "x") - number(other, "x")) >= 7 * len("system-0")
        assert apart or beside, (one.text, other.text)
    assert drawn.frame_holds_everything()
    assert drawn.root.get("class") == ("pareto" if n <= FEW else "pareto large")


def test_a_name_at_the_right_edge_stands_left_of_its_point():
    drawn = Drawing(pareto([place("a", 1.0, 1.0), place("a-long-name", 9.0, 9.0)], ("harm", "help"), "systems"))
    far = drawn.all("circle")[1]
    name = drawn.text("a-long-name")
    assert number(name, "x") + 6 * len("a-long-name") < number(far, "cx")


@pytest.mark.parametrize(
    ("drawing", "names"),
    [
        (curves((1.0, 2.0), [Series("loss", (1.0, 2.0))], "nats <a> token", "t"), ("optimizer step", "nats <a> token")),
        (scatter([Point(5.0, 5.0, False, True)], ("harm", "he<lp"), "t"), ("harm", "he<lp")),
        (pareto([Place("a", Estimate(1, 1, 1), Estimate(2, 2, 2))], ("harm", "he<lp"), "t"), ("harm", "he<lp")),
        (calibration(BINS, "t"), ("rating", "share labelled good")),
    ],
    ids=["curves", "scatter", "pareto", "calibration"],
)
def test_both_axes_say_what_they_hold(drawing, names):
    """The first lies under the drawing, the second stands on its side at the left."""
    drawn = Drawing(drawing)
    across, up = drawn.all("text", "name")
    assert (across.text, up.text) == names
    assert number(across, "y") > drawn.height - 20
    assert "rotate(-90)" in up.attrib["transform"]
    assert drawn.frame_holds_everything()
