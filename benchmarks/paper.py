"""The paper's tables, measured: every system on every prompt set, over seeds, as JSON and as one page.

    python benchmarks/paper.py run main ablations --data FOLDER --to runs/paper  Tables 1, 3 and 4 (transfer) at once
    python benchmarks/paper.py run rivals --data FOLDER --to runs/paper          the nearest rivals of today
    python benchmarks/paper.py run iterations --data FOLDER --to runs/paper      rounds, on the same prompts or new ones
    python benchmarks/paper.py run prompts samples scoring --data FOLDER --to runs/paper
    python benchmarks/paper.py run attempts --data FOLDER --to runs/paper        what might hold SPA back, tried
    python benchmarks/paper.py table benchmarks/paper/smollm2-135m.json          what was found, in Markdown

`--sets saferlhf wildguard` says what is trained on, `--seeds 0 1 2` how often, `--recipe` on which model and how (the
demo's if not given), and FIELD=VALUE changes it. Of a set and a seed everything that shares its answers is one
`spa compare` in one folder, whichever tables it is for: stopped and called again it goes on, and what was found is kept
after each; one that fails holds up no other. FOLDER holds the prompt files named below; without `--data` they are
fetched from the hub by their short names (`spa prompts`). Prints figures, no text of a prompt or an answer.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from order import arithmetic
from paper_tables import Row, tables

ROOT = Path(__file__).parent.parent
INTERRUPTED = 130
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


@dataclass(frozen=True)
class Part:
    """What one comparison holds."""

    systems: str = ""
    """By name; empty: the model and the policy alone."""
    vary: tuple[str, ...] = ()
    """Fields of which every combination of values is a system, as `spa compare --vary` has it."""
    setting: str = ""
    """What makes its answers others than those of the recipe: a run of its own; empty: they are shared."""
    fields: tuple[str, ...] = ()
    """That say so, as overrides."""
    times: float = 1.0
    """How many of the asked prompts it trains on."""


def settings(*given: tuple[str, str]) -> tuple[Part, ...]:
    """Parts that differ in one override each, by what tables call them."""
    return tuple(Part(setting=name, fields=(field,)) for name, field in given)


TABLES = {
    "main": (
        Part(
            "sft,spa_dpo,spa_simpo,soup_6_4,soup_7_3,soup_8_2,soup_9_1,self_criticism,"
            "sum,swapped,constitution,best_of_n"
        ),
    ),
    "rivals": (
        Part(
            "safedpo,sacpo,sacpo_reversed,psacpo_25,psacpo_50,psacpo_75,kto,ipo,bfpo,ric,tis_dpo,"
            "meta_aligner,meta_rewarding,self_rewarding"
        ),
    ),
    "attempts": (Part(",".join(str(path) for path in sorted((Path(__file__).parent / "attempts").glob("*.yaml")))),),
    "ablations": (Part("spa_simpo", vary=("denoise.consistency=0.25,off", "denoise.keep_lowest=1.0,0.5")),),
    "iterations": (
        Part(setting="three rounds, the same prompts", fields=("rounds=3",)),
        Part(setting="two rounds, new prompts", fields=("rounds=2", "prompts_per_round=new"), times=2.0),
    ),
    "prompts": tuple(Part(setting=f"{times:g} times the prompts", times=times) for times in (0.25, 0.5, 2.0)),
    "samples": settings(("3 answers a prompt", "sample.n=3"), ("8 answers a prompt", "sample.n=8")),
    "scoring": settings(
        ("heads on people's labels", "score={judge: demo-train, method: probe}"),
        ("asked for a digit", "score={judge: self, method: expected, require_signal: false, mass_floor: 0}"),
        ("asked in words", "score={judge: self, method: verbal, require_signal: false}"),
    ),
}
"""By name of the table."""


def main() -> int:
    """Runs tables, or prints them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    kinds = parser.add_subparsers(dest="what", required=True)
    run = kinds.add_parser("run")
    run.add_argument("tables", nargs="+", choices=TABLES)
    run.add_argument("--data", type=Path, help="folder of prompt files; else they are fetched")
    run.add_argument("--sets", nargs="+", choices=TRAIN, default=list(TRAIN), help="trained on, one after the other")
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "demo.yaml")
    run.add_argument("--prompts", type=int, default=160, help="prompts to train on")
    run.add_argument("--heldout", type=int, default=80, help="prompts of every set to evaluate on")
    run.add_argument("--to", type=Path, required=True, help="folder of the run directories")
    run.add_argument("--record", type=Path, help="JSON file of what is found; default TO/paper.json")
    table = kinds.add_parser("table")
    table.add_argument("record", type=Path)
    asked, behind = parser.parse_known_args()
    if any(change.startswith("-") or "=" not in change for change in behind):
        parser.error(f"unrecognized arguments: {' '.join(behind)}")
    if asked.what == "table":
        print("\n".join(tables(json.loads(asked.record.read_text("utf-8")))))
        return 0
    return run_all(asked, behind)


