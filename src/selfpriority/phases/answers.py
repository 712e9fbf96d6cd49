"""What a system answers to held-out prompts: one answer each, or the best of several; and the key of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from selfpriority.evaluation.answer import answer
from selfpriority.evaluation.records import System
from selfpriority.method.order import Order
from selfpriority.method.sample import sample
from selfpriority.phases.judge_names import judge_key
from selfpriority.phases.models import arithmetic, in_process, model_key
from selfpriority.phases.resources import Resources
from selfpriority.phases.systems import asks, prompts_to
from selfpriority.rating import Item
from selfpriority.recipe import VANILLA, Recipe, Sample
from selfpriority.records import Candidates, Pool, Prompt, Rating, Ratings, Response, Sifted
from selfpriority.rivals.known import rows_key, rows_of
from selfpriority.rivals.rows import Asking
from selfpriority.run import POOLS, key_of
from selfpriority.run_records import Spent
from selfpriority.storage import read_rows

_FIELDS = {"max_new_tokens", "temperature"}


def answers_key(system: System, prompts: Sequence[Prompt], resources: Resources) -> str:
    """The key of a system's answers: all that they depend on."""
    recipe = resources.recipe
    backend = in_process(recipe.backend)
    asked = [asdict(prompt) for prompt in prompts_to(system, prompts, resources.constitution)]
    settings = recipe.evaluate.model_dump(include=_FIELDS)
    numerics = arithmetic(backend)
    key = key_of("answers", model_key(system.model, backend), asked, settings, numerics, recipe.seed)
    if system.trained is not None and asks(system):
        own = rows_key(system.trained)
        key = key_of(key, own, model_key(recipe.model, backend), resources.constitution.text)
    if system.how != "best_of_n":
        return key
    judged_by = judge_key(recipe.score.judge, recipe.model, resources.constitution, recipe.backend)
    order = recipe.pair.model_dump(include={"resolution", "threshold", "order"})
    return key_of(key, _drawn(recipe).model_dump(), judged_by, order)


def answers_of(
    system: System, prompts: Sequence[Prompt], resources: Resources, step: str, spent: Spent
) -> Sifted[Response]:
    """One answer a prompt, id `<prompt id>/<system>`; a prompt without is dropped with its reason.

    A rival may be asked in a way of its own; its answers are to the prompts as they were given all the same.

    With `how: best_of_n` it is the best of `sample.n` answers, drawn as the recipe draws, without personas, in the
    order of pairs under the judge that training learns from. An answer without a rating comes after all others, and of
    equal ones the first is taken.
    """
    recipe = resources.recipe
    model = resources.model(system.model, step, spent, in_process(recipe.backend))
    own = _as_asked(system, prompts_to(system, prompts, resources.constitution), resources, spent)
    asked = own.kept
    if system.how != "best_of_n":
        answered = answer(asked, model, system.name, recipe.evaluate, recipe.seed)
        return replace(answered, dropped=own.dropped + answered.dropped)
    drawn = sample(asked, model, _drawn(recipe), (), recipe.seed)
    judge = resources.judge(recipe.score.judge, recipe.model, step, spent)
    ratings = iter(judge.rate([Item(entry.prompt, response) for entry in drawn.kept for response in entry.responses]))
    order = Order.of(recipe.pair, resources.constitution.names)
    best = [_best(entry, [next(ratings) for _ in entry.responses], order, system.name) for entry in drawn.kept]
    return Sifted(tuple(best), drawn.dropped_prompts)


def _as_asked(system: System, prompts: Sequence[Prompt], resources: Resources, spent: Spent) -> Sifted[Prompt]:
    """The prompts as a rival's rows have them; as they are for everybody else."""
    rows = None if system.trained is None or system.trained.rows == "pairs" else rows_of(system.trained)
    if rows is None or rows.ask is None:
        return Sifted(tuple(prompts), ())
    trained = Path(system.model).parent / POOLS  # beside the policy
    vanilla = partial(_vanilla, resources=resources, spent=spent)
    is_planned = resources.stand_ins is not None
    asking = Asking(resources.constitution, lambda: [] if is_planned else read_rows(trained, Pool), vanilla)
    return rows.ask(prompts, asking)


def _vanilla(prompts: Sequence[Prompt], resources: Resources, spent: Spent) -> Sifted[Response]:
    """What the system `vanilla` answers: the very requests, so they are in the cache."""
    recipe = resources.recipe
    model = resources.model(recipe.model, f"answers of {VANILLA}", spent, in_process(recipe.backend))
    return answer(prompts, model, VANILLA, recipe.evaluate, recipe.seed)


def _drawn(recipe: Recipe) -> Sample:
    """How several answers are drawn: as long as one may be."""
    return recipe.sample.model_copy(update={"max_new_tokens": recipe.evaluate.max_new_tokens, "keep_cut": True})


def _best(entry: Candidates, ratings: Sequence[Ratings], order: Order, system: str) -> Response:
    """The answer that is first in the order, under the name of the system."""

    def rank(place: int) -> tuple[float, ...]:
        scores = [rating.value for rating in ratings[place] if isinstance(rating, Rating)]
        return order.key(scores) if len(scores) == len(ratings[place]) else ()

    best = entry.responses[max(range(len(ratings)), key=rank)]
    return Response(f"{entry.prompt.id}/{system}", entry.prompt.id, best.text, best.stop, best.n_tokens)
