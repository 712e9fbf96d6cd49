"""`spa choose-tau`: how far the training judge agrees with a stronger one as prompts enter by rising spread.

Reads one round's scored pools, asks the stronger judge about the same candidates, writes `tau.json` and `tau.svg`
into the run directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from selfpriority.errors import InputError
from selfpriority.evaluation.tau import Curve, Point, TwiceRated, curve
from selfpriority.phases.judge_names import meant
from selfpriority.phases.resources import Resources
from selfpriority.rating import Item
from selfpriority.recipe import JudgeSection, parse_judge
from selfpriority.records import Pool, Rating
from selfpriority.run import SCORED, Run, Spent, read_rows, write_json, write_text


def choose_tau(run: Run, resources: Resources, number: int, judge: JudgeSection) -> dict[str, Any]:
    """The curve of one round as it stands in `tau.json`: {judge, method, round, points, suggested, ...}.

    Raises:
        InputError: the round has no scored pools yet.
    """
    path = run.round(number) / SCORED
    if not path.is_file():
        raise InputError(f"{path}: not there; `spa collect {run.folder}` makes it")
    pools = read_rows(path, Pool)
    strong = resources.judge(judge, resources.recipe.model, "rating of the stronger judge", Spent())
    items = [Item(pool.prompt, candidate.response) for pool in pools for candidate in pool.candidates]
    given = iter(strong.rate(items))
    twice, n_unrated = [], 0
    for pool in pools:
        rows = [tuple(r.value for r in next(given) if isinstance(r, Rating)) for _ in pool.candidates]
        both = [
            (c.scores, row) for c, row in zip(pool.candidates, rows, strict=True) if len(row) == len(strong.objectives)
        ]
        n_unrated += len(rows) - len(both)
        if len(both) > len(strong.objectives):
            twice.append(TwiceRated(tuple(weak for weak, _ in both), tuple(row for _, row in both)))
    found = curve(twice, resources.recipe.denoise.epsilon, resources.recipe.seed)
    told = {"judge": judge.judge, "method": judge.method, "round": number, "n_unrated": n_unrated, **asdict(found)}
    write_json(run.folder / "tau.json", told)
    write_text(run.folder / "tau.svg", [figure(found)])
    return told


def other_judge(judge: str, method: str, base_url: str | None, api_key_env: str | None) -> JudgeSection:
    """A judge named on the command line; `api_key_env` names the variable that holds the server's key.

    Raises:
        InputError: the method, the address or the variable is none, or there is a variable and no address.
    """
    if api_key_env is not None and base_url is None:
        raise InputError("--api-key-env: names the key's variable for --base-url URL, which is not given")
    backend = None if base_url is None else {"kind": "openai", "base_url": base_url, "api_key_env": api_key_env}
    return meant(parse_judge({"judge": judge, "method": method, "backend": backend}, "judge"))


def tau_text(told: dict[str, Any]) -> str:
    """The curve as a table, and the suggestion as a recipe field.

    Not as `keep_lowest`: denoising takes that share of the prompts that also passed consistency, this curve of all.
    """
    lines = ["prompts  share    max det      RV  RV within prompts"]
    for point in told["points"]:
        values = "  ".join("    -" if point[key] is None else f"{point[key]:6.3f}" for key in ("rv", "rv_within"))
        lines.append(f"{point['n']:7d}  {point['share']:5.0%}  {point['max_det']:9.4g}  {values}")
    best = told["suggested"]
    if best is None:
        lines.append("too few prompts with varied ratings for a curve")
    else:
        lines.append(
            f"suggested: denoise.max_det={best['max_det']!r} (and denoise.keep_lowest=null where the recipe sets "
            f"that): the most prompts within one standard error ({told['standard_error']:.3f}) of the best RV"
        )
    return "\n".join(lines)


def figure(found: Curve) -> str:
    """The curve as a drawing that stands alone: share of the prompts to the right, RV upwards from 0 to 1."""
    width, height, left, bottom = 420, 260, 44, 216
    body = [f'<rect width="{width}" height="{height}" fill="white"/>']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = left + (width - left - 12) * tick, bottom - (bottom - 14) * tick
        body.append(f'<path d="M{left} {y:.1f}H{width - 12}" stroke="#ddd"/>')
        body.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        body.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:.0%}</text>')
    places = [(left + (width - left - 12) * p.share, p) for p in found.points]
    for name, colour, row in (("rv", "#1f5fa8", 0), ("rv_within", "#c05a1c", 1)):
        body.append(_line(places, name, (bottom, bottom - 14), colour))
        words = {"rv": "all scores", "rv_within": "within prompts"}[name]
        body.append(f'<text x="{left + 8}" y="{bottom - 22 + 14 * row}" fill="{colour}">{words}</text>')
    if found.suggested is not None:
        x = left + (width - left - 12) * found.suggested.share
        body.append(f'<path d="M{x:.1f} 14V{bottom}" stroke="#555" stroke-dasharray="4 3"/>')
    axis = "prompts, lowest det(covariance) first"
    body.append(f'<text x="{(left + width) / 2}" y="{height - 8}" text-anchor="middle">{axis}</text>')
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    title = "<title>RV coefficient between the two judges</title>"
    return f'{frame} font-size="12">{title}{"".join(body)}</svg>\n'


def _line(places: Sequence[tuple[float, Point]], name: str, reach: tuple[float, float], colour: str) -> str:
    bottom, span = reach
    values = [(x, getattr(point, name)) for x, point in places]
    drawn = " ".join(f"{x:.1f},{bottom - span * value:.1f}" for x, value in values if value is not None)
    return f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>'
