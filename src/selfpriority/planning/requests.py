"""Every request of a run, counted: the steps themselves, run on a stand-in that answers as long as it may.

No prompt is lost on the way and every answer has full length, so what depends on answers is an upper bound. Knows
models by name and by their tokenizers; loads no weights, writes no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from selfpriority.backends.counting import Asked, Counting, Ruler, longest_sum
from selfpriority.errors import InputError
from selfpriority.evaluation.summary import contests
from selfpriority.judges.check import ask_all
from selfpriority.judges.comparer import Duel
from selfpriority.judges.comparer_check import ask_all_pairs
from selfpriority.language_model import Generate, LanguageModel, Request
from selfpriority.method.denoise import n_of_share
from selfpriority.models.files import described
from selfpriority.models.known_shapes import known_config
from selfpriority.own_pairs.pools import own_pairs
from selfpriority.phases.answers import answers_of
from selfpriority.phases.branches import Branch, branches
from selfpriority.phases.judge_check import check_anchors, checked_comparer, checks, judge_sections
from selfpriority.phases.judge_names import comparing
from selfpriority.phases.merges import merges
from selfpriority.phases.own_steps import OWN_STEPS, check_own
from selfpriority.phases.resources import Resources, StandIns
from selfpriority.phases.round_inputs import usable_prompts, used_personas
from selfpriority.phases.round_steps import DENOISE, PAIR, REFINE, SAMPLE, SCORE, Round
from selfpriority.phases.row_steps import PAIR_ROWS, ROWS
from selfpriority.phases.summary import judges_of
from selfpriority.phases.systems import PromptSet, check_systems, prompt_sets, systems
from selfpriority.rating import Item
from selfpriority.recipe import OpenaiBackend, Recipe
from selfpriority.records import Candidates, Pool, Prompt, Rating, Response, Scored
from selfpriority.rivals.known import check_rows
from selfpriority.run import MERGED, SYSTEMS
from selfpriority.run_records import Spent

if TYPE_CHECKING:
    from selfpriority.models.loading import Description


@dataclass(frozen=True)
class PlannedStep:
    """One step by its name in the manifest, and what it asks of whom."""

    name: str
    phase: str
    asked: tuple[Asked, ...] = ()
    is_bound: bool = False
    """How many requests there are depends on answers: at most so many."""
    trained_tokens: int = 0
    """Of all epochs, at most."""
    pool_tokens: int = 0
    """Of the largest pool that is trained on, at most."""
    pools: int = 0
    """That are trained on, at most."""

    @property
    def requests(self) -> int:
        """Requests to all models together."""
        return sum(asked.requests for asked in self.asked)


@dataclass
class Rehearsal(Resources):
    """Opens stand-ins in place of models, and collects what each is asked."""

    asked: list[Asked] = field(default_factory=list)
    descriptions: dict[str, Description | None] = field(default_factory=dict)
    served: set[str] = field(default_factory=set)
    """Models that only a server knows."""
    by_shape: set[str] = field(default_factory=set)
    """Models whose files are not here, but whose shape is known."""
    rulers: dict[str, Ruler] = field(default_factory=dict)
    """Of the models, and what they have measured."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stand_ins = StandIns(
            lambda name, settings: self._counting(Asked(name, settings)),
            lambda name, settings: self._counting(Asked(name, settings, classifies=True)),
            lambda name: self._counting(Asked(name, None)),
        )

    @cached_property
    def policies(self) -> set[str]:
        """Where the models lie that the run makes."""
        made = {str(self.run.policy(number)) for number in range(1, self.recipe.rounds + 1)}
        made |= {branch.policy for branch in branches(self.run, self.recipe)}
        return made | {str(merge.folder) for merge in merges(self.run, self.recipe)}

    def description(self, name: str) -> Description | None:
        """Tokenizer and configuration of a model.

        Of a well-known model whose files are not here, its configuration alone; of another, None.
        """
        name = self._known_as(name)
        if name not in self.descriptions:
            self.descriptions[name] = self._described(name)
        return self.descriptions[name]

    def _known_as(self, name: str) -> str:
        """Whose tokenizer and configuration the model has: a policy's are those of the recipe's model."""
        return self.recipe.model if name in self.policies else name

    def _described(self, name: str) -> Description | None:
        from selfpriority.models.loading import Description, describe

        if described(name) is not None:
            return describe(name)
        config = known_config(name)
        if config is None:
            return None
        self.by_shape.add(name)
        return Description(None, config)

    def ruler(self, name: str) -> Ruler:
        """How long texts are for the model `name`."""
        name = self._known_as(name)
        if name not in self.rulers:
            description = self.description(name)
            self.rulers[name] = Ruler(description.chat if description else None)
        return self.rulers[name]

    def of_branch(self, branch: Branch) -> Rehearsal:
        """The same for a further system, of the same models: what was read of them is read once for all."""
        theirs = Rehearsal(branch.recipe, branch.run, self.reporter)
        theirs.descriptions, theirs.rulers = self.descriptions, self.rulers
        theirs.served, theirs.by_shape = self.served, self.by_shape
        return theirs

    def step(self, name: str, phase: str, is_bound: bool = False) -> PlannedStep:
        """What was asked since the last step, as a step of this name."""
        asked, self.asked = tuple(self.asked), []
        return PlannedStep(name, phase, asked, is_bound)

    def _counting(self, asked: Asked) -> LanguageModel:
        is_behind_address = isinstance(asked.settings, OpenaiBackend) and asked.model != self.recipe.model
        if is_behind_address:
            self.served.add(asked.model)
        self.asked.append(asked)
        is_unread = is_behind_address or asked.settings is None
        return Counting(asked, Ruler(None) if is_unread else self.ruler(asked.model))


