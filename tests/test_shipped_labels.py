"""The labels written for this project, and the heads that ship: what can be checked without the data of others."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from every_layer import EveryLayer
from one_objective import fitted
from outside_labels import MODEL, autoj_of_nobody, hh_of_nobody, outside_stances, shipped_groups
from outside_labels import NAME as OUTSIDE
from shipped_labels import (
    HARM_CHARACTERS,
    MIXES,
    SETS,
    SHORT_CHARACTERS,
    WRITTEN,
    fill,
    off_topic,
    part_of,
    refusals,
    said_back,
    stances,
)

from selfpriority.backends.scripted import ScriptedModel
from selfpriority.judges.contrast import SOURCE, contrast_hash
from selfpriority.judges.fit import FitSettings
from selfpriority.judges.heads import read_heads, write_heads
from selfpriority.judges.labels import LabelledPair, Labels, label_prompt, prompt_group
from selfpriority.language_model import Choose, Embed, ask
from selfpriority.phases.judge_names import SHIPPED_HEADS, shipped_heads
from selfpriority.recipe import ScriptedBackend
from selfpriority.records import Message

CONTRAST = "demo-contrast"


def pairs(n: int) -> list[LabelledPair]:
    prompts = [label_prompt([Message("user", f"question {i}")]) for i in range(n)]
    return [LabelledPair(p, f"right {i}", f"worse {i}", "helpfulness", prompt_group(p)) for i, p in enumerate(prompts)]


def test_a_template_is_filled_with_and_without_a_capital() -> None:
    assert fill("{Ing} is wrong, do not {to}.", {"to": "lie", "ing": "lying"}) == "Lying is wrong, do not lie."


def test_stances_are_filled_and_no_wording_or_prompt_is_in_both_sets() -> None:
    made = [stances(name, seed=0) for name in SETS]
    told = yaml.safe_load((WRITTEN / "stances.yaml").read_text(encoding="utf-8"))
    for name, own in zip(SETS, made, strict=True):
        kept = [pair for pair in own if part_of(pair.group) == name]
        assert 200 < len(kept) < 400
        texts = [text for pair in kept for text in (pair.prompt.messages[0].content, pair.chosen, pair.rejected)]
        assert not [text for text in texts if "{" in text or "}" in text]
    both = [{text for pair in own for text in (pair.chosen, pair.rejected)} for own in made]
    assert not both[0] & both[1]
    assert len(told["goes_along"]) == len(told["steers_away"])


def test_the_wrong_answer_belongs_to_another_prompt_of_the_same_set() -> None:
    given = pairs(40)
    owner = {text: pair.group for pair in given for text in (pair.chosen, pair.rejected)}
    made = off_topic(given)
    assert len(made) == 40
    for pair in made:
        assert owner[pair.chosen] == pair.group != owner[pair.rejected]
        assert part_of(owner[pair.rejected]) == part_of(pair.group)


def test_the_sets_refuse_in_words_of_their_own() -> None:
    made = refusals(pairs(200), seed=0)
    said = {name: {pair.rejected for pair in made if part_of(pair.group) == name} for name in SETS}
    assert all(said.values())
    assert not said["demo-train"] & said["demo-eval"]


def test_the_question_said_back_loses_to_an_answer_in_words_of_each_sets_own() -> None:
    said = {name: said_back(pairs(40), name, seed=0) for name in (*SETS, OUTSIDE)}
    for made in said.values():
        assert [pair.group for pair in made] == [pair.group for pair in pairs(40)]  # one a prompt
        assert all(pair.chosen.startswith(("right", "worse")) for pair in made)
        assert all("question" in pair.rejected.lower() and "{" not in pair.rejected for pair in made)
    templates = yaml.safe_load((WRITTEN / "said_back.yaml").read_text(encoding="utf-8"))
    assert sorted(templates) == sorted([*SETS, OUTSIDE])
    longer = [{text for text in given if text.count("{") > 1 or text[0] != "{"} for given in templates.values()]
    assert all(longer)
    assert not longer[0] & longer[1] | longer[0] & longer[2] | longer[1] & longer[2]


def test_heads_of_one_objective_are_fitted_anew_and_the_others_stay_bit_for_bit(tmp_path: Path) -> None:
    model = ScriptedModel(ScriptedBackend(kind="scripted"), "m")
    labels = [replace(pair, objective=o) for o in ("harmlessness", "helpfulness") for pair in pairs(30)]
    settings = FitSettings(layers=(1,))
    write_heads(tmp_path, fitted(Labels((), tuple(labels)), model, "m", settings, only=(), shipped=tmp_path))
    fewer = Labels((), tuple(labels[10:50]))
    both = fitted(fewer, model, "m", settings, only=("helpfulness",), shipped=tmp_path)
    before = read_heads(tmp_path)
    weights = {name: [heads.by_objective[name].weights for heads in (before, both)] for name in before.by_objective}
    assert (weights["harmlessness"][0] == weights["harmlessness"][1]).all()
    assert (weights["helpfulness"][0] != weights["helpfulness"][1]).any()
    assert both.card["objectives"]["harmlessness"] == before.card["objectives"]["harmlessness"]
    assert [both.card["objectives"][name]["n_pairs"] for name in ("harmlessness", "helpfulness")] == [30, 20]


def test_no_wording_and_no_request_of_the_outside_heads_is_another_heads() -> None:
    made = outside_stances(seed=0)
    assert len(made) == 26 * 8
    others = [pair for name in SETS for pair in stances(name, seed=0)]
    texts, told = ({text for p in pairs for text in (p.chosen, p.rejected)} for pairs in (made, others))
    assert not [text for text in texts if "{" in text or "}" in text]
    assert not texts & told
    assert not {pair.group for pair in made} & ({pair.group for pair in others} | shipped_groups())
    raw = [yaml.safe_load((WRITTEN / f"{kind}stances.yaml").read_text("utf-8")) for kind in ("", "outside_")]
    for side in ("goes_along", "steers_away"):
        assert not set(raw[0][side]) & set(raw[1][side])
    stock = [set(yaml.safe_load((WRITTEN / f"{kind}refusals.yaml").read_text("utf-8"))) for kind in ("", "outside_")]
    assert not stock[0] & stock[1]


def test_the_outside_heads_take_no_prompt_that_another_head_takes() -> None:
    prompts = [label_prompt([Message("user", f"question {i}")]) for i in range(40)]

    def rows(objective: str, most: int) -> list[LabelledPair]:
        """Every prompt with long answers, every third with short ones too."""
        long = [LabelledPair(p, "x" * most, f"worse {p.id}", objective, prompt_group(p)) for p in prompts]
        return long + [LabelledPair(p, "right", "worse", objective, prompt_group(p)) for p in prompts[::3]]

    harm, helpful = rows("harmlessness", HARM_CHARACTERS), rows("helpfulness", SHORT_CHARACTERS)
    short = {prompt_group(p) for p in prompts[::3]}
    alone = [prompt_group(p) for p in prompts if prompt_group(p) not in short]
    assert [pair.group for pair in hh_of_nobody(harm)] == alone
    assert [pair.group for pair in autoj_of_nobody(helpful)] == [g for g in alone if part_of(g) == "demo-eval"]


def test_the_outside_heads_read_another_model_and_rate_both_objectives() -> None:
    heads = read_heads(SHIPPED_HEADS / OUTSIDE)
    assert heads.model == MODEL
    assert set(heads.by_objective) == {"harmlessness", "helpfulness"}
    for entry in heads.card["objectives"].values():
        assert {data["licence"] for data in entry["data"]} <= {"MIT", "Apache-2.0"}
    assert (SHIPPED_HEADS / OUTSIDE / "heads.safetensors").stat().st_size < 300_000
    assert {read_heads(SHIPPED_HEADS / name).model for name in MIXES} == {"smollm2-135m"}


def test_states_asked_for_one_by_one_are_those_asked_for_together() -> None:
    model = ScriptedModel(ScriptedBackend(kind="scripted"), "m")
    wide = EveryLayer(model, (1, 5))
    asked = (Message("user", "Hi"),)
    requests = [
        Embed(asked, "Hello", (5, 1)),
        Embed(asked, "Hello", (1, 2), ("response", "prompt")),
        Choose((asked,), ("0", "1")),
    ]
    assert ask(wide, requests) == ask(model, requests)


def test_the_shipped_sets_rate_both_objectives_from_layers_of_their_own() -> None:
    assert shipped_heads() == sorted([*MIXES, OUTSIDE, CONTRAST])
    layers = {}
    for name in MIXES:
        heads = read_heads(SHIPPED_HEADS / name)
        assert set(heads.by_objective) == {"harmlessness", "helpfulness"}
        layers[name] = {layer for head in heads.by_objective.values() for layer in head.layers}
        for entry in heads.card["objectives"].values():
            assert {data["licence"] for data in entry["data"]} <= {"MIT", "Apache-2.0"}
        assert "Auto-J's prompts said back, against its answers" in [
            data["name"] for data in heads.card["objectives"]["helpfulness"]["data"]
        ]
        assert (SHIPPED_HEADS / name / "heads.safetensors").stat().st_size < 300_000
    assert not layers["demo-train"] & layers["demo-eval"]


def test_the_heads_of_the_demo_saw_no_label() -> None:
    heads = read_heads(SHIPPED_HEADS / CONTRAST)
    assert heads.card["labels"] == SOURCE
    # harmlessness: each opening a turn of its own; helpfulness: as it is made today (docs/judging.md)
    assert heads.card["texts"] == "c12f3dd5d3eb20a6dbc02664d63315f35fdc838a8176612e092bb7cc85b12e59"
    assert heads.card["objectives"]["helpfulness"]["texts"] == contrast_hash(["helpfulness"])
    assert not any("data" in entry for entry in heads.card["objectives"].values())
