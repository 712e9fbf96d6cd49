"""`spa choose-tau`: how far the training judge agrees with a stronger one as prompts enter by rising spread.

Reads one round's scored pools, asks the stronger judge about the same candidates, writes `tau.json` and `tau.svg`
into the run directory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfpriority.errors import InputError
from selfpriority.evaluation.tau import Curve, TwiceRated, curve
from selfpriority.formats import TERMINAL, counted
from selfpriority.phases.judge_names import located, meant
from selfpriority.phases.resources import Resources
from selfpriority.rating import Item
from selfpriority.recipe import ByPython, JudgeSection, parse_judge
from selfpriority.records import Pool, Rating, Ratings, Unrated
from selfpriority.report.figures import Series, share_curves
from selfpriority.run import SCORED, Run
from selfpriority.run_records import Spent
from selfpriority.storage import read_rows, write_json, write_text


@dataclass(frozen=True)
class TauChoice:
    """What was found about one round: who else judged, and the curve."""

    judge: str
    method: str
    round: int
    n_unrated: int
    """Candidates that the stronger judge did not rate on every objective."""
    curve: Curve

    def as_json(self) -> dict[str, Any]:
        """As `tau.json` holds it."""
        plain = asdict(self)
        return {**{name: part for name, part in plain.items() if name != "curve"}, **plain["curve"]}


def choose_tau(run: Run, resources: Resources, number: int, judge: JudgeSection) -> TauChoice:
    """The curve of one round, written as `tau.json` and drawn as `tau.svg`.

    Raises:
        InputError: the round has no scored pools yet.
    """
    path = run.round(number) / SCORED
    if not path.is_file():
        if resources.recipe.pairs is not None:
            raise InputError(f"{run.folder}: trains on pairs of its own, so it has no candidates that a tau could sift")
        raise InputError(f"{path}: not there; `spa collect {run.folder}` makes it")
    pools = read_rows(path, Pool)
    strong = resources.judge(judge, resources.recipe.model, "rating of the stronger judge", Spent())
    given = strong.rate([Item(pool.prompt, candidate.response) for pool in pools for candidate in pool.candidates])
    twice = _twice_rated(pools, given)
    n_candidates = sum(len(pool.candidates) for pool in pools)
    n_unrated = n_candidates - sum(len(prompt.strong) for prompt in twice)
    if n_unrated:
        reasons = Counter(next((r.reason for r in row if isinstance(r, Unrated)), "") for row in given)
        told = counted({reason: n for reason, n in reasons.items() if reason})
        resources.reporter.note(f"the stronger judge rates {n_unrated} of {n_candidates} candidates not at all: {told}")
    k = len(strong.objectives)
    spread = curve(
        [prompt for prompt in twice if len(prompt.strong) > k],
        resources.recipe.denoise.epsilon,
        resources.recipe.seed,
    )
    choice = TauChoice(judge.judge, judge.method, number, n_unrated, spread)
    write_json(run.folder / "tau.json", choice.as_json())
    write_text(run.folder / "tau.svg", [_drawn(spread)])
    return choice


def _twice_rated(pools: Sequence[Pool], given: Sequence[Ratings]) -> list[TwiceRated]:
    """The candidates of every prompt that both judges rated on every objective."""
    verdicts = iter(given)
    prompts = []
    for pool in pools:
        both = [(candidate.scores, next(verdicts)) for candidate in pool.candidates]
        rated = [
            (weak, tuple(r.value for r in row if isinstance(r, Rating)))
            for weak, row in both
            if all(isinstance(r, Rating) for r in row)
        ]
        prompts.append(TwiceRated(tuple(weak for weak, _ in rated), tuple(strong for _, strong in rated)))
    return prompts


def other_judge(judge: str, method: str | None, base_url: str | None, api_key_env: str | None) -> JudgeSection:
    """A judge named on the command line; `api_key_env` names the variable that holds the server's key.

    Without a method a model is asked for digits, and the name of fitted heads means those.

    Raises:
        InputError: the method, the address or the variable is none, heads are asked as a model is, or there is a
            variable and no address.
    """
    if api_key_env is not None and base_url is None:
        raise InputError("--api-key-env: names the key's variable for --base-url URL, which is not given")
    backend = None if base_url is None else {"kind": "openai", "base_url": base_url, "api_key_env": api_key_env}
    how = {} if method is None else {"method": method}
    found = meant(parse_judge({"judge": judge, "backend": backend, **how}, "judge"))
    return located(found, (Path.cwd(),)) if isinstance(found, ByPython) else found


def tau_text(found: Curve) -> str:
    """The curve as a table, and the suggestion as a recipe field.

    Not as `keep_lowest`: denoising takes that share of the prompts that also passed consistency, this curve of all.
    """
    lines = ["prompts  share    max det      RV  RV within prompts"]
    for point in found.points:
        values = "  ".join(
            f"{TERMINAL.number(value, 3):>{5 if value is None else 6}}" for value in (point.rv, point.rv_within)
        )
        lines.append(f"{point.n:7d}  {point.share:5.0%}  {point.max_det:9.4g}  {values}")
    best = found.suggested
    if best is None:
        lines.append("too few prompts with varied ratings for a curve")
    else:
        lines.append(
            f"suggested: denoise.max_det={best.max_det!r} (and denoise.keep_lowest=null where the recipe sets "
            f"that): the most prompts within one standard error ({found.standard_error:.3f}) of the best RV"
        )
    return "\n".join(lines)


def _drawn(found: Curve) -> str:
    """The curve as a drawing that stands alone."""
    lines = [
        Series("all scores", tuple(math.nan if p.rv is None else p.rv for p in found.points)),
        Series("within prompts", tuple(math.nan if p.rv_within is None else p.rv_within for p in found.points)),
    ]
    return share_curves(
        [point.share for point in found.points],
        lines,
        "prompts, lowest det(covariance) first",
        found.suggested.share if found.suggested else None,
        "RV coefficient between the two judges",
    )
