"""Does the order decide? The demo beside its controls, over seeds and arithmetics, in one table that grows.

    python benchmarks/order.py run RECIPE --seeds 0 1 2 --to runs/order --record order.json [FIELD=VALUE ...]
    python benchmarks/order.py table order.json

Every seed is one `spa run` in a folder of its own, which is continued if it is there. Its systems are the recipe's:
SPA, and what `evaluate.more_systems` names, trained on the same answers. What a run found goes into the record, one row
a system, judge and objective, replacing the row of the same run. The table's mean is over runs, one number each, and
its interval is Student's t over them: runs share their prompts, whose spread says nothing of other seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

T95 = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantiles of Student's t, by degrees of freedom."""

AGAINST = (("spa", "sum"), ("sum", "swapped"), ("spa", "swapped"))
"""The systems whose differences the table tells, as the method claims them: the first more harmless than the second."""


@dataclass(frozen=True)
class Row:
    """What one run found of one system, minus vanilla."""

    recipe: str
    split: str
    arithmetic: str
    """Dtype, the widest instructions of the processor, and its threads where they are not one."""
    seed: int
    system: str
    judge: str
    objective: str
    mean: float
    low: float
    high: float
    n: int

    @property
    def run(self) -> tuple[str, str, str, int]:
        """Which run it is of."""
        return self.recipe, self.split, self.arithmetic, self.seed


