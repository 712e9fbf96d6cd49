"""The documentation: its reference is what the code says, its site builds without a dead link, its tutorial runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import selfpriority
from selfpriority import load_recipe
from tests.test_pipeline import SMALL

ROOT = Path(__file__).parent.parent
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TUTORIAL, re.S)


def test_the_reference_is_what_its_script_writes():
    written = subprocess.run(
        [sys.executable, "scripts/reference.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    folder = ROOT / "docs" / "reference"
    pages = [(folder / name).read_text("utf-8") for name in ("recipe.md", "commands.md", "python.md")]
    assert "\n".join(pages) + "\n" == written.stdout, "run `make format`"


def test_every_field_of_a_recipe_says_what_it_is():
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| (.*) \|$", (ROOT / "docs" / "reference" / "recipe.md").read_text("utf-8"), re.M
    )
    assert len(rows) > 120
    assert [field for field, text in rows if not text.strip()] == []


def test_the_site_builds_and_no_link_is_dead(tmp_path):
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install .[docs]")
    pytest.importorskip("mkdocstrings_handlers", reason="mkdocstrings is not installed: pip install .[docs]")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "python.html").read_text("utf-8")
    ids = {found.rpartition(".")[2] for found in re.findall(r'id="(selfpriority[\w.]+)"', page)}
    missing = [name for name in selfpriority.__all__ if name != "__version__" and name not in ids]
    assert missing == []  # each has a heading of its own, with what it says of itself


@pytest.fixture(scope="module")
def folder(yes_no_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader of the tutorial sits: the model at its name, the files as printed."""
    place = tmp_path_factory.mktemp("tutorial")
    (place / "ORG").mkdir()
    (place / "ORG" / "MODEL").symlink_to(yes_no_model)
    prompts, heldout = blocks("json")
    (place / "prompts.jsonl").write_text(prompts)
    (place / "heldout.jsonl").write_text(heldout)
    (place / "my.yaml").write_text(blocks("yaml")[0])
    return place


def test_the_recipe_of_the_tutorial_is_complete(folder):
    found = load_recipe(folder / "my.yaml")
    assert (found.model, found.prompts.source, found.sample.n) == ("ORG/MODEL", "prompts.jsonl", 4)


@pytest.mark.slow
def test_the_commands_of_the_tutorial_run_as_they_are_printed(folder):
    """On the tiny model, whose answers are scripted and kept short: all else is the tutorial's."""
    recipe: dict[str, Any] = yaml.safe_load((folder / "my.yaml").read_text())
    for section in ("sample", "score", "refine", "denoise", "pair", "align", "backend"):
        recipe[section] = {**recipe.get(section, {}), **SMALL[section]}
    recipe["evaluate"]["max_new_tokens"] = 12
    (folder / "my.yaml").write_text(yaml.safe_dump(recipe))
    commands = [line for block in blocks("console") for line in re.findall(r"^\$ (.*)$", block, re.M)]
    assert [command.split()[1] for command in commands] == [
        "plan", "check-judge", "run", "show", "doctor", "export", "merge",
    ]  # fmt: skip
    for command in commands:
        done = run(folder, [sys.executable, "-m", "selfpriority", *command.split()[1:]])
        usable = (0, 3) if "check-judge" in command else (0,)  # what a tiny random model says of itself is chance
        assert done.returncode in usable, f"{command}: {done.stderr}"
    for name in ("runs/my/report.html", "pairs.jsonl", "my-model/model.safetensors"):
        assert (folder / name).is_file(), name
    run(folder, [sys.executable, "-c", blocks("python")[0]], 0)


def run(folder: Path, command: list[str], code: int | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}
    )
    assert code is None or done.returncode == code, done.stderr
    return done


def test_no_table_is_broken_off_by_a_blank_line():
    """A row without a heading above it is printed with its bars."""
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]
    broken = []
    for page in pages:
        lines = page.read_text("utf-8").splitlines()
        for number, (before, line, after) in enumerate(zip(lines, lines[1:], lines[2:], strict=False), start=2):
            begins = line.startswith("|") and not before.startswith("|")
            if begins and not re.fullmatch(r"\|[\s:|-]+\|", after):
                broken.append(f"{page.name}:{number}")
    assert not broken
