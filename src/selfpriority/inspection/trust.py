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
        for measured in report["objectives"]:
            rows.append([ROLES[role], measured["objective"], *_cells(measured)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for role, report in reports.items():
        verdict = "usable" if report["usable"] else "not usable: " + "; ".join(report["reasons"])
        lines.append(f"{ROLES[role]} ({report['judge']}, {report['method']}): {verdict}")
    return "\n".join(lines)


def _cells(measured: Mapping[str, Any]) -> list[str]:
    auc, pairs = measured["auc"], measured["pair_accuracy"]
    return [
        "-" if auc is None else f"{auc['estimate']:.2f}",
        "-" if auc is None else f"{auc['low']:.2f} to {auc['high']:.2f}",
        "-" if pairs is None else f"{pairs['estimate']:.2f}",
        str(measured["n"]),
        _share(measured["at_ceiling"]),
        _share(measured["unrated"]),
        _share(measured["disavowal_flips"]),
        "-" if measured["rank_correlation"] is None else f"{measured['rank_correlation']:.2f}",
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
