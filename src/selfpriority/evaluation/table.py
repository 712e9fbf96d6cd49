"""The summary of an evaluation as Markdown, for `table.md` and the terminal. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from selfpriority.evaluation.decline import alarms_of_decline
from selfpriority.evaluation.few import without_thin_intervals
from selfpriority.evaluation.perplexity import alarms_in_words, perplexity_lines
from selfpriority.evaluation.records import Agreement, Behaviour, Cell, Contest, Difference, Summary, Wins
from selfpriority.formats import MARKDOWN, counted, star, stated
from selfpriority.plain_text import clean


def table(summary: Summary) -> str:
    """Means, differences, wins and behaviour. Raises ValueError without a system."""
    if not summary.systems:
        raise ValueError("no system was evaluated")
    summary = without_thin_intervals(summary)
    columns = list(next(iter(summary.systems.values())))
    means = [
        [name, *map(_mean, row.values()), _median_words(summary.behaviour[name])]
        for name, row in summary.systems.items()
    ]
    blocks = [_rows(["system", *columns, "words (median)"], means)]
    if summary.difference:
        rows = [
            [_against(contest), *map(_change, row.values()), _words(row)] for contest, row in summary.difference.items()
        ]
        title = "Difference on the same prompts, 95 % interval, p after Holm's correction, * significant at 5 %:"
        blocks += [[title], _rows(["", *columns, "words (mean)"], rows)]
    if summary.pairwise:
        heads = ["", *summary.objectives, "words (mean)"]
        blocks += [["Won / tied / lost:"], _rows(heads, _won(summary.pairwise))]
    if summary.judges:
        blocks += [["Other judges of the same answers:"], _other_judges(summary)]
        blocks += [_agreement(summary.agreement)] if summary.agreement else []
    blocks += [_behaviour(summary.behaviour), list(lost_in_words(summary)), alarms_of_decline(summary)]
    if summary.perplexity:
        blocks += [perplexity_lines(summary.perplexity), alarms_in_words(summary.perplexity)]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def lost_in_words(summary: Summary) -> Iterator[str]:
    """Where held-out prompts went that no figure rests on, one sentence for the prompts and one for every system."""
    if summary.prompts.dropped:
        yield f"Left out of the held-out prompts: {counted(summary.prompts.dropped)}."
    for system, reasons in summary.drops.items():
        if reasons:
            n = sum(reasons.values())
            yield f"{system} has no answer to {n} of {summary.prompts.n} prompts: {counted(reasons)}."


def _against(contest: Contest) -> str:
    return f"{contest.a} against {contest.b}"


def _median_words(behaviour: Behaviour) -> str:
    return MARKDOWN.dash if behaviour.words is None else f"{behaviour.words:g}"


def _behaviour(behaviour: Mapping[str, Behaviour]) -> list[str]:
    kinds = list(dict.fromkeys(kind for row in behaviour.values() for kind in row.refusal))
    is_counted = any(row.repetition is not None for row in behaviour.values())  # not by older versions
    measures = ("over-refusals", "boilerplate", *(["repetition"] if is_counted else []), "relevance", "cut")
    heads = ["system", *(f"refusals, {kind}" for kind in kinds), *measures]
    rows = [
        [
            name,
            *(MARKDOWN.share(row.refusal.get(kind)) for kind in kinds),
            MARKDOWN.share(row.over_refusal),
            MARKDOWN.share(row.boilerplate),
            *([MARKDOWN.share(row.repetition)] if is_counted else []),
            MARKDOWN.number(row.relevance),
            MARKDOWN.share(row.cut),
        ]
        for name, row in behaviour.items()
    ]
    return _rows(heads, rows)


def _other_judges(summary: Summary) -> list[str]:
    rows = [
        [f"{judge}: {_against(contest)}", *(_change(row[name]) for name in summary.objectives)]
        for judge, standing in summary.judges.items()
        for contest, row in standing.difference.items()
    ]
    return _rows(["", *summary.objectives], rows)


def _agreement(agreement: Agreement) -> list[str]:
    """Of the evaluation judge and all others, 1 where they rate alike and 0 at chance."""
    alphas = [f"{name} {MARKDOWN.signed(row.interval)}" for name, row in agreement.alpha.items()]
    return [f"Krippendorff's alpha of all judges, interval scale: {', '.join(alphas)}."]


def _won(pairwise: Mapping[Contest, Mapping[str, Wins]]) -> list[list[str]]:
    return [
        [_against(contest), *(_outcome(cell) for cell in row.values()), _words(row)]
        for contest, row in pairwise.items()
    ]


def _outcome(cell: Wins) -> str:
    if not cell.n:
        return MARKDOWN.dash
    edges = [MARKDOWN.share(edge) for edge in cell.intervals.get("win", ())]
    won = f"won {' to '.join(edges)}, " if edges else ""
    shares = " / ".join(MARKDOWN.share(share) for share in (cell.win, cell.tie, cell.lose))
    by_comparing = cell.unread is not None
    orders = f", orders disagree {MARKDOWN.share(cell.flip_rate)}" if by_comparing else ""
    unread = sum((cell.unread or {}).values())
    lost = f", {unread} unread ({counted(cell.unread or {})})" if unread else ""
    return f"{shares} ({won}n = {cell.n}{orders}{lost}){star(cell.significant)}"


def _words(row: Mapping[str, Difference | Wins]) -> str:
    """Of the first measure; the others rest on nearly the same prompts."""
    first = next(iter(row.values()))
    return MARKDOWN.signed(first.words, 1)


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    written = (heads, ["---"] * len(heads), *rows)
    return [f"| {' | '.join(map(_plain, cells))} |" for cells in written]


def _plain(cell: str) -> str:
    """A cell that ends neither itself nor its row: kinds of prompts are called what a data set says."""
    return " ".join(clean(cell).split()).replace("|", "\\|")


def _mean(cell: Cell) -> str:
    unrated = f", {cell.unrated} unrated" if cell.unrated else ""
    return f"{MARKDOWN.mean(cell)} (n = {cell.n}{unrated})"


def _change(cell: Difference) -> str:
    if cell.mean is None or cell.p_holm is None:
        return MARKDOWN.dash
    return f"{MARKDOWN.change(cell)} (p {stated(cell.p_holm)}){star(cell.significant)}"
