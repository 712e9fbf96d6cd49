"""Ablations by field: what `--vary` adds, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from selfpriority import recipe
from selfpriority.errors import InputError
from selfpriority.recipe import branch_of, trained_systems
from selfpriority.recipe.varied import varied

BASE = {"model": "some/model", "prompts": "p.jsonl", "pair": {"margin": 1.0}}


def with_varied(folder: Path, *asked: str) -> recipe.Recipe:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(BASE))
    return recipe.load(path, varied(recipe.load(path), asked))


def test_a_value_is_a_system_and_the_recipes_own_value_is_spa(tmp_path: Path) -> None:
    found = with_varied(tmp_path, "pair.margin=0.5,1,2")
    assert trained_systems(found) == ["margin_0_5", "margin_2"]
    assert found.evaluate.more_systems["margin_0_5"].title == "pair.margin = 0.5"
    theirs = branch_of(found, found.evaluate.more_systems["margin_2"].train, "x")
    assert (theirs.pair.margin, theirs.align) == (2.0, found.align)


def test_several_fields_are_combined(tmp_path: Path) -> None:
    found = with_varied(tmp_path, "denoise.consistency=off,strict", "align.lora.r=4,8")
    assert trained_systems(found) == [
        "consistency_off_lora_r_4", "consistency_off_lora_r_8", "consistency_strict_lora_r_4",
        "consistency_strict_lora_r_8",
    ]  # fmt: skip
    theirs = branch_of(found, found.evaluate.more_systems["consistency_off_lora_r_8"].train, "x")
    assert theirs.denoise.consistency == "off"
    assert theirs.align.lora is not None
    assert theirs.align.lora.r == 8


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("pair.margin", "--vary 'pair.margin': FIELD=V1,V2 is meant, for example pair.margin=0.5,1,2"),
        ("margin=1,2", "--vary 'margin=1,2': FIELD=V1,V2 is meant"),
        ("pair.margin= ", "FIELD=V1,V2 is meant"),
        ("pair.margin=[1],2", "a value is a number or a word"),
        ("pair.margin=1", "nothing differs from the recipe, which is `spa`"),
        ("pair.margin=a,2", "--vary pair.margin = a: pair.margin: "),
        ("sample.n=4,8", "'sample' may not differ between systems of one run; denoise, pair, align may"),
        ("pair.margn=1,2", "pair.margn"),
        ("pair.margin=2 pair.margin=3", "'pair.margin' is varied already; give all its values once"),
        ("align.lora=null align.lora.r=8", "--vary 'align.lora.r': 'align.lora' is varied already"),
    ],
)
def test_what_cannot_be_varied_is_told(tmp_path: Path, asked: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        with_varied(tmp_path, *(asked.split() if asked.strip() == asked else [asked]))
    assert told in str(caught.value)
