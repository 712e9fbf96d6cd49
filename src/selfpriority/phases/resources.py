"""Opens what a phase needs: constitution, models behind the request cache, judges.

A judge is described without opening it (`judge_key`), so that a finished step is recognised without loading a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from selfpriority.backends.cache import Cached
from selfpriority.backends.progress import Progress, Watched
from selfpriority.constitution import Constitution, load_constitution
from selfpriority.errors import InputError
from selfpriority.judges.heads import Heads, read_heads
from selfpriority.language_model import LanguageModel
from selfpriority.models.files import resolve
from selfpriority.models.fingerprint import fingerprint
from selfpriority.rating import Judge
from selfpriority.recipe import (
    Backend,
    Evaluate,
    HfBackend,
    OpenaiBackend,
    OtherJudge,
    Recipe,
    Score,
    ScriptedBackend,
)
from selfpriority.run import Run, Spent, key_of
from selfpriority.wording import FOLDER, text_hash

if TYPE_CHECKING:
    from selfpriority.evaluation.pairwise import Comparer
    from selfpriority.judges.turns import TurnJudge

SHIPPED_HEADS = FOLDER / "heads"


class Reporter:
    """Where a phase says what it does. The command line subclasses it; this one is silent."""

    def progress(self, step: str, progress: Progress) -> None:
        """Some requests of a step were answered."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def training(self, row: dict[str, float]) -> None:
        """One optimizer step was made; the row is that of `training.jsonl`."""


@dataclass(frozen=True)
class JudgeSpec:
    """Which judge a recipe asks for, the training or the evaluating one."""

    judge: str
    method: str
    settings: Score

    @classmethod
    def of(cls, section: Score | Evaluate | OtherJudge) -> JudgeSpec:
        """The judge of a recipe section; fitted heads as judge mean probe."""
        settings = section
        if not isinstance(settings, Score):
            settings = Score(method=section.method, rewards=section.rewards, backend=section.backend)
        method = "probe" if section.judge != "self" and heads_folder(section.judge) else section.method
        return cls(section.judge, method, settings)


@dataclass
class Resources:
    """Models and judges of one phase, each resources once, when first asked for."""

    recipe: Recipe
    run: Run
    reporter: Reporter
    models: dict[str, LanguageModel] = field(default_factory=dict)
    doubted: set[str] = field(default_factory=set)
    """Heads about which something was said already."""

    @property
    def constitution(self) -> Constitution:
        """The recipe's constitution, checked against the recipe."""
        constitution = load_constitution(self.recipe.constitution)
        k = len(constitution.objectives)
        if self.recipe.sample.n <= k:
            raise InputError(
                f"sample.n: {self.recipe.sample.n} candidates cannot span {k} objectives; use more than {k}"
            )
        return constitution

    def model(self, name: str, step: str, spent: Spent, backend: Backend | None = None) -> LanguageModel:
        """The language model `name` behind cache and progress; `backend` in place of the recipe's."""
        settings = backend or self.recipe.backend
        key = f"{name} {settings.model_dump_json()}"
        if key not in self.models:
            self.models[key] = Cached(_opened(name, settings), self.run.cache)
        return Watched(self.models[key], self._watcher(step, spent))

    def judge(self, spec: JudgeSpec, policy: str, step: str, spent: Spent, reworded: bool = False) -> Judge:
        """The judge `spec` asks for; `self` is `policy`."""
        from selfpriority.judges.probe import ProbeJudge
        from selfpriority.judges.reward import RewardJudge
        from selfpriority.judges.words import WordsJudge

        constitution, runner = self.constitution, _runner(spec, self.recipe.backend)
        if spec.method == "probe":
            heads = _heads(spec.judge)
            self._note_other_weights(spec.judge, heads)
            return ProbeJudge(self.model(heads.model, step, spent, runner), heads, constitution.names)
        if spec.method == "reward":
            _check_rewards(spec, constitution)
            models = {name: self.classifier(model, step, spent) for name, model in spec.settings.rewards.items()}
            return RewardJudge(models, constitution)
        name = policy if spec.judge == "self" else spec.judge
        settings = spec.settings.model_copy(update={"method": spec.method})
        return WordsJudge(self.model(name, step, spent, runner), constitution, settings, reworded)

    def _note_other_weights(self, judge: str, heads: Heads) -> None:
        """Says so where a model has changed since its heads were fitted: its hidden states then mean something else."""
        fitted_on = heads.card.get("model_fingerprint", "")
        if judge not in self.doubted and fitted_on and model_key(heads.model) not in fitted_on:
            self.doubted.add(judge)
            self.reporter.note(
                f"{judge}: its heads were fitted on other weights of {heads.model} than there are now, so ratings "
                f"may be off; `spa fit-judge` fits them again"
            )

    def comparer(self, spec: JudgeSpec, policy: str, step: str, spent: Spent) -> Comparer:
        """Who compares answers in words; `self` is `policy`."""
        from selfpriority.evaluation.pairwise import Comparer

        check_comparing(spec)
        name = policy if spec.judge == "self" else spec.judge
        settings = spec.settings.model_copy(update={"method": spec.method})
        return Comparer(self.model(name, step, spent, spec.settings.backend), self.constitution, settings)

    def turn_judge(self, spec: JudgeSpec, policy: str, step: str, spent: Spent) -> TurnJudge:
        """Who rates the turns of a conversation in words; `self` is `policy`."""
        from selfpriority.judges.turns import TurnJudge

        name = policy if spec.judge == "self" else spec.judge
        settings = spec.settings.model_copy(update={"method": spec.method})
        return TurnJudge(self.model(name, step, spent, spec.settings.backend), settings)

    def classifier(self, name: str, step: str, spent: Spent) -> LanguageModel:
        """The reward model `name` behind cache and progress; it runs here, whoever generates."""
        settings = self.recipe.backend
        if isinstance(settings, ScriptedBackend):
            model = _opened(name, settings)
        else:
            from selfpriority.backends.hf import HfClassifier

            model = HfClassifier(name, settings if isinstance(settings, HfBackend) else HfBackend())
        return Watched(Cached(model, self.run.cache), self._watcher(step, spent))

    def _watcher(self, step: str, spent: Spent) -> Callable[[Progress], None]:
        counted = Spent()  # Progress counts from the start of one call; spent sums over the calls of a step

        def watch(progress: Progress) -> None:
            if progress.done < counted.requests:
                counted.requests = counted.cached = counted.tokens = 0
            spent.requests += progress.done - counted.requests
            spent.cached += progress.cached - counted.cached
            spent.tokens += progress.tokens - counted.tokens
            counted.requests, counted.cached, counted.tokens = progress.done, progress.cached, progress.tokens
            self.reporter.progress(step, progress)

        return watch


