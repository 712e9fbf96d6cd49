"""Draws the page's figures: numbers in, SVG out, colours by class name so that the style sheet owns them.

Pure functions. Widths are in viewBox units near a phone's pixels, so that text stays legible there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from selfpriority.rating import HIGHEST, LOWEST
from selfpriority.report.view import Point


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
class Place:
    """Where a system stands: (mean, low, high) of its first two objectives."""

    name: str
    primary: tuple[float, float, float]
    secondary: tuple[float, float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    values: tuple[float, ...]


def svg(width: int, height: int, title: str, body: Sequence[str], kind: str) -> Markup:
    """The frame of every figure: a drawing with a title that a screen reader speaks."""
    return Markup(
        f'<svg class="{kind}" role="img" viewBox="0 0 {width} {height}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def whisker(interval: Sequence[float], bounds: tuple[float, float], mark: float | None, title: str) -> Markup:
    """An estimate with its interval on a fixed scale.

    Args:
        interval: estimate, low, high.
        bounds: what the left and right edge mean.
        mark: a value to compare with (no difference, chance), drawn as a tick.
        title: what it says, in words.
    """
    scale = Scale(*bounds, 4, 116)
    x, low, high = (scale(value) for value in interval)
    body = ['<line class="axis" x1="4" x2="116" y1="9" y2="9"/>']
    if mark is not None:
        body.append(f'<line class="mark" x1="{scale(mark)}" x2="{scale(mark)}" y1="1" y2="17"/>')
    body.append(f'<line class="range" x1="{low}" x2="{high}" y1="9" y2="9"/>')
    body.append(f'<circle class="dot" cx="{x}" cy="9" r="4"/>')
    return svg(120, 18, title, body, "whisker")


def shares(parts: Sequence[tuple[str, float]], title: str) -> Markup:
    """Shares of a whole as one bar, stretched to the width of its place; each part is (class name, share)."""
    body, x = [], 0.0
    for name, share in parts:
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


def pareto(places: Sequence[Place], names: tuple[str, str], title: str) -> Markup:
    """Systems by two objectives with their intervals; a stepped line joins those that no other system beats on both."""
    width, height, left, bottom = 420, 340, 38, 296
    across = _axis([edge for place in places for edge in place.primary], left, width - 12)
    up = _axis([edge for place in places for edge in place.secondary], bottom, 12)
    body = _grid(across, up, (left, width - 12, 12, bottom))
    front = sorted((p for p in places if not _beaten(p, places)), key=lambda p: p.primary[0])
    corners = [(across(p.primary[0]), up(p.secondary[0])) for p in front]
    if len(corners) > 1:
        steps = "".join(f"V{y}H{x}" for x, y in corners[1:])  # below and left of the line somebody is better on both
        body.append(f'<path class="front" d="M{corners[0][0]} {corners[0][1]}{steps}"/>')
    taken: list[tuple[float, float, float]] = []
    for number, place in enumerate(places):
        kind = "first" if number == 0 else "best" if place in front else "beaten"
        x, x_low, x_high = (across(value) for value in place.primary)
        y, y_low, y_high = (up(value) for value in place.secondary)
        body.append(f'<path class="range {kind}" d="M{x_low} {y}H{x_high}M{x} {y_low}V{y_high}"/>')
        body.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="5"/>')
        body.append(_label(place.name, (x, y), (left, width - 12), taken))
    middle = (left + width - 12) / 2
    body.append(f'<text class="name" x="{middle}" y="{height - 6}" text-anchor="middle">{escape(names[0])} →</text>')
    body.append(
        f'<text class="name" transform="translate(11 {bottom / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(names[1])} →</text>"
    )
    return svg(width, height, title, body, "pareto")


def _axis(values: Sequence[float], start: float, end: float) -> Scale:
    margin = max((max(values) - min(values)) * 0.08, 0.1)
    return Scale(min(values) - margin, max(values) + margin, start, end)


def _grid(across: Scale, up: Scale, frame: tuple[float, float, float, float]) -> list[str]:
    left, right, top, bottom = frame
    body = []
    for tick in _ticks(across.low, across.high):
        x = across(tick)
        body.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>')
        body.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in _ticks(up.low, up.high):
        y = up(tick)
        body.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        body.append(f'<text x="{left - 7}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    return body


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers inside a range, at most seven of them."""
    step = next((step for step in (0.1, 0.2, 0.5, 1.0, 2.0) if (high - low) / step <= 7), 5.0)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 6) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _beaten(place: Place, places: Sequence[Place]) -> bool:
    """Whether another system is at least as good on both objectives and better on one."""
    own = (place.primary[0], place.secondary[0])
    others = [(p.primary[0], p.secondary[0]) for p in places]
    return any(a >= own[0] and b >= own[1] and (a, b) != own for a, b in others)


