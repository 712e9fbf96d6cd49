"""Is the training judge good on the recipe's own prompts? The model answers a sample; pairs are made of that.

What is made of the answers is in `judges/own_prompts.py`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError
from selfpriority.evaluation.answer import answer
from selfpriority.judges.own_prompts import OwnPrompts, need_contrasts, on_own_prompts
from selfpriority.judges.probe import ProbeJudge
from selfpriority.judges.reports import TRAIN
from selfpriority.phases.judge_check import judge_sections
from selfpriority.phases.kept_answers import kept_answers
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.round_inputs import usable_prompts
from selfpriority.rating import Item
from selfpriority.recipe import Recipe, load
from selfpriority.records import Prompt
from selfpriority.run_records import Spent

LONGEST = 128
"""Most tokens of an answer that pairs are made of."""


def check_own_prompts(path: Path, fields: Sequence[str], n: int, reporter: Reporter) -> OwnPrompts:
    """`spa check-judge RECIPE --own-prompts N`: nothing is written, and what was asked is kept beside the models."""
    recipe = with_absolute_paths(load(path, fields), path.parent)
    with kept_answers(recipe, reporter) as run:
        resources = Resources(recipe, run, reporter)
        return measured(resources, sample_of(resources.recipe, n))


def check_known(path: Path, fields: Sequence[str]) -> None:
    """Raises InputError, before any work, where no judge trains, or no pairs are known for any objective."""
    recipe = with_absolute_paths(load(path, fields), path.parent)
    if recipe.pairs is not None:
        raise InputError(f"{path}: pairs: no judge trains on pairs of your own; leave out --own-prompts")
    need_contrasts(load_constitution(recipe.constitution).names)


def sample_of(recipe: Recipe, n: int) -> list[Prompt]:
    """So many training prompts, drawn with the recipe's seed; all of them where there are fewer."""
    prompts = list(usable_prompts(recipe, recipe.rounds).kept)
    return random.Random(recipe.seed).sample(prompts, min(n, len(prompts)))


def measured(resources: Resources, prompts: Sequence[Prompt]) -> OwnPrompts:
    """The training judge on pairs of answers to these prompts."""
    recipe, spent = resources.recipe, Spent()
    settings = recipe.evaluate.model_copy(update={"max_new_tokens": min(LONGEST, recipe.sample.max_new_tokens)})
    model = resources.model(recipe.model, "answers to own prompts", spent)
    answers = answer(prompts, model, "own", settings, recipe.seed).kept
    judge = resources.judge(judge_sections(recipe)[TRAIN], recipe.model, "check on own prompts", spent)
    by_id = {each.prompt_id: each for each in answers}
    distances = {}
    if isinstance(judge, ProbeJudge):  # before it rates what is made of them
        judge.rate([Item(prompt, by_id[prompt.id]) for prompt in prompts if prompt.id in by_id])
        distances = judge.distances
    return replace(on_own_prompts(judge, prompts, by_id, settings.safe_kinds), distances=distances)
