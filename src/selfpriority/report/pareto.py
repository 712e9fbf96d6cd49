"""Draws systems by two objectives: who is better on both, and what one objective costs on the other.

Pure functions, as in `figures.py`. Knows no summary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from selfpriority.report.figures import Estimate, Frame, Scale, axis_names, svg

FEW = 8
"""Up to that many systems a small picture has room for all names."""
LINE_HEIGHT, LETTER = 13, 7.0
"""Of a name beside its point, in viewBox units."""


@dataclass(frozen=True)
class Canvas:
    """How large the drawing is, in viewBox units."""

    width: int
    height: int
    kind: str
    """Its classes."""

    @property
    def frame(self) -> Frame:
        """The part that holds the systems."""
        return Frame(38, self.width - 12, 12, self.height - 44)


SMALL, LARGE = Canvas(420, 340, "pareto"), Canvas(860, 480, "pareto large")


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
    canvas = SMALL if len(places) <= FEW else LARGE
    frame = canvas.frame
    across = _axis([place.primary for place in places], frame.left, frame.right)
    up = _axis([place.secondary for place in places], frame.bottom, frame.top)
    front = [place for place in places if not any(place.is_beaten_by(other) for other in places)]
    body = [*_grid(across, up, frame), *_front(front, across, up)]
    labels: list[_Label] = []
    for number, place in enumerate(places):
        kind = "first" if number == 0 else "best" if place in front else "beaten"
        body += _point(place, kind, across, up)
        beside = Beside(place.name, across(place.primary.value), up(place.secondary.value))
        labels.append(_label(beside, labels, frame))
    body += [label.drawn() for label in labels]
    return svg(canvas.width, canvas.height, title, [*body, *axis_names(names, frame, canvas.height)], canvas.kind)


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


def _grid(across: Scale, up: Scale, frame: Frame) -> list[str]:
    body = []
    for tick in _ticks(across.low, across.high):
        x = across(tick)
        body.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{frame.top}" y2="{frame.bottom}"/>')
        body.append(f'<text x="{x}" y="{frame.bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in _ticks(up.low, up.high):
        y = up(tick)
        body.append(f'<line class="grid" x1="{frame.left}" x2="{frame.right}" y1="{y}" y2="{y}"/>')
        body.append(f'<text x="{frame.left - 7}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    return body


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers inside a range, at most seven of them."""
    step = next((step for step in (0.1, 0.2, 0.5, 1.0, 2.0) if (high - low) / step <= 7), 5.0)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 6) for n in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Beside:
    """A name, and the point that it is to stand beside."""

    name: str
    x: float
    y: float


def _label(beside: Beside, others: Sequence[_Label], frame: Frame) -> _Label:
    """The name right or left of its point inside the frame, on the nearest line where no other name stands."""
    x, length = beside.x, LETTER * len(beside.name)
    right, left = x + 10, max(frame.left, x - 10 - length)
    starts = [right, left] if right + length <= frame.right else [left]
    lines = [beside.y - 8 + LINE_HEIGHT * step for n in range(len(others) + 1) for step in (n, -n)]
    inside = [line for line in lines if frame.top + 10 <= line <= frame.bottom - 3]
    tried = [_Label(beside.name, start, start + length, line) for line in (inside or lines) for start in starts]
    return next((label for label in tried if not any(label.covers(other) for other in others)), tried[0])