def planned_steps(rehearsal: Rehearsal) -> Iterator[PlannedStep]:
    """All steps of a run that ask or train, in order.

    Raises:
        InputError: constitution, prompts, personas, a judge or a model is wrong.
    """
    recipe = rehearsal.recipe
    if judge_sections(recipe):
        yield _judges(rehearsal)
    for number in range(1, recipe.rounds + 1):
        yield from _round(rehearsal, number)
    for branch in branches(rehearsal.run, recipe):
        yield from _branch(branch, rehearsal)
    for merge in merges(rehearsal.run, recipe):  # asks nobody and trains nothing
        yield PlannedStep(f"{MERGED}/{merge.name}", "merge")
    if recipe.evaluate.prompts is not None:
        yield from _evaluation(rehearsal)


def _judges(rehearsal: Rehearsal) -> PlannedStep:
    """The check of the judges."""
    if check_anchors(rehearsal):
        for _, check in checks(rehearsal, Spent()):
            ask_all(check.judge, check.reworded, check.constitution, check.disowning)
        comparer = comparing(rehearsal.recipe)
        if comparer is not None:
            ask_all_pairs(checked_comparer(rehearsal, comparer, Spent()), rehearsal.constitution)
    return rehearsal.step("judge", "check-judge", is_bound=True)


def _own_round(rehearsal: Rehearsal) -> Iterator[PlannedStep]:
    """Pairs of one's own ask nobody, and what trains is known but for pairs that a margin leaves out."""
    recipe = rehearsal.recipe
    assert recipe.pairs is not None
    check_own(recipe)
    ruler = rehearsal.ruler(recipe.model)
    for step in OWN_STEPS:
        yield PlannedStep(step.entry(1), "collect (round 1)")
    sizes = [
        ruler.conversation(pool.prompt.messages) + sum(ruler.response(each.response.text) for each in pool.candidates)
        for pool in own_pairs(recipe.pairs, recipe.prompts).pools
    ]
    once = recipe.align.epochs * sum(sizes)
    yield PlannedStep("round-1/align", "align (round 1)", (), True, once, max(sizes), len(sizes))


def _round(rehearsal: Rehearsal, number: int) -> Iterator[PlannedStep]:
    if rehearsal.recipe.pairs is not None:
        yield from _own_round(rehearsal)
        return
    here, phase = Round(rehearsal.run, rehearsal, number), f"collect (round {number})"
    prompts = usable_prompts(rehearsal.recipe, number).kept
    candidates = SAMPLE.work(here, prompts, Spent()).kept
    yield rehearsal.step(SAMPLE.entry(number), phase)
    SCORE.work(here, candidates, Spent())
    yield rehearsal.step(SCORE.entry(number), phase, is_bound=True)
    # nothing is lost here and every rating is the same: what follows is of all pools
    k = len(rehearsal.constitution.names)
    refined = REFINE.work(here, [_rated(entry, k) for entry in candidates], Spent()).kept
    yield rehearsal.step(REFINE.entry(number), phase, is_bound=True)
    if rehearsal.recipe.align.rows != "pairs":
        yield from _rows(rehearsal, here, refined)
        return
    for step in (DENOISE, PAIR):  # they ask nobody
        yield PlannedStep(step.entry(number), phase)
    yield _align(rehearsal, number, prompts)


def _rows(rehearsal: Rehearsal, here: Round, refined: Sequence[Pool]) -> Iterator[PlannedStep]:
    """What a rival makes of pools whose answers are all ordered, and trains on."""
    check_rows(rehearsal.recipe.align)
    number = here.number
    made = ROWS.work(here, [_ordered(pool) for pool in refined], Spent())
    yield rehearsal.step(ROWS.entry(number), f"collect (round {number})", is_bound=True)
    yield PlannedStep(PAIR_ROWS.entry(number), f"collect (round {number})")
    ruler, rows = rehearsal.ruler(rehearsal.recipe.model), ROWS.rows(here, made.kept)
    sizes = [
        ruler.conversation(row.prompt.messages) + sum(ruler.response(each.response.text) for each in row.responses)
        for row in rows
    ]
    yield PlannedStep(
        f"round-{number}/align",
        f"align (round {number})",
        is_bound=True,
        trained_tokens=rehearsal.recipe.align.epochs * max(sum(sizes), 1),
        pool_tokens=max(sizes, default=1),
        pools=len(sizes),
    )


