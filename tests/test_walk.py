"""The walk through README and tutorial finds every block that a reader would copy, and names what it leaves out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import opened

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def walk() -> Any:
    return opened("scripts/walk.py")


def test_every_line_of_spa_is_a_command_and_every_file_has_its_name(walk):
    found = {page: walk.blocks(page.read_text("utf-8")) for page in (walk.README, walk.TUTORIAL)}
    for page, blocks in found.items():
        printed = re.findall(r"^(?:\$ )?(spa .*)$", page.read_text("utf-8"), re.M)
        assert [command for block in blocks for command in block.commands if command.startswith("spa ")] == printed
    assert [block.file for block in found[walk.TUTORIAL] if block.file] == ["prompts.jsonl", "heldout.jsonl", "my.yaml"]
    assert [block.file for block in found[walk.README] if block.file] == ["my.yaml"]


def test_a_recipe_is_made_smaller_with_fields_that_there_are(walk, tmp_path):
    from selfpriority import load_recipe

    blocks = walk.blocks(walk.README.read_text("utf-8"))
    [block] = [block for block in blocks if block.file == "my.yaml"]
    for is_quick, kind in ((False, "hf"), (True, "scripted")):
        (tmp_path / "my.yaml").write_text(walk.Walk(tmp_path, is_quick)._content(block))
        recipe = load_recipe(tmp_path / "my.yaml")
        assert (recipe.model, recipe.sample.n, recipe.backend.kind) == ("smollm2-135m", 4, kind)
        judges = (recipe.score.judge.judge, recipe.evaluate.judge.judge)
        assert judges == (("self", "smollm2-135m") if is_quick else ("demo-train", "demo-eval"))
    assert recipe.evaluate.prompts.source == "heldout.jsonl"
    demo = load_recipe(ROOT / "recipes" / "demo.yaml", walk.DEMO.split())
    assert demo.evaluate.systems == ()


def test_a_step_that_fails_is_wrong_and_says_what_it_said(walk, tmp_path):
    runs = walk.Walk(tmp_path, is_quick=True)
    assert runs._run("echo no >&2; exit 2", tmp_path).is_right is False
    assert "no" in runs._run("echo no >&2; exit 2", tmp_path).remark
    assert runs._run("exit 0", tmp_path).is_right
    assert runs._command("vllm serve my-model   # a server", tmp_path).code is None


def test_the_demo_alone_may_be_small(walk, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(walk.Walk, "_run", lambda self, command, *rest: asked.append(command))
    for is_quick, is_small in ((False, False), (True, False), (False, True)):
        walk.Walk(tmp_path, is_quick, is_small)._command("make demo     # the whole method", tmp_path)
    assert asked == ["spa run demo", f"spa run demo {walk.DEMO}", f"spa run demo {walk.DEMO}"]
