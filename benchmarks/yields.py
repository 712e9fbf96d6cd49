"""What raises the yield of strict consistency: more refinements, fewer candidates shown, longer ones, noise counted?

    python benchmarks/yields.py RUN                                    every variant on all scored pools of RUN
    python benchmarks/yields.py RUN --prompts 60 --json                on 60 of them, drawn evenly; one JSON object
    python benchmarks/yields.py RUN --variant "show=best n=4"          fields of `refine:` of one's own; repeatable
    python benchmarks/yields.py RUN --second-judge                     and what the evaluation's judge says of the pools

RUN is a run whose round was scored, such as a finished one: its model refines the pools of `2-scored.jsonl` anew under
each variant, and its training judge rates what came out. Answers are kept in the run's `cache.sqlite`, so that a
stopped command goes on where it was; nothing else of the run is written. Tokens are those of the refinement alone.
Prints figures, no text.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from selfpriority.backends.cache import n_tokens
from selfpriority.backends.counting import Ruler
from selfpriority.cli.app import reporting
from selfpriority.errors import InputError, SelfPriorityError
from selfpriority.formats import TERMINAL
from selfpriority.intervals import Interval, bootstrap_mean_interval
from selfpriority.language_model import Answer, Generate, LanguageModel, Request
from selfpriority.method.denoise import inconsistency
from selfpriority.method.order import Order
from selfpriority.method.refine import refine
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.round_steps import Round
from selfpriority.planning.pilot import Counted, evenly
from selfpriority.planning.requests import Rehearsal
from selfpriority.rating import Item, Judge
from selfpriority.recipe import Refine, load
from selfpriority.records import Pool, Rating, Scored
from selfpriority.run import SCORED, Run
from selfpriority.run_records import Spent
from selfpriority.storage import json_text, read_rows
from selfpriority.text_table import text_table

LONGER = "twice as long"
VARIANTS = (
    *(f"show={show} n={n}" for show in ("all", "extremes", "best") for n in (1, 4)),
    "show=best n=8",
    f"show=all n=1 {LONGER}",
    f"show=best n=4 {LONGER}",
)
NOISE = 0.5
"""Rating points of the column that counts ties, unless another number is asked for."""


@dataclass
class Tallied:
    """`model`, with the tokens of what it was asked and what it answered, stored or not."""

    model: LanguageModel
    ruler: Ruler
    read: int = 0
    written: int = 0

    @property
    def fingerprint(self) -> str:
        """The model's."""
        return self.model.fingerprint

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """The model's."""
        return self.model.plan(requests)

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """The model's answers, in its order."""
        self.read += sum(self.ruler.conversation(r.messages) for b in batches for r in b if isinstance(r, Generate))
        for number, answers in self.model.answer(batches):
            self.written += sum(map(n_tokens, answers))
            yield number, answers


@dataclass(frozen=True)
class SecondOpinion:
    """By how much another judge rates the refined answer above the mean candidate, by objective.

    Where consistency is luck, the consistent pools gain no more than all of them.
    """

    all: dict[str, Interval] = field(default_factory=dict)
    consistent: dict[str, Interval] = field(default_factory=dict)
    """Of the strictly consistent pools; empty where there is none."""


@dataclass(frozen=True)
class Yields:
    """What one variant gave; ratings are those of the training judge."""

    variant: str
    strict: Counted
    any_strict: Counted
    """The same of any refinement, not only the lexicographically best, which is the one that is kept."""
    with_noise: Counted
    """Strict, where a candidate that is ahead by less than `noise` is a tie."""
    noise: float
    half: Counted
    quarter: Counted
    without_refinement: int
    refined: dict[str, float]
    """Objective -> mean rating of the refined answers."""
    best: dict[str, float]
    """The same of the lexicographically best candidate of each of those pools."""
    highest: dict[str, float]
    """The same of the candidates' highest rating on each objective by itself: what strict consistency asks to beat."""
    tokens_read: int = 0
    tokens_written: int = 0
    seconds: float = 0.0
    second_opinion: SecondOpinion | None = None


