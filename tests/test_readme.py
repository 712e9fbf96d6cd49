"""What the README and CONTRIBUTING say is true of the disk and of the Makefile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def tree_lines() -> list[str]:
    block = re.search(
        r"<!-- tree: written by scripts/tree.py -->\n```\n(.*?)```\n<!-- end of tree -->", CONTRIBUTING, re.S
    )
    assert block, "CONTRIBUTING has no tree"
    return block.group(1).splitlines()


def named_paths() -> list[str]:
    """The paths of the tree: two blanks deeper is one folder further in."""
    folders: list[str] = []
    paths = []
    for line in tree_lines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders[depth:] = [name]
        paths.append("".join(folders))
    return paths


def test_the_tree_is_what_its_script_writes():
    written = subprocess.run([sys.executable, "scripts/tree.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "\n".join(tree_lines()) + "\n" == written.stdout, "run `make format`"


def test_paths_in_the_tree_exist():
    assert [path for path in named_paths() if not (ROOT / path).exists()] == []


def test_the_tree_names_every_source_file():
    package = ROOT / "src" / "selfpriority"
    files = {path.relative_to(ROOT).as_posix() for path in package.rglob("*.py") if path.name != "__init__.py"}
    assert files - set(named_paths()) == set()


def test_the_picture_is_what_its_script_draws():
    drawn = subprocess.run([sys.executable, "scripts/picture.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    picture = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")
    assert picture == drawn.stdout, "run `make format`"
    assert "docs/demo.svg" in README


def test_a_stranger_reads_the_readme_to_its_end():
    assert len(README.splitlines()) <= 120


def test_the_two_commands_are_in_the_makefile():
    commands = re.findall(r"^make (\w+)", README, re.M)
    assert {"demo", "test"} <= set(commands)
    for command in commands:
        assert re.search(rf"^{command}:", MAKEFILE, re.M), f"make {command} is not in the Makefile"


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_python_in_the_readme_names_what_there_is():
    import selfpriority

    for names in re.findall(r"^from selfpriority import (.*)$", README, re.M):
        for name in names.split(", "):
            assert name in selfpriority.__all__


def test_python_in_the_readme_runs_as_it_is_printed():
    [code] = re.findall(r"```python\n(.*?)```", README, re.S)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")})  # fmt: skip
    assert done.stdout.splitlines()[0] == "I cannot say. > Burn it."
    assert done.stderr == ""


def test_the_recipe_in_the_readme_is_complete(tmp_path):
    from selfpriority import load_recipe

    [recipe] = re.findall(r"```yaml\n(.*?)```", README, re.S)
    (tmp_path / "my.yaml").write_text(recipe)
    found = load_recipe(tmp_path / "my.yaml")
    assert (found.model, found.evaluate.prompts.source) == ("ORG/MODEL", "heldout.jsonl")


def test_commands_of_spa_in_the_pages_exist():
    from selfpriority.cli import entry  # noqa: F401  registers the verbs
    from selfpriority.cli.app import app

    known = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    for page in (README, (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")):
        assert set(re.findall(r"`?spa ([a-z][a-z-]+)", page)) <= known | {
            "serve"
        }  # of which the page says there is none


def test_functions_named_in_the_method_page_exist():
    import ast

    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    references = re.findall(r"`([\w/]+\.py):(\w+)`", page)
    assert len(references) >= 15
    for file, name in references:
        tree = ast.parse((ROOT / "src" / "selfpriority" / file).read_text(encoding="utf-8"))
        assert name in {getattr(node, "name", None) for node in tree.body}, f"{file} has no {name}"


def test_recipe_fields_named_in_the_pages_exist():
    from selfpriority import recipe

    sections = {
        name: set(field.annotation.model_fields)
        for name, field in recipe.Recipe.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, recipe.Section)
    } | {"backend": {*recipe.HfBackend.model_fields, *recipe.VllmBackend.model_fields}}
    flat = {"method", "rewards", "backend", "folder", "version", "batch_size"}  # spelled beside the judge
    sections["score"] |= flat | {"mass_floor", "max_new_tokens", "scales"}
    sections["evaluate"] |= flat
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        text = page.read_text(encoding="utf-8")
        for section, field in re.findall(r"`(\w+)\.(\w+)[:=`]", text):
            if section in sections and field not in ("json", "jsonl", "py", "md"):
                assert field in sections[section], f"{page.name}: {section}.{field}"
