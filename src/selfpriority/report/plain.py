"""Numbers and names as a reader of the page sees them, with real signs. Knows strings and numbers only."""

from __future__ import annotations

from typing import Any

from selfpriority.plain_text import clean

DASH = "\N{EN DASH}"


def percent(share: float | None) -> str:
    """A share as a whole percentage."""
    return DASH if share is None else f"{share:.0%}".replace("%", "\u2009%")


def words(name: str) -> str:
    """A name from a file as a reader would write it."""
    if name.startswith("HH_"):
        return f"HH, \N{GREEK SMALL LETTER LAMDA}\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{name.removeprefix('HH_')}"
    return name.replace("_", " ")


def signed(value: float, decimals: int = 2) -> str:
    """A difference with its sign."""
    return f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def probability(p: float | None) -> str:
    """A p value, three decimals."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def number(value: Any) -> str:
    """A number of unknown size, as many decimals as its size deserves; a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return DASH if value is None else clean(str(value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"
