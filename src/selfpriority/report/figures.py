"""Draws the page's figures: numbers in, SVG out, colours by class name so that the style sheet owns them.

Pure functions. Widths are in viewBox units near a phone's pixels, so that text stays legible there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from selfpriority.judges.bias import Bin
from selfpriority.rating import HIGHEST, LOWEST
from selfpriority.report.rounds import Point


@dataclass(frozen=True)
class Scale:
    """A linear map from values to viewBox units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Place of a value; outside the scale it stays at the edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


@dataclass(frozen=True)
class Frame:
    """Edges of the part of a drawing that holds the data, in viewBox units."""

    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Range:
    """What the edges of a figure mean."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """One line of a chart; a value that is not finite is a gap."""

    name: str
    values: tuple[float, ...]


def svg(width: int, height: int, title: str, body: Sequence[str], kind: str) -> Markup:
    """The frame of every figure: a drawing with a title that a screen reader speaks."""
    return Markup(
        f'<svg class="{kind}" role="img" viewBox="0 0 {width} {height}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def whisker(estimate: Estimate, bounds: Range, mark: float | None, title: str) -> Markup:
    """An estimate with its interval on a fixed scale.

    Args:
        estimate: what is drawn.
        bounds: what the left and right edge mean.
        mark: a value to compare with (no difference, chance), drawn as a tick.
        title: what it says, in words.
    """
    scale = Scale(bounds.low, bounds.high, 4, 116)
    body = ['<line class="axis" x1="4" x2="116" y1="9" y2="9"/>']
    if mark is not None:
        body.append(f'<line class="mark" x1="{scale(mark)}" x2="{scale(mark)}" y1="1" y2="17"/>')
    body.append(f'<line class="range" x1="{scale(estimate.low)}" x2="{scale(estimate.high)}" y1="9" y2="9"/>')
    body.append(f'<circle class="dot" cx="{scale(estimate.value)}" cy="9" r="4"/>')
    return svg(120, 18, title, body, "whisker")


def shares(parts: Mapping[str, float], title: str) -> Markup:
    """Shares of a whole, by class name, as one bar that is stretched to the width of its place."""
    body, x = [], 0.0
    for name, share in parts.items():
        width = round(120 * share, 2)
        if width:
            body.append(f'<rect class="{escape(name)}" x="{round(x, 2)}" y="0" width="{width}" height="10"/>')
        x += width
    drawn = svg(120, 10, title, body, "shares")
    return Markup(str(drawn).replace("<svg ", '<svg preserveAspectRatio="none" ', 1))


def flow(n_in: int, n_out: int, widest: int) -> Markup:
    """What came into a step and what left it, as a share of the widest step. The numbers stand beside it as text."""
    entered, left = (round(120 * n / widest, 2) if widest else 0.0 for n in (n_in, n_out))
    return Markup(
        '<svg class="flow" preserveAspectRatio="none" aria-hidden="true" viewBox="0 0 120 10">'
        f'<rect class="in" width="{entered}" height="10"/><rect class="out" width="{left}" height="10"/></svg>'
    )


def scatter(points: Sequence[Point], names: Sequence[str], title: str) -> Markup:
    """Ratings of all answers of a round, primary objective to the right and secondary upwards."""
    width, height = 380, 340
    frame = Frame(34, width - 8, 10, height - 40)
    low = math.floor(min(min(p.primary, p.secondary) for p in points))
    high = math.ceil(max(max(p.primary, p.secondary) for p in points))
    high = max(high, low + 1)
    across, up = Scale(low, high, frame.left, frame.right), Scale(low, high, frame.bottom, frame.top)
    body = []
    for tick in range(low, high + 1, max(1, (high - low) // 5)):
        x, y = across(tick), up(tick)
        body.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{frame.top}" y2="{frame.bottom}"/>')
        body.append(f'<line class="grid" x1="{frame.left}" x2="{frame.right}" y1="{y}" y2="{y}"/>')
        body.append(f'<text x="{x}" y="{frame.bottom + 16}" text-anchor="middle">{tick}</text>')
        body.append(f'<text x="{frame.left - 7}" y="{y + 4}" text-anchor="end">{tick}</text>')
    for point in sorted(points, key=lambda p: (p.refined, p.kept is True)):
        body.append(_dot(across(point.primary), up(point.secondary), point))
    return svg(width, height, title, [*body, *axis_names(names, frame, height)], "scatter")


def axis_names(names: Sequence[str], frame: Frame, height: int) -> list[str]:
    """What the two axes of a plot hold: the first to the right, the second upwards."""
    middle = (frame.left + frame.right) / 2
    return [
        f'<text class="name" x="{middle}" y="{height - 6}" text-anchor="middle">{escape(names[0])}</text>',
        f'<text class="name" transform="translate(11 {frame.bottom / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(names[1])}</text>",
    ]


def _dot(x: float, y: float, point: Point) -> str:
    state = {None: "open", True: "kept", False: "dropped"}[point.kept]
    if point.refined:
        return f'<path class="refined {state}" d="M{x} {round(y - 5, 2)}l5 5l-5 5l-5-5z"/>'
    return f'<circle class="{state}" cx="{x}" cy="{y}" r="2.6"/>'


SMALL = Frame(58, 312, 8, 126)
SMALL_WIDTH, SMALL_HEIGHT = 320, 166
"""A small chart: of training, or of what a rating is worth."""


def curves(steps: Sequence[float], series: Sequence[Series], name: str, title: str) -> Markup:
    """One small chart of training: steps to the right, one line a series, its last value as a dot.

    Args:
        steps: of the optimizer, rising.
        series: the lines, a value a step.
        name: what lies upwards, with its unit.
        title: what it says, in words.
    """
    left, right, bottom = SMALL.left, SMALL.right, SMALL.bottom
    values = [value for line in series for value in line.values if math.isfinite(value)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = (high - low) * 0.08 or max(abs(high), 1.0) * 0.05
    up = Scale(low - margin, high + margin, bottom, 8)
    across = Scale(steps[0], max(steps[-1], steps[0] + 1), left, right)
    body = []
    for tick in (low, (low + high) / 2, high) if high > low else (low,):
        body.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{up(tick)}" y2="{up(tick)}"/>')
        body.append(f'<text x="{left - 6}" y="{up(tick) + 4}" text-anchor="end">{_short(tick)}</text>')
    body.append(f'<text x="{left}" y="{bottom + 16}">{steps[0]:g}</text>')
    if steps[-1] > steps[0]:
        body.append(f'<text x="{right}" y="{bottom + 16}" text-anchor="end">{steps[-1]:g}</text>')
    body += axis_names(("optimizer step", name), SMALL, SMALL_HEIGHT)
    for number, line in enumerate(series):
        body += _line(line, [across(step) for step in steps], up, f"line-{number}")
    return svg(SMALL_WIDTH, SMALL_HEIGHT, title, body, "curves")


def calibration(bins: Sequence[Bin], title: str) -> Markup:
    """What a rating is worth: the share labelled good (upwards) by rating, and as a dashed line that of all answers.

    Args:
        bins: by rising rating.
        title: what it says, in words.
    """
    left, right, bottom = SMALL.left, SMALL.right, SMALL.bottom
    across, up = Scale(LOWEST, HIGHEST, left, right), Scale(0.0, 1.0, bottom, 8)
    body = []
    for share in (0.0, 0.5, 1.0):
        body.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{up(share)}" y2="{up(share)}"/>')
        body.append(f'<text x="{left - 6}" y="{up(share) + 4}" text-anchor="end">{share:g}</text>')
    for rating in (LOWEST, 4.0, 7.0, HIGHEST):
        body.append(f'<text x="{across(rating)}" y="{bottom + 16}" text-anchor="middle">{rating:g}</text>')
    of_all = up(sum(one.positive * one.n for one in bins) / sum(one.n for one in bins))
    body.append(f'<line class="base" x1="{left}" x2="{right}" y1="{of_all}" y2="{of_all}"/>')
    places = [(across(one.rating), up(one.positive)) for one in bins]
    body.append(f'<polyline class="line-0" points="{" ".join(f"{x},{y}" for x, y in places)}"/>')
    body += [f'<circle class="line-0" cx="{x}" cy="{y}" r="3"/>' for x, y in places]
    body += axis_names(("rating", "share labelled good"), SMALL, SMALL_HEIGHT)
    return svg(SMALL_WIDTH, SMALL_HEIGHT, title, body, "curves")


ALONE = (
    "<style>text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.mark{stroke:#555;stroke-dasharray:4 3}"
    "text.line-0,circle.line-0{fill:#1f5fa8}text.line-1,circle.line-1{fill:#c05a1c}"
    "polyline{fill:none;stroke-width:2}polyline.line-0{stroke:#1f5fa8}polyline.line-1{stroke:#c05a1c}</style>"
)
"""Colours of a drawing that is opened without a page, which would bring the style sheet."""


def share_curves(across: Sequence[float], series: Sequence[Series], axis: str, mark: float | None, title: str) -> str:
    """A file of its own: up to two lines over shares, both axes from 0 to 1, each named in its colour.

    Args:
        across: place of every value to the right, rising.
        series: the lines.
        axis: what lies to the right.
        mark: where a dashed line stands upright; none: nowhere.
        title: what it says, in words.
    """
    width, height = 420, 260
    frame = Frame(44, width - 12, 14, height - 44)
    right, up = Scale(0.0, 1.0, frame.left, frame.right), Scale(0.0, 1.0, frame.bottom, frame.top)
    body = [ALONE, f'<rect width="{width}" height="{height}" fill="white"/>']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        body.append(f'<line class="grid" x1="{frame.left}" x2="{frame.right}" y1="{up(tick)}" y2="{up(tick)}"/>')
        body.append(f'<text x="{frame.left - 6}" y="{up(tick) + 4}" text-anchor="end">{tick:g}</text>')
        body.append(f'<text x="{right(tick)}" y="{frame.bottom + 16}" text-anchor="middle">{tick:.0%}</text>')
    for number, line in enumerate(series):
        body += _line(line, [right(share) for share in across], up, f"line-{number}")
        y = frame.bottom - 22 + 14 * number
        body.append(f'<text class="line-{number}" x="{frame.left + 8}" y="{y}">{escape(line.name)}</text>')
    if mark is not None:
        x = right(mark)
        body.append(f'<line class="mark" x1="{x}" x2="{x}" y1="{frame.top}" y2="{frame.bottom}"/>')
    middle = (frame.left + frame.right) / 2
    body.append(f'<text x="{middle}" y="{height - 8}" text-anchor="middle">{escape(axis)}</text>')
    drawn = svg(width, height, title, body, "curves")
    return str(drawn).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _line(series: Series, places: Sequence[float], up: Scale, name: str) -> list[str]:
    """A polyline and its last point; a value that is not finite leaves a gap."""
    runs: list[list[str]] = [[]]
    for x, value in zip(places, series.values, strict=True):
        if math.isfinite(value):
            runs[-1].append(f"{x},{up(value)}")
        elif runs[-1]:
            runs.append([])
    drawn = [f'<polyline class="{name}" points="{" ".join(run)}"/>' for run in runs if run]
    if runs[-1]:
        last_x, last_y = runs[-1][-1].split(",")
        drawn.append(f'<circle class="{name}" cx="{last_x}" cy="{last_y}" r="3"/>')
    return drawn


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
