"""Has the model lost what it could do? Right and wrong answers by question, likelihoods by text, compared by pairs.

See docs/evaluation.md. Questions are those of lm-evaluation-harness; who asks them is in `phases/utility.py`. Knows
numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from selfpriority.evaluation.mt_bench import mt_bench_lines
from selfpriority.evaluation.significance import corrected, difference
from selfpriority.intervals import bootstrap_mean_interval

Json = dict[str, Any]
ALARM = 1.10
"""A perplexity this many times that of the first system is worth a look."""


def accuracies(right: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Json:
    """Of task -> system -> question -> 1.0 or 0.0: {task: {systems: {name: {mean, low, high, n}}, difference}}.

    Differences are paired by question: the sign-flip test on right minus wrong is McNemar's, and Holm's correction
    runs over all tasks and pairs of systems.
    """
    cells = {}
    for task, systems in right.items():
        for earlier, later in combinations(systems, 2):
            both = {q: (value, systems[earlier][q]) for q, value in systems[later].items() if q in systems[earlier]}
            cells[task, f"{later}_vs_{earlier}"] = difference(both)
    told: Json = {
        task: {
            "systems": {name: _mean(list(questions.values())) for name, questions in systems.items()},
            "difference": {},
        }
        for task, systems in right.items()
    }
    for (task, contest), cell in corrected(cells).items():
        told[task]["difference"][contest] = cell
    return told


def perplexities(nats: Mapping[str, Sequence[tuple[float, int]]]) -> Json:
    """Of system -> (nats, tokens) of the same texts: {systems: {name: {perplexity, ratio}}, alarm: [names]}.

    `ratio` is to the first system. No test: the texts are few, and this is an alarm and not a measure.
    """
    values = {
        name: math.exp(min(sum(n for n, _ in texts) / sum(t for _, t in texts), 700.0)) for name, texts in nats.items()
    }
    first = next(iter(values.values()))
    systems = {name: {"perplexity": value, "ratio": value / first} for name, value in values.items()}
    return {"systems": systems, "alarm": [name for name, row in systems.items() if row["ratio"] > ALARM]}


def utility_text(told: Mapping[str, Any]) -> str:
    """`utility.json` as lines for a terminal."""
    lines = []
    for task, row in told["tasks"].items():
        for name, cell in row["systems"].items():
            lines.append(f"{task}  {name}: {cell['mean']:.1%} ({cell['low']:.1%} to {cell['high']:.1%}), n {cell['n']}")
        for contest, cell in row["difference"].items():
            told_as = contest.replace("_vs_", " against ")
            mark = " *" if cell["significant"] else ""
            lines.append(
                f"{task}  {told_as}: {cell['mean']:+.1%} ({cell['low']:+.1%} to {cell['high']:+.1%}), "
                f"p {cell['p_holm']:.3f}{mark}"
            )
    if "mt_bench" in told:
        lines += mt_bench_lines(told["mt_bench"])
    return "\n".join([*lines, *perplexity_lines(told["perplexity"])])


def perplexity_lines(told: Mapping[str, Any]) -> list[str]:
    """What `perplexities` found, a line a system; an alarm is marked."""
    return [
        f"perplexity  {name}: {row['perplexity']:.2f} (x {row['ratio']:.2f}){'  !' if name in told['alarm'] else ''}"
        for name, row in told["systems"].items()
    ]


def alarms_in_words(told: Mapping[str, Any]) -> list[str]:
    """A sentence for every system whose perplexity rings; `told` is what `perplexities` found."""
    first, ratios = next(iter(told["systems"]), ""), {name: row["ratio"] for name, row in told["systems"].items()}
    return [
        f"{name} finds plain prose less likely than {first}: its perplexity is {ratios[name]:.2f} times as high, and "
        f"{ALARM:.2f} is where the alarm rings. It may have lost some of what it could do."
        for name in told["alarm"]
    ]


def _mean(values: Sequence[float]) -> Json:
    interval = bootstrap_mean_interval(values)
    return {"mean": fmean(values), "low": interval.low, "high": interval.high, "n": interval.n}