def _label(
    name: str, point: tuple[float, float], edges: tuple[float, float], taken: list[tuple[float, float, float]]
) -> str:
    """A name beside its point, lower or higher where another name stands already."""
    x, y = point
    length = 6.4 * len(name)
    at_end = x + 10 + length > edges[1]
    start = x - 10 - length if at_end else x + 10
    baseline = y - 8
    while any(abs(baseline - other) < 13 and start < end and begin < start + length for other, begin, end in taken):
        baseline += 13
    taken.append((baseline, start, start + length))
    anchor, edge = (' text-anchor="end"', x - 10) if at_end else ("", x + 10)
    return f'<text class="system" x="{edge}" y="{round(baseline, 2)}"{anchor}>{escape(name)}</text>'


def scatter(points: Sequence[Point], names: tuple[str, str], title: str) -> Markup:
    """Ratings of all answers of a round, primary objective to the right and secondary upwards."""
    width, height, left, bottom = 380, 340, 34, 300
    low = math.floor(min(min(p.primary, p.secondary) for p in points))
    high = math.ceil(max(max(p.primary, p.secondary) for p in points))
    high = max(high, low + 1)
    across, up = Scale(low, high, left, width - 8), Scale(low, high, bottom, 10)
    body = []
    for tick in range(low, high + 1, max(1, (high - low) // 5)):
        x, y = across(tick), up(tick)
        body.append(f'<line class="grid" x1="{x}" x2="{x}" y1="10" y2="{bottom}"/>')
        body.append(f'<line class="grid" x1="{left}" x2="{width - 8}" y1="{y}" y2="{y}"/>')
        body.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{tick}</text>')
        body.append(f'<text x="{left - 7}" y="{y + 4}" text-anchor="end">{tick}</text>')
    for point in sorted(points, key=lambda p: (p.refined, p.kept is True)):
        body.append(_dot(across(point.primary), up(point.secondary), point))
    middle = (left + width - 8) / 2
    body.append(f'<text class="name" x="{middle}" y="{height - 6}" text-anchor="middle">{escape(names[0])} →</text>')
    body.append(
        f'<text class="name" transform="translate(11 {bottom / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(names[1])} →</text>"
    )
    return svg(width, height, title, body, "scatter")


def _dot(x: float, y: float, point: Point) -> str:
    state = {None: "open", True: "kept", False: "dropped"}[point.kept]
    if point.refined:
        return f'<path class="refined {state}" d="M{x} {round(y - 5, 2)}l5 5l-5 5l-5-5z"/>'
    return f'<circle class="{state}" cx="{x}" cy="{y}" r="2.6"/>'


def curves(steps: Sequence[float], series: Sequence[Series], title: str) -> Markup:
    """One small chart of training: steps to the right, one line a series, its last value as a dot."""
    width, height, left, right, bottom = 320, 150, 44, 312, 126
    values = [value for line in series for value in line.values if math.isfinite(value)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = (high - low) * 0.08 or max(abs(high), 1.0) * 0.05
    up = Scale(low - margin, high + margin, bottom, 8)
    across = Scale(steps[0], max(steps[-1], steps[0] + 1), left, right)
    body = []
    for tick in (low, (low + high) / 2, high) if high > low else (low,):
        body.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{up(tick)}" y2="{up(tick)}"/>')
        body.append(f'<text x="{left - 6}" y="{up(tick) + 4}" text-anchor="end">{_short(tick)}</text>')
    body.append(f'<text x="{left}" y="{height - 6}">{steps[0]:g}</text>')
    body.append(f'<text x="{right}" y="{height - 6}" text-anchor="end">step {steps[-1]:g}</text>')
    for number, line in enumerate(series):
        body += _line(line, [across(step) for step in steps], up, f"line-{number}")
    return svg(width, height, title, body, "curves")


def calibration(bins: Sequence[tuple[float, float, int]], title: str) -> Markup:
    """What a rating is worth: the share labelled good (upwards) by rating, and as a dashed line that of all answers.

    Args:
        bins: (mean rating, share labelled good, answers), lowest rating first.
        title: what it says, in words.
    """
    width, height, left, right, bottom = 320, 150, 44, 312, 126
    across, up = Scale(LOWEST, HIGHEST, left, right), Scale(0.0, 1.0, bottom, 8)
    body = []
    for share in (0.0, 0.5, 1.0):
        body.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{up(share)}" y2="{up(share)}"/>')
        body.append(f'<text x="{left - 6}" y="{up(share) + 4}" text-anchor="end">{share:g}</text>')
    for rating in (LOWEST, 4.0, 7.0, HIGHEST):
        body.append(f'<text x="{across(rating)}" y="{height - 6}" text-anchor="middle">{rating:g}</text>')
    of_all = up(sum(share * n for _, share, n in bins) / sum(n for *_, n in bins))
    body.append(f'<line class="base" x1="{left}" x2="{right}" y1="{of_all}" y2="{of_all}"/>')
    places = [(across(rating), up(share)) for rating, share, _ in bins]
    body.append(f'<polyline class="line-0" points="{" ".join(f"{x},{y}" for x, y in places)}"/>')
    body += [f'<circle class="line-0" cx="{x}" cy="{y}" r="3"/>' for x, y in places]
    return svg(width, height, title, body, "curves")


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