def run_all(asked: argparse.Namespace, behind: Sequence[str]) -> int:
    """Every comparison; the exit code of the first that failed, after all others."""
    failed: dict[str, int] = {}
    for seed, trained_on, part in product(asked.seeds, asked.sets, together(asked.tables)):
        name = "-".join(filter(None, (trained_on, str(seed), re.sub(r"[^a-z0-9]+", "-", part.setting))))
        fields = [*prompt_fields(asked, trained_on, part), f"seed={seed}", *part.fields, *behind]
        code = compared(asked.recipe, part, asked.to / name, fields)
        if code == INTERRUPTED:
            return code
        if code:
            failed[name] = code
            continue
        told = {"recipe": asked.recipe.stem, "changed": " ".join(behind), "trained_on": trained_on}
        told |= {"setting": part.setting, "arithmetic": arithmetic_of(asked.to / name)}
        keep(asked.record or asked.to / "paper.json", told, asked.to / name)
    if failed:
        print(f"failed: {', '.join(failed)} (see above); every other is kept", file=sys.stderr)
    return next(iter(failed.values()), 0)


def together(names: Sequence[str]) -> list[Part]:
    """The parts of several tables, those that share their answers as one."""
    parts = [part for name in dict.fromkeys(names) for part in TABLES[name]]
    shared = [part for part in parts if not part.setting]
    systems = dict.fromkeys(system for part in shared for system in part.systems.split(",") if system)
    whole = Part(",".join(systems), tuple(dict.fromkeys(field for part in shared for field in part.vary)))
    return [*([whole] if shared else []), *(part for part in parts if part.setting)]


def prompt_fields(asked: argparse.Namespace, trained_on: str, part: Part) -> list[str]:
    """The recipe's fields that say which prompts are trained on, and which are held out."""
    sections = {n: each.section(asked.data, asked.heldout) for n, each in TEST.items() if asked.data or each.hub}
    if left_out := sorted(TEST.keys() - sections):
        print(f"not asked, for they lie on no hub (--data): {', '.join(left_out)}", file=sys.stderr)
    train = TRAIN[trained_on].section(asked.data, round(asked.prompts * part.times))
    fields = {
        **{f"prompts.{key}": value for key, value in train.items()},
        "evaluate.prompts": sections.pop(trained_on),
        "evaluate.more_prompts": sections,
    }
    return [f"{name}={json.dumps(value)}" for name, value in fields.items()]


def compared(recipe: Path, part: Part, folder: Path, fields: Sequence[str]) -> int:
    """The exit code of one comparison, which goes on where it stopped."""
    varied = [word for field in part.vary for word in ("--vary", field)]
    verb = ["compare", str(recipe), "--systems", part.systems, *varied]
    if not part.systems:
        verb = ["run", str(recipe), "evaluate.systems=[]"]
    command = [sys.executable, "-m", "selfpriority", *verb, *fields, "--out", str(folder)]
    return subprocess.run(command, check=False, stdout=sys.stderr).returncode


def arithmetic_of(folder: Path) -> str:
    """What a run was computed in."""
    import yaml

    return arithmetic(yaml.safe_load((folder / "resolved.yaml").read_text("utf-8")))


def keep(record: Path, told: Row, folder: Path) -> None:
    """Adds a run's rows to the record, in place of those of the same run and system."""
    from dataclasses import asdict

    from selfpriority.evaluation.summary import MAIN_JUDGE
    from selfpriority.inspection.comparison import MAIN_SET, comparison
    from selfpriority.run import Run

    found = comparison(Run(folder))
    rows: list[Row] = [{**told, **_rounded(asdict(row))} for row in found.rows]
    for row in rows:
        row["set"] = told["trained_on"] if row["set"] == MAIN_SET else row["set"]
        row["judge"] = found.judges[MAIN_SET].judge if row["judge"] == MAIN_JUDGE else row["judge"]
    old: list[Row] = json.loads(record.read_text("utf-8")) if record.is_file() else []
    new = {_of(row, told) for row in rows}
    kept = [*(row for row in old if _of(row, told) not in new), *rows]
    record.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, separators=(",", ":")) for row in kept)
    record.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Ratings go from 1 to 10: a thousandth of a point is enough for a record."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def _of(row: Row, told: Row) -> tuple[Any, ...]:
    return *(row[name] for name in told), row["seed"], row["system"]


if __name__ == "__main__":
    sys.exit(main())
