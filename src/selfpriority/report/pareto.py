"""Draws systems by two objectives: who is better on both, and what one objective costs on the other.

Pure functions, as in `figures.py`. Knows no summary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from selfpriority.report.figures import Estimate, Frame, Scale, axis_names, svg

WIDTH, HEIGHT = 420, 340
FRAME = Frame(38, WIDTH - 12, 12, HEIGHT - 44)
LINE_HEIGHT, LETTER = 13, 7.0
"""Of a name beside its point, in viewBox units."""


@dataclass(frozen=True)
class Place:
    """Where a system stands on its first two objectives."""

    name: str
    primary: Estimate
    secondary: Estimate

    def is_beaten_by(self, other: Place) -> bool:
        """Whether the other is at least as good on both objectives and better on one."""
        own, its = (self.primary.value, self.secondary.value), (other.primary.value, other.secondary.value)
        return its[0] >= own[0] and its[1] >= own[1] and its != own


@dataclass(frozen=True)
class _Label:
    """A name beside a point: from `start` to `end` on the line `baseline`."""

    name: str
    start: float
    end: float
    baseline: float

    def covers(self, other: _Label) -> bool:
        is_near = abs(self.baseline - other.baseline) < LINE_HEIGHT
        return is_near and self.start < other.end and other.start < self.end

    def drawn(self) -> str:
        x, y = round(self.start, 2), round(self.baseline, 2)
        return f'<text class="system" x="{x}" y="{y}">{escape(self.name)}</text>'


def pareto(places: Sequence[Place], names: Sequence[str], title: str) -> Markup:
    """Systems by two objectives with their intervals; a stepped line joins those that no other system beats on both."""
    across = _axis([place.primary for place in places], FRAME.left, FRAME.right)
    up = _axis([place.secondary for place in places], FRAME.bottom, FRAME.top)
    front = [place for place in places if not any(place.is_beaten_by(other) for other in places)]
    body = [*_grid(across, up), *_front(front, across, up)]
    labels: list[_Label] = []
    for number, place in enumerate(places):
        kind = "first" if number == 0 else "best" if place in front else "beaten"
        body += _point(place, kind, across, up)
        labels.append(_label(place.name, across(place.primary.value), up(place.secondary.value), labels))
    body += [label.drawn() for label in labels]
    return svg(WIDTH, HEIGHT, title, [*body, *axis_names(names, FRAME, HEIGHT)], "pareto")


def _axis(estimates: Sequence[Estimate], start: float, end: float) -> Scale:
    low, high = min(one.low for one in estimates), max(one.high for one in estimates)
    margin = max((high - low) * 0.08, 0.1)
    return Scale(low - margin, high + margin, start, end)


def _front(front: Sequence[Place], across: Scale, up: Scale) -> list[str]:
    """Below and left of the line somebody is better on both."""
    ordered = sorted(front, key=lambda place: place.primary.value)
    if len(ordered) < 2:
        return []
    first, *others = ordered
    steps = "".join(f"V{up(place.secondary.value)}H{across(place.primary.value)}" for place in others)
    return [f'<path class="front" d="M{across(first.primary.value)} {up(first.secondary.value)}{steps}"/>']


def _point(place: Place, kind: str, across: Scale, up: Scale) -> list[str]:
    x, left, right = (across(value) for value in (place.primary.value, place.primary.low, place.primary.high))
    y, low, high = (up(value) for value in (place.secondary.value, place.secondary.low, place.secondary.high))
    return [
        f'<path class="range {kind}" d="M{left} {y}H{right}M{x} {low}V{high}"/>',
        f'<circle class="{kind}" cx="{x}" cy="{y}" r="5"/>',
    ]


def _grid(across: Scale, up: Scale) -> list[str]:
    body = []
    for tick in _ticks(across.low, across.high):
        x = across(tick)
        body.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{FRAME.top}" y2="{FRAME.bottom}"/>')
        body.append(f'<text x="{x}" y="{FRAME.bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in _ticks(up.low, up.high):
        y = up(tick)
        body.append(f'<line class="grid" x1="{FRAME.left}" x2="{FRAME.right}" y1="{y}" y2="{y}"/>')
        body.append(f'<text x="{FRAME.left - 7}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    return body


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers inside a range, at most seven of them."""
    step = next((step for step in (0.1, 0.2, 0.5, 1.0, 2.0) if (high - low) / step <= 7), 5.0)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 6) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _label(name: str, x: float, y: float, others: Sequence[_Label]) -> _Label:
    """The name beside its point inside the frame, on the nearest line where no other name stands."""
    length = LETTER * len(name)
    start = x + 10 if x + 10 + length <= FRAME.right else max(FRAME.left, x - 10 - length)
    lines = [y - 8 + LINE_HEIGHT * step for n in range(len(others) + 1) for step in (n, -n)]
    inside = [line for line in lines if FRAME.top + 10 <= line <= FRAME.bottom - 3]
    tried = [_Label(name, start, start + length, line) for line in (inside or lines)]
    return next((label for label in tried if not any(label.covers(other) for other in others)), tried[0])
