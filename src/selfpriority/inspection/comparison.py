"""All systems of a run in one table: what each judge says of each, beside what it costs. Reads the evaluation's files.

A row is one system under one judge on one objective (or HH_<lambda>) of one prompt set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from selfpriority.errors import InputError
from selfpriority.evaluation.files import EvaluationFiles
from selfpriority.evaluation.records import Cell, Contest, Difference, JudgeName, Standing, Summary
from selfpriority.evaluation.summary import MAIN_JUDGE
from selfpriority.evaluation.summary_file import read_summary
from selfpriority.formats import TERMINAL, star
from selfpriority.inspection.run_files import recipe_of
from selfpriority.recipe import TRAINED, VANILLA, Recipe
from selfpriority.records import Rating
from selfpriority.run import Run
from selfpriority.text_table import text_table

MAIN_SET = "main"
"""What the prompts of `evaluate.prompts` are called among several sets."""
_WORST = 10  # the worst decile is a tenth of the answers
_OWN_TITLES = {VANILLA: "the recipe's model as it is", TRAINED: "what the recipe trains"}


@dataclass(frozen=True)
class Change:
    """A system minus the first one on the same prompts; `significant` after Holm's correction."""

    mean: float | None
    low: float | None
    high: float | None
    p_holm: float | None
    significant: bool

    @classmethod
    def of(cls, found: Difference | None) -> Change | None:
        """Of a difference that was measured."""
        return None if found is None else cls(found.mean, found.low, found.high, found.p_holm, found.significant)


@dataclass(frozen=True)
class ComparedRow:
    """One system, judge and objective."""

    set: str
    system: str
    judge: str
    seed: int
    objective: str
    """Or HH_<lambda>."""
    mean: float | None
    low: float | None
    high: float | None
    n: int
    worst_decile: float | None
    """Mean of the lowest tenth of the ratings; None of HH_<lambda>."""
    gain: Change | None
    """Against the first system; None of that itself."""
    over_refusal: float | None
    """Share of refused prompts that nobody should refuse; None without such prompts."""
    over_refusal_gain: Change | None


@dataclass(frozen=True)
class Comparison:
    """All systems of a run."""

    run: str
    objectives: tuple[str, ...]
    titles: dict[str, str]
    """System -> what it is."""
    judges: dict[str, JudgeName]
    """Who is behind the name of the main judge, by prompt set."""
    rows: tuple[ComparedRow, ...]


def comparison(run: Run) -> Comparison:
    """What the evaluation of a run found.

    Raises:
        InputError: it has none yet.
    """
    recipe = recipe_of(run)
    folders = {MAIN_SET: run.evaluation, **{name: run.evaluation / name for name in recipe.evaluate.more_prompts}}
    files = {name: EvaluationFiles(folder) for name, folder in folders.items()}
    summaries = {name: read_summary(each.summary) for name, each in files.items() if each.summary.is_file()}
    if MAIN_SET not in summaries:
        raise InputError(f"{run.folder}: is not evaluated yet; `spa compare` with its recipe does that")
    rows = [row for name, summary in summaries.items() for row in _rows(name, summary, files[name], recipe.seed)]
    main = summaries[MAIN_SET]
    return Comparison(
        run=str(run.folder),
        objectives=main.objectives,
        titles=_titles(recipe, main),
        judges={name: summary.judge for name, summary in summaries.items() if summary.judge},
        rows=tuple(rows),
    )


def _titles(recipe: Recipe, summary: Summary) -> dict[str, str]:
    others = {name: other.title for name, other in recipe.evaluate.more_systems.items()}
    return {name: {**_OWN_TITLES, **others}.get(name, "") for name in summary.systems}


