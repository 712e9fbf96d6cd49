"""One round's training: kept pools and their pairs in, the next policy out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from selfpriority.errors import WorkFailed
from selfpriority.method.pair import Contested, contested
from selfpriority.models.files import resolve
from selfpriority.phases.collect import collect_steps
from selfpriority.phases.launch import check_started, is_main, launch, rank
from selfpriority.phases.models import model_key
from selfpriority.phases.resources import Resources
from selfpriority.phases.round_inputs import prompt_places, start_of_training, with_places
from selfpriority.phases.round_steps import Round
from selfpriority.preferences import PreferenceRow, objectives_in, paired_pools
from selfpriority.recipe import Align, Recipe, Sample
from selfpriority.records import Candidates, Drop, PairedPool, Pool, Sifted
from selfpriority.report.cards import write_policy_cards
from selfpriority.rivals.online import rewards, threshold_of
from selfpriority.run import CANDIDATES, PAIRS, POOLS, Run, key_of
from selfpriority.run_records import PairCounts, Spent, Step, trained_by
from selfpriority.storage import read_rows
from selfpriority.training.unfinished import LOG, checkpoints_of, remove_all, take_place
from selfpriority.wording import text_hash

if TYPE_CHECKING:
    from selfpriority.training.align import Places, Trained
    from selfpriority.training.rollouts import Draw


_FAINT = 2 / 3
"""Share of what contested pairs would weigh if all weighed alike, under which the order hardly speaks."""
_DRAWN = {"n", "temperature", "top_p", "max_new_tokens"}
"""What of `sample` an online training draws by."""


def align_step(run: Run, resources: Resources, number: int) -> Step:
    """The training of a round with its key."""
    recipe = resources.recipe
    pairs = collect_steps(run, resources, number)[-1]
    start = model_key(start_of_training(run, recipe, number))  # the pairs may be of another model, behind a server
    key = key_of(pairs.key, "align", start, recipe.align.in_result, recipe.seed)
    if recipe.align.method == "grpo":
        key = key_of(key, threshold_of(recipe), recipe.sample.model_dump(include=_DRAWN), "drawn as the run draws")
    if recipe.align.method == "tis_dpo":  # what weighs its tokens
        key = key_of(key, text_hash("tis_good", "tis_bad"))
    return Step(trained_by(number), key, (run.policy(number),))  # for a lost log nobody trains again


def check_trained(run: Run, resources: Resources) -> None:
    """Raises WorkFailed unless every round's policy was trained under the present recipe."""
    for number in range(1, resources.recipe.rounds + 1):
        step = align_step(run, resources, number)
        if not run.is_done(step):
            raise WorkFailed(f"{step.name}: not done under the present recipe; `spa align {run.folder}` trains it")


def read_paired(run: Run, resources: Resources, number: int) -> list[PairedPool]:
    """The pools of a round that train, with their pairs.

    Raises:
        WorkFailed: the present recipe has not made all of them: they are missing, older, or a mixture.
    """
    folder = run.round(number)
    for step in collect_steps(run, resources, number):
        if not run.is_done(step):
            lack = f"{step.name} is not done under the present recipe"
            raise WorkFailed(f"{folder / PAIRS}: {lack}; `spa collect {run.folder}` makes the pairs")
    rows = read_rows(folder / PAIRS, PreferenceRow)
    is_own = resources.recipe.pairs is not None
    names = objectives_in(rows) if is_own else resources.constitution.names
    return paired_pools(read_rows(folder / POOLS, Pool), rows, names, resources.recipe.align.rows != "pairs")


def align(run: Run, resources: Resources, number: int) -> None:
    """Trains one round, from its last checkpoint if there is one for the very same inputs.

    With `align.processes` this process starts that many, each of which comes here again; the main one alone writes.

    Raises:
        InputError: another number of processes than the recipe says was started, or those of several nodes were not.
        KeyboardInterrupt: interrupted; what was trained is in a checkpoint, or it is done and its policy saved.
    """
    step = align_step(run, resources, number)
    called = run.named(step.name)
    if run.is_done(step):
        return
    if _is_for_many(run, resources.recipe.align):
        return _on_many(run, resources, number)
    from selfpriority.training.align import Places
    from selfpriority.training.checkpoints import newest, of_other_forms

    folder = run.round(number)
    checkpoints = checkpoints_of(folder, step.key)
    paired = read_paired(run, resources, number)
    start = start_of_training(run, resources.recipe, number)
    resolve(start)
    # the checkpoints stay until the manifest holds the step: a kill in between must not train it all again
    places = Places(run.policy(number), folder / LOG, checkpoints, model_key(start), True)
    if not is_main():
        from selfpriority.training.align import train

        train(paired, start, resources.recipe.align, resources.recipe.seed, places)
        return
    if why := run.why_again(step):
        resources.reporter.note(f"{called}: {why}, so it is done again")
    take_place(folder, checkpoints)
    for form in of_other_forms(checkpoints):
        resources.reporter.note(f"{called}: its checkpoints are in {form}'s form, unreadable here; it starts anew")
    with run.recording(step) as spent:
        try:
            trained = _train(paired, start, places, Round(run, resources, number), spent)
        except KeyboardInterrupt:
            if last := newest(checkpoints):
                resources.reporter.note(f"{called}: {last} holds what is trained; the same command continues there")
            raise
        spent.tokens = trained.n_tokens_here  # beside the seconds of this process
        kept = tuple(range(len(paired) - len(trained.dropped)))
        run.record_sifted(number, "align", len(paired), Sifted(kept, _dropped(trained, resources, step)))
        settings = resources.recipe.align
        priority = _priority(paired, settings)
        _count(run, number, trained, priority)
    remove_all(folder)
    write_policy_cards(run)
    for text in (*_told(trained, resources.recipe), *_told_of_priority(priority, resources.recipe)):
        resources.reporter.note(f"{called}: {text}")
    if trained.is_interrupted:
        resources.reporter.note(f"{called}: it was interrupted when all steps were done; its policy is saved")
        raise KeyboardInterrupt


