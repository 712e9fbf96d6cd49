"""The paper's tables, measured: every system on every prompt set, over seeds, as JSON and as one page.

    python benchmarks/paper.py run main --data FOLDER --to runs/paper            Tables 1 and 4: baselines, transfer
    python benchmarks/paper.py run rivals --data FOLDER --to runs/paper          the nearest rivals of today
    python benchmarks/paper.py run ablations --data FOLDER --to runs/paper       Table 3: parts of the method left out
    python benchmarks/paper.py run iterations --data FOLDER --to runs/paper      rounds 1, 2 and 3
    python benchmarks/paper.py table benchmarks/paper/main-smollm2-135m.json     what was found, in Markdown

`--sets saferlhf wildguard` says what is trained on, `--seeds 0 1 2` how often, `--recipe` on which model and how (the
demo's if not given), and FIELD=VALUE changes it. Every run is one `spa compare`: stopped and called again it goes on,
and what was found is kept after each. FOLDER holds the prompt files named below; without `--data` they are fetched from
the hub by their short names (`spa prompts`). Prints figures, no text of a prompt or an answer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from order import arithmetic, over_runs

ROOT = Path(__file__).parent.parent
Row = dict[str, Any]
HARMFUL = "harmful"


@dataclass(frozen=True)
class PromptFile:
    """Prompts that lie in a folder, or on the hub."""

    file: str
    hub: str
    """Its short name; empty: it lies on no hub."""
    split: str = "test"
    kind: str = HARMFUL
    """What all of them are, where no column says it."""
    kind_column: str = "kind"

    def section(self, folder: Path | None, limit: int) -> dict[str, Any]:
        """As a recipe names them."""
        taken = {"limit": limit, "shuffle": True}
        if folder is None:  # a known set says its own kinds
            return {"source": self.hub, "split": self.split, **taken}
        return {"source": str(folder / self.file), "kind": self.kind, "kind_column": self.kind_column, **taken}


TRAIN = {
    "saferlhf": PromptFile("saferlhf_prompts.train.jsonl", "pku-saferlhf", "train"),
    "wildguard": PromptFile("wildguard_prompts.train.jsonl", "wildguardmix", "train", kind_column="label"),
}
TEST = {
    "saferlhf": PromptFile("saferlhf_prompts.test.jsonl", "pku-saferlhf"),
    "wildguard": PromptFile("wildguard_prompts.test.jsonl", "wildguardmix", kind_column="label"),
    "jailbreaktrigger": PromptFile("jailbreaktrigger.jsonl", ""),
    "xstest": PromptFile("xstest_prompts.jsonl", "xstest", kind_column="label"),
}
SYSTEMS = {
    "main": "sft,spa_dpo,spa_simpo,soup_6_4,soup_9_1,self_criticism,sum,swapped,constitution,best_of_n",
    "rivals": "safedpo,sacpo,psacpo_50,kto,ipo,bfpo,ric,tis_dpo,meta_aligner,meta_rewarding",
    "ablations": "ablations,spa_simpo",
    "iterations": "",
}
ROUNDS = {"iterations": (1, 2, 3)}


def main() -> int:
    """Runs a table, or prints one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    kinds = parser.add_subparsers(dest="what", required=True)
    run = kinds.add_parser("run")
    run.add_argument("table", choices=SYSTEMS)
    run.add_argument("--data", type=Path, help="folder of prompt files; else they are fetched")
    run.add_argument("--sets", nargs="+", choices=TRAIN, default=list(TRAIN), help="trained on, one after the other")
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "demo.yaml")
    run.add_argument("--prompts", type=int, default=160, help="prompts to train on")
    run.add_argument("--heldout", type=int, default=80, help="prompts of every set to evaluate on")
    run.add_argument("--to", type=Path, required=True, help="folder of the run directories")
    run.add_argument("--record", type=Path, help="JSON file of what is found; default TO/TABLE.json")
    table = kinds.add_parser("table")
    table.add_argument("record", type=Path)
    asked, behind = parser.parse_known_args()
    if any(change.startswith("-") or "=" not in change for change in behind):
        parser.error(f"unrecognized arguments: {' '.join(behind)}")
    if asked.what == "table":
        print("\n".join(tables(json.loads(asked.record.read_text("utf-8")))))
        return 0
    record = asked.record or asked.to / f"{asked.table}.json"
    for seed, trained_on, rounds in product(asked.seeds, asked.sets, ROUNDS.get(asked.table, (1,))):
        name = f"{trained_on}-{seed}" if asked.table not in ROUNDS else f"{trained_on}-{seed}-rounds-{rounds}"
        folder = asked.to / asked.table / name
        fields = [*prompt_fields(asked, trained_on), f"seed={seed}", f"rounds={rounds}", *behind]
        code = compared(asked.recipe, SYSTEMS[asked.table], folder, fields)
        if code:
            return code
        keep(record, {"trained_on": trained_on, "rounds": rounds, "arithmetic": arithmetic_of(folder)}, folder)
    return 0


