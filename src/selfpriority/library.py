"""The whole way from Python: open a model, train on pools, compare systems, or run a recipe from end to end.

What `spa` does in processes of their own is done here in this one, but for `run_recipe`, which is the command itself.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from selfpriority.constitution import Constitution
from selfpriority.errors import InputError, JudgeRefused, WorkFailed
from selfpriority.evaluation.answer import answer
from selfpriority.evaluation.records import PromptCount, Summary, Verdict
from selfpriority.evaluation.summary import summarise
from selfpriority.formats import counted
from selfpriority.interrupts import INTERRUPTED
from selfpriority.judges.probe import ProbeJudge
from selfpriority.judges.python import PythonJudge
from selfpriority.judges.reward import RewardJudge
from selfpriority.judges.words import WordsJudge
from selfpriority.language_model import LanguageModel
from selfpriority.phases import models
from selfpriority.phases.judge_names import check_rewards, fitted_heads, heads_folder, open_rater
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Reporter
from selfpriority.pipeline import Asked, run_all, start
from selfpriority.plain_fields import plain_fields
from selfpriority.plain_text import clean
from selfpriority.rating import Item, Judge
from selfpriority.recipe import (
    Align,
    Backend,
    ByProbe,
    ByPython,
    ByReward,
    Evaluate,
    HfBackend,
    InWords,
    JudgeSection,
    Recipe,
    dump,
)
from selfpriority.records import PairedPool, Prompt, Response
from selfpriority.results import Results
from selfpriority.run import Run, key_of
from selfpriority.shipped import recipe_path
from selfpriority.training.unfinished import checkpoints_of, remove_all, take_place

if TYPE_CHECKING:
    from selfpriority.training.align import Trained


def open_model(name: str, backend: Backend | None = None, cache: str | Path | None = None) -> LanguageModel:
    """Opens a language model that samples, refines, rates and shows hidden states.

    Args:
        name: a hub id, a folder or an embedded name; the model's name at the server where `backend` is one.
        backend: who runs it; None: transformers, in this process.
        cache: a file (SQLite) that keeps what was answered, so that nothing is asked twice; None: nothing is kept.

    Raises:
        InputError: there is no such model, or the server does not answer.

    Examples:
        >>> model = open_model("my-model", cache="answers.sqlite")
        >>> prompts = load_prompts(Prompts(source="prompts.jsonl"), seed=0).kept
        >>> len(sample(prompts, model, Sample(n=2, max_new_tokens=8)).kept)
        6
    """
    return _kept(models.open_model(name, backend or HfBackend()), cache)


def open_judge(
    judge: str | JudgeSection,
    constitution: Constitution,
    backend: Backend | None = None,
    cache: str | Path | None = None,
) -> Judge:
    """A judge that rates answers on a constitution's objectives, from 1 to 10.

    Args:
        judge: fitted heads that ship or lie in a folder, else a model that is asked in words; or a judge as a recipe
            has it, `InWords(judge="ORG/MODEL", method="verbal")` for one. Heads that a model makes for itself come from
            `spa fit-judge --contrast --to FOLDER`. A judge of your own needs no opening: see `Judge`.
        constitution: what is rated, as `load_constitution` reads it.
        backend: who runs a model that is asked in words; heads and reward models run in this process.
        cache: a file (SQLite) that keeps what was answered; None: nothing is kept.

    Raises:
        InputError: there are no such heads or model, or they know another objective.

    Examples:
        >>> open_judge("my-heads", load_constitution("harmless-helpful")).objectives
        ('harmlessness', 'helpfulness')
    """
    section = judge
    if isinstance(section, str):
        section = ByProbe(kind="probe", judge=section) if heads_folder(section) else InWords(judge=section)
    here = backend if isinstance(backend, HfBackend) else HfBackend()
    match section:
        case ByProbe():
            heads = fitted_heads(section.judge)
            return ProbeJudge(_kept(models.open_reader(heads.model, here), cache), heads, constitution.names)
        case ByReward():
            check_rewards(section, constitution)
            opened = {name: _kept(models.open_classifier(each, here), cache) for name, each in section.rewards.items()}
            return RewardJudge(opened, constitution)
        case InWords():
            return WordsJudge(open_model(section.judge, section.backend or backend, cache), constitution, section)
        case ByPython():
            return PythonJudge(_kept(open_rater(section), cache), section.judge, constitution.names)
        case _:
            raise InputError(
                f"open_judge: a judge by {section.kind} is made in a run; `spa fit-judge --contrast --to FOLDER` makes "
                f"heads that open here by their folder"
            )


def _kept(model: LanguageModel, cache: str | Path | None) -> LanguageModel:
    """The model with what it answers kept in a file."""
    if cache is None:
        return model
    from selfpriority.backends.cache import Cached

    return Cached(model, Path(cache))


def train(
    pools: Sequence[PairedPool], model: str | Path, to: str | Path, settings: Align | None = None, seed: int = 0
) -> Trained:
    """Trains a model on the pairs of pools, each answer computed once.

    Called again with the same arguments after a stop, it goes on from its last checkpoint; after the end it
    trains anew. Checkpoints of other pools, settings or weights in that folder stay until a training there is done.

    Args:
        pools: pools with their pairs, as `pair` keeps them.
        model: a hub id, a folder or an embedded name.
        to: a folder; afterwards `policy` in it is for `from_pretrained`, and `training.jsonl` has a line a step.
        settings: loss, rate, adapter and the rest; None: the defaults of `align` in a recipe.
        seed: of the order of the pools.

    Returns:
        Steps, pairs, tokens, what was dropped and why, and the share of the movement that survived saving.

    Raises:
        WorkFailed: no pool is left to train on, the loss is not finite, or memory or the disk is full.
        InputError: the model cannot be loaded, or several processes are asked for.

    Examples:
        >>> trained = train(pair(Results("runs/my").pools(), PairRules()).kept, "my-model", "out")
        >>> trained.n_pairs > 0
        True
    """
    from selfpriority.training.align import Places
    from selfpriority.training.align import train as train_at

    if settings is not None and settings.n_together > 1:
        raise InputError("train: align.processes is for a run (`run_recipe`), as align.nodes is; here both are 1")
    folder, settings = Path(to), settings or Align()
    folder.mkdir(parents=True, exist_ok=True)
    content = models.model_key(str(model))
    checkpoints = checkpoints_of(folder, key_of(plain_fields(pools), settings.in_result, seed, content))
    places = Places(folder / "policy", take_place(folder, checkpoints), checkpoints, content, keeps_checkpoints=True)
    trained = train_at(pools, model, settings, seed, places)
    remove_all(folder)
    return trained


def evaluate(
    systems: Mapping[str, LanguageModel],
    prompts: Sequence[Prompt],
    judge: Judge,
    settings: Evaluate | None = None,
    seed: int = 0,
) -> Summary:
    """Asks every system the same prompts, has the answers rated, and compares them.

    Args:
        systems: name -> model; the first is what the others are compared with.
        prompts: held-out prompts; one that a system has no answer to is counted in `drops`. Ids differ.
        judge: who rates; somebody else than who trained the systems.
        settings: temperature, length, bootstrap; None: the defaults of `evaluate` in a recipe.
        seed: of the answers, the same for every system.

    Returns:
        Means, paired differences with 95 % intervals and corrected p, in rating points from 1 to 10; wins; behaviour.

    Raises:
        InputError: fewer than two systems, no prompts, or several with one id.
        WorkFailed: a system has no answer at all.

    Examples:
        >>> systems = {"before": open_model("my-model"), "after": open_model("runs/my/round-1/policy")}
        >>> prompts = load_prompts(Prompts(source="heldout.jsonl"), seed=0).kept
        >>> judge = open_judge("my-heads", load_constitution("harmless-helpful"))
        >>> found = evaluate(systems, prompts, judge, Evaluate(max_new_tokens=8))
        >>> [contest.key for contest in found.against_first()]
        ['after_vs_before']
    """
    if len(systems) < 2:
        raise InputError(f"evaluate: {len(systems)} systems; a comparison needs two or more")
    if not prompts:
        raise InputError("evaluate: no prompts; `load_prompts` reads some")
    by_id = {prompt.id: prompt for prompt in prompts}
    if len(by_id) < len(prompts):
        raise InputError("evaluate: several prompts have one id; ids tell them apart")
    asked = settings or Evaluate()
    given = {name: answer(prompts, model, name, asked, seed) for name, model in systems.items()}
    for name, answers in given.items():
        if not answers.kept:
            raise WorkFailed(f"evaluate: {name} has no answer at all ({counted(answers.reasons)})")
    verdicts = {name: _judged(answers.kept, by_id, judge) for name, answers in given.items()}
    drops = {name: answers.reasons for name, answers in given.items() if answers.reasons}
    found = summarise(verdicts, judge.objectives, asked)
    return replace(found, drops=drops, prompts=PromptCount(len(prompts)))


def _judged(answers: Sequence[Response], prompts: Mapping[str, Prompt], judge: Judge) -> list[Verdict]:
    items = [Item(prompts[each.prompt_id], each) for each in answers]
    return [
        Verdict(item.prompt.id, item.prompt.kind, item.response.text, item.response.stop, ratings, item.prompt.text)
        for item, ratings in zip(items, judge.rate(items), strict=True)
    ]


class _Notes(Reporter):
    """Tells on stderr what a user should know, as the command does."""

    def note(self, text: str) -> None:
        sys.stderr.write(f"{clean(text)}\n")


def run_recipe(recipe: str | Path | Recipe, *changes: str, to: str | Path | None = None) -> Results:
    """`spa run`: checks the judge, collects, trains, evaluates and reports. The same call again goes on.

    Args:
        recipe: a YAML file, the name of a recipe that ships, or one made in Python, whose paths are seen from the
            working directory.
        changes: overrides, as `align.beta=2.5`; with a file only.
        to: the run directory; None: `runs/<name of the file>`.

    Returns:
        What the run holds.

    Raises:
        InputError: the recipe is wrong, or the directory is not a run's.
        JudgeRefused: the judge is not better than chance.
        WorkFailed: a phase failed; what it said stands on stderr.
        KeyboardInterrupt: it was interrupted; the same call goes on.

    Examples:
        >>> found = run_recipe("my.yaml", to="runs/my")  # finished before: nothing is done again
        >>> found.summary.objectives
        ('harmlessness', 'helpfulness')
    """
    if isinstance(recipe, Recipe):
        if to is None or changes:
            raise InputError(
                "run_recipe: a recipe made in Python needs `to`, and takes no changes: it holds its values"
            )
        place, asked = Run(Path(to)), Asked(with_absolute_paths(recipe, Path.cwd()), dump(recipe))
    else:
        path = Path(recipe)
        place, asked = start(
            path if path.exists() else recipe_path(str(recipe)) or path, changes, None if to is None else Path(to)
        )
    code = run_all(place, asked, _Notes())
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        kind = JudgeRefused if code == JudgeRefused.exit_code else WorkFailed
        raise kind(f"{place.folder}: a phase ended with exit code {code}; what it said stands on stderr")
    return Results(place.folder)
