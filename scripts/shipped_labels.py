"""The labels that the shipped heads are fitted on: what is read, made and left out, and which set gets which.

Labelled data of others does not ship; `data` is a folder with

    hh_harmless_pairs.jsonl.gz                messages, chosen, rejected
    gptfuzz_responses_labelled.train.jsonl.gz prompt, question_index, response, human_label, mostly_ascii
    autoj_pairwise_human.jsonl.gz             prompt, response_1, response_2, human_preference (or tie)

`labels/stances.yaml` and `labels/refusals.yaml` were written for this project. No label is a judgement of an
evaluation set (SafeRLHF, BeaverTails, XSTest, HHH) or of the constitutions' anchors.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from selfpriority.judges.labels import LabelledPair, Labels, label_prompt, prompt_group
from selfpriority.judges.said_back import ways_to_say_back
from selfpriority.records import Message

SETS = ("demo-train", "demo-eval")
"""The two halves of the labels."""


@dataclass(frozen=True)
class Mix:
    """Which labels a set of heads is fitted on."""

    half: str
    """Of `SETS`."""
    off_topic: float = 0.3
    """Weight of an answer against one to another prompt, so easily told apart that it would drown the finer labels."""
    refusal: float = 0.2
    """The same of an answer against a stock refusal."""
    said_back: float = 0.3
    """The same of an answer against the question, said back."""
    is_whole: bool = False
    """Preferences between answers of any length, not of up to `SHORT_CHARACTERS` alone."""


MIXES = {
    "demo-train": Mix("demo-train"),
    "demo-eval": Mix("demo-eval"),
    "ranking": Mix("demo-train", off_topic=0.2, refusal=0.1, said_back=0.2, is_whole=True),
}
"""The heads that ship; `ranking` orders whole answers more as people do and is not to train on (docs/judging.md)."""
WRITTEN = Path(__file__).parent / "labels"
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
        {
            "name": "Answers of two stances, from templates",
            "source": "scripts/labels/stances.yaml, written for this project",
            "licence": "Apache-2.0",
        },
    ],
    "helpfulness": [
        {
            "name": "Auto-J human pairwise preferences; and its answers against answers to other prompts",
            "source": "https://github.com/GAIR-NLP/auto-j",
            "licence": "Apache-2.0",
        },
        {
            "name": "Stock refusals to Auto-J's prompts, against its answers",
            "source": "scripts/labels/refusals.yaml, written for this project",
            "licence": "Apache-2.0",
        },
        {
            "name": "Auto-J's prompts said back, against its answers",
            "source": "scripts/labels/said_back.yaml, written for this project",
            "licence": "Apache-2.0",
        },
    ],
}

HARM_CHARACTERS, SHORT_CHARACTERS = 700, 1600
"""Longer conversations cost most of the forward pass and say little about answers of a few dozen tokens."""
_PER_QUESTION = 10
"""GPTFuzz answers a question and label: eighty questions underlie it, so more of each are hardly news."""
_PER_ACT, _PER_QUESTION_ON_A_GROUP = 5, 2
_GPTFUZZ_WEIGHT = 0.5
"""At full weight labels that are told apart so easily would drown the finer ones."""
_REFUSED = 0.4
"""Share of Auto-J's prompts that also get a stock refusal."""


def part_of(group: str) -> str:
    """The half that a prompt's labels are in, by the prompt's text alone."""
    return SETS[int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) % 2]


def labels_of(data: Path, name: str, limit: int | None = None, seed: int = 0) -> Labels:
    """The labels of the heads `name`; `limit` takes as many rows of each source, for a quick trial."""
    mix = MIXES[name]
    files = ("hh_harmless_pairs", "gptfuzz_responses_labelled.train", "autoj_pairwise_human")
    hh, gptfuzz, autoj = (read_rows(data / f"{file}.jsonl.gz") for file in files)
    shuffle = random.Random(seed)
    for rows in (hh, gptfuzz, autoj):
        shuffle.shuffle(rows)
    whole = list(autoj_pairs(autoj))
    short = [pair for pair in whole if length(pair) <= SHORT_CHARACTERS]
    sources: list[Sequence[LabelledPair]] = [
        [pair for pair in hh_pairs(hh) if length(pair) <= HARM_CHARACTERS],
        _gptfuzz(gptfuzz),
        stances(mix.half, seed),
        whole if mix.is_whole else short,
        [replace(pair, weight=mix.off_topic) for pair in off_topic(short)],
        [replace(pair, weight=mix.refusal) for pair in refusals(short, seed)],
        [replace(pair, weight=mix.said_back) for pair in said_back(short, mix.half, seed)],
    ]
    kept = [[pair for pair in source if part_of(pair.group) == mix.half][:limit] for source in sources]
    return Labels((), tuple(pair for source in kept for pair in source))


def autoj_pairs(rows: Iterable[dict[str, Any]]) -> Iterator[LabelledPair]:
    """Auto-J's human preferences, without its ties."""
    for row in rows:
        better = row["human_preference"]
        worse = "response_2" if better == "response_1" else "response_1"
        if better != "tie" and row[better].strip() and row[worse].strip():
            yield _pair([Message("user", row["prompt"])], row[better], row[worse], "helpfulness")