def _ordered(pool: Pool) -> Pool:
    """The pool with an answer for a refinement that is best by far, and ratings that put the others in an order.

    No two objectives rate alike, or denoising would find nothing to keep.
    """
    n, k = len(pool.candidates), len(pool.candidates[0].ratings)
    ratings = [tuple(Rating(1 + 7 * ((i + j * i * i) % n) / n) for j in range(k)) for i in range(n)]
    candidates = tuple(Scored(each.response, own) for each, own in zip(pool.candidates, ratings, strict=True))
    longest = max(candidates, key=lambda each: len(each.response.text)).response
    return Pool(pool.prompt, candidates, Scored(replace(longest, id=f"{pool.prompt.id}/refined1"), (Rating(10.0),) * k))


def _branch(branch: Branch, rehearsal: Rehearsal) -> Iterator[PlannedStep]:
    """What a further system is trained by; of its first round that asks models the answers are there."""
    theirs = rehearsal.of_branch(branch)
    for number in range(1, branch.recipe.rounds + 1):
        try:
            steps = list(_round(theirs, number))
        except InputError as error:
            place = f"evaluate.more_systems.{branch.name}.train"
            raise InputError(*(f"{place}: {line}" for line in error.lines)) from error
        for step in steps:
            is_own = not step.asked or step.name == ROWS.entry(number)
            if number > 1 or step.trained_tokens or is_own:
                name, phase = f"{SYSTEMS}/{branch.name}/{step.name}", f"{branch.name}: {step.phase}"
                yield replace(step, name=name, phase=phase)


def _rated(entry: Candidates, k: int) -> Pool:
    return Pool(entry.prompt, tuple(Scored(response, (Rating(5.5),) * k) for response in entry.responses))


def _align(rehearsal: Rehearsal, number: int, prompts: Sequence[Prompt]) -> PlannedStep:
    """Trains on the largest pools that denoising may keep, all answers at full length."""
    recipe = rehearsal.recipe
    ruler = rehearsal.ruler(recipe.model)
    asked = [Generate(prompt.messages, 1, 0.0, 1.0, 0, 0) for prompt in prompts]

    def length(request: Request) -> int:
        assert isinstance(request, Generate)
        return ruler.conversation(request.messages)

    n_begun = _longest_opening(recipe, prompts, ruler)
    n_answers = recipe.sample.n * (n_begun + recipe.sample.max_new_tokens) + recipe.refine.max_new_tokens
    share = recipe.denoise.keep_lowest
    n_kept = n_of_share(share, len(prompts)) if share is not None else len(prompts)
    n_once, n_largest = (longest_sum(asked, length, n) + n * n_answers for n in (n_kept, 1))
    return PlannedStep(
        f"round-{number}/align",
        f"align (round {number})",
        is_bound=True,
        trained_tokens=recipe.align.epochs * n_once,
        pool_tokens=n_largest,
        pools=n_kept,
    )


def _longest_opening(recipe: Recipe, prompts: Sequence[Prompt], ruler: Ruler) -> int:
    """Tokens of the longest beginning that a persona gives an answer to one of the prompts."""
    openings = [each.opening for each in used_personas(recipe, prompts) if each.opening]
    return max(map(ruler.response, openings), default=0)


def _evaluation(rehearsal: Rehearsal) -> Iterator[PlannedStep]:
    check_systems(rehearsal.run, rehearsal.recipe)
    for prompt_set in prompt_sets(rehearsal.run, rehearsal.recipe):
        yield from _on_set(rehearsal, prompt_set)


def _on_set(rehearsal: Rehearsal, prompt_set: PromptSet) -> Iterator[PlannedStep]:
    recipe, prompts = rehearsal.recipe, prompt_set.prompts.kept
    answers: dict[str, tuple[Response, ...]] = {}
    for system in systems(rehearsal.run, recipe):
        answers[system.name] = answers_of(system, prompts, rehearsal, "answers", Spent()).kept
        yield rehearsal.step(prompt_set.step(f"answers-{system.name}"), "evaluate", is_bound=system.how == "best_of_n")
        items = [Item(prompt, response) for prompt, response in zip(prompts, answers[system.name], strict=True)]
        for name, judge in judges_of(recipe).items():
            rehearsal.judge(judge, recipe.model, "verdicts", Spent()).rate(items)
            path = prompt_set.files.verdicts(system.name, name)
            yield rehearsal.step(prompt_set.step(path.stem), "evaluate", is_bound=True)
    section = comparing(recipe)
    if section is None:
        return
    for contest in contests(list(answers), recipe.evaluate.reference):
        both = zip(prompts, answers[contest.a], answers[contest.b], strict=True)
        # stand-ins write alike, and two equal answers would be shown in one order only
        duels = [Duel(prompt, x.text, y.text.capitalize()) for prompt, x, y in both]
        comparer = rehearsal.comparer(section, recipe.model, "comparing", Spent())
        comparer.compare(duels)
        yield rehearsal.step(prompt_set.step(f"comparisons-{contest.key}"), "evaluate", is_bound=True)
