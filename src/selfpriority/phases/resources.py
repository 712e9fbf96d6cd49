"""Opens what a phase needs: constitution, models behind the request cache, judges; each once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from selfpriority.backends.cache import Cached
from selfpriority.backends.progress import Progress, Watched
from selfpriority.constitution import Constitution, load_constitution
from selfpriority.errors import InputError
from selfpriority.judges.battery import Battery, BatteryJudge, fit_battery, unfitted
from selfpriority.judges.heads import Heads
from selfpriority.language_model import LanguageModel
from selfpriority.method.order import Order
from selfpriority.models.trust import trust_code
from selfpriority.phases.freed_memory import return_freed_memory
from selfpriority.phases.judge_names import (
    check_rewards,
    fitted_heads,
    judge_backend,
    judge_key,
    meant,
    named_model,
    of_model,
    open_rater,
    with_judges,
)
from selfpriority.phases.made_battery import made_battery, places
from selfpriority.phases.made_heads import made_heads, stand_in_heads
from selfpriority.phases.models import model_key, open_classifier, open_model, open_reader, reading
from selfpriority.rating import Judge
from selfpriority.recipe import (
    Backend,
    ByBattery,
    ByContrast,
    ByProbe,
    ByPython,
    ByReward,
    InWords,
    JudgeSection,
    OpenaiBackend,
    Recipe,
    engine_of,
)
from selfpriority.run import Run
from selfpriority.run_records import Spent

if TYPE_CHECKING:
    from selfpriority.judges.comparer import Comparer
    from selfpriority.judges.turns import TurnJudge


Watcher = Callable[[Progress], None]
"""Told how far the requests of a step are."""
Opener = Callable[[str, Backend, Callable[[str], None]], LanguageModel]
"""Opens a model by its name; told in a line what a server can do, and what was read and written there."""


@dataclass(frozen=True)
class Announced:
    """A part of a run that is to come."""

    title: str
    told: Callable[[], str]
    """What is known of it so far, in a line; empty: nothing."""
    is_part: bool = False
    """Whether it is a part of the evaluation, done beside others."""


class Reporter:
    """Where a phase says what it does. The command line subclasses it; this one is silent."""

    flags: tuple[str, ...] = ()
    """What the processes of a run's phases are given, that they speak as loud as this one."""
    hears: bool = False
    """Whether it shows what those processes say; else they write where this one writes."""

    def stages(self, parts: Sequence[Announced]) -> None:
        """All parts of the run, in order."""

    def stage(self, title: str, state: str) -> None:
        """A part of the run is `now`, `done` or `failed`."""

    def within(self, title: str) -> Reporter:
        """Who hears the process of this part of the run: several may speak at once."""
        return self

    def hear(self, line: str) -> None:
        """A line that the process of a phase wrote."""

    def progress(self, step: str, progress: Progress) -> None:
        """Some requests of a step were answered."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def training(self, row: dict[str, float]) -> None:
        """One optimizer step was made; the row is that of `training.jsonl`."""


@dataclass(frozen=True)
class StandIns:
    """What takes the place of models for somebody who only counts: nothing is cached or watched."""

    model: Callable[[str, Backend], LanguageModel]
    classifier: Callable[[str, Backend], LanguageModel]
    rater: Callable[[str], LanguageModel]
    """In place of a function of the user's own."""


@dataclass(frozen=True)
class Shard:
    """Which part of a step's prompts is in hand."""

    number: int = 1
    of: int = 1