def _rows(name: str, summary: Summary, files: EvaluationFiles, seed: int) -> Iterator[ComparedRow]:
    """Of one prompt set, judge by judge."""
    for judge, standing in {MAIN_JUDGE: summary.standing, **summary.judges}.items():
        for system, cells in standing.systems.items():
            worst = _worst(summary.objectives, files, system, "" if judge == MAIN_JUDGE else judge)
            contest = Contest(system, summary.first)
            behaviour = summary.behaviour_difference.get(contest, {})
            for objective, cell in cells.items():
                yield ComparedRow(
                    set=name,
                    system=system,
                    judge=judge,
                    seed=seed,
                    objective=objective,
                    mean=cell.mean,
                    low=cell.low,
                    high=cell.high,
                    n=cell.n,
                    worst_decile=worst.get(objective),
                    gain=_gain(standing, contest, objective),
                    over_refusal=summary.behaviour[system].over_refusal,
                    over_refusal_gain=Change.of(behaviour.get("over_refusal")),
                )


def _gain(standing: Standing, contest: Contest, objective: str) -> Change | None:
    return Change.of(standing.difference.get(contest, {}).get(objective))


def _worst(objectives: Sequence[str], files: EvaluationFiles, system: str, judge: str) -> dict[str, float]:
    """Objective -> mean of the lowest tenth of a system's ratings, at least one."""
    verdicts = files.judged(system, objectives, judge)
    worst = {}
    for place, objective in enumerate(objectives):
        rated = sorted(r.value for v in verdicts if isinstance(r := v.ratings[place], Rating))
        if rated:
            worst[objective] = fmean(rated[: math.ceil(len(rated) / _WORST)])
    return worst


def comparison_text(found: Comparison) -> str:
    """The table, a block for every prompt set and judge, and what its columns mean."""
    blocks = []
    for name, judge in dict.fromkeys((row.set, row.judge) for row in found.rows):
        rows = [row for row in found.rows if (row.set, row.judge) == (name, judge)]
        is_only = {row.set for row in found.rows} == {MAIN_SET}
        by = found.judges[name].judge if judge == MAIN_JUDGE and name in found.judges else judge
        n = max(row.n for row in rows)
        title = f"{'' if is_only else f'{name} prompts, '}judge {by}, {n} prompts:"
        blocks.append([title, *text_table(list(_table(rows, found.objectives)), _sides(rows, found.objectives))])
    titles = [[name, title] for name, title in found.titles.items() if title]
    blocks.append(
        [
            "Means with 95 % intervals, in brackets the difference to the first system; * beyond chance after Holm's",
            "correction. worst: mean of the lowest tenth. over-refusals: refused prompts that nobody should refuse.",
        ]
    )
    blocks.append(text_table(titles, "<<"))
    return "\n\n".join("\n".join(block) for block in blocks)


def _columns(rows: Sequence[ComparedRow], objectives: Sequence[str]) -> list[str]:
    """The objectives, then every HH_<lambda>."""
    return [*objectives, *dict.fromkeys(row.objective for row in rows if row.objective not in objectives)]


def _sides(rows: Sequence[ComparedRow], objectives: Sequence[str]) -> str:
    return "<" + ">" * (len(_columns(rows, objectives)) + len(objectives) + 1)


def _table(rows: Sequence[ComparedRow], objectives: Sequence[str]) -> Iterator[list[str]]:
    """The head and a line for every system, of one prompt set and judge."""
    columns = _columns(rows, objectives)
    yield ["system", *columns, *(f"worst {name}" for name in objectives), "over-refusals"]
    for system in dict.fromkeys(row.system for row in rows):
        of_system = {row.objective: row for row in rows if row.system == system}
        yield [
            system,
            *(_mean(of_system, name, with_interval=name in objectives) for name in columns),
            *(TERMINAL.number(of_system[name].worst_decile) for name in objectives),
            _over_refusals(next(iter(of_system.values()))),
        ]


def _mean(of_system: Mapping[str, ComparedRow], name: str, with_interval: bool) -> str:
    row = of_system[name]
    shown = TERMINAL.mean(Cell(row.mean, row.low, row.high)) if with_interval else TERMINAL.number(row.mean)
    return shown if row.gain is None else f"{shown} [{TERMINAL.signed(row.gain.mean)}{star(row.gain.significant)}]"


def _over_refusals(row: ComparedRow) -> str:
    gain = row.over_refusal_gain
    shown = TERMINAL.share(row.over_refusal)
    if gain is None or gain.mean is None:
        return shown
    return f"{shown} [{TERMINAL.signed(100 * gain.mean, 0)}{star(gain.significant)}]"
