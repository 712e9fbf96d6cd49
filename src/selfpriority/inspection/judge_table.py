"""How far each judge can be trusted, as text for a terminal. Reads `judge.json`'s form, measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ROLES = {
    "train": "training judge",
    "evaluate": "evaluation judge",
    "words": "the model asked in words",
    "comparer": "comparing judge",
}
HEADS = ("judge", "objective", "AUC", "95 % interval", "pairs", "n", "ceiling", "unrated", "flips", "wording", "source")


def trust_table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per judge and objective, then bias, attacks and calibration, then the verdict on each judge."""
    rating = {role: report for role, report in reports.items() if role != "comparer"}
    rows = [list(HEADS)]
    for role, report in rating.items():
        for measured in report["objectives"]:
            rows.append([_name(role), measured["objective"], *_cells(measured)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for role, report in rating.items():
        for measured in report["objectives"]:
            lines += [f"{_name(role)}, {measured['objective']}: {line}" for line in _details(measured)]
    if "comparer" in reports:
        lines += [f"{_name('comparer')}, {_compared(row)}" for row in reports["comparer"]["objectives"]]
    for role, report in reports.items():
        verdict = "usable" if report["usable"] else "not usable: " + "; ".join(report["reasons"])
        lines.append(f"{_name(role)} ({report['judge']}, {report['method']}): {verdict}")
    return "\n".join(lines)


def _name(role: str) -> str:
    """What a role of `judge.json` is called; a further judge by the recipe's own name for it."""
    return ROLES.get(role) or f"further judge {role.removeprefix('more_judges.')}"


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
        measured["source"],
    ]


def _details(measured: Mapping[str, Any]) -> Iterator[str]:
    attacks, bias = measured.get("attacks"), measured.get("bias") or {}
    if attacks and attacks["flips"] is not None:
        kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in attacks["by_kind"].items())
        yield (
            f"{attacks['flips']:.0%} of {attacks['n']} attacks on bad answers succeed ({kinds}); "
            f"ratings move by {attacks['shift']:+.2f}, under a neutral sentence by {_points(attacks['neutral_shift'])}"
        )
    if bias.get("length") is not None:
        yield f"rank correlation with length among answers of one label {bias['length']:+.2f}"
    if bias.get("refusal") is not None:
        yield f"{bias['n_refusals']} refusals, rated {bias['refusal']:+.2f} against other answers of the same label"
    if bias.get("n_pairs"):
        yield (
            f"prefers the longer of two in {bias['longer_preferred']:.0%} of {bias['n_pairs']} pairs, "
            f"the labels in {bias['longer_chosen']:.0%}"
        )
    if measured.get("calibration"):
        curve = ", ".join(f"{part['rating']:.1f}: {part['positive']:.0%}" for part in measured["calibration"])
        yield f"share labelled good by rating: {curve}"


def _compared(row: Mapping[str, Any]) -> str:
    """What a judge that compares makes of the labelled pairs of one objective."""
    told = []
    if row["n"]:
        agreed = row["agreement"]
        told.append(
            f"agrees with {row['win']:.0%} of {row['n']} pairs, contradicts {row['lose']:.0%}, ties {row['tie']:.0%}"
        )
        told.append(f"with ties as half {agreed['estimate']:.2f} ({agreed['low']:.2f} to {agreed['high']:.2f})")
        told.append(f"orders disagree on {row['flip_rate']:.0%}, first place gets {_share(row['first_shown'])}")
    attacks = row["attacks"]
    if attacks and attacks["n"]:
        kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in attacks["by_kind"].items())
        told.append(
            f"{attacks['flips']:.0%} of {attacks['n']} attacks on the worse answer take the verdict from the better"
        )
        told[-1] += f" one ({kinds}), {attacks['to_worse']:.0%} give it to the worse one"
    if row["unread"]:
        told.append("unread: " + ", ".join(f"{n} {reason}" for reason, n in row["unread"].items()))
    return f"{row['objective']}: {'; '.join([*told, 'pairs from ' + row['source']])}"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
