"""Prompts that are not on this machine, stood in for by invented ones: a plan without hub or files.

Knows recipes and what is on this machine; asks nobody.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from selfpriority.prompt_sets import prompt_sets, read_prompt_set
from selfpriority.prompts import lies_elsewhere
from selfpriority.recipe import Prompts, Recipe

CHARACTERS = 80
"""Of an invented prompt, where no known set says how many its own have."""
NO_LIMIT = 1000
"""Prompts of a set whose section has no limit."""


@dataclass(frozen=True)
class Invented:
    """A recipe that needs nothing for its prompts."""

    recipe: Recipe
    told: tuple[str, ...]
    """What stands for which set, a line each."""


@contextmanager
def invented(recipe: Recipe) -> Iterator[Invented]:
    """The recipe with invented prompts in place of those that are not here; their files go when the context ends."""
    with TemporaryDirectory(prefix="spa-plan-") as folder:
        stands_in = _StandIns(Path(folder), [])
        evaluate = recipe.evaluate
        more = {name: stands_in.of(section) for name, section in evaluate.more_prompts.items()}
        held_out = evaluate.prompts and stands_in.of(evaluate.prompts)
        changes = {
            "prompts": stands_in.of(recipe.prompts),
            "evaluate": evaluate.model_copy(update={"prompts": held_out, "more_prompts": more}),
        }
        yield Invented(recipe.model_copy(update=changes), tuple(stands_in.told))


@dataclass(frozen=True)
class _StandIns:
    folder: Path
    told: list[str]

    def of(self, section: Prompts) -> Prompts:
        if not lies_elsewhere(section):
            return section
        n, length, path = section.limit or NO_LIMIT, _characters(section), self.folder / f"{len(self.told)}.jsonl"
        texts = (f"{path.stem}-{i} ".ljust(length, "x") for i in range(n))
        path.write_text("".join(f"{json.dumps({'prompt': text})}\n" for text in texts), encoding="utf-8")
        why = "its limit" if section.limit else "a guess, for it has no limit"
        told = f"prompts of {section.source}: {n:,} ({why}) of {length} characters, for they are not here"
        self.told.append(told)
        return Prompts(source=str(path), kind=section.kind, limit=section.limit, system=section.system)


def _characters(section: Prompts) -> int:
    sets = [read_prompt_set(name) for name in prompt_sets()]
    return next((each.characters for each in sets if each.hub == section.source and each.characters), CHARACTERS)
