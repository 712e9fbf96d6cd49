"""Online reinforcement learning by TRL's own GRPO trainer: prompts and a reward in, a policy out.

What is ours is what goes in and what is kept: settings, prompts that the chat template takes, checkpoints by the
clock, the log, and the policy as every training saves it. Knows no judge: a reward is a function of texts.
"""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging

from selfpriority.chat import Chat
from selfpriority.chat_template import RefusedTurns, fold_system
from selfpriority.errors import WorkFailed
from selfpriority.interrupts import deferred_interrupts
from selfpriority.language_model import Text
from selfpriority.models.probed_chat import probed_chat
from selfpriority.recipe import HfBackend, Recipe, engine_of
from selfpriority.records import Drop, Prompt, Response, Stop
from selfpriority.training.adapters import Policy, compute_dtype, load_policy, save_policy
from selfpriority.training.align import Places, Trained
from selfpriority.training.checkpoints import TRL_MARKER, step_of, written
from selfpriority.training.journal import Journal, Record
from selfpriority.training.rollouts import Draw, Rollouts
from selfpriority.training.saving import settle
from selfpriority.training.survival import Survival

Reward = Callable[[Sequence[Prompt], Sequence[Response]], list[float]]
"""Prompts and an answer to each -> rewards."""
_LOGGED = ("loss", "reward", "kl", "grad_norm", "learning_rate")
"""What of TRL's numbers `training.jsonl` has."""


@dataclass(frozen=True)
class Task:
    """What is learned online."""

    prompts: Sequence[Prompt]
    reward: Reward
    answer_tokens: float
    """That an answer to them usually has: how many prompts are an optimizer step follows from it."""
    draw: Draw


@dataclass(frozen=True)
class Called:
    """What TRL calls."""

    reward: Callable[..., list[float]]
    rollouts: Rollouts


def train_online(
    task: Task, model: str, recipe: Recipe, places: Places, on_step: Callable[[Record], None] | None = None
) -> Trained:
    """Trains `model` on its own answers to the prompts, `sample.n` a prompt, from its last checkpoint if there is one.

    Raises:
        KeyboardInterrupt: interrupted before the last step was done; the steps that were are in a checkpoint.
        WorkFailed: the chat template takes none of the prompts, memory ran out, or the disk is full.
        InputError: the model cannot be loaded or has no usable chat template.
    """
    settings = recipe.align
    policy = load_policy(model, settings, recipe.seed)
    chat = probed_chat(policy.tokenizer, policy.end_ids, model)
    kept, dropped = _taken(task.prompts, chat)
    if not kept:
        raise WorkFailed(f"no prompt is left to train on (turns: {len(dropped)})")
    checkpoint = _last(places.checkpoints)
    resumed_from, n_before = step_of(checkpoint) if checkpoint else 0, _n_tokens(checkpoint)
    watch = _Watch(Journal(places.log, resumed_from, on_step), settings.checkpoint_minutes)
    ids = [chat.prompt_ids(prompt.messages) for prompt in kept]
    a_step = _prompts_a_step(recipe, list(map(len, ids)), task.answer_tokens)
    rows = _rows(kept, chat)
    asked = zip((row["prompt"] for row in rows), ids, strict=True)
    ends = frozenset({*policy.end_ids, chat.end_id})  # by which the run's own answers end
    called = Called(_asked(task.reward, kept, chat, ends), Rollouts(task.draw, asked, ends, recipe.seed))
    trainer = _trainer(policy, _filled(rows, a_step), called, _arguments(recipe, places.checkpoints, a_step))
    trainer.remove_callback(PrinterCallback)  # results alone go to standard output
    trainer.add_callback(watch)
    try:
        with written(places.checkpoints, "the last whole checkpoint, if there is one,"), _hushed():
            _run(trainer, watch, checkpoint)
    except torch.OutOfMemoryError as error:
        raise WorkFailed(
            "out of memory while training; lower sample.n, sample.max_new_tokens or backend.max_batch"
        ) from error
    policy = replace(policy, model=trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False))
    with deferred_interrupts(True) as late:  # no checkpoint holds the last steps
        survival = settle(policy, settings, model, None, lambda _, weight: weight.detach())
        with written(places.policy, "the last checkpoint"):
            save_policy(policy, places.policy)
    if not places.keeps_checkpoints:
        shutil.rmtree(places.checkpoints, ignore_errors=True)
    trained = _trained(trainer.state, tuple(dropped), resumed_from, survival)
    is_interrupted = bool(late or watch.interrupts)
    return replace(trained, n_tokens_here=trained.n_tokens - n_before, is_interrupted=is_interrupted)