@dataclass(frozen=True)
class Bench:
    """A run's pools and who refines and rates them."""

    here: Round
    pools: Sequence[Pool]
    ruler: Ruler
    noise: float
    with_second_judge: bool

    @property
    def order(self) -> Order:
        """The recipe's."""
        return Order.of(self.here.recipe.pair, self.here.resources.constitution.names)

    def measure(self, variant: str) -> Yields:
        """The pools refined under one variant."""
        resources, started = self.here.resources, time.monotonic()
        model = Tallied(self.here.model(f"refine, {variant}", Spent()), self.ruler)
        judge = self.here.judge(f"refine, {variant}", Spent())
        settings = of_variant(self.here.run, variant)
        pools = refine(self.pools, model, judge, resources.constitution, settings, self.order).kept
        seconds = time.monotonic() - started
        found = yields(variant, pools, self.noise, self.order, resources.constitution.names)
        opinion = second_opinion(pools, self._second()) if self.with_second_judge else None
        spent = replace(found, tokens_read=model.read, tokens_written=model.written, seconds=round(seconds, 2))
        return replace(spent, second_opinion=opinion)

    def _second(self) -> Judge:
        recipe = self.here.recipe
        return self.here.resources.judge(recipe.evaluate.judge, recipe.model, "second judge", Spent())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the directory of a run whose round was scored")
    parser.add_argument("--round", type=int, default=1)
    parser.add_argument("--prompts", type=int, help="pools, drawn evenly; default: all")
    parser.add_argument("--variant", action="append", help='fields of `refine:`, e.g. "show=best n=4"; repeatable')
    parser.add_argument("--noise", type=float, default=NOISE, help=f"rating points that are a tie; default {NOISE}")
    parser.add_argument("--second-judge", action="store_true", help="ask the judge of the evaluation too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    try:
        run = Run.existing(asked.run)
        with reporting("yields") as reporter, run.locked("run"):
            bench = bench_of(run, asked, reporter)
            found = [bench.measure(variant) for variant in asked.variant or VARIANTS]
    except SelfPriorityError as error:
        print(f"yields: {error}", file=sys.stderr)
        return error.exit_code
    print(json_text({"run": str(asked.run), "variants": found}) if asked.json else "\n".join(told(found)))
    return 0


def bench_of(run: Run, asked: argparse.Namespace, reporter: Reporter) -> Bench:
    """The pools that are asked for.

    Raises:
        InputError: the round was not scored, or no pool is asked for.
    """
    resources = Resources(load(run.recipe), run, reporter)
    path = run.round(asked.round) / SCORED
    if not path.is_file():
        raise InputError(f"{path}: no such file; `spa run` or `spa collect` scores the candidates first")
    pools = read_rows(path, Pool)
    n = len(pools) if asked.prompts is None else asked.prompts
    if not pools or n < 1:
        raise InputError(f"{path}: {n} of {len(pools)} pools are asked for; at least one is needed")
    here = Round(run, resources, asked.round)
    ruler = Rehearsal(load(run.recipe), run, Reporter()).ruler(here.policy)
    return Bench(here, evenly(pools, n), ruler, asked.noise, asked.second_judge)


def of_variant(run: Run, variant: str) -> Refine:
    """The run's `refine:` with a variant's fields in it; InputError for a field that there is not."""
    is_longer, fields = LONGER in variant, variant.replace(LONGER, "").split()
    settings = load(run.recipe, [f"refine.{each}" for each in fields]).refine
    return settings.model_copy(update={"max_new_tokens": 2 * settings.max_new_tokens}) if is_longer else settings


def yields(variant: str, pools: Sequence[Pool], noise: float, order: Order, names: Sequence[str]) -> Yields:
    """What refined pools give, without what they cost."""

    def counted(rule: str | float, within: float = 0.0) -> Counted:
        return Counted.among(sum(not inconsistency(pool, rule, within) for pool in pools), len(pools))

    whole = [pool for pool in pools if pool.refined is not None]
    best = [max(pool.candidates, key=lambda c: order.key(c.scores)) for pool in whole]
    highest = [[max(scores) for scores in zip(*(c.scores for c in pool.candidates), strict=True)] for pool in whole]
    return Yields(
        variant=variant,
        strict=counted("strict"),
        any_strict=Counted.among(sum(map(has_consistent, pools)), len(pools)),
        with_noise=counted("strict", noise),
        noise=noise,
        half=counted(0.5),
        quarter=counted(0.25),
        without_refinement=len(pools) - len(whole),
        refined=means([refined_of(pool).scores for pool in whole], names),
        best=means([candidate.scores for candidate in best], names),
        highest=means(highest, names),
    )


def has_consistent(pool: Pool) -> bool:
    """Whether any of its refinements would pass the strict test."""
    refinements = [pool.refined, *pool.other_refinements]
    return any(not inconsistency(replace(pool, refined=each), "strict") for each in refinements)


def refined_of(pool: Pool) -> Scored:
    assert pool.refined is not None
    return pool.refined


def means(rows: Sequence[Sequence[float]], names: Sequence[str]) -> dict[str, float]:
    """Mean of every objective; empty without rows."""
    return {name: fmean(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)} if rows else {}


def second_opinion(pools: Sequence[Pool], judge: Judge) -> SecondOpinion:
    """What a judge that did not choose says of the pools that have a refinement and are rated whole."""
    whole = [pool for pool in pools if pool.refined is not None]
    verdicts = iter(judge.rate([Item(pool.prompt, s.response) for pool in whole for s in pool.responses]))
    gains: list[list[float]] = []
    passed: list[list[float]] = []
    for pool in whole:
        *candidates, refined = [next(verdicts) for _ in pool.responses]
        if not all(isinstance(rating, Rating) for ratings in (*candidates, refined) for rating in ratings):
            continue
        values = [[rating.value for rating in ratings if isinstance(rating, Rating)] for ratings in candidates]
        after = [rating.value for rating in refined if isinstance(rating, Rating)]
        gain = [value - fmean(column) for value, column in zip(after, zip(*values, strict=True), strict=True)]
        gains.append(gain)
        if not inconsistency(pool, "strict"):
            passed.append(gain)
    return SecondOpinion(intervals(gains, judge.objectives), intervals(passed, judge.objectives))


def intervals(gains: Sequence[Sequence[float]], names: Sequence[str]) -> dict[str, Interval]:
    columns = zip(*gains, strict=True)
    return {name: bootstrap_mean_interval(gain) for name, gain in zip(names, columns, strict=True)} if gains else {}


def told(found: Sequence[Yields]) -> list[str]:
    """The table, one variant a row."""
    noise = f"noise {found[0].noise:g}"
    head = [
        "refine",
        "strict",
        "any",
        noise,
        "at 0.5",
        "at 0.25",
        "none",
        "refined",
        "best",
        "highest",
        "read",
        "written",
    ]
    rows = [head]
    for one in found:
        shares = (one.strict, one.any_strict, one.with_noise, one.half, one.quarter)
        ratings = (one.refined, one.best, one.highest)
        tokens = (one.tokens_read, one.tokens_written)
        cells = [*map(share_cell, shares), str(one.without_refinement), *map(rating_cell, ratings)]
        rows.append([one.variant, *cells, *(f"{n:,}" for n in tokens)])
    lines = text_table(rows, "<" + ">" * (len(head) - 1))
    for one in found:
        lines += opinion_lines(one)
    objectives = ", ".join(found[0].refined) or "no objective, for nothing was refined"
    return [*lines, f"{found[0].strict.of} pools; ratings are of {objectives}; tokens are the refinement's"]


def share_cell(share: Counted) -> str:
    return f"{share.n} {TERMINAL.interval.format(f'{share.low:.1%}', f'{share.high:.1%}')}"


def rating_cell(ratings: dict[str, float]) -> str:
    return " / ".join(f"{value:.2f}" for value in ratings.values()) or TERMINAL.dash


def opinion_lines(one: Yields) -> Iterator[str]:
    if one.second_opinion is None:
        return
    if not one.second_opinion.all:
        yield f"{one.variant}: the second judge rated no pool whole"
    for name, gain in one.second_opinion.all.items():
        told_of = {"all pools": gain, "strict": one.second_opinion.consistent.get(name)}
        cells = [f"{which} {gain_cell(interval)}" for which, interval in told_of.items()]
        yield f"{one.variant}: {name} by the second judge, above the mean candidate: {', '.join(cells)}"


def gain_cell(interval: Interval | None) -> str:
    if interval is None:
        return TERMINAL.dash
    return f"{interval.estimate:+.2f} ({interval.low:+.2f} to {interval.high:+.2f}, n {interval.n})"


if __name__ == "__main__":
    raise SystemExit(main())
