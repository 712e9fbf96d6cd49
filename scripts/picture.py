"""Draws the README's picture from the record of the demo's runs: what every system gained on vanilla, by each judge.

`python scripts/picture.py --write` writes docs/demo.svg from benchmarks/order.json; a test compares the two.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD, PICTURE = ROOT / "benchmarks" / "order.json", ROOT / "docs" / "demo.svg"
SYSTEMS = {
    "spa": "SPA",
    "sum": "plain sum",
    "swapped": "order swapped",
    "constitution": "system prompt",
}
JUDGES = {"demo-eval": "heads on people's labels", "outside": "another model (outside)"}
OBJECTIVES = ("harmlessness", "helpfulness")
SPLIT = "apart"
"""The held-out prompts of the recipe as it ships; the record holds older ones too."""
LEFT, PANEL, GAP, TOP, REACH = 118, 150, 14, 62, 1.4
RUN, BETWEEN = 6, 15
"""Height of a run's line, and what lies between two systems."""
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#24292f}.small{font-size:11px;fill:#57606a}.spa{font-weight:700}"
    ".axis{stroke:#8c959f}.grid{stroke:#d0d7de}.up{stroke:#1a7f37;fill:#1a7f37}.down{stroke:#cf222e;fill:#cf222e}"
    ".none{stroke:#6e7781;fill:#6e7781}"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.axis{stroke:#6e7681}"
    ".grid{stroke:#30363d}"
    ".up{stroke:#3fb950;fill:#3fb950}.down{stroke:#f85149;fill:#f85149}.none{stroke:#9198a1;fill:#9198a1}}"
)


@dataclass(frozen=True)
class Gain:
    """A system minus vanilla in one run, by one judge on one objective."""

    mean: float
    low: float
    high: float

    @property
    def kind(self) -> str:
        """Whether the interval is above zero, below, or holds it."""
        return "up" if self.low > 0 else "down" if self.high < 0 else "none"


def gains(rows: list[dict[str, Any]], system: str, judge: str, objective: str) -> list[Gain]:
    """Of every run in the record, in order."""
    wanted = {"recipe": "demo", "split": SPLIT, "system": system, "judge": judge, "objective": objective}
    found = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return [Gain(*(row[name] for name in ("mean", "low", "high"))) for row in found]


def picture(rows: list[dict[str, Any]]) -> str:
    """The drawing as SVG."""
    panels = [(judge, objective) for judge in JUDGES for objective in OBJECTIVES]
    n_runs = len(gains(rows, "spa", *panels[0]))
    width, height = LEFT + len(panels) * (PANEL + GAP), _row(len(SYSTEMS) - 0.5, n_runs) + 34
    body = [part for i, panel in enumerate(panels) for part in _panel(rows, panel, LEFT + i * (PANEL + GAP))]
    names = [
        f'<text x="{LEFT - 10}" y="{_row(n, n_runs) + 4}" text-anchor="end" class="{system}">{escape(name)}</text>'
        for n, (system, name) in enumerate(SYSTEMS.items())
    ]
    runs = "one run: one seed on one machine" if n_runs == 1 else f"{n_runs} runs, and a bar at their mean"
    foot = f"points gained over the vanilla model, on a scale from 1 to 10; 95 % intervals; {runs}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n'
        f"<title>What every system of the demo gained over the vanilla model</title>\n<style>{STYLE}</style>\n"
        + "\n".join([*names, *body, f'<text x="{LEFT}" y="{height - 6}" class="small">{escape(foot)}</text>'])
        + "\n</svg>\n"
    )


def _panel(rows: list[dict[str, Any]], panel: tuple[str, str], left: float) -> Iterator[str]:
    judge, objective = panel
    n_runs = len(gains(rows, "spa", judge, objective))
    bottom = _row(len(SYSTEMS) - 0.5, n_runs)
    if objective == OBJECTIVES[0]:
        yield f'<text x="{left}" y="16" class="small">judge: {escape(JUDGES[judge])}</text>'
    yield f'<text x="{left + PANEL / 2}" y="38" text-anchor="middle">{objective}</text>'
    for value in (-1.0, 0.0, 1.0):
        x = _x(value, left)
        yield f'<line class="{"grid" if value else "axis"}" x1="{x}" x2="{x}" y1="{TOP - 8}" y2="{bottom}"/>'
        said = f"{value:+.0f}" if value else "0"
        yield f'<text x="{x}" y="{TOP - 12}" text-anchor="middle" class="small">{said}</text>'
    for n, system in enumerate(SYSTEMS):
        found = gains(rows, system, judge, objective)
        for k, gain in enumerate(found):
            yield from _whisker(gain, left, _row(n, n_runs) + RUN * (k - (len(found) - 1) / 2))
        if len(found) > 1:
            x, y, half = _x(fmean(gain.mean for gain in found), left), _row(n, n_runs), RUN * len(found) / 2 + 2
            yield f'<line class="axis" stroke-width="2" x1="{x}" x2="{x}" y1="{y - half}" y2="{y + half}"/>'


def _whisker(gain: Gain, left: float, y: float) -> Iterator[str]:
    low, high = _x(gain.low, left), _x(gain.high, left)
    yield f'<line class="{gain.kind}" stroke-width="2" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
    yield f'<circle class="{gain.kind}" cx="{_x(gain.mean, left)}" cy="{y}" r="3"/>'


def _x(value: float, left: float) -> float:
    return round(left + PANEL * (max(-REACH, min(REACH, value)) + REACH) / (2 * REACH), 1)


def _row(n: float, n_runs: int) -> float:
    """Middle of system `n`."""
    return TOP + (RUN * n_runs + BETWEEN) * (n + 0.5)


def main() -> None:
    """Print the picture, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write it into docs/demo.svg")
    drawn = picture(json.loads(RECORD.read_text(encoding="utf-8")))
    if parser.parse_args().write:
        PICTURE.write_text(drawn, encoding="utf-8")
    else:
        print(drawn, end="")


if __name__ == "__main__":
    main()
