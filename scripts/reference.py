"""Write the reference pages of the documentation from the code: recipe fields, commands of `spa`, public names.

`--write` puts them into docs/reference/; without it they are printed. A test compares the two.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfpriority.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
WRITTEN = "<!-- written by scripts/reference.py: run `make format` -->\n\n"
STUB = ROOT / "src" / "selfpriority" / "__init__.pyi"

Schema = dict[str, Any]


def pages() -> dict[str, str]:
    """File name -> page."""
    found = {"recipe.md": "\n".join(recipe()), "commands.md": commands(), "python.md": "\n".join(names())}
    return {name: WRITTEN + page.rstrip() + "\n" for name, page in found.items()}


def recipe() -> Iterator[str]:
    """Every field of a recipe: type, default and bounds, by section."""
    schema = Recipe.model_json_schema()
    kinds = schema["$defs"]
    yield "# Recipe fields"
    yield ""
    yield "One YAML file says all that a run depends on. Any field can be set behind the file on the command line:"
    yield "`spa run my.yaml align.beta=2 sample.n=16`. A field that nothing reads is a mistake and is named."
    whole = {name: field | {"description": said(field, kinds)} for name, field in schema["properties"].items()}
    yield from section("The recipe itself", Recipe.__doc__ or "", whole, schema.get("required", ()))
    for name, kind in sorted(kinds.items(), key=lambda item: place(item[0])):
        yield from section(title(name), kind["description"], kind["properties"], kind.get("required", ()))


def said(field: Schema, kinds: Schema) -> str:
    """What a field is, or what the section is that it holds."""
    section_of = str(field.get("$ref", "")).removeprefix("#/$defs/")
    return str(field.get("description") or about(kinds.get(section_of, {}).get("description", "")))


SECTIONS = {
    "Prompts": "`prompts`, `evaluate.prompts`: which prompts",
    "Pairs": "`pairs`: preference data of your own",
    "Sample": "`sample`: candidates",
    "Score": "`score`: the judge of training",
    "InWords": "judge `kind: words`",
    "ByProbe": "judge `kind: probe`",
    "ByContrast": "judge `kind: contrast`",
    "ByBattery": "judge `kind: battery`",
    "ByReward": "judge `kind: reward`",
    "ByPython": "judge `kind: python`",
    "Refine": "`refine`: the improved answer",
    "Denoise": "`denoise`: whose ratings are trusted",
    "PairRules": "`pair`: which answers make a pair",
    "Align": "`align`: training",
    "Lora": "`align.lora`: an adapter",
    "Evaluate": "`evaluate`: the held-out check",
    "OtherSystem": "`evaluate.more_systems.NAME`: a further system",
    "HfBackend": "`backend` with `kind: hf`: this process",
    "VllmBackend": "`backend` with `kind: vllm`: an engine of its own",
    "RayBackend": "`backend` with `kind: ray`: replicas of one of these on a cluster",
    "OpenaiBackend": "`backend` with `kind: openai`: a server",
    "Prices": "`backend.prices`: what a server costs",
    "ScriptedBackend": "`backend` with `kind: scripted`: for tests",
}


def place(name: str) -> int:
    """Where a section stands; those not listed come last."""
    known = list(SECTIONS)
    return known.index(name) if name in known else len(known)


def title(name: str) -> str:
    """A section's heading."""
    return SECTIONS.get(name, name)


def section(heading: str, text: str, fields: Schema, required: Any) -> Iterator[str]:
    """A heading and a table."""
    yield from ("", f"## {heading}", "", " ".join(about(text).split()), "")
    yield "| field | type | default | what it is |"
    yield "|---|---|---|---|"
    for name, field in fields.items():
        default = "required" if name in required else shown(field.get("default"), field)
        yield f"| `{name}` | {kind_of(field)} | {default} | {cell(field.get('description', ''))} |"


def about(text: str) -> str:
    """A docstring up to what it raises and its examples, which are for Python."""
    return re.split(r"\n\n\s*(?:Raises|Examples):", text)[0]


def cell(text: str) -> str:
    """A text in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def shown(default: Any, field: Schema) -> str:
    """A default as YAML has it; that of a section is its own fields'."""
    if isinstance(default, dict) and default:
        return "its own" if "$ref" in field or "oneOf" in field else f"`{json.dumps(default)}`"
    return f"`{json.dumps(default)}`"


def kind_of(field: Schema) -> str:
    """A type with its bounds, in words."""
    if "$ref" in field:
        return "section"
    if "enum" in field:
        return ", ".join(f"`{each}`" for each in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if several := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(dict.fromkeys(kind_of(each) for each in several))
    kind = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    if field.get("type") == "array":
        return f"list of {kind_of(field['items'])}" if "items" in field else "list"
    if field.get("type") == "object":
        return "by name"
    return f"{kind.get(field.get('type', ''), field.get('type', 'any'))}{bounds(field)}"


def bounds(field: Schema) -> str:
    """Least and greatest value."""
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    found = [f"{word} {field[name]}" for name, word in words.items() if name in field]
    return f", {' '.join(found)}" if found else ""


def commands() -> str:
    """All commands, by typer's own writer."""
    command = [sys.executable, "-m", "typer", "selfpriority.cli.entry", "utils", "docs", "--name", "spa"]
    done = subprocess.run([*command, "--title", "Commands"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def names() -> Iterator[str]:
    """All public names, by the room they live in; the site fills in signatures and docstrings."""
    yield "# Python"
    yield ""
    yield "All of these are imported from `selfpriority` itself: `from selfpriority import pair`. Each is typed, and"
    yield "says in its own words what it takes, gives and raises. Nothing is imported before it is used."
    yield ""
    yield "The examples are run by the tests, behind `from selfpriority import *`, in a folder that holds a small"
    yield "model, `my-model`, heads fitted on it, `my-heads`, a recipe, `my.yaml`, with its `prompts.jsonl` and"
    yield "`heldout.jsonl`, and the finished run of it, `runs/my`."
    by_module: dict[str, list[str]] = defaultdict(list)
    for node in ast.parse(STUB.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            by_module[str(node.module)] += [alias.name for alias in node.names]
    for module, found in by_module.items():
        yield from ("", f"## `{module}`", "")
        for name in sorted(found):
            yield f"::: selfpriority.{module}.{name}"


def main() -> None:
    """Prints or writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/reference/")
    asked = parser.parse_args()
    for name, page in pages().items():
        if asked.write:
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / name).write_text(page, "utf-8")
        else:
            print(page)


if __name__ == "__main__":
    main()
