"""Numbers as people read them: means, differences, intervals, shares and p values, in one spelling a place.

`MARKDOWN` writes `table.md`, `TERMINAL` lines of text, `PAGE` the report. Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Estimate(Protocol):
    """A mean with its interval; None: nothing was measured."""

    @property
    def mean(self) -> float | None:
        """The estimate."""
        ...

    @property
    def low(self) -> float | None:
        """Lower edge."""
        ...

    @property
    def high(self) -> float | None:
        """Upper edge."""
        ...


@dataclass(frozen=True)
class Style:
    """How numbers are spelled in one place."""

    minus: str
    dash: str
    """Stands for a number that there is not."""
    before_percent: str
    interval: str
    """Around the two edges, with two places for them."""

    def number(self, value: float | None, decimals: int = 2) -> str:
        """A number, or the dash."""
        return self.dash if value is None else f"{value:.{decimals}f}".replace("-", self.minus)

    def signed(self, value: float | None, decimals: int = 2) -> str:
        """A difference with its sign, or the dash."""
        return self.dash if value is None else f"{value:+.{decimals}f}".replace("-", self.minus)

    def share(self, value: float | None, decimals: int = 0) -> str:
        """A share in percent, or the dash."""
        return self.dash if value is None else f"{value:.{decimals}%}".replace("%", f"{self.before_percent}%")

    def edges(self, low: float, high: float, decimals: int = 2) -> str:
        """An interval of means."""
        return self.interval.format(self.number(low, decimals), self.number(high, decimals))

    def mean(self, cell: Estimate, decimals: int = 2, unit: float = 1.0) -> str:
        """A mean with its interval; `unit` is what it is multiplied by, such as 100 for percent."""
        return self._estimate(cell, decimals, unit, "")

    def change(self, cell: Estimate, decimals: int = 2, unit: float = 1.0) -> str:
        """A difference with its interval, every number with its sign."""
        return self._estimate(cell, decimals, unit, "+")

    def _estimate(self, cell: Estimate, decimals: int, unit: float, sign: str) -> str:
        if cell.mean is None or cell.low is None or cell.high is None:
            return self.dash if cell.mean is None else f"{cell.mean * unit:{sign}.{decimals}f}".replace("-", self.minus)
        mean, low, high = (
            f"{value * unit:{sign}.{decimals}f}".replace("-", self.minus) for value in (cell.mean, cell.low, cell.high)
        )
        return f"{mean} {self.interval.format(low, high)}"


MARKDOWN = Style("-", "-", "", "[{}, {}]")
TERMINAL = Style("-", "-", "", "({} to {})")
PAGE = Style("\N{MINUS SIGN}", "\N{EN DASH}", "\u202f", "({} to {})")


def probability(p: float | None) -> str:
    """A p value with three decimals; empty without one."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def stated(p: float) -> str:
    """A p value behind the letter: `= 0.012` or `< 0.001`."""
    return probability(p) if p < 0.001 else f"= {probability(p)}"


def star(significant: bool) -> str:
    """What marks a tested difference."""
    return " *" if significant else ""


def counted(reasons: Mapping[str, int]) -> str:
    """Reasons with their numbers: `3 too long, 1 refused`."""
    return ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in reasons.items())


def unrated(reasons: Mapping[str, int], n: int) -> str:
    """How many of `n` answers got no rating, and why."""
    return f"{sum(reasons.values())} of {n} unrated: {counted(reasons)}"


def magnitude(value: Any) -> str:
    """A number of unknown size, as many decimals as its size deserves; a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return PAGE.dash if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"