def main() -> None:
    """Runs seeds, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="what", required=True)
    run = kinds.add_parser("run")
    run.add_argument("recipe", type=Path)
    run.add_argument("changes", nargs="*", metavar="FIELD=VALUE")
    run.add_argument("--seeds", type=int, nargs="+", default=[0])
    run.add_argument("--to", type=Path, required=True)
    run.add_argument("--record", type=Path, required=True)
    table = kinds.add_parser("table")
    table.add_argument("record", type=Path)
    asked, behind = parser.parse_known_args()  # argparse takes no FIELD=VALUE that stands behind an option
    if (asked.what == "table" and behind) or any(change.startswith("-") or "=" not in change for change in behind):
        parser.error(f"unrecognized arguments: {' '.join(behind)}")
    if asked.what == "run":
        for seed in asked.seeds:
            folder = asked.to / f"seed-{seed}"
            command = [sys.executable, "-m", "selfpriority", "run", str(asked.recipe), "--out", str(folder)]
            done = subprocess.run([*command, f"seed={seed}", *asked.changes, *behind], check=False)
            if done.returncode:
                sys.exit(done.returncode)
            keep(asked.record, found(folder, asked.recipe.stem, seed))
    else:
        rows = [Row(**row) for row in json.loads(asked.record.read_text("utf-8"))]
        print("\n".join([*lines(rows), "", *contests(rows)]))


def found(folder: Path, recipe: str, seed: int) -> list[Row]:
    """The rows of a finished run: differences by judge, refusals, perplexity, who decided pairs, how many were cut."""
    import yaml

    resolved = yaml.safe_load((folder / "resolved.yaml").read_text("utf-8"))
    summary = json.loads((folder / "evaluation" / "summary.json").read_text("utf-8"))
    run = (recipe, resolved["evaluate"]["prompts"]["split"] or "", arithmetic(resolved), seed)
    judges = {name_of(resolved["evaluate"]["judge"]): summary["difference"]}
    judges |= {name: each["difference"] for name, each in summary.get("judges", {}).items()}
    rows = []
    for judge, differences in judges.items():
        for contest, figures in differences.items():
            system, _, against = contest.partition("_vs_")
            if against == "vanilla":
                objectives = {name: figures[name] for name in summary["objectives"]}
                rows += [Row(*run, system, judge, name, *four(each)) for name, each in objectives.items()]
    for system, each in summary["behaviour"].items():
        by_kind = summary["behaviour"]["vanilla"]["refusal"]
        for kind, share in each["refusal"].items():
            change = share - by_kind[kind]
            rows.append(Row(*run, system, "", f"refusal of {kind}", change, math.nan, math.nan, each["n"][kind]))
    for system, each in (summary.get("perplexity") or {"systems": {}})["systems"].items():
        rows.append(Row(*run, system, "", "perplexity, times", each["ratio"], math.nan, math.nan, 1))
    return [*rows, *pairs(folder, run)]


def pairs(folder: Path, run: tuple[str, str, str, int]) -> Iterator[Row]:
    """By trained system the share of its pairs that each objective decided, and how many answers were cut."""
    systems = {"spa": folder, **{path.name: path for path in sorted(folder.glob("systems/*"))}}
    for system, place in systems.items():
        counts = json.loads((place / "round-1" / "funnel.json").read_text("utf-8"))["pairs"]
        for objective, n in counts["decided_by"].items():
            share = n / counts["n"] if counts["n"] else math.nan
            yield Row(*run, system, "", f"decided by {objective}", share, math.nan, math.nan, counts["n"])
    with (folder / "round-1" / "1-candidates.jsonl").open(encoding="utf-8") as lines:
        stops = [answer["stop"] for line in lines for answer in json.loads(line)["responses"]]
    cut = stops.count("length") / len(stops)
    yield Row(*run, "spa", "", "candidates cut", cut, math.nan, math.nan, len(stops))


def four(figure: dict[str, Any]) -> tuple[float, float, float, int]:
    """Mean, low, high, n."""
    return figure["mean"], figure["low"], figure["high"], figure["n"]


def name_of(judge: dict[str, Any]) -> str:
    """What the table calls the main judge."""
    return Path(str(judge["judge"])).name


def arithmetic(resolved: dict[str, Any]) -> str:
    """What the figures were computed in, as far as rounding goes: dtype, instructions, and how sums are cut."""
    from selfpriority.models.arithmetic import settled
    from selfpriority.recipe import HfBackend, Recipe

    backend = Recipe.model_validate(resolved).backend
    dtype = settled(backend).dtype if isinstance(backend, HfBackend) else backend.kind
    widest = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    if not widest:
        flags = Path("/proc/cpuinfo").read_text("utf-8") if platform.system() == "Linux" else ""
        names = ("amx_tile", "avx512f", "avx2")
        widest = next((name for name in names if name in flags), platform.machine())
    threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1
    return f"{dtype} {widest}" + ("" if threads == 1 else f", {threads} threads")


def keep(record: Path, rows: list[Row]) -> None:
    """Adds rows to the record, in place of those of the same run."""
    old = [Row(**row) for row in json.loads(record.read_text("utf-8"))] if record.is_file() else []
    new = {row.run for row in rows}
    kept = [*(row for row in old if row.run not in new), *rows]
    values = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(row).items()} for row in kept
    ]
    record.write_text("[\n" + ",\n".join(json.dumps(value) for value in values) + "\n]\n", encoding="utf-8")


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """The table: one line a recipe, split, judge and objective, one column a system."""
    cells: dict[tuple[str, str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    systems: dict[str, None] = {}
    for row in rows:
        if row.system != "vanilla":
            cells[row.recipe, row.split, row.judge, row.objective][row.system].append(row.mean)
            systems[row.system] = None
    yield "| recipe, split | judge | what | " + " | ".join(systems) + " |"
    yield "|---" * (3 + len(systems)) + "|"
    for (recipe, split, judge, objective), by_system in cells.items():
        values = [over_runs(by_system.get(system, [])) for system in systems]
        yield f"| {recipe}, {split} | {judge} | {objective} | " + " | ".join(values) + " |"


def contests(rows: Iterable[Row]) -> Iterator[str]:
    """The table of systems against each other, run by run on the same answers: what the order is worth."""
    means: dict[tuple[str, str, str, str], dict[tuple[str, int], dict[str, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in rows:
        if row.judge:
            means[row.recipe, row.split, row.judge, row.objective][row.arithmetic, row.seed][row.system] = row.mean
    yield "| recipe, split | judge | what | " + " | ".join(f"{a} minus {b}" for a, b in AGAINST) + " |"
    yield "|---" * (3 + len(AGAINST)) + "|"
    for (recipe, split, judge, objective), runs in means.items():
        apart = [[by[a] - by[b] for by in runs.values() if a in by and b in by] for a, b in AGAINST]
        yield f"| {recipe}, {split} | {judge} | {objective} | " + " | ".join(map(over_runs, apart)) + " |"


def over_runs(values: list[float]) -> str:
    """Mean with its interval over runs, and how many there are; with one run no interval."""
    if len(values) < 2:
        return f"{values[0]:+.2f} (1 run)" if values else ""
    return f"{interval_over_runs(values)[:-1]}, {len(values)} runs)"


def interval_over_runs(values: list[float]) -> str:
    """Mean of two runs or more with its interval (Student's t)."""
    mean = statistics.fmean(values)
    half = T95[min(len(values), len(T95)) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


if __name__ == "__main__":
    main()
