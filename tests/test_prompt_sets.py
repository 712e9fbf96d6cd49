"""Prompt sets of others by a short name: what a name stands for, rows of their shape, and a hub that is not there."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pytest

from selfpriority import recipe
from selfpriority.errors import InputError, WorkFailed
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.prompt_sets import prompt_set_lines, prompt_sets, read_prompt_set, written_out
from selfpriority.prompts import hub_is_there, load_prompts, shipped_prompts
from selfpriority.recipe import Prompts, Recipe
from tests.judges.test_contrast import DATA

ON_THE_HUB = [name for name in prompt_sets() if read_prompt_set(name).hub]
# rows as the sets' own cards show them; the texts are ours
ROWS: dict[str, list[dict[str, Any]]] = {
    "pku-saferlhf": [{"prompt": "One?", "response_0": "a", "response_1": "b", "is_response_0_safe": True}],
    "beavertails": [{"prompt": "One?", "response": "a", "category": {"violence": False}, "is_safe": True}] * 2,
    "wildguardmix": [{"prompt": "One?", "adversarial": False, "response": "a", "prompt_harm_label": "unharmful"}],
    "xstest": [{"prompt": "One?", "focus": "x", "type": "homonyms", "note": "", "label": "safe"}],
    "or-bench-hard": [{"prompt": "One?", "category": "privacy"}],
    "or-bench-toxic": [{"prompt": "One?", "category": "privacy"}],
    "strongreject": [{"prompt": "One?", "category": "violence", "source": "custom"}],
    "harmbench": [{"prompt": "One?", "category": "cybercrime"}],
}
KINDS = {
    "wildguardmix": "unharmful", "xstest": "safe", "or-bench-hard": "safe", "or-bench-toxic": "harmful",
    "strongreject": "harmful", "harmbench": "harmful",
}  # fmt: skip


@pytest.mark.parametrize("name", ON_THE_HUB)
def test_a_name_is_read_as_its_set_is_written(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, str | None]] = []

    def load_dataset(hub: str, config: str | None, split: str | None) -> datasets.Dataset:
        asked.append((hub, config, split))
        return datasets.Dataset.from_list(ROWS[name])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    known = read_prompt_set(name)
    for split, config in known.splits.items():
        found = load_prompts(Prompts(source=name, split=split), 0)
        assert [(prompt.text, prompt.kind) for prompt in found.kept] == [("One?", KINDS.get(name, ""))]
        assert asked.pop() == (known.hub, config, split)
    load_prompts(Prompts(source=name), 0)
    assert asked == [(known.hub, *next((config, split) for split, config in known.splits.items()))]


def test_what_a_recipe_says_goes_before_what_the_set_says() -> None:
    given = Prompts(source="wildguardmix", split="test", column="question", kind_column="adversarial", limit=5)
    found = written_out(given)
    assert (found.source, found.config, found.split) == ("allenai/wildguardmix", "wildguardtest", "test")
    assert (found.column, found.kind_column, found.limit) == ("question", "adversarial", 5)
    assert written_out(found) == found
    assert written_out(Prompts(source="wildguardmix", split="x", config="another")).config == "another"
    assert written_out(Prompts(source="demo")) == Prompts(source="demo")


def test_a_run_keeps_what_the_name_meant(tmp_path: Path) -> None:
    evaluate = {"prompts": {"source": "xstest"}, "more_prompts": {"hard": {"source": "or-bench-hard", "limit": 9}}}
    given = Recipe.model_validate({"model": "some/model", "prompts": "pku-saferlhf", "evaluate": evaluate})
    found = with_absolute_paths(given, tmp_path)
    assert (found.prompts.source, found.prompts.split) == ("PKU-Alignment/PKU-SafeRLHF", "train")
    assert found.evaluate.prompts is not None
    assert found.evaluate.prompts.source == "walledai/XSTest"
    assert found.evaluate.more_prompts["hard"].kind == "safe"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (Prompts(source="honeset"), "honeset lies on no hub: it is dataset/HoneSet.json of github.com/Flossiee"),
        (Prompts(source="xstest", split="train"), "xstest has no split 'train'; its splits: test"),
        (Prompts(source="xtest"), "did you mean xstest?"),
    ],
)
def test_what_cannot_be_had_is_told(
    source: Prompts, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load_prompts(source, 0)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("section", "place"),
    [
        ({"prompts": {"source": "xstest", "split": "train"}}, "evaluate.prompts.split"),
        ({"more_prompts": {"hard": {"source": "honeset"}}}, "evaluate.more_prompts.hard.source"),
    ],
)
def test_the_field_told_is_the_one_that_is_wrong(section: dict[str, object], place: str, tmp_path: Path) -> None:
    given = Recipe.model_validate({"model": "some/model", "prompts": "demo", "evaluate": section})
    with pytest.raises(InputError, match=f"^{place}: "):
        with_absolute_paths(given, tmp_path)


def test_every_set_says_licence_gate_and_hazard() -> None:
    lines = prompt_set_lines().splitlines()
    assert [line.split()[0] for line in lines] == prompt_sets()
    assert not {*prompt_sets()} & {*shipped_prompts()}
    assert all("licence " in line for line in lines)
    assert "gated: accept its terms on the hub" in next(line for line in lines if line.startswith("wildguardmix"))


def test_a_hub_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    hub_is_there.cache_clear()
    began = time.monotonic()
    with pytest.raises(WorkFailed, match="PKU-Alignment/PKU-SafeRLHF: neither a file here nor reachable on the hub"):
        load_prompts(Prompts(source="pku-saferlhf"), 0)
    assert time.monotonic() - began < 10
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False
    assert datasets.config.HF_HUB_OFFLINE is False
    hub_is_there.cache_clear()


@pytest.mark.parametrize("setting", ["hub", "datasets"])
def test_whoever_wants_no_network_is_left_without(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", setting == "hub")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", setting == "datasets")
    monkeypatch.setattr("selfpriority.prompts.hub_is_there", lambda: pytest.fail("somebody was asked"))
    seen: list[tuple[bool, bool]] = []

    def load_dataset(*_: object, **__: object) -> datasets.Dataset:
        seen.append((huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE))
        return datasets.Dataset.from_list(ROWS["xstest"])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    load_prompts(Prompts(source="xstest"), 0)
    assert [*seen, (huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)] == [
        (setting == "hub", setting == "datasets")
    ] * 2


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "kind_column", "kinds"),
    [
        ("xstest_prompts.jsonl", "label", {"safe", "unsafe"}),
        ("wildguard_prompts.test.jsonl", "label", {"harmful", "unharmful"}),
        ("honeset.test.jsonl", "kind", {""}),
        ("jailbreaktrigger.jsonl", "kind", {""}),
        ("saferlhf_prompts.test.jsonl", "kind", {""}),
        ("beavertails_prompts.test.jsonl", "kind", {""}),
    ],
)
def test_local_copies_of_the_sets_are_read(file: str, kind_column: str, kinds: set[str]) -> None:
    path = DATA / file
    if not path.is_file():
        pytest.skip(f"{file} is not beside this checkout; SELFPRIORITY_DATA names its folder")
    n_rows = len(path.read_text(encoding="utf-8").splitlines())
    found = load_prompts(Prompts(source=str(path), kind_column=kind_column), 0)
    assert len(found.kept) + len(found.dropped) == n_rows
    assert {prompt.kind for prompt in found.kept} == kinds


def test_recipes_that_fetch_a_known_set_read_it_as_its_name_does() -> None:
    folder = Path(__file__).parent.parent / "recipes"
    for path in folder.glob("*.yaml"):
        prompts = recipe.load(path).prompts
        for name in ON_THE_HUB:
            if read_prompt_set(name).hub == prompts.source:
                named = written_out(Prompts(source=name, split=prompts.split))
                shown = json.loads(named.model_dump_json(include={"config", "column", "kind_column"}))
                assert shown == json.loads(prompts.model_dump_json(include={"config", "column", "kind_column"}))
