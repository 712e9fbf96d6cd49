"""How far each judge can be trusted, as text for a terminal. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from selfpriority.formats import counted
from selfpriority.judges.reports import COMPARER, ComparedObjective, JudgeChecks, ObjectiveReport

ROLES = {
    "train": "training judge",
    "evaluate": "evaluation judge",
    "words": "the model asked in words",
    "comparer": "comparing judge",
}
HEADS = ("judge", "objective", "AUC", "95 % interval", "pairs", "n", "ceiling", "unrated", "flips", "wording", "source")


def trust_table(checks: JudgeChecks) -> str:
    """One row per judge and objective, then bias, attacks and calibration, then the verdict on each judge."""
    measured = [(role, row) for role, report in checks.raters.items() for row in report.objectives]
    rows = [HEADS, *((_name(role), row.objective, *_cells(row)) for role, row in measured)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{_name(role)}, {row.objective}: {line}" for role, row in measured for line in _details(row)]
    if checks.comparer is not None:
        lines += [f"{_name(COMPARER)}, {_compared(row)}" for row in checks.comparer.objectives]
    for role, report in checks.by_role().items():
        verdict = "usable" if report.usable else "not usable: " + "; ".join(report.reasons)
        lines.append(f"{_name(role)} ({report.judge}, {report.method}): {verdict}")
    return "\n".join(lines)


def _name(role: str) -> str:
    """What a role of `judge.json` is called; a further judge by the recipe's own name for it."""
    return ROLES.get(role) or f"further judge {role.removeprefix('more_judges.')}"


def _cells(row: ObjectiveReport) -> tuple[str, ...]:
    auc, pairs, wording = row.auc, row.pair_accuracy, row.rank_correlation
    return (
        "-" if auc is None else f"{auc.estimate:.2f}",
        "-" if auc is None else f"{auc.low:.2f} to {auc.high:.2f}",
        "-" if pairs is None else f"{pairs.estimate:.2f}",
        str(row.n),
        _share(row.at_ceiling),
        _share(row.unrated),
        _share(row.disavowal_flips),
        "-" if wording is None else f"{wording:.2f}",
        row.source,
    )


def _details(row: ObjectiveReport) -> Iterator[str]:
    attacks, bias = row.attacks, row.bias
    if row.unrated_reasons:
        yield row.unrated_in_words
    if attacks is not None and attacks.flips is not None:
        yield (
            f"{attacks.flips:.0%} of {attacks.n} attacks on bad answers succeed ({_kinds(attacks.by_kind)}); "
            f"ratings move by {_points(attacks.shift)}, under a neutral sentence by {_points(attacks.neutral_shift)}"
        )
    if bias is not None and bias.length is not None:
        yield f"rank correlation with length among answers of one label {bias.length:+.2f}"
    if bias is not None and bias.refusal is not None:
        yield f"{bias.n_refusals} refusals, rated {bias.refusal:+.2f} against other answers of the same label"
    if bias is not None and bias.n_pairs:
        yield (
            f"prefers the longer of two in {_share(bias.longer_preferred)} of {bias.n_pairs} pairs, "
            f"the labels in {_share(bias.longer_chosen)}"
        )
    if (echo := row.said_back) is not None:
        warning = ": it takes what is close to the question for an answer" if row.likes_an_echo else ""
        yield f"rates a good answer above the question, said back, in {_share(echo.estimate)} of {echo.n}{warning}"
    if row.calibration:
        curve = ", ".join(f"{part.rating:.1f}: {part.positive:.0%}" for part in row.calibration)
        yield f"share labelled good by rating: {curve}"


def _compared(row: ComparedObjective) -> str:
    """What a judge that compares makes of the labelled pairs of one objective."""
    told = []
    if (agreed := row.agreement) is not None:
        told.append(
            f"agrees with {_share(row.win)} of {row.n} pairs, contradicts {_share(row.lose)}, ties {_share(row.tie)}"
        )
        told.append(f"with ties as half {agreed.estimate:.2f} ({agreed.low:.2f} to {agreed.high:.2f})")
        told.append(f"orders disagree on {_share(row.flip_rate)}, first place gets {_share(row.first_shown)}")
    attacks = row.attacks
    if attacks is not None and attacks.n:
        told.append(
            f"{_share(attacks.flips)} of {attacks.n} attacks on the worse answer take the verdict from the better"
            f" one ({_kinds(attacks.by_kind)}), {_share(attacks.to_worse)} give it to the worse one"
        )
    if row.unread:
        told.append(f"unread: {counted(row.unread)}")
    return f"{row.objective}: {'; '.join([*told, 'pairs from ' + row.source])}"


def _kinds(by_kind: Mapping[str, float]) -> str:
    return ", ".join(f"{kind} {share:.0%}" for kind, share in by_kind.items())


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
