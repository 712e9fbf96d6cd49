"""How far do fitted judges agree on the answers that a run sampled?

    python benchmarks/agreement.py --run runs/demo                                    demo-train, demo-eval and outside
    python benchmarks/agreement.py --run RUN --judge demo-train --judge HEADS --json  any heads, as one JSON object

For every two judges, by objective: the correlation of their ratings within a prompt (its mean taken away: what pairs
are made of), over all answers, and Krippendorff's alpha; and the RV coefficient of all objectives together.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from selfpriority.backends.cache import Cached
from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError, SelfPriorityError
from selfpriority.evaluation.agreement import alpha, rv
from selfpriority.intervals import Floats
from selfpriority.judges.heads import Heads
from selfpriority.judges.probe import ProbeJudge
from selfpriority.phases.judge_names import fitted_heads
from selfpriority.phases.models import open_reader
from selfpriority.rating import Item
from selfpriority.recipe import HfBackend
from selfpriority.records import Candidates, Rating
from selfpriority.run import Run
from selfpriority.storage import read_rows

JUDGES = ("demo-train", "demo-eval", "outside")
CONSTITUTION = "harmless-helpful"


def main() -> int:
    options = _options()
    try:
        path = Run.existing(options.run).round(1) / "1-candidates.jsonl"
        if not path.is_file():
            raise InputError(f"{path}: no candidates; `spa collect {options.run}` samples them")
        answers = read_rows(path, Candidates)
        heads = {name: fitted_heads(name) for name in options.judge or JUDGES}
        with tempfile.TemporaryDirectory() as folder:
            rated = ratings(answers, heads, options.states or Path(folder) / "states.sqlite")
    except SelfPriorityError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    found = [agreement(*two, rated, _prompts(answers)) for two in combinations(rated, 2)]
    print(json.dumps(found) if options.json else "\n".join(map(_line, found)))
    return 0


def ratings(answers: Sequence[Candidates], heads: Mapping[str, Heads], states: Path) -> dict[str, Floats]:
    """Judge -> [answers, objectives]; NaN: unrated."""
    names = load_constitution(CONSTITUTION).names
    items = [Item(entry.prompt, response) for entry in answers for response in entry.responses]
    models = {m: Cached(open_reader(m, HfBackend()), states) for m in dict.fromkeys(h.model for h in heads.values())}
    rated = {}
    for name, each in heads.items():
        verdicts = ProbeJudge(models[each.model], each, names).rate(items)
        rows = [[r.value if isinstance(r, Rating) else np.nan for r in row] for row in verdicts]
        rated[name] = np.asarray(rows, dtype=np.float64)
    return rated


def agreement(a: str, b: str, rated: Mapping[str, Floats], prompts: Floats) -> dict[str, Any]:
    """Of two judges, on the answers that both rated; `prompts` [answers] numbers the prompt of each."""
    both = ~(np.isnan(rated[a]) | np.isnan(rated[b])).any(axis=1)
    x, y, of = rated[a][both], rated[b][both], prompts[both]
    inside, outside = _within(x, of), _within(y, of)
    found: dict[str, Any] = {"judges": [a, b], "n": int(both.sum()), "rv": rv(x, y), "rv_within": rv(inside, outside)}
    for k, name in enumerate(load_constitution(CONSTITUTION).names):
        found[name] = {
            "r_within": _r(inside[:, k], outside[:, k]),
            "r": _r(x[:, k], y[:, k]),
            "alpha": alpha(np.stack([x[:, k], y[:, k]], axis=1)),
        }
    return found


def _within(scores: Floats, prompts: Floats) -> Floats:
    """Scores less their prompt's mean."""
    _, of = np.unique(prompts, return_inverse=True)
    sums = np.zeros((of.max() + 1, scores.shape[1]))
    np.add.at(sums, of, scores)
    return scores - (sums / np.bincount(of)[:, None])[of]


def _r(x: Floats, y: Floats) -> float | None:
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else None


def _prompts(answers: Sequence[Candidates]) -> Floats:
    return np.repeat(np.arange(len(answers), dtype=np.float64), [len(entry.responses) for entry in answers])


def _line(found: dict[str, Any]) -> str:
    def told(value: float | None) -> str:
        return "   -" if value is None else f"{value:+.2f}"

    parts = [
        f"{name} within {told(found[name]['r_within'])} all {told(found[name]['r'])} alpha {told(found[name]['alpha'])}"
        for name in load_constitution(CONSTITUTION).names
    ]
    judges = f"{found['judges'][0]} and {found['judges'][1]}"
    return f"{judges:24} n {found['n']}: {'; '.join(parts)}; RV {told(found['rv'])}, within {told(found['rv_within'])}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a run with candidates")
    parser.add_argument("--judge", action="append", help="heads that ship, or a folder of heads; repeat it")
    parser.add_argument("--states", type=Path, help="SQLite file that keeps the hidden states for the next time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
