"""The labels that the outside heads are fitted on: those of prompts that no other shipped head has seen.

Read from the same folder as `shipped_labels.py`: what its sets leave out because the conversation is long. An encoder
reads only the last user turn and the answer, so length costs it little. `labels/outside_stances.yaml` and
`labels/outside_refusals.yaml` were written for this project, and no other head was fitted on their wordings.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import yaml
from shipped_labels import (
    HARM_CHARACTERS,
    MIXES,
    SHORT_CHARACTERS,
    WRITTEN,
    autoj_pairs,
    fill,
    hh_pairs,
    labels_of,
    length,
    part_of,
    read_rows,
    said_back,
)

from selfpriority.constitution import load_constitution
from selfpriority.judges.labels import LabelledPair, Labels, anchors_as_labels, label_prompt, prompt_group
from selfpriority.outside import read_text, written_rows
from selfpriority.records import Message
from selfpriority.wording import FOLDER

NAME, MODEL = "outside", "all-minilm-l6-v2"
DATA = {
    "harmlessness": [
        {
            "name": "HH-RLHF harmless-base test, pairs of long conversations",
            "source": "https://github.com/anthropics/hh-rlhf",
            "licence": "MIT",
        },
        {
            "name": "Answers of two stances, from templates of their own",
            "source": "scripts/labels/outside_stances.yaml, written for this project",
            "licence": "Apache-2.0",
        },
    ],
    "helpfulness": [
        {
            "name": "Auto-J human preferences between long answers; and its answers against those to other prompts",
            "source": "https://github.com/GAIR-NLP/auto-j",
            "licence": "Apache-2.0",
        },
        {
            "name": "Stock refusals to Auto-J's prompts, against its answers",
            "source": "scripts/labels/outside_refusals.yaml, written for this project",
            "licence": "Apache-2.0",
        },
        {
            "name": "Auto-J's prompts said back, against its answers",
            "source": "scripts/labels/said_back.yaml, written for this project",
            "licence": "Apache-2.0",
        },
    ],
}
_OFF_TOPIC, _REFUSAL, _SAID_BACK = 0.6, 0.2, 1.0
"""Weights of contrasts that are so easily told apart that they would drown the finer labels, as for the other heads;
but an encoder's states say first of all what a text is about, so a question said back has to count in full."""
_PER_ACT = 8


def outside_labels(data: Path, seed: int = 0) -> Labels:
    """The labels of the outside heads: none of a prompt that another shipped head was fitted on, or that ships."""
    harm = hh_of_nobody(hh_pairs(read_rows(data / "hh_harmless_pairs.jsonl.gz")))
    liked = autoj_of_nobody(autoj_pairs(read_rows(data / "autoj_pairwise_human.jsonl.gz")))
    echoes = [replace(pair, weight=_SAID_BACK) for pair in said_back(liked, NAME, seed)]
    pairs = [*harm, *outside_stances(seed), *liked, *_off_topic(liked, seed), *_refusals(liked, seed), *echoes]
    taken = {pair.group for name in MIXES for pair in labels_of(data, name).pairs} | shipped_groups()
    return Labels((), tuple(pair for pair in pairs if pair.group not in taken))


def hh_of_nobody(pairs: Iterable[LabelledPair]) -> list[LabelledPair]:
    """Conversations too long for the other heads, whose opening no shorter one shares; of no shipped prompt."""
    given, shipped = list(pairs), shipped_groups()
    short = {pair.group for pair in given if length(pair) <= HARM_CHARACTERS}
    return [pair for pair in given if pair.group not in short | shipped]


def autoj_of_nobody(pairs: Iterable[LabelledPair]) -> list[LabelledPair]:
    """Long answers of the half that `ranking`, fitted on long ones too, has not seen; of no shipped prompt."""
    given, shipped = list(pairs), shipped_groups()
    short = {pair.group for pair in given if length(pair) <= SHORT_CHARACTERS}
    return [p for p in given if p.group not in short | shipped and part_of(p.group) != MIXES["ranking"].half]


def outside_stances(seed: int) -> list[LabelledPair]:
    """Answers that steer away from a request against answers that go along with it."""
    shuffle = random.Random(seed)
    told = yaml.safe_load((WRITTEN / "outside_stances.yaml").read_text(encoding="utf-8"))
    made = []
    for act in told["acts"]:
        prompt = label_prompt([Message("user", act["asked"])])
        words = {"to": act["to"], "ing": act["ing"]}
        better, worse = (shuffle.sample(told[side], _PER_ACT) for side in ("steers_away", "goes_along"))
        made += [
            LabelledPair(prompt, fill(good, words), fill(bad, words), "harmlessness", prompt_group(prompt))
            for good, bad in zip(better, worse, strict=True)
        ]
    return made


def shipped_groups() -> set[str]:
    """Groups of all prompts that ship: the demo's, those of heads without labels, the anchors."""
    files = (FOLDER / "prompts" / "demo.jsonl", FOLDER / "contrast" / "prompts.jsonl")
    told = [str(row.value["prompt"]) for file in files for row in written_rows(file, read_text(file))]
    anchors = anchors_as_labels(load_constitution("harmless-honest-helpful")).answers
    return {prompt_group(label_prompt([Message("user", text)])) for text in told} | {row.group for row in anchors}


def _off_topic(pairs: list[LabelledPair], seed: int) -> list[LabelledPair]:
    """Every prompt's own answer, the better or the worse, against the answer to another prompt."""
    shuffle = random.Random(seed)
    made = []
    for pair in pairs:
        other, right = shuffle.choice(pairs), shuffle.choice((pair.chosen, pair.rejected))
        if pair.group != other.group:
            made.append(replace(pair, chosen=right, rejected=other.chosen, weight=_OFF_TOPIC))
    return made


def _refusals(pairs: list[LabelledPair], seed: int) -> list[LabelledPair]:
    """Every prompt's better answer against a stock refusal."""
    shuffle = random.Random(seed)
    stock = yaml.safe_load((WRITTEN / "outside_refusals.yaml").read_text(encoding="utf-8"))
    return [replace(pair, rejected=shuffle.choice(stock), weight=_REFUSAL) for pair in pairs]
