"""The steps of a round, each once: its name, its file and rows, what its key depends on, and its work.

`ROUND_STEPS` is what collects, plans and shows a round. Knows what a step reads and makes, and nothing of what is done
before or of how results are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from selfpriority.judges.probe import ProbeJudge, far_from_fitted
from selfpriority.language_model import LanguageModel
from selfpriority.method.denoise import denoise, tau_of
from selfpriority.method.order import Order
from selfpriority.method.pair import pair
from selfpriority.method.refine import refine
from selfpriority.method.sample import sample
from selfpriority.method.score import score
from selfpriority.personas import Persona, load_personas
from selfpriority.phases.judge_names import judge_key
from selfpriority.phases.models import arithmetic, model_key
from selfpriority.phases.resources import Resources
from selfpriority.phases.round_inputs import (
    generator,
    round_prompts,
    start_of_round,
    training_judge,
    used_personas,
    with_places,
)
from selfpriority.plain_fields import plain_fields
from selfpriority.preferences import PreferenceRow, deciders, preference_rows
from selfpriority.prompts import row_places
from selfpriority.rating import Judge
from selfpriority.recipe import Recipe
from selfpriority.records import Candidates, PairedPool, Pool, Prompt, Sifted
from selfpriority.run import CANDIDATES, PAIRS, POOLS, REFINED, SCORED, Run, key_of
from selfpriority.run_records import PairCounts, Spent
from selfpriority.wording import text_hash

COLLAPSED = 0.95
"""Share of the pairs that one objective may decide before that is remarked on."""


@dataclass(frozen=True)
class Round:
    """One round of a run as its steps see it."""

    run: Run
    resources: Resources
    number: int

    @property
    def recipe(self) -> Recipe:
        """What the run follows."""
        return self.resources.recipe

    @property
    def policy(self) -> str:
        """The model the round starts from."""
        return start_of_round(self.run, self.recipe, self.number)

    def model(self, step: str, spent: Spent) -> LanguageModel:
        """That model, opened for a step."""
        return self.resources.model(self.policy, step, spent, generator(self.recipe, self.number))

    def judge(self, step: str, spent: Spent) -> Judge:
        """The training judge, opened for a step."""
        spec = training_judge(self.recipe, self.number)
        return self.resources.judge(spec, self.policy, f"{step}: rating", spent)

    @property
    def made_by(self) -> object:
        """What a key says of who writes answers."""
        backend = generator(self.recipe, self.number)
        return model_key(self.policy, backend), arithmetic(backend)


def _as_kept(here: Round, kept: Sequence[Any]) -> Sequence[Any]:
    return kept


def _nothing_more(here: Round, rows: Iterable[Any]) -> None:
    return


Work = Callable[[Sequence[Any]], Sifted[Any]]
"""Prompts, or rows of the step before -> what is kept and dropped of them."""


@dataclass(frozen=True)
class RoundStep:
    """One step of a round."""

    name: str
    """As funnel and drops call it."""
    file: str
    """What it writes into the round's folder, one row a prompt or a pair."""
    row: type
    """Type of these rows."""
    key_parts: Callable[[Round], object]
    """What the step depends on beside the steps before it; changing it changes the keys of finished runs."""
    opened: Callable[[Round, Spent, Iterable[Any]], Work]
    """Opens what its work needs, once for all shards. The iterable is all that will come in: for a step that has to
    see everything, row by row, before it can keep anything."""
    rows: Callable[[Round, Sequence[Any]], Sequence[Any]] = _as_kept
    """What is kept -> the rows of the file."""
    remark: Callable[[Round, Iterable[Any]], None] = _nothing_more
    """Once the rows are stored: what else the step counts and says."""
    is_whole: bool = False
    """Whether it takes all that comes in at once; else a shard at a time."""
    is_first: bool = False
    """Whether it begins with the round's prompts."""

    @property
    def counts(self) -> tuple[str, ...]:
        """What it counts in the funnel: the first step also what was lost in reading the prompts."""
        return ("prompts", self.name) if self.is_first else (self.name,)

    def work(self, here: Round, came_in: Sequence[Any], spent: Spent) -> Sifted[Any]:
        """All of it at once."""
        return self.opened(here, spent, came_in)(came_in)

    def key(self, here: Round, before: str) -> str:
        """Its key behind the step before; the first step's is worked out once a process, for it reads every prompt."""
        if not self.is_first:
            return key_of(before, self.name, self.key_parts(here))
        known, of = here.resources.first_keys, key_of(here.number, here.made_by)
        if of not in known:
            known[of] = key_of(before, self.name, self.key_parts(here))
        return known[of]

    def entry(self, number: int) -> str:
        """Its name in the manifest, in round `number`."""
        return f"round-{number}/{self.name}"


def _sample_key(here: Round) -> object:
    recipe = here.recipe
    kept = round_prompts(recipe, here.number).kept
    personas = [_persona_key(each) for each in used_personas(recipe, kept)]
    return plain_fields(kept), here.made_by, recipe.sample.model_dump(), personas, recipe.seed


