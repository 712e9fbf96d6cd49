"""Step 6 as one call: paired pools and a model in, a policy on disk out.

Encodes, plans, trains with checkpoints and saves. Called again after a stop it continues from its last
whole checkpoint with the same losses. Knows nothing of the run directory beyond the places it is given.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from selfpriority.errors import WorkFailed
from selfpriority.interrupts import deferred_interrupts
from selfpriority.models.probed_chat import probed_chat
from selfpriority.recipe import Align
from selfpriority.records import Drop, PairedPool, Sifted
from selfpriority.training.adapters import Policy, compute_dtype, save_policy
from selfpriority.training.checkpoints import Checkpoints, mark_of, step_of, written
from selfpriority.training.encode import EncodedPool, encode_all
from selfpriority.training.engines import accelerator_for
from selfpriority.training.groups import n_computed, plan_steps
from selfpriority.training.journal import Journal, Record
from selfpriority.training.logps import choose_form
from selfpriority.training.objective import n_light, weigh
from selfpriority.training.passes import Course
from selfpriority.training.saving import settle
from selfpriority.training.survival import Survival
from selfpriority.training.together import hands_out, policy_of, shared_checkpoint, told
from selfpriority.training.trackers import Trackers
from selfpriority.training.trainer import Trainer


@dataclass(frozen=True)
class Places:
    """Where training writes, and what becomes of its checkpoints."""

    policy: Path
    """Folder of the trained model; there whole or not at all."""
    log: Path
    """`training.jsonl`, one line a step."""
    checkpoints: Path
    """Folder of unfinished training."""
    model_key: str = ""
    """Content hash of the starting model, by which a checkpoint knows it under any name; empty: its path."""
    keeps_checkpoints: bool = False
    """Leave the checkpoints when all is done: for a caller that removes them once it has noted that it is."""


@dataclass(frozen=True)
class _Done:
    """A course that was run."""

    resumed_from: int
    alarms: Mapping[str, int]
    is_interrupted: bool
    """Behind the last step."""


@dataclass(frozen=True)
class Trained:
    """What training did."""

    dropped: tuple[Drop, ...]
    n_steps: int
    n_pairs: int
    """Pairs trained on, each counted once."""
    n_tokens: int
    """Distinct tokens over all steps of all epochs."""
    n_pass_tokens: int
    """That one pass over all pools computes."""
    n_row_tokens: int
    """That it would compute if every pair were a row of its own."""
    n_tokens_here: int
    """Those of them that this call trained on, after the checkpoint it continued from."""
    light_share: float
    """Share of the pairs with weight under 0.1, over all steps."""
    padding: float
    """Share of the computed positions that held no token."""
    alarms: Mapping[str, int]
    """Steps that raised an alarm, by its name."""
    resumed_from: int
    """Step of the checkpoint training continued from, 0 for none."""
    survival: Survival | None = None
    """What of the movement is in the saved policy; None in a process that saved none."""
    damaged: tuple[str, ...] = ()
    """Names of the checkpoints behind it that could not be read any more."""
    is_interrupted: bool = False
    """A signal to stop came behind the last step, as the policy was being saved: it is saved, and nothing lost."""


def train(
    paired: Sequence[PairedPool],
    model: str | Path,
    settings: Align,
    seed: int,
    places: Places,
    on_step: Callable[[Record], None] | None = None,
) -> Trained:
    """Trains `model` on all pairs and saves the policy.

    Args:
        paired: what is trained on.
        model: a name, folder or hub id.
        settings: the fields of `align`.
        seed: of the order of the pools and of what is drawn.
        places: where training writes.
        on_step: called with every record of the log.

    Raises:
        KeyboardInterrupt: interrupted before the last step was done; the steps that were are in a checkpoint.
        WorkFailed: no pool is left to train on, loss or gradient is not finite, or memory or the disk is full.
        InputError: the model cannot be loaded or has no usable chat template.
    """
    accelerator = accelerator_for(settings)
    policy = policy_of(model, settings, seed, accelerator)
    sifted = _encode(paired, policy, settings, str(model))
    course = _course(sifted.kept, policy, settings, seed, accelerator)
    path = Path(model)
    known_as = places.model_key or str(path.resolve() if path.is_dir() else model)
    mark = mark_of(course.pools, settings, seed, known_as)
    checkpoints = Checkpoints(places.checkpoints, mark)
    damaged = tuple(checkpoints.damaged()) if accelerator.is_main_process else ()
    trainer = Trainer(policy.model, course, accelerator, seed, checkpoints)
    done = _train(trainer, places, on_step)
    with deferred_interrupts(_is_alone(accelerator)) as late:  # no checkpoint holds the last steps
        survival = _save(trainer, policy, str(model), places)
    summary = _summary(course, sifted.dropped, done.resumed_from, done.alarms)
    is_interrupted = done.is_interrupted or bool(late)
    return replace(summary, damaged=damaged, survival=survival, is_interrupted=is_interrupted)


def _encode(paired: Sequence[PairedPool], policy: Policy, settings: Align, name: str) -> Sifted[EncodedPool]:
    chat = probed_chat(policy.tokenizer, policy.end_ids, name)
    sifted = encode_all(paired, chat, min(settings.max_length, policy.context), settings)
    if not sifted.kept:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in sifted.reasons.items()) or "none came in"
        raise WorkFailed(f"no pool is left to train on ({reasons})")
    return sifted


def _course(
    pools: Sequence[EncodedPool], policy: Policy, settings: Align, seed: int, accelerator: Accelerator
) -> Course:
    has_weights = accelerator.is_main_process or not hands_out(accelerator)
    form = told(accelerator, choose_form(policy.model, max(pool.longest for pool in pools)) if has_weights else None)
    assert form is not None
    plan = plan_steps(pools, settings, seed, form.shares_prompt)
    return Course(pools, plan, form, settings, compute_dtype(settings))


def _train(trainer: Trainer, places: Places, on_step: Callable[[Record], None] | None) -> _Done:
    """Runs the course from the last checkpoint."""
    accelerator, checkpoints, settings = trainer.accelerator, trainer.checkpoints, trainer.course.settings
    is_main = accelerator.is_main_process
    checkpoint = shared_checkpoint(checkpoints, accelerator)
    resumed_from = step_of(checkpoint) if checkpoint else 0
    if is_main:
        checkpoints.discard_unusable()
    journal = Journal(places.log, resumed_from, on_step) if is_main else None
    trackers = Trackers(settings, places.log.with_name("tensorboard")) if is_main else None
    late: list[int] = []
    try:
        with written(places.checkpoints, "the last whole checkpoint, if there is one,"):
            trainer.train(checkpoint, journal, trackers)
    except torch.OutOfMemoryError as error:
        raise WorkFailed("out of memory while training; lower align.tokens_per_batch") from error
    finally:
        if trackers:  # which may have much to send yet
            with deferred_interrupts(_is_alone(accelerator)) as late:
                trackers.finish()
    return _Done(resumed_from, journal.alarms if journal else {}, bool(late))


def _is_alone(accelerator: Accelerator) -> bool:
    """Whether a second signal of a kind is a second wish, and not the launcher's copy of the terminal's."""
    return bool(accelerator.num_processes == 1)


def _save(trainer: Trainer, policy: Policy, start: str, places: Places) -> Survival | None:
    """Writes the policy; called on all processes, and the main one alone measures what is left of the movement."""
    if trainer.average:
        trainer.average.move_into(policy.model)
    weights = trainer.whole_weights()
    survival = None
    if trainer.accelerator.is_main_process:
        survival = settle(policy, trainer.course.settings, start, weights, trainer.master)
        with written(places.policy, "the last checkpoint"):
            save_policy(policy, places.policy, weights)
        if not places.keeps_checkpoints:
            shutil.rmtree(places.checkpoints, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return survival


def _summary(course: Course, dropped: tuple[Drop, ...], resumed_from: int, alarms: Mapping[str, int]) -> Trained:
    steps = [[course.pools[index] for index in step.pools] for step in course.plan.steps]
    n_visited = sum(len(pool.pairs) for step in steps for pool in step)
    n_light_pairs = sum(n_light(weigh(step, course.settings)) for step in steps)
    return Trained(
        dropped,
        n_steps=len(steps),
        n_pairs=sum(len(pool.pairs) for pool in course.pools),
        n_tokens=sum(pool.n_tokens for step in steps for pool in step),
        n_pass_tokens=sum(n_computed(pool, course.form.shares_prompt) for pool in course.pools),
        n_row_tokens=sum(pool.n_tokens_as_rows for pool in course.pools),
        n_tokens_here=sum(pool.n_tokens for step in steps[resumed_from:] for pool in step),
        light_share=n_light_pairs / max(n_visited, 1),
        padding=course.plan.padding,
        alarms=alarms,
        resumed_from=resumed_from,
    )
