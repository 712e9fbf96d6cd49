"""How far each judge can be trusted, as a table for a terminal. Reads `judge.json`'s form, measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLES = {"train": "training judge", "evaluate": "evaluation judge", "words": "the model asked in words"}
HEADS = ("judge", "objective", "AUC", "95 % interval", "pairs", "n", "ceiling", "unrated", "flips", "wording")


def trust_table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per judge and objective, then the verdict on each judge in words."""
    rows = [list(HEADS)]
    for role, report in reports.items():
        for name, measured in report["objectives"].items():
            rows.append([ROLES[role], name, *_cells(measured)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for role, report in reports.items():
        verdict = "usable" if report["usable"] else "not usable: " + "; ".join(report["reasons"])
        lines.append(f"{ROLES[role]} ({report['judge']}, {report['method']}): {verdict}")
    return "\n".join(lines)


def _cells(measured: Mapping[str, Any]) -> list[str]:
    interval = "-" if measured["auc"] is None else f"{measured['auc_low']:.2f} to {measured['auc_high']:.2f}"
    return [
        _number(measured["auc"]),
        interval,
        _number(measured["pair_accuracy"]),
        str(measured["n"]),
        _share(measured["at_ceiling"]),
        _share(measured["unrated"]),
        _share(measured["disavowal_flips"]),
        _number(measured["rank_correlation"]),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
