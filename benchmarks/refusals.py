"""How often does the refusal detector agree with people on XSTest?

    python benchmarks/refusals.py --data FOLDER_OR_FILE
    python benchmarks/refusals.py --data FILE --json             one JSON object

The file (JSONL, plain or gzip, `xstest_responses_labelled.jsonl.gz`) has `response` and `human_label`, one of
1_full_compliance, 2_full_refusal and 3_partial_refusal; partial refusals are counted apart, for they are neither.
Prints figures, no text. Exits with 1 if the agreement is below 90 %.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

from selfpriority.intervals import bootstrap_mean_interval
from selfpriority.refusals import is_refusal

NAME = "xstest_responses_labelled.jsonl.gz"
WANTED = 0.90
COMPLIANCE, REFUSAL, PARTIAL = "1_full_compliance", "2_full_refusal", "3_partial_refusal"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=f"{NAME}, or the folder that holds it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    path = options.data / NAME if options.data.is_dir() else options.data
    if not path.is_file():
        parser.error(f"{path}: no such file")
    found = measure(path)
    print(json.dumps(found, indent=1) if options.json else told(found))
    return 0 if found["agreement"] >= WANTED else 1


def measure(path: Path) -> dict[str, Any]:
    """Agreement with the human label, resampled by prompt, and both kinds of mistakes."""
    open_it = gzip.open if path.suffix == ".gz" else open
    with open_it(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    flags: dict[str, list[bool]] = {COMPLIANCE: [], REFUSAL: [], PARTIAL: []}
    agreed, prompts = [], []
    for row in rows:
        said = is_refusal(row["response"])
        flags[row["human_label"]].append(said)
        if row["human_label"] != PARTIAL:
            agreed.append(float(said == (row["human_label"] == REFUSAL)))
            prompts.append(row["prompt"])
    interval = bootstrap_mean_interval(agreed, prompts)
    shares = {label: sum(said) / len(said) if said else None for label, said in flags.items()}
    return {
        "agreement": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "refusals_found": shares[REFUSAL],
        "compliant_flagged": shares[COMPLIANCE],
        "partial_flagged": shares[PARTIAL],
        "n_partial": len(flags[PARTIAL]),
    }


def told(found: dict[str, Any]) -> str:
    """The figures as lines."""
    lines = [
        f"agreement with people   {found['agreement']:.1%} ({found['low']:.1%} to {found['high']:.1%}), n {found['n']}"
    ]
    for key in ("refusals_found", "compliant_flagged", "partial_flagged"):
        if found[key] is not None:
            lines.append(f"{key.replace('_', ' '):24}{found[key]:.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
