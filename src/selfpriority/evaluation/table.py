"""The summary of an evaluation as Markdown, for `table.md` and the terminal. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfpriority.evaluation.utility import alarms_in_words, perplexity_lines

Json = dict[str, Any]


def table(summary: Mapping[str, Any]) -> str:
    """Means, differences, wins and behaviour. Raises ValueError without a system."""
    if not summary["systems"]:
        raise ValueError("no system was evaluated")
    columns = list(next(iter(summary["systems"].values())))
    lengths = {name: row["words"] for name, row in summary["behaviour"].items()}
    means = [
        [name, *map(_cell, row.values()), "-" if lengths[name] is None else f"{lengths[name]:g}"]
        for name, row in summary["systems"].items()
    ]
    blocks = [_rows(["system", *columns, "words (median)"], means)]
    if summary["difference"]:
        contests = [
            [_versus(key), *map(_change, row.values()), _words(row)] for key, row in summary["difference"].items()
        ]
        title = "Difference on the same prompts, 95 % interval, p after Holm's correction, * significant at 5 %:"
        blocks += [[title], _rows(["", *columns, "words (mean)"], contests)]
    if summary.get("pairwise"):
        heads = ["", *summary["objectives"], "words (mean)"]
        blocks += [["Won / tied / lost:"], _rows(heads, _won(summary["pairwise"]))]
    if summary.get("judges"):
        blocks += [["Other judges of the same answers:"], _other_judges(summary), _agreement(summary["agreement"])]
    blocks += [_behaviour(summary["behaviour"]), list(lost_in_words(summary))]
    if "perplexity" in summary:
        blocks += [perplexity_lines(summary["perplexity"]), alarms_in_words(summary["perplexity"])]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def lost_in_words(summary: Mapping[str, Any]) -> Iterator[str]:
    """Where held-out prompts went that no figure rests on, one sentence for the prompts and one for every system."""
    prompts = summary.get("prompts", {"n": 0, "dropped": {}})
    if prompts["dropped"]:
        yield f"Left out of the held-out prompts: {_counted(prompts['dropped'])}."
    for system, reasons in summary.get("drops", {}).items():
        if reasons:
            yield f"{system} has no answer to {sum(reasons.values())} of {prompts['n']} prompts: {_counted(reasons)}."


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in reasons.items())


def _behaviour(behaviour: Mapping[str, Json]) -> list[str]:
    kinds = list(dict.fromkeys(kind for row in behaviour.values() for kind in row["refusal"]))
    heads = ["system", *(f"refusals, {kind}" for kind in kinds), "over-refusals", "boilerplate", "relevance", "cut"]
    rows = [
        [
            name,
            *(_percent(row["refusal"].get(kind)) for kind in kinds),
            _percent(row["over_refusal"]),
            _percent(row["boilerplate"]),
            "-" if row["relevance"] is None else f"{row['relevance']:.2f}",
            _percent(row["cut"]),
        ]
        for name, row in behaviour.items()
    ]
    return _rows(heads, rows)


def _other_judges(summary: Mapping[str, Any]) -> list[str]:
    objectives = summary["objectives"]
    rows = [
        [f"{judge}: {_versus(key)}", *(_change(row[name]) for name in objectives)]
        for judge, found in summary["judges"].items()
        for key, row in found["difference"].items()
    ]
    return _rows(["", *objectives], rows)


def _agreement(agreement: Json) -> list[str]:
    """Of the evaluation judge and all others, 1 where they rate alike and 0 at chance."""
    alphas = [f"{name} {_decimal(row['interval'])}" for name, row in agreement["alpha"].items()]
    return [f"Krippendorff's alpha of all judges, interval scale: {', '.join(alphas)}."]


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _won(pairwise: Mapping[str, Json]) -> list[list[str]]:
    return [[_versus(key), *(_outcome(cell) for cell in row.values()), _words(row)] for key, row in pairwise.items()]


def _outcome(cell: Json) -> str:
    if not cell["n"]:
        return "-"
    low, high = cell["intervals"]["win"]
    shares = " / ".join(_percent(cell[name]) for name in ("win", "tie", "lose"))
    orders = f", orders disagree {cell['flip_rate']:.0%}" if "first_shown" in cell else ""
    unread = sum(cell.get("unread", {}).values())
    lost = f", {unread} unread" if unread else ""
    return f"{shares} (won {low:.0%} to {high:.0%}, n = {cell['n']}{orders}{lost}){_star(cell)}"


def _words(row: Mapping[str, Json]) -> str:
    """Of the first measure; the others rest on nearly the same prompts."""
    longer = next(iter(row.values()))["words"]
    return "-" if longer is None else f"{longer:+.1f}"


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    written = (heads, ["---"] * len(heads), *rows)
    return [f"| {' | '.join(map(_plain, cells))} |" for cells in written]


def _plain(cell: str) -> str:
    """A cell that ends neither itself nor its row: kinds of prompts are called what a data set says."""
    return " ".join(cell.split()).replace("|", "\\|")


def _versus(key: str) -> str:
    return key.replace("_vs_", " against ")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _cell(value: Json) -> str:
    unrated = f", {value['unrated']} unrated" if value.get("unrated") else ""
    if value["mean"] is None:
        return f"- (n = 0{unrated})"
    return f"{value['mean']:.2f} [{value['low']:.2f}, {value['high']:.2f}] (n = {value['n']}{unrated})"


def _change(value: Json) -> str:
    if value["mean"] is None:
        return "-"
    p = "< 0.001" if value["p_holm"] < 0.001 else f"= {value['p_holm']:.3f}"
    return f"{value['mean']:+.2f} [{value['low']:+.2f}, {value['high']:+.2f}] (p {p}){_star(value)}"


def _star(value: Json) -> str:
    return " *" if value["significant"] else ""