def _run(trainer: Any, watch: _Watch, checkpoint: Path | None) -> None:
    """Trains to the end, or to that of the step in which an interrupt comes; a second one ends it at once."""
    with deferred_interrupts(at_once_if_repeated=True) as watch.interrupts:
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except KeyboardInterrupt:  # raised by whoever was asked for rewards, amid a step
            is_first = len(watch.interrupts) < 2
            if is_first and trainer.state.global_step > (step_of(checkpoint) if checkpoint else 0):
                trainer._save_checkpoint(trainer.model, trial=None)
            raise
    if watch.interrupts and trainer.state.global_step < trainer.state.max_steps:
        raise KeyboardInterrupt


def _n_tokens(checkpoint: Path | None) -> int:
    """That were trained on before it was written."""
    state = json.loads((checkpoint / TRL_MARKER).read_text("utf-8")) if checkpoint else {}
    return int(state.get("num_input_tokens_seen") or 0)


def _trained(state: Any, dropped: tuple[Drop, ...], resumed_from: int, survival: Survival) -> Trained:
    n_tokens = int(state.num_input_tokens_seen)
    return Trained(
        dropped,
        n_steps=state.global_step,
        n_pairs=0,
        n_tokens=n_tokens,
        n_pass_tokens=n_tokens,
        n_row_tokens=n_tokens,
        n_tokens_here=n_tokens,
        light_share=0.0,
        padding=0.0,
        alarms={},
        resumed_from=resumed_from,
        survival=survival,
    )


def _taken(prompts: Sequence[Prompt], chat: Chat) -> tuple[list[Prompt], list[Drop]]:
    """The prompts whose turns the chat template takes, and those that it does not."""
    kept, dropped = [], []
    for prompt in prompts:
        try:
            chat.prompt_ids(prompt.messages)
            kept.append(prompt)
        except RefusedTurns as error:
            dropped.append(Drop("align", prompt.id, "turns", detail=error.reason))
    return kept, dropped


def _rows(prompts: Sequence[Prompt], chat: Chat) -> list[dict[str, Any]]:
    """As TRL reads them, the system's text in the first user turn where the template wants that."""
    fold = fold_system if chat.template.folds_system else list
    return [
        {"prompt": [{"role": turn.role, "content": turn.content} for turn in fold(prompt.messages)], "number": number}
        for number, prompt in enumerate(prompts)
    ]


def _prompts_a_step(recipe: Recipe, prompt_tokens: Sequence[int], answer_tokens: float) -> int:
    """How many prompts an optimizer step has: with answers of the usual length, as near `tokens_per_step` as can be."""
    usual = sum(prompt_tokens) / len(prompt_tokens) + recipe.sample.n * answer_tokens
    return min(max(1, round(recipe.align.tokens_per_step / usual)), len(prompt_tokens))


def _drawn_together(recipe: Recipe, a_step: int) -> int:
    """How many of a step's prompts are answered at once: equal parts, of at most the backend's `max_batch` rows."""
    engine = engine_of(recipe.backend)
    most = (engine if isinstance(engine, HfBackend) else HfBackend()).max_batch
    fitting = (n for n in range(a_step, 0, -1) if a_step % n == 0 and n * recipe.sample.n <= most)
    return next(fitting, 1)


