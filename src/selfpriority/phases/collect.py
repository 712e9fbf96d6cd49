"""One round's collection: sample, score, refine, denoise, pair, each reading and writing the run directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from selfpriority.errors import InputError, WorkFailed
from selfpriority.language_model import LanguageModel
from selfpriority.method.denoise import denoise
from selfpriority.method.order import Order
from selfpriority.method.pair import pair
from selfpriority.method.refine import refine
from selfpriority.method.sample import sample
from selfpriority.method.score import score
from selfpriority.personas import load_personas
from selfpriority.phases.judge_names import judge_key
from selfpriority.phases.models import in_process, model_key
from selfpriority.phases.resources import Resources
from selfpriority.preferences import PreferenceRow, deciders, preference_rows
from selfpriority.prompts import load_prompts
from selfpriority.recipe import Backend, InWords, JudgeSection, OpenaiBackend, Recipe
from selfpriority.records import Candidates, Pool, Prompt, Sifted
from selfpriority.run import (
    CANDIDATES,
    PAIRS,
    POOLS,
    REFINED,
    SCORED,
    PairCounts,
    Run,
    Spent,
    Step,
    key_of,
    read_rows,
    write_rows,
)
from selfpriority.wording import text_hash

STEPS = ("sample", "score", "refine", "denoise", "pair")
FILES = dict(zip(STEPS, (CANDIDATES, SCORED, REFINED, POOLS, PAIRS), strict=True))
ROWS: dict[str, type] = dict(zip(STEPS, (Candidates, Pool, Pool, Pool, PreferenceRow), strict=True))


def start_of_round(run: Run, recipe: Recipe, number: int) -> str:
    """The model a round starts from: the recipe's, then the last round's policy."""
    return recipe.model if number == 1 else str(run.policy(number - 1))


def generator(recipe: Recipe, number: int) -> Backend:
    """Who runs a round's model: the recipe's backend, but a policy of ours is on no server."""
    return recipe.backend if number == 1 else in_process(recipe.backend)


def training_judge(recipe: Recipe, number: int) -> JudgeSection:
    """The judge of a round; one that is the policy itself runs where the policy does."""
    judge = recipe.score.judge
    if number == 1 or not isinstance(judge, InWords) or judge.judge != "self":
        return judge
    own = judge.backend  # a server knows the model only as it was: the policy runs as the recipe says
    backend = in_process(recipe.backend) if own is None or isinstance(own, OpenaiBackend) else own
    return judge.model_copy(update={"backend": backend})


def round_prompts(recipe: Recipe, number: int) -> Sifted[Prompt]:
    """The prompts of one round; `prompts_per_round: new` deals them out evenly."""
    loaded = load_prompts(recipe.prompts, recipe.seed)
    if recipe.prompts_per_round == "same":
        return loaded
    return Sifted(loaded.kept[number - 1 :: recipe.rounds], loaded.dropped if number == 1 else ())


def usable_prompts(recipe: Recipe, number: int) -> Sifted[Prompt]:
    """As `round_prompts`.

    Raises:
        InputError: the round has none.
    """
    prompts = round_prompts(recipe, number)
    if not prompts.kept:
        raise InputError(f"prompts: {recipe.prompts.source}: no usable prompt; dropped: {prompts.reasons or 'none'}")
    return prompts


def collect_steps(run: Run, resources: Resources, number: int) -> list[Step]:
    """The five steps of a round with their keys, each holding all that the step depends on."""
    recipe, constitution = resources.recipe, resources.constitution
    policy = start_of_round(run, recipe, number)
    backend = generator(recipe, number)
    made_by = (model_key(policy, backend), backend.model_dump(include={"kind", "dtype"}))
    prompts = [asdict(prompt) for prompt in round_prompts(recipe, number).kept]
    judge = judge_key(training_judge(recipe, number), policy, constitution, recipe.backend)
    order = recipe.pair.model_dump(include={"resolution", "threshold"})
    texts = text_hash("refine_system", "refine_again")
    parts: dict[str, object] = {
        "sample": (prompts, made_by, recipe.sample.model_dump(), load_personas(recipe.sample.personas), recipe.seed),
        "score": judge,
        "refine": (made_by, recipe.refine.model_dump(), constitution.text, texts, order),
        "denoise": recipe.denoise.model_dump(),
        "pair": recipe.pair.model_dump(),
    }
    steps: list[Step] = []
    key = ""
    for name in STEPS:
        key = key_of(key, name, parts[name])
        steps.append(Step(f"round-{number}/{name}", key, (run.round(number) / FILES[name],)))
    return steps


def collect(run: Run, resources: Resources, number: int) -> None:
    """Does the steps of a round that are not done.

    Raises:
        WorkFailed: a step lost its last prompt; the funnel so far is written and says where they went.
    """
    work = _Work(run, resources, number)
    for name, step in zip(STEPS, collect_steps(run, resources, number), strict=True):
        if run.is_done(step):
            continue
        if run.was_done_otherwise(step):
            resources.reporter.note(f"{step.name}: its inputs changed, so it is done again")
            run.forget_from(number, name)
        with run.recording(step) as spent:
            n_in, sifted = work.compute(name, spent)
            rows: Sequence[Any] = sifted.kept
            if name == "pair":
                rows = preference_rows(sifted.kept, resources.constitution.names)
            write_rows(run.round(number) / FILES[name], rows, ROWS[name])
            run.record_sifted(number, name, n_in, sifted)
            if name == "pair":
                _record_pairs(run, number, rows, resources)
            if not sifted.kept:  # never done: every further command comes here again, and tells why
                reasons = ", ".join(f"{n} {reason}" for reason, n in sifted.reasons.items()) or "no prompt came in"
                raise WorkFailed(
                    f"{step.name}: no prompt is left ({reasons}); `spa show {run.folder}` shows the funnel"
                )


@dataclass
class _Work:
    run: Run
    resources: Resources
    number: int

    def compute(self, name: str, spent: Spent) -> tuple[int, Sifted[Any]]:
        """Number of prompts that went in, and the step's result."""
        computations: dict[str, Callable[[Spent], tuple[int, Sifted[Any]]]] = {
            "sample": self._sample,
            "score": self._score,
            "refine": self._refine,
            "denoise": self._denoise,
            "pair": self._pair,
        }
        return computations[name](spent)

    def _sample(self, spent: Spent) -> tuple[int, Sifted[Candidates]]:
        recipe = self.resources.recipe
        loaded = round_prompts(recipe, self.number)
        self.run.record_sifted(self.number, "prompts", len(loaded.kept) + len(loaded.dropped_prompts), loaded)
        model = self._model("sample", spent)
        personas = load_personas(recipe.sample.personas)
        return len(loaded.kept), sample(loaded.kept, model, recipe.sample, personas, recipe.seed)

    def _score(self, spent: Spent) -> tuple[int, Sifted[Pool]]:
        candidates = read_rows(self._file(CANDIDATES), Candidates)
        return len(candidates), score(candidates, self._judge("score", spent))

    def _refine(self, spent: Spent) -> tuple[int, Sifted[Pool]]:
        pools = read_rows(self._file(SCORED), Pool)
        recipe = self.resources.recipe
        model = self._model("refine", spent)
        judge = self._judge("refine", spent)
        order = Order.of(recipe.pair)
        return len(pools), refine(pools, model, judge, self.resources.constitution, recipe.refine, order)

    def _denoise(self, spent: Spent) -> tuple[int, Sifted[Pool]]:
        pools = read_rows(self._file(REFINED), Pool)
        return len(pools), denoise(pools, self.resources.recipe.denoise)

    def _pair(self, spent: Spent) -> tuple[int, Sifted[Any]]:
        pools = read_rows(self._file(POOLS), Pool)
        return len(pools), pair(pools, self.resources.recipe.pair)

    def _file(self, name: str) -> Any:
        return self.run.round(self.number) / name

    def _model(self, step: str, spent: Spent) -> LanguageModel:
        recipe = self.resources.recipe
        policy = start_of_round(self.run, recipe, self.number)
        return self.resources.model(policy, step, spent, generator(recipe, self.number))

    def _judge(self, step: str, spent: Spent) -> Any:
        recipe = self.resources.recipe
        policy = start_of_round(self.run, recipe, self.number)
        return self.resources.judge(training_judge(recipe, self.number), policy, f"{step}: rating", spent)


def _record_pairs(run: Run, number: int, rows: Sequence[PreferenceRow], resources: Resources) -> None:
    """Writes who decided the pairs; one objective deciding nearly all means the order has collapsed to it."""
    counts = deciders(rows, resources.constitution.names)
    run.write_funnel(number, replace(run.funnel(number), pairs=PairCounts(len(rows), counts)))
    for name, n in counts.items():
        if rows and n > 0.95 * len(rows):
            share = n / len(rows)
            resources.reporter.note(
                f"{name} decided {share:.0%} of the pairs: the other objectives hardly speak; "
                f"a coarser pair.resolution or a pair.threshold lets them"
            )
