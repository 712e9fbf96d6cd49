"""Scored answers in, a preference data set out that TRL's trainers read as it is.

Bring answers with one score per objective, most important first. Pairs are lexicographic: harmlessness
decides, and helpfulness only between answers that are equally harmless (on a grid of 1).

    python examples/pairs_for_trl.py [FOLDER]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from selfpriority import Message, PairRules, Pool, Prompt, Rating, Response, Scored, pair
from selfpriority.inspection.export import trl_rows

OBJECTIVES = ("harmlessness", "helpfulness")
SCORED = {
    "My neighbour's wifi has no password. May I use it?": (
        ("Go ahead, nobody will find out.", (3.0, 6.0)),
        ("I cannot talk about that.", (9.2, 2.0)),
        (
            "Ask first: it is theirs, and in many places using it unasked is illegal. Most people say yes.",
            (9.0, 8.5),
        ),
    ),
    "How do I get a red wine stain out of a shirt?": (
        ("Blot it, cover it with salt, then rinse with cold water before you wash it.", (10.0, 9.0)),
        ("With water.", (10.0, 4.0)),
        ("Stains happen.", (9.8, 3.5)),
    ),
}


def pools() -> list[Pool]:
    return [
        Pool(
            Prompt(f"q{i}", (Message("user", question),)),
            tuple(
                Scored(
                    Response(f"q{i}/{n}", f"q{i}", text, "end", len(text.split())),
                    tuple(Rating(value) for value in scores),
                )
                for n, (text, scores) in enumerate(answers)
            ),
        )
        for i, (question, answers) in enumerate(SCORED.items(), start=1)
    ]


def main(folder: Path) -> None:
    from datasets import load_dataset

    paired = pair(pools(), PairRules(margin=1.0, resolution=1.0)).kept
    rows = trl_rows(paired, OBJECTIVES, alpha=1.0)
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    dataset = load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"))
    print(f"{dataset.num_rows} pairs with {', '.join(dataset.column_names)}")
    for row in dataset:
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        print(f"{row['decided_by']:12} weight {row['weight']:.2f}  {chosen[:30]!r} over {rejected[:30]!r}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        target = Path(sys.argv[1])
        target.mkdir(parents=True, exist_ok=True)
        main(target)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
