"""A pilot: what becomes of a few prompts of a recipe, and what that says of all of them.

The steps of the first round run as they are, on prompts drawn evenly over the recipe's. What is asked is stored in the
run's own cache under each request, so that a later run asks none of it again. Nothing else of the run is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from selfpriority.errors import InputError
from selfpriority.inputs import check_inputs
from selfpriority.intervals import share_interval
from selfpriority.method.denoise import determinant
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.round_inputs import usable_prompts
from selfpriority.phases.round_steps import DENOISE, PAIR, REFINE, ROUND_STEPS, Round
from selfpriority.pipeline import follow, settled, start
from selfpriority.recipe import Denoise
from selfpriority.records import PairedPool, Pool, covariance
from selfpriority.run import Run
from selfpriority.run_records import FunnelStep, Spent

T = TypeVar("T")
WANTED = 300
"""Training pools of a round; the paper trains on some 300 to 400 prompts."""
_INCONSISTENT = ("no_refinement", "ceiling", "not_better")


@dataclass(frozen=True)
class Counted:
    """So many of the pilot's prompts, with Wilson's 95 % interval of the share."""

    n: int
    of: int
    share: float
    low: float
    high: float

    @classmethod
    def among(cls, n: int, of: int) -> Counted:
        """`n` of `of`."""
        found = share_interval(n, of)
        return cls(n, of, found.estimate, found.low, found.high)


@dataclass(frozen=True)
class Expected:
    """A number of the whole recipe with its 95 % interval; None: not known, or without an end."""

    estimate: float | None
    low: float | None
    high: float | None

    def times(self, factor: float) -> Expected:
        """So many times the number."""
        estimate, low, high = (None if end is None else factor * end for end in (self.estimate, self.low, self.high))
        return Expected(estimate, low, high)


@dataclass(frozen=True)
class Pilot:
    """What a pilot found."""

    run: str
    """Folder whose cache holds the answers."""
    n: int
    """Prompts of the pilot."""
    of: int
    """Prompts of the first round."""
    steps: dict[str, FunnelStep]
    """What every step took in, kept and dropped."""
    consistency: str
    """The recipe's rule."""
    consistent: Counted
    """Prompts that pass it."""
    keep_lowest: float | None
    """The share of those with any spread that is kept, where tau is a quantile."""
    below_max_det: Counted | None
    """Pools with a determinant up to `max_det`, where tau is a number; consistent or not."""
    pools: Expected
    """Pools of the round that are trained on."""
    pairs: Expected
    """Their pairs, at the pilot's mean number of a pool; the interval is that of the pools alone."""
    wanted: int
    prompts_wanted: Expected
    """Prompts from which so many pools come out."""


def pilot(path: Path, overrides: Sequence[str], out: Path | None, n: int, reporter: Reporter) -> Pilot:
    """Runs the steps of the first round on `n` of a recipe's prompts, in the run's folder.

    A folder that is no run's yet becomes one of this recipe; one that is keeps the recipe it has.

    Raises:
        InputError: the recipe or one of its inputs is wrong, or another program works on the run.
        WorkFailed: a model cannot be asked; what was answered is kept.
    """
    run, asked = start(path, overrides, out)
    if asked.recipe.pairs is not None:
        raise InputError(f"--pilot: {path} has pairs of its own, which all train: there is no yield to try")
    resources = Resources(asked.recipe, run, reporter)
    with run.locked("run"):
        check_inputs(resources)
        settled_here = settled(asked, resources)
        if not run.recipe.is_file():
            follow(run, settled_here)
        return _measured(run, resources, n)


def evenly(rows: Sequence[T], n: int) -> list[T]:
    """`n` of the rows at equal distances, the first among them; all where there are no more."""
    n = min(n, len(rows))
    return [rows[i * len(rows) // n] for i in range(n)]


def _measured(run: Run, resources: Resources, n: int) -> Pilot:
    here = Round(run, resources, 1)
    prompts = usable_prompts(resources.recipe, 1).kept
    chosen = evenly(prompts, n)
    rows: Sequence[Any] = chosen
    kept: dict[str, Sequence[Any]] = {}
    steps: dict[str, FunnelStep] = {}
    for step in ROUND_STEPS:
        sifted = step.work(here, rows, Spent())
        steps[step.name] = FunnelStep.of(len(rows), sifted)
        rows = kept[step.name] = sifted.kept
    settings = resources.recipe.denoise
    yielded = Yield.of(steps, settings, len(chosen), kept[PAIR.name])
    return Pilot(
        run=str(run.folder),
        n=len(chosen),
        of=len(prompts),
        steps=steps,
        consistency=str(settings.consistency),
        consistent=Counted.among(_n_consistent(steps[DENOISE.name]), len(chosen)),
        keep_lowest=settings.keep_lowest,
        below_max_det=_below(kept[REFINE.name], settings.max_det),
        pools=yielded.pools(len(prompts)),
        pairs=yielded.pairs(len(prompts)),
        wanted=WANTED,
        prompts_wanted=yielded.prompts(WANTED),
    )


def _n_consistent(denoised: FunnelStep) -> int:
    return denoised.n_in - sum(denoised.dropped.get(reason, 0) for reason in _INCONSISTENT)


def _below(pools: Sequence[Pool], max_det: float | None) -> Counted | None:
    if max_det is None or not pools:
        return None
    dets = [determinant(covariance([c.scores for c in pool.candidates])) for pool in pools]
    return Counted.among(sum(det <= max_det for det in dets), len(dets))


@dataclass(frozen=True)
class Yield:
    """What comes of one prompt."""

    counted: Counted
    """Prompts that pass all that is decided prompt by prompt."""
    factor: float
    """Share of those that a quantile keeps, times the share of the kept that make a pair."""
    pairs_a_pool: float | None

    @classmethod
    def of(cls, steps: dict[str, FunnelStep], settings: Denoise, n: int, paired: Sequence[PairedPool]) -> Yield:
        """Of a pilot of `n` prompts."""
        denoised = steps[DENOISE.name]
        with_spread = _n_consistent(denoised) - denoised.dropped.get("no_spread", 0)
        # a quantile of the pilot's few pools is rounded up to a whole one, so its share is taken as it is written
        share = settings.keep_lowest
        passed = denoised.out if share is None else with_spread
        with_pairs = len(paired) / denoised.out if denoised.out else 1.0
        n_pairs = sum(len(pool.pairs) for pool in paired)
        pairs_a_pool = n_pairs / len(paired) if paired else None
        return cls(Counted.among(passed, n), (1.0 if share is None else share) * with_pairs, pairs_a_pool)

    def pools(self, n: int) -> Expected:
        """Of `n` prompts."""
        return Expected(self.counted.share, self.counted.low, self.counted.high).times(n * self.factor)

    def pairs(self, n: int) -> Expected:
        """Of `n` prompts; not known where no pool of the pilot has any."""
        return Expected(None, None, None) if self.pairs_a_pool is None else self.pools(n).times(self.pairs_a_pool)

    def prompts(self, n_pools: int) -> Expected:
        """Prompts from which `n_pools` pools come out; the lower end is that of the highest yield."""
        yields = (self.factor * share for share in (self.counted.share, self.counted.high, self.counted.low))
        estimate, low, high = (n_pools / pools if pools else None for pools in yields)
        return Expected(estimate, low, high)
