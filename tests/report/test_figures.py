"""Numbers land where the scale says, and every figure speaks."""

import math
import re

import pytest

from selfpriority.report.figures import (
    Place,
    Scale,
    Series,
    calibration,
    curves,
    flow,
    pareto,
    scatter,
    shares,
    whisker,
)
from selfpriority.report.view import Point


def test_scale_maps_and_keeps_inside():
    scale = Scale(1.0, 10.0, 0.0, 90.0)
    assert [scale(value) for value in (1.0, 5.5, 10.0, 12.0)] == [0.0, 45.0, 90.0, 90.0]


def test_whisker_places_estimate_interval_and_mark():
    drawn = whisker((0.5, 0.25, 0.75), (0.0, 1.0), 0.5, "AUC <0.5>")
    assert 'cx="60.0"' in drawn
    assert 'class="range" x1="32.0" x2="88.0"' in drawn
    assert 'class="mark" x1="60.0"' in drawn
    assert "<title>AUC &lt;0.5&gt;</title>" in drawn


def test_shares_fill_the_bar():
    widths = [
        float(w) for w in re.findall(r' width="([\d.]+)"', shares([("win", 0.5), ("tie", 0.3), ("lose", 0.2)], "t"))
    ]
    assert widths == pytest.approx([60.0, 36.0, 24.0])


def test_calibration_places_every_tenth_and_the_share_of_all():
    drawn = calibration([(1.0, 0.0, 10), (5.5, 0.5, 10), (10.0, 1.0, 20)], "by rating <all>")
    assert 'points="44.0,126.0 178.0,67.0 312.0,8.0"' in drawn
    assert drawn.count("<circle") == 3
    assert f'class="base" x1="44" x2="312" y1="{8 + 118 * 0.375}"' in drawn  # 25 of 40
    assert "<title>by rating &lt;all&gt;</title>" in drawn


def test_scatter_draws_every_point_by_kind():
    points = [Point(2.0, 3.0, False, True), Point(4.0, 5.0, False, False), Point(6.0, 5.0, True, True)]
    drawn = scatter([*points, Point(5.0, 5.0, False, None)], ("harm<less", "help"), "ratings")
    assert drawn.count("<circle") == 3
    assert all(f'class="{name}"' in drawn for name in ("kept", "dropped", "open", "refined kept"))
    assert "harm&lt;less" in drawn


def test_equal_points_still_have_a_scale():
    assert "nan" not in scatter([Point(5.0, 5.0, False, True)], ("a", "b"), "one point")


def test_curves_leave_a_gap_where_a_value_is_not_finite():
    values = (1.0, 2.0, math.nan, 4.0)
    drawn = curves((1.0, 2.0, 3.0, 4.0), [Series("loss", values)], "loss")
    assert drawn.count("<polyline") == 2
    assert "nan" not in drawn


def test_a_single_step_is_drawn():
    assert "<circle" in curves((1.0,), [Series("loss", (0.7,))], "loss")


def test_flow_shows_what_came_in_and_what_left_as_shares_of_the_widest_step():
    drawn = flow(60, 30, 120)
    assert 'class="in" width="60.0"' in drawn
    assert 'class="out" width="30.0"' in drawn
    assert 'width="0.0"' in flow(0, 0, 0)


def place(name: str, primary: float, secondary: float) -> Place:
    return Place(name, (primary, primary - 0.2, primary + 0.2), (secondary, secondary - 0.3, secondary + 0.3))


def test_pareto_joins_the_systems_that_no_other_beats_on_both():
    places = [place("vanilla", 5.0, 5.0), place("spa", 7.0, 6.0), place("so<ft", 6.0, 7.0), place("sft", 6.5, 5.5)]
    drawn = pareto(places, ("harm", "help"), "systems")
    circles = re.findall(r'<circle class="(\w+)"', drawn)
    assert circles == ["first", "best", "best", "beaten"]
    front = re.search(r'class="front" d="M([\d.]+) [\d.]+V[\d.]+H([\d.]+)"', drawn)
    assert front is not None
    assert float(front[1]) < float(front[2])
    assert "so&lt;ft" in drawn


def test_names_in_the_pareto_plot_do_not_cover_each_other():
    drawn = pareto([place(f"system-{n}", 5.0, 5.0) for n in range(4)], ("harm", "help"), "systems")
    heights = [float(y) for y in re.findall(r'class="system" x="[\d.]+" y="([\d.]+)"', drawn)]
    assert len(heights) == 4
    assert all(abs(a - b) >= 13 for a in heights for b in heights if a is not b)