def _persona_key(persona: Persona) -> object:
    """What a key says of a persona: the same as before there were openings, and before there were languages."""
    told = {"name": persona.name, "text": persona.text, "opening": persona.opening}
    return told if persona.opening else persona


def _sample(here: Round, spent: Spent, _: Iterable[Prompt]) -> Work:
    recipe, model = here.recipe, here.model("sample", spent)
    personas = load_personas(recipe.sample.personas)
    step, note = SAMPLE.entry(here.number), here.resources.reporter.note

    def work(prompts: Sequence[Prompt]) -> Sifted[Candidates]:
        sifted = sample(prompts, model, recipe.sample, personas, recipe.seed)
        return replace(sifted, dropped=with_places(sifted.dropped, partial(row_places, recipe.prompts), step, note))

    return work


def _score_key(here: Round) -> object:
    spec = training_judge(here.recipe, here.number)
    return judge_key(spec, here.policy, here.resources.constitution, here.recipe.backend)


def _score(here: Round, spent: Spent, _: Iterable[Candidates]) -> Work:
    judge, told = here.judge("score", spent), set[str]()

    def work(candidates: Sequence[Candidates]) -> Sifted[Pool]:
        found = score(candidates, judge)
        if not told and isinstance(judge, ProbeJudge) and (line := far_from_fitted(judge.distances)):
            told.add(line)
            here.resources.reporter.note(f"{here.run.named(SCORE.entry(here.number))}: {line}")
        return found

    return work


def _refine_key(here: Round) -> object:
    recipe = here.recipe
    rules = recipe.pair.in_result
    order = {name: rules[name] for name in ("resolution", "threshold", "order") if name in rules}
    texts = text_hash("refine_system", "refine_again")
    return here.made_by, recipe.refine.in_result, here.resources.constitution.text, texts, order


def _refine(here: Round, spent: Spent, _: Iterable[Pool]) -> Work:
    model, judge, constitution = here.model("refine", spent), here.judge("refine", spent), here.resources.constitution
    order = Order.of(here.recipe.pair, constitution.names)
    return lambda pools: refine(pools, model, judge, constitution, here.recipe.refine, order)


def _denoise_key(here: Round) -> object:
    return here.recipe.denoise.in_result


def _denoise(here: Round, _: Spent, pools: Iterable[Pool]) -> Work:
    settings = here.recipe.denoise
    return partial(denoise, settings=settings, tau=tau_of(pools, settings))


def pair_key(here: Round) -> object:
    """What decides which answers of a pool make a pair."""
    return here.recipe.pair.in_result


def _pair(here: Round, _: Spent, __: Iterable[Pool]) -> Work:
    return partial(pair, settings=here.recipe.pair, objectives=here.resources.constitution.names)


def _pair_rows(here: Round, paired: Sequence[PairedPool]) -> list[PreferenceRow]:
    return preference_rows(paired, here.resources.constitution.names)


def _count_pairs(here: Round, rows: Iterable[PreferenceRow]) -> None:
    """Writes who decided the pairs; one objective deciding nearly all means the order has collapsed to it."""
    counts = write_deciders(here, rows, here.resources.constitution.names)
    n_pairs, follows = sum(counts.values()), here.recipe.pair.order
    for name, n in counts.items() if follows in ("priority", "swapped") else ():  # no other asks them one by one
        if n > COLLAPSED * n_pairs:
            here.resources.reporter.note(
                f"{here.run.named(PAIR.entry(here.number))}: {name} decided {n / n_pairs:.0%} of the pairs: the "
                f"other objectives hardly speak; a coarser pair.resolution or a pair.threshold lets them"
            )


def write_deciders(here: Round, rows: Iterable[PreferenceRow], objectives: Sequence[str]) -> dict[str, int]:
    """Puts how many pairs there are, and who decided them, into the round's `funnel.json`; who decided how many."""
    counts = deciders(rows, objectives)
    funnel = here.run.funnel(here.number)
    pairs = replace(funnel.pairs or PairCounts(), n=sum(counts.values()), decided_by=counts)  # what was trained stays
    here.run.write_funnel(here.number, replace(funnel, pairs=pairs))
    return counts


SAMPLE = RoundStep("sample", CANDIDATES, Candidates, _sample_key, _sample, is_first=True)
SCORE = RoundStep("score", SCORED, Pool, _score_key, _score)
REFINE = RoundStep("refine", REFINED, Pool, _refine_key, _refine)
DENOISE = RoundStep("denoise", POOLS, Pool, _denoise_key, _denoise)
PAIR = RoundStep("pair", PAIRS, PreferenceRow, pair_key, _pair, _pair_rows, _count_pairs)
ROUND_STEPS = (SAMPLE, SCORE, REFINE, DENOISE, PAIR)