def in_process(backend: Backend) -> Backend:
    """Who runs weights that no server has, a trained policy or heads: transformers in this process."""
    return HfBackend() if isinstance(backend, OpenaiBackend) else backend


def _opened(name: str, settings: Backend) -> LanguageModel:
    if isinstance(settings, ScriptedBackend):
        from selfpriority.backends.scripted import ScriptedModel

        return ScriptedModel(settings, model_key(name))
    if isinstance(settings, OpenaiBackend):
        from selfpriority.backends.openai import OpenaiModel

        return OpenaiModel(name, settings)
    from selfpriority.backends.hf import HfModel

    return HfModel(name, settings)


def judge_key(spec: JudgeSpec, policy: str, constitution: Constitution, backend: Backend) -> str:
    """What a judge's verdicts depend on, without opening it; `backend` is the recipe's."""
    runner = _runner(spec, backend)
    arithmetic = runner.model_dump(include={"kind", "dtype"})
    if spec.method == "probe":
        heads = _heads(spec.judge)
        return key_of("probe", heads.fingerprint, model_key(heads.model), constitution.names, arithmetic)
    if spec.method == "reward":
        _check_rewards(spec, constitution)
        models = {name: model_key(model) for name, model in spec.settings.rewards.items()}
        return key_of("reward", models, constitution.names, constitution.anchors, arithmetic)
    model = policy if spec.judge == "self" else spec.judge
    settings = (spec.method, spec.settings.mass_floor, spec.settings.max_new_tokens)
    texts = text_hash("rate_expected", "rate_verbal")
    return key_of("words", model_key(model, runner), constitution.objectives, texts, settings, arithmetic)


def _runner(spec: JudgeSpec, backend: Backend) -> Backend:
    """Who runs a judge: `backend` is the recipe's. A server shows no hidden states and classifies nothing."""
    if spec.method in ("expected", "verbal"):
        return spec.settings.backend or backend
    return in_process(backend)


def check_comparing(spec: JudgeSpec) -> None:
    """Raises InputError for a judge that rates answers and cannot compare them."""
    if spec.method not in ("expected", "verbal"):
        raise InputError(f"evaluate.comparer: {spec.judge!r} rates, it cannot compare; use a model in words")


def _check_rewards(spec: JudgeSpec, constitution: Constitution) -> None:
    missing = [name for name in constitution.names if name not in spec.settings.rewards]
    if missing:
        raise InputError(f"score.rewards: no model for {', '.join(missing)}")
    if not constitution.anchors:
        raise InputError(f"constitution: {constitution.name!r} has no anchors, and reward models are placed by them")


def judge_entry(spec: JudgeSpec, resources: Resources) -> dict[str, str]:
    """How files name a judge outside the rounds: {judge, method, key}; equal keys, the same judge."""
    recipe = resources.recipe
    key = judge_key(spec, recipe.model, resources.constitution, recipe.backend)
    return {"judge": spec.judge, "method": spec.method, "key": key}


def model_key(name: str, backend: Backend | None = None) -> str:
    """Content hash of a model's files; of a model behind an address, its address and name."""
    if isinstance(backend, OpenaiBackend):
        from selfpriority.backends.openai import openai_fingerprint

        return openai_fingerprint(name, backend)
    return fingerprint(resolve(name))


def heads_folder(name: str) -> Path | None:
    """The folder of fitted heads that `name` means, shipped or the user's own; None when it means something else."""
    for folder in (SHIPPED_HEADS / name, Path(name)):
        if (folder / "heads.safetensors").is_file():
            return folder
    return None


def shipped_heads() -> list[str]:
    """Names of the heads that ship with the package."""
    return sorted(path.parent.name for path in SHIPPED_HEADS.glob("*/heads.safetensors"))


def _heads(name: str) -> Heads:
    folder = heads_folder(name)
    if folder is None:
        shipped = ", ".join(shipped_heads())
        raise InputError(f"judge: {name!r} holds no fitted heads; shipped: {shipped}; `spa fit-judge` makes them")
    return read_heads(folder)
