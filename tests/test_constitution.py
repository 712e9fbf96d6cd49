"""The constitutions that ship, and what becomes of a wrong folder."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import yaml

from selfpriority.constitution import load_constitution, shipped_constitutions
from selfpriority.errors import InputError
from selfpriority.recipe import Prompts

OBJECTIVES = {
    "harmless-helpful": ("harmlessness", "helpfulness"),
    "honest-helpful": ("honesty", "helpfulness"),
    "harmless-honest-helpful": ("harmlessness", "honesty", "helpfulness"),
}
every_constitution = pytest.mark.parametrize("name", OBJECTIVES)


def test_three_ship():
    assert shipped_constitutions() == sorted(OBJECTIVES)


@every_constitution
def test_objectives_stand_in_order_of_priority(name):
    constitution = load_constitution(name)
    assert constitution.name == name
    assert constitution.names == OBJECTIVES[name]
    ranks = [line.split(":")[0] for line in constitution.text.splitlines() if line[0].isdigit()]
    assert ranks == [f"{rank}. {objective.capitalize()}" for rank, objective in enumerate(OBJECTIVES[name], start=1)]


@every_constitution
def test_every_scale_reaches_from_1_to_10_and_has_two_wordings(name):
    for objective in load_constitution(name).objectives:
        assert {1, 10} <= set(objective.rubric) <= set(range(1, 11))
        assert objective.question != objective.question_reworded


@every_constitution
def test_anchors_are_many_varied_and_distinct(name):
    constitution = load_constitution(name)
    anchors = constitution.anchors
    assert len(anchors) >= 40
    assert len({anchor.id for anchor in anchors}) == len(anchors)
    assert len({anchor.prompt for anchor in anchors}) == len(anchors)
    assert max(Counter(anchor.domain for anchor in anchors).values()) <= len(anchors) / 2
    for anchor in anchors:
        assert anchor.violates in constitution.names[:-1]
        assert len({anchor.good, anchor.useless, anchor.bad}) == 3


def test_a_constitution_is_measured_on_the_anchors_of_all_its_objectives():
    violated = {anchor.violates for anchor in load_constitution("harmless-honest-helpful").anchors}
    assert violated == {"harmlessness", "honesty"}


@every_constitution
def test_no_demo_prompt_is_an_anchor(name):
    from selfpriority.prompts import load_prompts

    demo = {prompt.text for prompt in load_prompts(Prompts(source="demo"), seed=0).kept}
    assert not demo & {anchor.prompt for anchor in load_constitution(name).anchors}


def objective(name: str) -> dict[str, object]:
    return {
        "name": name,
        "definition": "What it means.",
        "rubric": {1: "not at all", 10: "fully"},
        "question": "How far?",
        "question_reworded": "To what degree?",
    }


def write(folder, **changes):
    content = {"name": "mine", "summary": "Mine.", "objectives": [objective("kind"), objective("brief")]}
    (folder / "constitution.yaml").write_text(yaml.safe_dump(content | changes))
    return str(folder)


def test_a_folder_of_ones_own_with_three_objectives(tmp_path):
    folder = write(tmp_path, objectives=[objective("kind"), objective("true"), objective("brief")])
    constitution = load_constitution(folder)
    assert constitution.names == ("kind", "true", "brief")
    assert constitution.anchors == ()


def test_anchors_of_ones_own(tmp_path):
    anchor = {"id": "a", "domain": "d", "kind": "ordinary", "violates": "kind", "prompt": "p"}
    answers = {"good": "g", "useless": "u", "bad": "b"}
    (tmp_path / "anchors.jsonl").write_text(json.dumps(anchor | answers) + "\n")
    assert load_constitution(write(tmp_path, anchors=["anchors.jsonl"])).anchors[0].good == "g"


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        load_constitution(name)
    return str(caught.value)


def test_an_unknown_name_suggests_the_nearest():
    assert refusal("harmles-helpful").endswith("did you mean harmless-helpful?")


def test_a_folder_without_the_file_is_refused(tmp_path):
    assert "constitution.yaml" in refusal(str(tmp_path))


def test_broken_yaml_names_the_file(tmp_path):
    (tmp_path / "constitution.yaml").write_text("objectives: [")
    assert refusal(str(tmp_path)).startswith(f"{tmp_path}/constitution.yaml:1: not YAML")


def test_a_missing_field_is_named(tmp_path):
    broken = objective("kind")
    del broken["question"]
    message = refusal(write(tmp_path, objectives=[broken, objective("brief")]))
    assert message.splitlines()[0] == f"{tmp_path}/constitution.yaml: objectives.0.question: Field required"


def test_one_objective_is_not_enough(tmp_path):
    assert "at least 2 items" in refusal(write(tmp_path, objectives=[objective("kind")]))


def test_two_objectives_of_one_name_are_refused(tmp_path):
    message = refusal(write(tmp_path, objectives=[objective("kind"), objective("kind")]))
    assert message.endswith("objective names must differ, got kind, kind")


def test_text_that_is_not_utf8_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "constitution.yaml").write_bytes(b"name: caf\xe9")
    assert refusal(str(tmp_path)) == f"{tmp_path}/constitution.yaml: not UTF-8 (byte 9); save it as UTF-8"


def test_an_anchor_that_violates_no_objective_is_refused(tmp_path):
    anchor = {"id": "a", "domain": "d", "kind": "ordinary", "violates": "wit", "prompt": "p"}
    answers = {"good": "g", "useless": "u", "bad": "b"}
    (tmp_path / "anchors.jsonl").write_text(json.dumps(anchor | answers) + "\n")
    message = refusal(write(tmp_path, anchors=["anchors.jsonl"]))
    assert message == f"{tmp_path}/constitution.yaml: anchor a violates 'wit', none of kind, brief"


def test_a_missing_anchor_file_is_named(tmp_path):
    assert f"{tmp_path}/none.jsonl: no such anchor file" in refusal(write(tmp_path, anchors=["none.jsonl"]))


def test_a_broken_anchor_names_its_line(tmp_path):
    (tmp_path / "anchors.jsonl").write_text('{"id": "a"}\n')
    assert refusal(write(tmp_path, anchors=["anchors.jsonl"])).startswith(f"{tmp_path}/anchors.jsonl:1: not an anchor")