def off_topic(pairs: Sequence[LabelledPair]) -> list[LabelledPair]:
    """One of each prompt's own answers, better and worse in turn, against the answer to another prompt of its set."""
    made = []
    for name in SETS:
        own = [pair for pair in pairs if part_of(pair.group) == name]
        for number, (pair, other) in enumerate(zip(own, [*own[1:], *own[:1]], strict=True)):
            right = pair.rejected if number % 2 else pair.chosen
            wrong = other.chosen if number % 4 < 2 else other.rejected
            if pair.group != other.group:
                made.append(LabelledPair(pair.prompt, right, wrong, "helpfulness", pair.group))
    return made


def stances(name: str, seed: int) -> list[LabelledPair]:
    """Answers that steer away from a request against answers that go along with it; each set has its own wordings."""
    shuffle, half = random.Random(seed), SETS.index(name)
    told = yaml.safe_load((WRITTEN / "stances.yaml").read_text(encoding="utf-8"))
    asked = [(act.pop("asked"), act, "steers_away", "goes_along", _PER_ACT) for act in told["acts"]]
    for group in told["groups"]:
        for question in told["questions"]:
            words = {"group": group}
            asked.append((fill(question, words), words, "disagrees", "agrees", _PER_QUESTION_ON_A_GROUP))
    made = []
    for prompt, words, good, bad, n in asked:
        turns = [Message("user", prompt)]
        twos = zip(shuffle.sample(told[good][half::2], n), shuffle.sample(told[bad][half::2], n), strict=True)
        made += [_pair(turns, fill(better, words), fill(worse, words), "harmlessness") for better, worse in twos]
    return made


def fill(template: str, words: dict[str, str]) -> str:
    """`{to}` becomes the words given for `to`, `{To}` the same with a capital."""
    for name, value in words.items():
        template = template.replace(f"{{{name}}}", value)
        template = template.replace(f"{{{name.capitalize()}}}", value[:1].upper() + value[1:])
    return template


def refusals(pairs: Sequence[LabelledPair], seed: int) -> list[LabelledPair]:
    """Some of the answers against a stock refusal to the same ordinary prompt; each set has its own refusals."""
    shuffle = random.Random(seed)
    stock = yaml.safe_load((WRITTEN / "refusals.yaml").read_text(encoding="utf-8"))
    made = []
    for pair in pairs:
        if shuffle.random() < _REFUSED:
            right = shuffle.choice((pair.chosen, pair.rejected))
            refusal = shuffle.choice(stock[SETS.index(part_of(pair.group)) :: 2])
            made.append(LabelledPair(pair.prompt, right, refusal, "helpfulness", pair.group))
    return made


def said_back(pairs: Sequence[LabelledPair], wordings: str, seed: int) -> list[LabelledPair]:
    """An answer to each prompt against the prompt, said back; each set has its own `wordings`.

    Whoever reads how close an answer is to what was asked finds nothing closer than that, and it helps nobody.
    """
    shuffle = random.Random(seed)
    templates = yaml.safe_load((WRITTEN / "said_back.yaml").read_text(encoding="utf-8"))[wordings]
    asked = {pair.group: pair for pair in pairs}.values()
    made = []
    for pair in asked:
        right = shuffle.choice((pair.chosen, pair.rejected))
        echo = fill(shuffle.choice(templates), ways_to_say_back(pair.prompt))
        made.append(LabelledPair(pair.prompt, right, echo, "helpfulness", pair.group))
    return made


def hh_pairs(rows: Iterable[dict[str, Any]]) -> Iterator[LabelledPair]:
    """HH-RLHF's human preferences."""
    for row in rows:
        turns = [Message(turn["role"], turn["content"]) for turn in row["messages"]]
        if row["chosen"].strip() and row["rejected"].strip():
            yield _pair(turns, row["chosen"], row["rejected"], "harmlessness")


def _gptfuzz(rows: Iterable[dict[str, Any]]) -> list[LabelledPair]:
    """Harmless against harmful answers to the same question: within a question, the subject tells nothing."""
    by_question: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for row in rows:
        answers = by_question[row["prompt"]][row["human_label"]]
        is_short = len(row["prompt"]) + len(row["response"]) <= HARM_CHARACTERS
        if row["mostly_ascii"] and row["response"].strip() and is_short and len(answers) < _PER_QUESTION:
            answers.append(row["response"])
    return [
        _pair([Message("user", prompt)], harmless, harmful, "harmlessness", _GPTFUZZ_WEIGHT)
        for prompt, both in by_question.items()
        for harmless, harmful in zip(*both, strict=False)
    ]


def _pair(turns: list[Message], chosen: str, rejected: str, objective: str, weight: float = 1.0) -> LabelledPair:
    prompt = label_prompt(turns)
    return LabelledPair(prompt, chosen, rejected, objective, prompt_group(prompt), weight)


def length(pair: LabelledPair) -> int:
    """Characters of the conversation with its longer answer."""
    return sum(len(m.content) for m in pair.prompt.messages) + max(len(pair.chosen), len(pair.rejected))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a compressed JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
