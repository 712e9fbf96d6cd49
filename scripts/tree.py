"""Print the tree of CONTRIBUTING: every file of the package with the first sentence of its docstring.

`--write` puts it into CONTRIBUTING.md between its two markers. A test compares the two.
"""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- tree: written by scripts/tree.py -->\n```\n", "```\n<!-- end of tree -->"
COLUMN = 30

AROUND = {
    "recipes/": "what ships to start from, one YAML file a run; every one is parsed in the tests",
    "examples/": "the library behind the commands, runnable; jobs of two nodes; run in the tests",
    "notebooks/": "the library as a tour, without outputs; its cells run in the tests",
    "benchmarks/": "one script a question, with the last table in its README",
    "docs/": "method.md, deviations.md, run-directory.md, report.md, judging.md, evaluation.md, data.md, ...",
    "tests/": "mirrors src; plus architecture, readme, recipes, import time",
    "scripts/": "for those who work on the project",
    "src/selfpriority/": "",
}
LISTED = ("examples/", "benchmarks/", "scripts/", "src/selfpriority/")
ASSETS = {
    "accelerate": "config files of accelerate launch: ddp, fsdp2",
    "constitutions": "objectives in order of priority, their scales, questions and anchors",
    "heads": "fitted judges for the embedded model: numbers and a card each",
    "prompt_sets": "sets of others by a short name, one YAML file a set",
    "prompts": "shipped prompt sets",
    "systems": "what `spa compare` knows by name, one YAML file a system",
    "text": "what models are told, as text files: templates, constitutions, personas, prompts",
}


def tree() -> str:
    """The tree as text, one line a file or folder."""
    lines: list[str] = []
    for name, text in AROUND.items():
        if (ROOT / name).is_dir():
            lines.append(_line(name, text, 0))
            lines += _room(ROOT / name, depth=1) if name in LISTED else []
    return "\n".join(lines) + "\n"


def _room(folder: Path, depth: int) -> list[str]:
    """Files of a folder before its rooms, each in alphabetical order."""
    lines = [
        _line(path.name, first_line(path), depth)
        for path in sorted(folder.glob("*.py"))
        if path.name != "__init__.py" or depth == 1
    ]
    for room in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"):
        if any(room.glob("*.py")):
            text = first_line(room / "__init__.py") if (room / "__init__.py").exists() else ""
            lines += [_line(f"{room.name}/", text, depth), *_room(room, depth + 1)]
        elif room.name in ASSETS:
            lines.append(_line(f"{room.name}/", ASSETS[room.name], depth))
    return lines


def first_line(path: Path) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"\.(?:\s|$)", paragraph)[0]


def _line(name: str, text: str, depth: int) -> str:
    head = "  " * depth + name
    return f"{head:<{COLUMN}}{text}".rstrip()


def main() -> None:
    """Print the tree, or write it into its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write it into CONTRIBUTING.md")
    if not parser.parse_args().write:
        print(tree(), end="")
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + tree() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