@dataclass
class Resources:
    """Constitution, models and judges of one phase, each opened once, when first asked for."""

    recipe: Recipe
    run: Run
    reporter: Reporter
    models: dict[str, LanguageModel] = field(default_factory=dict)
    doubted: set[str] = field(default_factory=set)
    """Heads about which something was said already."""
    heads: dict[str, Heads] = field(default_factory=dict)
    """Heads that models made for themselves, by model."""
    batteries: dict[str, Battery] = field(default_factory=dict)
    """What the anchors make of models' answers, by the judge's key."""
    first_keys: dict[str, str] = field(default_factory=dict)
    """Keys of the steps that rounds begin with, by round and model."""
    shard: Shard = Shard()
    """What those who watch are told of the step in hand."""
    stand_ins: StandIns | None = None
    """What is opened in place of models, by who plans a run."""

    def __post_init__(self) -> None:
        self.recipe = with_judges(self.recipe, lambda section: of_model(meant(section), self.recipe.model))
        trust_code(self.recipe.trust_remote_code)

    @cached_property
    def constitution(self) -> Constitution:
        """The recipe's constitution, checked against the recipe; read once."""
        constitution = load_constitution(self.recipe.constitution)
        if self.recipe.pairs is not None:  # nothing is sampled, and what orders the pairs is the file's own
            return constitution
        k = len(constitution.objectives)
        if self.recipe.sample.n <= k:
            raise InputError(
                f"sample.n: {self.recipe.sample.n} candidates cannot span {k} objectives; use more than {k}"
            )
        Order.of(self.recipe.pair, constitution.names)  # it may name or weigh objectives
        return constitution

    def model(self, name: str, step: str, spent: Spent, backend: Backend | None = None) -> LanguageModel:
        """The language model `name` behind cache and progress; `backend` in place of the recipe's."""
        return self._opened(open_model, name, backend or self.recipe.backend, self._watcher(step, spent))

    def reader(self, name: str, step: str, spent: Spent, backend: Backend) -> LanguageModel:
        """The same for heads that read hidden states, which may be those of an encoder."""
        return self._opened(open_reader, name, backend, self._watcher(step, spent))

    def _opened(self, opens: Opener, name: str, settings: Backend, watch: Watcher) -> LanguageModel:
        if self.stand_ins is not None:
            return self.stand_ins.model(name, engine_of(settings))
        key = f"{name} {settings.model_dump_json()}"
        if key not in self.models:
            self.models[key] = Cached(opens(name, settings, self.reporter.note), self.run.cache, self.reporter.note)
        return Watched(self.models[key], watch)

    def close(self, name: str) -> None:
        """Gives back the memory of the model `name`; asked for again, it is opened again."""
        for key in [key for key in self.models if key.startswith(f"{name} ")]:
            del self.models[key]
        return_freed_memory()

    def classifier(self, name: str, step: str, spent: Spent) -> LanguageModel:
        """The reward model `name` behind cache and progress; it runs here, whoever generates."""
        if self.stand_ins is not None:
            return self.stand_ins.classifier(name, reading(self.recipe.backend))
        model = Cached(open_classifier(name, self.recipe.backend), self.run.cache, self.reporter.note)
        return Watched(model, self._watcher(step, spent))

    def _rater(self, section: ByPython, step: str, spent: Spent) -> LanguageModel:
        """The function behind cache and progress; its module is imported here."""
        if self.stand_ins is not None:
            return self.stand_ins.rater(section.judge)
        return Watched(Cached(open_rater(section), self.run.cache, self.reporter.note), self._watcher(step, spent))

    def judge(self, section: JudgeSection, policy: str, step: str, spent: Spent, reworded: bool = False) -> Judge:
        """The judge of a recipe's section; `self` is `policy`."""
        from selfpriority.judges.probe import ProbeJudge
        from selfpriority.judges.python import PythonJudge
        from selfpriority.judges.reward import RewardJudge
        from selfpriority.judges.words import WordsJudge

        constitution = self.constitution
        section = of_model(section, self.recipe.model)
        match section:
            case ByProbe():
                heads = fitted_heads(section.judge)
                self._note_other_weights(section.judge, heads)
                runner = judge_backend(section, self.recipe.backend)
                return ProbeJudge(self.reader(heads.model, step, spent, runner), heads, constitution.names)
            case ByContrast():
                runner = judge_backend(section, self.recipe.backend)
                model = self.model(section.judge, step, spent, runner)
                return ProbeJudge(model, self._made_heads(section, model), constitution.names)
            case ByBattery():
                model = self._in_words(section, policy, step, spent)
                return BatteryJudge(model, self._battery(section, model))
            case ByReward():
                check_rewards(section, constitution)
                models = {name: self.classifier(model, step, spent) for name, model in section.rewards.items()}
                return RewardJudge(models, constitution)
            case InWords():
                return WordsJudge(self._in_words(section, policy, step, spent), constitution, section, reworded)
            case ByPython():
                return PythonJudge(self._rater(section, step, spent), section.judge, constitution.names)

    def checked_judge(self, section: JudgeSection, step: str, spent: Spent) -> Judge:
        """The judge as the anchors may be evidence about it: what was oriented by them rates each without itself."""
        model = self.recipe.model
        if not isinstance(section, ByBattery):
            return self.judge(section, model, step, spent)
        asked, name = self._in_words(section, model, step, spent), named_model(section, model)
        if self.stand_ins is not None:
            self._battery(section, asked)
            return BatteryJudge(asked, unfitted(name, self.constitution.names, hold_out=True))
        self.judge(section, model, step, spent)  # what is kept is what the rounds will find
        return BatteryJudge(asked, fit_battery(asked, name, self.constitution, hold_out=True))

    def comparer(self, section: InWords, policy: str, step: str, spent: Spent) -> Comparer:
        """Who compares answers in words; `self` is `policy`."""
        from selfpriority.judges.comparer import Comparer

        return Comparer(self._in_words(section, policy, step, spent), self.constitution, section)

    def turn_judge(self, section: InWords, policy: str, step: str, spent: Spent) -> TurnJudge:
        """Who rates the turns of a conversation in words; `self` is `policy`."""
        from selfpriority.judges.turns import TurnJudge

        return TurnJudge(self._in_words(section, policy, step, spent), section)

    def _made_heads(self, section: ByContrast, model: LanguageModel) -> Heads:
        """The heads that a model makes for itself; a run that moves to another machine goes on with those it has."""
        name, names = section.judge, self.constitution.names
        if name not in self.heads:
            if self.stand_ins is not None:
                self.heads[name] = stand_in_heads(name, model, names)
            else:
                own = self.run.folder / "heads" / judge_key(section, name, self.constitution, self.recipe.backend)[:16]
                self.heads[name] = made_heads(name, model, names, own, self.reporter.note)
        return self.heads[name]

    def _battery(self, section: ByBattery, model: LanguageModel) -> Battery:
        """What the anchors make of a model's answers; a run that moves to another machine goes on with what it has."""
        name, constitution = named_model(section, self.recipe.model), self.constitution
        key = judge_key(section, name, constitution, self.recipe.backend)
        if key not in self.batteries:
            if self.stand_ins is not None:
                self.batteries[key] = self._rehearsed_battery(name, model)
            else:
                is_local = not isinstance(judge_backend(section, self.recipe.backend), OpenaiBackend)
                own = self.run.folder / "battery" / f"{key[:16]}.json"
                kept = places(own, model, constitution, is_local=is_local)
                self.batteries[key] = made_battery(name, model, constitution, kept, self.reporter.note)
        return self.batteries[key]

    def _rehearsed_battery(self, name: str, model: LanguageModel) -> Battery:
        """One that weighs every question, after the anchors were asked about as fitting it asks."""
        with contextlib.suppress(InputError):  # a stand-in gives no answers
            fit_battery(model, name, self.constitution)
        return unfitted(name, self.constitution.names)

    def _in_words(self, section: InWords | ByBattery, policy: str, step: str, spent: Spent) -> LanguageModel:
        return self.model(named_model(section, policy), step, spent, section.backend)

    def _note_other_weights(self, judge: str, heads: Heads) -> None:
        """Says so where a model has changed since its heads were fitted: its hidden states then mean something else."""
        fitted_on = heads.card.get("model_fingerprint", "")
        if judge in self.doubted or not fitted_on or self.stand_ins is not None:  # weights are read for no plan
            return
        if model_key(heads.model) not in fitted_on:
            self.doubted.add(judge)
            self.reporter.note(
                f"{judge}: its heads were fitted on other weights of {heads.model} than there are now, so ratings "
                f"may be off; `spa fit-judge` fits them again"
            )

    def _watcher(self, step: str, spent: Spent) -> Watcher:
        counted = Spent()  # Progress counts from the start of one call; spent sums over the calls of a step

        def watch(progress: Progress) -> None:
            if progress.done < counted.requests:
                counted.requests = counted.cached = counted.tokens = 0
            spent.requests += progress.done - counted.requests
            spent.cached += progress.cached - counted.cached
            spent.tokens += progress.tokens - counted.tokens
            counted.requests, counted.cached, counted.tokens = progress.done, progress.cached, progress.tokens
            self.reporter.progress(step, replace(progress, shard=self.shard.number, shards=self.shard.of))

        return watch
