"""Draws the page's figures: numbers in, SVG out, colours by class name so that the style sheet owns them.

Pure functions. Widths are in viewBox units near a phone's pixels, so that text stays legible there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from selfpriority.report.rows import Point


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
    """Shares of a whole as one bar; each part is (class name, share)."""
    body, x = [], 0.0
    for name, share in parts:
        width = round(120 * share, 2)
        if width:
            body.append(f'<rect class="{escape(name)}" x="{round(x, 2)}" y="0" width="{width}" height="10"/>')
        x += width
    return svg(120, 10, title, body, "shares")


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