def _train(paired: Sequence[PairedPool], start: str, places: Places, here: Round, spent: Spent) -> Trained:
    """The training itself: on what there is, or online on answers that the policy draws and the judge rates."""
    recipe, on_step = here.recipe, here.resources.reporter.training
    if recipe.align.method != "grpo":
        from selfpriority.training.align import train

        return train(paired, start, recipe.align, recipe.seed, places, on_step)
    from selfpriority.training.online import Task, train_online

    reward = partial(rewards, here.judge("align", spent), threshold=threshold_of(recipe))
    task = Task([each.pool.prompt for each in paired], reward, _usual_length(here), _drawing(recipe.sample))
    return train_online(task, start, recipe, places, on_step)


def _drawing(sample: Sample) -> Draw:
    """Draws as the run draws, without personas."""
    from selfpriority.backends.decoding import Sampling, generate

    def draw(
        model: Any, prompts: Sequence[Sequence[int]], copies: Sequence[int], ends: frozenset[int], seed: int
    ) -> list[list[int]]:
        sampling = Sampling(sample.temperature, sample.top_p, sample.max_new_tokens, ends, min(ends), seed)
        return generate(model, prompts, copies, sampling)

    return draw


def _usual_length(here: Round) -> float:
    """Tokens of an answer that the round's model drew, on average; the most that one may have where it drew none."""
    path = here.run.round(here.number) / CANDIDATES
    drawn = read_rows(path, Candidates) if path.is_file() else []
    lengths = [response.n_tokens for each in drawn for response in each.responses]
    return fmean(lengths) if lengths else here.recipe.sample.max_new_tokens


def _dropped(trained: Trained, resources: Resources, step: Step) -> tuple[Drop, ...]:
    places = partial(prompt_places, resources.recipe)
    return with_places(trained.dropped, places, step.name, resources.reporter.note)


def _told(trained: Trained, recipe: Recipe) -> Iterator[str]:
    """What is to be said of a training."""
    drawn = "with answers that the policy drew" if recipe.align.method == "grpo" else "whose answers are learned"
    told = f"{trained.n_tokens:,} tokens of prompts {drawn}"
    if trained.n_pairs:
        told = f"{trained.n_pairs} pairs; {trained.light_share:.0%} of the pairs weigh under 0.1"
    yield f"{trained.n_steps} steps over {told}; padding {trained.padding:.1%}"
    if recipe.pairs is not None:
        saved = f"{trained.n_pass_tokens:,} tokens a pass, {trained.n_row_tokens:,} if every pair were a row of its own"
        yield f"each answer of a prompt is computed once: {saved}"
    if trained.survival:
        yield f"movement that survived saving: {trained.survival.text}"
        if lost := trained.survival.warning(recipe.backend):
            yield lost
    for name in trained.damaged:
        yield f"{name} was damaged and is passed over"
    for alarm, n_steps in trained.alarms.items():
        yield f"alarm at {n_steps} of {trained.n_steps} steps: {alarm}; see training.jsonl"


def _count(run: Run, number: int, trained: Trained, priority: Contested | None) -> None:
    """Writes what a training counted into its round's `funnel.json`."""
    funnel = run.funnel(number)
    pairs = replace(
        funnel.pairs or PairCounts(),
        trained=trained.n_pairs,
        light_share=trained.light_share,
        contested=priority.share if priority else None,
        contested_weight=priority.of_weight if priority else None,
        survived=trained.survival.share if trained.survival else None,
    )
    run.write_funnel(number, replace(funnel, pairs=pairs))


def _priority(paired: Sequence[PairedPool], settings: Align) -> Contested | None:
    """How much of the training is contested; None of a method that weighs no pair against another."""
    if settings.method in ("sft", "grpo"):
        return None
    return contested(paired, settings.weight_gap, settings.gap_exponent)


def _told_of_priority(priority: Contested | None, recipe: Recipe) -> Iterator[str]:
    """What is to be said of the order, where pairs are weighed against each other."""
    settings = recipe.align
    if priority is None:
        return
    told = f"{priority.share:.0%} of the pairs lose on another objective than the one that decided"
    yield f"{told}; they hold {priority.of_weight:.0%} of the weight"
    has_order = recipe.pair.order == "priority" and settings.weight_gap == "signed"
    if has_order and priority.of_weight < _FAINT * priority.share:
        yield "so the order speaks softly: by Eq. 3 a gain and a loss cancel; not so with align.weight_gap: primary"


def _is_for_many(run: Run, settings: Align) -> bool:
    check_started(settings, run.folder)
    return settings.processes > 1 and rank() is None


def _on_many(run: Run, resources: Resources, number: int) -> None:
    from selfpriority.training.engines import check_engine

    settings = resources.recipe.align
    check_engine(settings)
    read_paired(run, resources, number)  # what is wrong with it is found here once
    resolve(start_of_training(run, resources.recipe, number))  # converted once, not by all at the same time
    arguments = (*resources.reporter.flags, "align", str(run.folder), "--child", "--round", str(number))
    launch(arguments, settings.processes, f"align (round {number})")
