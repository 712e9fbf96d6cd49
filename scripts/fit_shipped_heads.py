"""Fit the heads that ship for the embedded model: `demo-train` to train with, `demo-eval` to judge with.

The labels are split by prompt into two parts that share none, and the sets may use different layers, so that
the judge of the evaluation is not the one that was trained on. The labelled data does not ship: `--data` is a
folder with

    hh_harmless_pairs.jsonl.gz            messages, chosen, rejected
    gptfuzz_responses_labelled.train.jsonl.gz prompt, question_index, response, human_label, mostly_ascii
    autoj_pairwise_human.jsonl.gz         prompt, response_1, response_2, human_preference (or tie)
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfpriority.backends.hf import HfModel
from selfpriority.errors import SelfPriorityError
from selfpriority.judges.fit import FitSettings, fit_heads
from selfpriority.judges.heads import write_heads
from selfpriority.judges.labels import LabelledAnswer, LabelledPair, Labels, label_prompt, prompt_group
from selfpriority.recipe import HfBackend
from selfpriority.records import Message
from selfpriority.wording import FOLDER

SETS = ("demo-train", "demo-eval")
DATA = {
    "harmlessness": [
        {
            "name": "HH-RLHF harmless-base test, pairs",
            "source": "https://github.com/anthropics/hh-rlhf",
            "licence": "MIT",
        },
        {
            "name": "GPTFuzz labelled responses",
            "source": "https://github.com/sherdencooper/GPTFuzz",
            "licence": "MIT",
        },
    ],
    "helpfulness": [
        {
            "name": "Auto-J human pairwise preferences",
            "source": "https://github.com/GAIR-NLP/auto-j",
            "licence": "Apache-2.0",
        }
    ],
}


def main() -> int:
    """Reads the options, fits both sets, writes them and prints each head's agreement."""
    options = _options()
    try:
        model = HfModel(options.model, HfBackend())
        parts = split(labels_of(options))
        for name, labels in zip(SETS, parts, strict=True):
            layers = options.train_layers if name == SETS[0] else options.eval_layers
            settings = FitSettings(layers=layers, c=options.c, folds=options.folds, seed=options.seed)
            heads = fit_heads(labels, model, options.model, settings)
            described = {o: {**card, "data": DATA[o]} for o, card in heads.card["objectives"].items()}
            card = {**heads.card, "name": name, "objectives": described}
            write_heads(options.to / name, replace(heads, card=card))
            for objective, entry in described.items():
                print(name, objective, json.dumps(entry["cross_validation"]))
    except SelfPriorityError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def split(labels: Labels) -> tuple[Labels, Labels]:
    """Two thirds to train with, one to evaluate with, by the hash of the normalised prompt; no prompt is in both."""
    first, second = (
        Labels(
            tuple(answer for answer in labels.answers if part_of(answer.group) == name),
            tuple(pair for pair in labels.pairs if part_of(pair.group) == name),
        )
        for name in SETS
    )
    return first, second


def part_of(group: str) -> str:
    """The set a prompt's labels are fitted on, by the prompt's text alone."""
    return SETS[int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) % 3 == 1]


def labels_of(options: argparse.Namespace) -> Labels:
    """All labels of the data folder, sub-sampled as the options say."""
    shuffle = random.Random(options.seed)
    files = ("hh_harmless_pairs", "gptfuzz_responses_labelled.train", "autoj_pairwise_human")
    hh, gptfuzz, autoj = (_rows(options.data / f"{file}.jsonl.gz") for file in files)
    for rows in (hh, gptfuzz, autoj):
        shuffle.shuffle(rows)
    n = options.limit
    answers = list(_gptfuzz(gptfuzz, options.per_question))[:n]
    pairs = [*list(_hh(hh[: options.hh_pairs]))[:n], *list(_autoj(autoj))[:n]]
    return Labels(tuple(answers), tuple(pair for pair in pairs if _length(pair) <= options.max_characters))


def _length(pair: LabelledPair) -> int:
    """Characters of the conversation with its longer answer."""
    return sum(len(m.content) for m in pair.prompt.messages) + max(len(pair.chosen), len(pair.rejected))


def _hh(rows: Iterable[dict[str, Any]]) -> Iterable[LabelledPair]:
    for row in rows:
        turns = [Message(turn["role"], turn["content"]) for turn in row["messages"]]
        yield _pair(turns, row["chosen"], row["rejected"], "harmlessness")


def _gptfuzz(rows: Iterable[dict[str, Any]], most: int) -> Iterable[LabelledAnswer]:
    seen: Counter[tuple[int, int]] = Counter()
    for row in rows:
        kind = (row["question_index"], row["human_label"])
        if row["mostly_ascii"] and row["response"].strip() and seen[kind] < most:
            seen[kind] += 1
            prompt = label_prompt([Message("user", row["prompt"])])
            harmless = row["human_label"] == 0
            yield LabelledAnswer(prompt, row["response"], "harmlessness", harmless, prompt_group(prompt))


def _autoj(rows: Iterable[dict[str, Any]]) -> Iterable[LabelledPair]:
    for row in rows:
        if row["human_preference"] != "tie":
            better = row["human_preference"]
            worse = "response_2" if better == "response_1" else "response_1"
            yield _pair([Message("user", row["prompt"])], row[better], row[worse], "helpfulness")


def _pair(turns: list[Message], chosen: str, rejected: str, objective: str) -> LabelledPair:
    prompt = label_prompt(turns)
    return LabelledPair(prompt, chosen, rejected, objective, prompt_group(prompt))


def _rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the labelled data")
    parser.add_argument("--to", type=Path, default=FOLDER / "heads", help="folder that gets one folder per set")
    parser.add_argument("--model", default="smollm2-135m", help="model whose hidden states are used")
    given = "one for all objectives, or harmlessness=15,helpfulness=18"
    parser.add_argument("--train-layers", type=_per_objective(int), default=18, help=f"demo-train: {given}")
    parser.add_argument("--eval-layers", type=_per_objective(int), default=20, help=f"demo-eval: {given}")
    parser.add_argument("--c", type=_per_objective(float), default=1e-3, help="inverse penalty, as the layers")
    parser.add_argument("--folds", type=int, default=5, help="folds of the cross-validation")
    parser.add_argument("--hh-pairs", type=int, default=1300, help="pairs of HH-RLHF, both sets together")
    parser.add_argument("--per-question", type=int, default=12, help="GPTFuzz answers a question and label")
    parser.add_argument("--max-characters", type=int, default=3600, help="longer conversations are left out")
    parser.add_argument("--limit", type=int, default=None, help="rows of each source, for a quick trial")
    parser.add_argument("--seed", type=int, default=0, help="shuffles the rows and deals the folds")
    return parser.parse_args()


def _per_objective(number: type[int] | type[float]) -> Any:
    def parse(text: str) -> Any:
        if "=" not in text:
            return number(text)
        return {name: number(value) for name, _, value in (part.partition("=") for part in text.split(","))}

    return parse


if __name__ == "__main__":
    sys.exit(main())
