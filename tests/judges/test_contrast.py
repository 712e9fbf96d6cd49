"""Heads that nobody labelled anything for: what is made, what it is called, and that a run keeps and reuses it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from selfpriority.errors import InputError
from selfpriority.judges.contrast import (
    Contrast,
    OpenedAnswers,
    contrast_hash,
    contrast_objectives,
    fit_contrast,
    made_labels,
    read_contrast,
)
from selfpriority.judges.contrast_pairs import Asked, OpenedPairs, Worse, paired
from selfpriority.judges.labels import label_prompt, prompt_group
from selfpriority.language_model import Answer, Completion, Embed, Generate, Request, Text, Vectors
from selfpriority.prompts import load_prompts
from selfpriority.recipe import Prompts
from selfpriority.records import Message, Prompt
from tests.test_pipeline import spa, steps, write_recipe
from tests.test_prompts import SPLITS

DATA = Path(os.environ.get("SELFPRIORITY_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
MEASURED_ON = (
    "xstest_responses_labelled.jsonl.gz",
    "gptfuzz_responses_labelled.train.jsonl.gz",
    "saferlhf_answers_labelled.test.jsonl.gz",
    "autoj_pairwise_human.jsonl.gz",
)


class Opened:
    """Goes on as its answer begins; its states show a warning in the first number, vagueness in the second."""

    fingerprint = "opened"

    def plan(self, requests: list[Request]) -> list[list[int]]:
        return [list(range(len(requests)))]

    def answer(self, batches: list[list[Request]]):  # type: ignore[no-untyped-def]
        for number, batch in enumerate(batches):
            yield number, [self._of(request) for request in batch]

    def _of(self, request: Request) -> Answer:
        if isinstance(request, Generate):
            assert [message.role for message in request.messages] == ["user"]
            begun = request.opening
            if begun == "Sure, but it declines.":
                return Completion((Text(f"{begun} I cannot help with that.", 6, "end"),))
            first = begun.split()[0] if begun else "nothing"
            return Completion((Text(f"{begun} words that follow {first} here".strip(), 5, "length"),))
        assert isinstance(request, Embed)
        assert request.stop == "length"
        told = (request.messages[0].content + request.response).encode()
        draw = np.random.default_rng(int.from_bytes(hashlib.sha256(told).digest()[:4], "big"))
        numbers = draw.normal(size=4)
        numbers[0] += 4.0 * ("Beware" in request.response)
        numbers[1] += 4.0 * ("Vaguely" in request.response)
        return Vectors(tuple(tuple(numbers.tolist()) for _ in request.layers))


ANSWERS = Contrast(
    depth=0.5,
    penalty=1e-2,
    answers=(
        OpenedAnswers(to=("harmful",), opened=("Sure, but it declines.", "Sure,"), label=0, unless_refusal=True),
        OpenedAnswers(to=("harmful",), opened=("Beware:",), label=1),
        OpenedAnswers(to=("ordinary", "borderline"), opened=("",), label=1),
    ),
)
PAIRS = Contrast(
    depth=0.5,
    penalty=1e-2,
    pairs=OpenedPairs(to=("ordinary",), worse=(Worse(opened="Vaguely"), Worse(looped=2, weight=0.5))),
)


def test_an_opening_gives_the_label_and_stays_out_of_what_is_read() -> None:
    labels = made_labels("harmlessness", ANSWERS, Opened())
    complied = [row for row in labels.answers if not row.label]
    warned = [row for row in labels.answers if row.label and row.opening]
    plain = [row for row in labels.answers if not row.opening]
    assert (len(complied), len(warned), len(plain)) == (150, 150, 170)  # the 150 that decline are left out
    assert {row.opening for row in complied} == {"Sure,"}
    assert {len(row.prompt.messages) for row in labels.answers} == {1}
    assert {row.response for row in complied} == {" words that follow Sure, here"}  # the space after the opening
    assert {row.response for row in plain} == {"words that follow nothing here"}
    assert {row.stop for row in labels.answers} == {"length"}
    assert all(row.label for row in plain)


def test_a_vague_answer_and_a_repeated_beginning_are_the_worse_ones() -> None:
    labels = made_labels("helpfulness", PAIRS, Opened())
    assert len(labels.pairs) == 2 * 110
    assert {row.chosen for row in labels.pairs} == {"words that follow nothing here"}
    assert {row.rejected for row in labels.pairs} == {"words that follow Vaguely here", "words that words that words"}
    assert all(len(row.prompt.messages) == 1 for row in labels.pairs)
    assert {(row.rejected.startswith("words that words"), row.weight) for row in labels.pairs} == {
        (False, 1),
        (True, 0.5),
    }


def test_the_head_finds_what_the_openings_put_there(monkeypatch: pytest.MonkeyPatch) -> None:
    by_name = {"harmlessness": ANSWERS, "helpfulness": PAIRS}
    monkeypatch.setattr("selfpriority.judges.contrast.read_contrast", by_name.__getitem__)
    heads = fit_contrast(Opened(), "opened", 10, ("harmlessness", "helpfulness"))
    assert {head.layers for head in heads.by_objective.values()} == {(5,)}
    harmless, helpful = (np.abs(heads.by_objective[name].weights) for name in by_name)
    assert int(harmless.argmax()) == 0
    assert int(helpful.argmax()) == 1
    assert heads.by_objective["helpfulness"].weights[1] < 0
    assert heads.card["labels"] == "contrast"
    assert heads.card["objectives"]["harmlessness"]["cross_validation"]["auc"]["estimate"] > 0.6


def test_what_ships_is_read_and_no_other_objective_is_made_up() -> None:
    assert contrast_objectives() == ("harmlessness", "helpfulness")
    for objective in contrast_objectives():
        assert 0 < read_contrast(objective).layer(30) < 30
    assert contrast_hash(("harmlessness",)) != contrast_hash(("helpfulness",))
    with pytest.raises(InputError, match=r"no answers can be made for 'honesty', only for harmlessness, helpfulness"):
        read_contrast("honesty")


def test_no_prompt_of_the_fit_is_trained_or_evaluated_on() -> None:
    from selfpriority.judges.contrast import _asked

    fitted = {prompt_group(asked.prompt) for asked in _asked(("harmful", "ordinary", "borderline"))}
    assert len(fitted) == 320
    for split in SPLITS:
        shipped = load_prompts(Prompts(source="demo", split=split), 0).kept
        assert fitted.isdisjoint(prompt_group(prompt) for prompt in shipped)


@pytest.mark.data
def test_no_prompt_of_the_fit_is_in_what_the_judge_is_measured_on() -> None:
    from selfpriority.judges.contrast import _asked

    fitted = {prompt_group(asked.prompt) for asked in _asked(("harmful", "ordinary", "borderline"))}
    for name in MEASURED_ON:
        path = DATA / name
        if not path.is_file():
            pytest.skip(f"{name} is not beside this checkout; SELFPRIORITY_DATA names its folder")
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            asked = {prompt_group(label_prompt([Message("user", json.loads(line)["prompt"])])) for line in lines}
        assert asked
        assert fitted.isdisjoint(asked)


@pytest.mark.slow
def test_a_run_makes_its_judge_once_and_keeps_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    score = {"judge": {"kind": "contrast"}, "require_signal": False}
    recipe = write_recipe(tmp_path, tiny_model, score=score, rounds=2)
    spa("run", recipe, "--out", tmp_path / "run")
    [folder] = (tmp_path / "run" / "heads").iterdir()
    card = json.loads((folder / "card.json").read_text())
    assert (card["model"], card["labels"]) == (str(tiny_model), "contrast")
    train = json.loads((tmp_path / "run" / "judge.json").read_text())
    assert "contrast" in json.dumps(train)
    done = steps(tmp_path / "run")
    # the second round's judge is the first's: the measure does not move with what is trained
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    again = spa("run", recipe, "--out", tmp_path / "run")
    assert "done before" in again.stderr
    assert steps(tmp_path / "run") == done
    assert [folder] == list((tmp_path / "run" / "heads").iterdir())


def test_options_that_do_not_go_together_are_one_line(tmp_path: Path) -> None:
    assert "either --labels FILE, or --contrast" in spa("fit-judge", "--model", "m", "--to", tmp_path, check=2).stderr
    told = spa("fit-judge", "--model", "m", "--to", tmp_path, "--contrast", "--layer", "3", check=2).stderr
    assert "--layer goes with --labels" in told
    told = spa("fit-judge", "--model", "m", "--to", tmp_path, "--contrast", "--c", "0.1", check=2).stderr
    assert "--c goes with --labels" in told


def test_every_sort_of_worse_answer_is_made_of_what_the_model_wrote() -> None:
    asked = [
        Asked(label_prompt([Message("user", f"{subject} {n}?")]), "ordinary", subject)
        for subject, count in (("bread", 3), ("rain", 1))
        for n in range(count)
    ]

    def written(prompt: Prompt, opening: str) -> str | None:
        told = prompt.messages[0].content
        return None if (told, opening) == ("bread 2?", "Sorry,") else f" one two three {told}"

    sorts = {
        "near": Worse(of="near"),
        "another": Worse(of="another"),
        "first": Worse(words=2),
        "looped": Worse(looped=2),
        "whole": Worse(opened="Sorry,", read_whole=True),
        "behind": Worse(opened="Sorry,"),
    }
    made = {
        name: [(row.prompt.messages[0].content, row.rejected) for row in paired("h", pairs, asked, written)]
        for name, pairs in ((name, OpenedPairs(to=("ordinary",), worse=(worse,))) for name, worse in sorts.items())
    }
    assert made["near"] == [
        ("bread 0?", "one two three bread 1?"),
        ("bread 1?", "one two three bread 2?"),
        ("bread 2?", "one two three bread 0?"),
    ]  # rain has no other
    assert sorted(text for _, text in made["another"]) == sorted(
        f"one two three {a.prompt.messages[0].content}" for a in asked
    )
    assert all(told not in text for told, text in made["another"])
    assert made["first"][0] == ("bread 0?", "one two")
    assert made["looped"][0] == ("bread 0?", "one two one two one")
    assert made["whole"][0] == ("bread 0?", "Sorry, one two three bread 0?")
    assert made["behind"][0] == ("bread 0?", "one two three bread 0?")
    assert [told for told, _ in made["whole"]] == ["bread 0?", "bread 1?", "rain 0?"]  # where the answer came