def _filled(rows: list[dict[str, Any]], a_step: int) -> list[dict[str, Any]]:
    """The rows and some of them once more, so that they are whole steps: TRL leaves out what is no whole one."""
    return rows + rows[: -len(rows) % a_step]


def _asked(reward: Reward, prompts: Sequence[Prompt], chat: Chat, ends: frozenset[int]) -> Callable[..., list[float]]:
    """The reward as TRL calls it; thinking that was cut is no answer."""

    def reward_of_answers(completion_ids: Any, number: Sequence[int], **_: Any) -> list[float]:
        asked = [prompts[index] for index in number]
        answers = []
        for prompt, given in zip(asked, completion_ids, strict=True):
            ids = list(map(int, given))
            stop: Stop = "end" if ids and ids[-1] in ends else "length"
            written = Text.of(chat.response_text(ids), len(ids), stop, opened=chat.opens_thinking)
            answers.append(Response(f"{prompt.id}/online", prompt.id, written.text, written.stop, written.n_tokens))
        return reward(asked, answers)

    return reward_of_answers


def _trainer(policy: Policy, rows: list[dict[str, Any]], called: Called, how: Any) -> Any:
    from datasets import Dataset
    from trl import GRPOTrainer

    if policy.tokenizer.pad_token is None:
        policy.tokenizer.pad_token = policy.tokenizer.eos_token
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # progress is the caller's to show
    with _hushed():
        data, tokenizer = Dataset.from_list(rows), policy.tokenizer
        return GRPOTrainer(
            policy.model, called.reward, how, data, processing_class=tokenizer, rollout_func=called.rollouts
        )


@contextmanager
def _hushed() -> Iterator[None]:
    """Says nothing of names that TRL and transformers are about to change, and of TRL's rollouts being new."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "You are using 'rollout_func'")
        yield


def _arguments(recipe: Recipe, to: Path, a_step: int) -> Any:
    """What TRL is told: the recipe's fields under TRL's names."""
    from trl import GRPOConfig

    settings, sample = recipe.align, recipe.sample
    return GRPOConfig(
        output_dir=str(to),
        num_generations=sample.n,
        max_completion_length=sample.max_new_tokens,
        temperature=sample.temperature,
        top_p=sample.top_p,
        beta=settings.beta,
        per_device_train_batch_size=sample.n,
        gradient_accumulation_steps=a_step,  # prompt by prompt
        steps_per_generation=_drawn_together(recipe, a_step),
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,  # a share of all steps, for it is below 1
        num_train_epochs=settings.epochs,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=compute_dtype(settings) is torch.bfloat16,
        gradient_checkpointing=settings.gradient_checkpointing,
        use_cpu=not torch.cuda.is_available(),
        seed=recipe.seed,
        logging_steps=1,
        save_strategy="no",  # the watch says when
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
    )


class _Watch(TrainerCallback):
    """Writes every step into the journal, and asks for a checkpoint by the clock and once there is an interrupt."""

    def __init__(self, journal: Journal, minutes: float) -> None:
        self._journal, self._minutes, self._saved_at = journal, minutes, time.monotonic()
        self.interrupts: list[int] = []
        """Signals to stop that came while it trained."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint is due, or it is to end."""
        if self.interrupts or time.monotonic() - self._saved_at >= 60 * self._minutes:
            control.should_save, self._saved_at = True, time.monotonic()
        control.should_training_stop = control.should_training_stop or bool(self.interrupts)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        """A step was made; the last line, a summary, has no loss."""
        if logs and "loss" in logs:
            told = {name: float(logs[name]) for name in _LOGGED if name in logs}
            epoch = int(logs.get("epoch", 0.0))
            self._journal.write({"step": state.global_step, "n_steps": state.max_steps, "epoch": epoch, **told})


def _last(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is whole."""
    whole = [path.parent for path in checkpoints.glob(f"checkpoint-*/{TRL_MARKER}")]
    return max(whole, key=step_of, default=None)