def prompt_fields(asked: argparse.Namespace, trained_on: str) -> list[str]:
    """The recipe's fields that say which prompts are trained on, and which are held out."""
    sections = {n: each.section(asked.data, asked.heldout) for n, each in TEST.items() if asked.data or each.hub}
    fields = {
        **{f"prompts.{key}": value for key, value in TRAIN[trained_on].section(asked.data, asked.prompts).items()},
        "evaluate.prompts": sections.pop(trained_on),
        "evaluate.more_prompts": sections,
    }
    return [f"{name}={json.dumps(value)}" for name, value in fields.items()]


def compared(recipe: Path, systems: str, folder: Path, fields: Sequence[str]) -> int:
    """The exit code of one comparison, which goes on where it stopped."""
    verb = ["compare", str(recipe), "--systems", systems] if systems else ["run", str(recipe), "evaluate.systems=[]"]
    command = [sys.executable, "-m", "selfpriority", *verb, *fields, "--out", str(folder)]
    return subprocess.run(command, check=False, stdout=sys.stderr).returncode


def arithmetic_of(folder: Path) -> str:
    """What a run was computed in."""
    import yaml

    return arithmetic(yaml.safe_load((folder / "resolved.yaml").read_text("utf-8")))


def keep(record: Path, told: Row, folder: Path) -> None:
    """Adds a run's rows to the record, in place of those of the same run."""
    from dataclasses import asdict

    from selfpriority.inspection.comparison import MAIN_SET, comparison
    from selfpriority.run import Run

    found = comparison(Run(folder))
    rows = [{**told, **asdict(row)} for row in found.rows]
    for row in rows:
        row["set"] = told["trained_on"] if row["set"] == MAIN_SET else row["set"]
    old: list[Row] = json.loads(record.read_text("utf-8")) if record.is_file() else []
    new = {_run(row) for row in rows}
    kept = [*(row for row in old if _run(row) not in new), *rows]
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text("[\n" + ",\n".join(json.dumps(row) for row in kept) + "\n]\n", encoding="utf-8")


def _run(row: Row) -> tuple[Any, ...]:
    return row["trained_on"], row["rounds"], row["arithmetic"], row["seed"]


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """For what was trained on, every set and judge one table: a line a system, its gains in the mean of the runs."""
    for trained_on, name, judge in dict.fromkeys((row["trained_on"], row["set"], row["judge"]) for row in rows):
        own = [row for row in rows if (row["trained_on"], row["set"], row["judge"]) == (trained_on, name, judge)]
        objectives = list(dict.fromkeys(row["objective"] for row in own))
        rated = [objective for objective in objectives if not objective.startswith("HH_")]
        yield f"\nTrained on {trained_on}, asked {name}, by `{judge}` ({own[0]['n']} prompts):\n"
        heads = [*objectives, *(f"worst tenth, {objective}" for objective in rated), "over-refusal"]
        yield "| system | " + " | ".join(heads) + " |"
        yield "|---" * (len(heads) + 1) + "|"
        for system, rounds in dict.fromkeys((row["system"], row["rounds"]) for row in own):
            of_system = [row for row in own if (row["system"], row["rounds"]) == (system, rounds)]
            label = system if rounds == 1 else f"{system}, {rounds} rounds"
            yield f"| {label} | " + " | ".join(_cells(of_system, objectives, rated)) + " |"


def _cells(rows: Sequence[Row], objectives: Sequence[str], rated: Sequence[str]) -> Iterator[str]:
    """Gains on vanilla, whose own means are shown; then the worst tenths, and refusals of what is fine."""
    for objective in objectives:
        of_objective = [row for row in rows if row["objective"] == objective]
        means = [row["mean"] for row in of_objective if row["mean"] is not None]
        yield _gain(of_objective) or _mean(means, "{:.2f}")
    for objective in rated:
        worst = [row["worst_decile"] for row in rows if row["objective"] == objective]
        yield _mean([value for value in worst if value is not None], "{:.2f}")
    refused = [row["over_refusal"] for row in rows if row["objective"] == rated[0]]
    yield _mean([100 * value for value in refused if value is not None], "{:.0f} %")


def _gain(rows: Sequence[Row]) -> str:
    """With its interval over runs; of one run alone that over prompts. Empty: of vanilla."""
    gains = [row["gain"] for row in rows if row["gain"] and row["gain"]["mean"] is not None]
    if len(gains) != 1:
        return over_runs([gain["mean"] for gain in gains])
    [gain] = gains
    interval = "" if gain["low"] is None else f" ({gain['low']:+.2f} to {gain['high']:+.2f}, 1 run)"
    return f"{gain['mean']:+.2f}{interval}"


def _mean(values: Sequence[float], form: str) -> str:
    return form.format(sum(values) / len(values)) if values else ""


if __name__ == "__main__":
    sys.exit(main())
