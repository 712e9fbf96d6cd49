"""A `transformers.Trainer` whose unit is the optimizer batch of pools.

One item of the data loader is one whole optimizer batch; mean gap and counts of Eq. 3 are taken over it, so
the result does not depend on how it is cut into micro-batches or spread over ranks (method.md 3.4). Stops
before the optimizer on a loss or gradient that is not finite. Knows encoded pools, and neither files nor
chat templates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from selfpriority.errors import WorkFailed
from selfpriority.recipe import Align
from selfpriority.training.attention import attending
from selfpriority.training.encode import EncodedPool
from selfpriority.training.groups import Plan, Step
from selfpriority.training.journal import Journal, Record
from selfpriority.training.logps import Form, response_logps
from selfpriority.training.objective import NEEDS_REFERENCE, TALLIES, Weighted, n_light, part_loss, weigh
from selfpriority.training.optimizer import MasterAdamW
from selfpriority.training.reference import Reference
from selfpriority.training.watch import alarms, fall

T = TypeVar("T")


@dataclass(frozen=True)
class Course:
    """What is trained on, in which order, under which settings."""

    pools: Sequence[EncodedPool]
    plan: Plan
    form: Form
    settings: Align
    compute_dtype: torch.dtype
    """bfloat16 runs the forward pass under autocast; weights keep their own type."""


def learning_rate_factor(step: int, n_warmup: int, n_steps: int) -> float:
    """Linear rise over `n_warmup` steps, then cosine decay; no step, the first included, is at rate 0."""
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(n_steps - n_warmup, 1)))


def training_arguments(folder: Path, settings: Align, seed: int) -> TrainingArguments:
    """Arguments under which `Trainer` neither logs, reports, clips nor rescales on its own."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        num_train_epochs=1,  # the plan holds every epoch
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        optim="adamw_torch",
        max_grad_norm=0.0,  # clipped in training_step, where a norm that is not finite can stop the run
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",  # `Clock` asks for checkpoints
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=not torch.accelerator.is_available(),  # unsaid, several processes on a CPU do not find each other
        seed=seed,
    )
    arguments._setup_devices  # noqa: B018 - counts the GPUs
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs mean several processes, never DataParallel
    return arguments


class PoolTrainer(Trainer):
    """Trains on the course's plan; `journal` keeps one record a step (None on ranks that keep none)."""

    def __init__(self, model: nn.Module, course: Course, args: TrainingArguments, journal: Journal | None) -> None:
        self.course = course
        self.journal = journal
        self.record: Record = {}
        self.checkpoint_due = False
        super().__init__(model=model, args=args, optimizer_cls_and_kwargs=_optimizer(course.settings))
        self.remove_callback(PrinterCallback)
        self.clock = _Clock(self)
        self.add_callback(self.clock)
        self.reference = Reference(course.pools) if course.settings.method in NEEDS_REFERENCE else None
        if self.reference:
            self.add_callback(self.reference)

    def get_train_dataloader(self) -> DataLoader[Step]:
        """One optimizer batch an item, the same on every rank; ranks share it out in `training_step`."""
        steps: Any = self.course.plan.steps
        return DataLoader(steps, batch_size=1, shuffle=False, collate_fn=_one_step)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Warm-up, then cosine decay over the whole plan."""
        n_warmup = round(self.course.settings.warmup * num_training_steps)
        scheduled: Any = optimizer or self.optimizer
        self.lr_scheduler = LambdaLR(scheduled, lambda step: learning_rate_factor(step, n_warmup, num_training_steps))
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the inputs are pools, not tensors."""
        return 0

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Gradients of the loss over one whole optimizer batch, clipped; returns that loss.

        Raises:
            WorkFailed: loss or gradient norm is not finite; the optimizer has not been stepped.
        """
        step: Step = inputs["step"]
        references = self._references(model, step)
        model.train()
        batch = weigh([self.course.pools[index] for index in step.pools], self.course.settings, references)
        by_index = dict(zip(step.pools, batch, strict=True))
        work = rank_share(step.micro_batches, self.accelerator.process_index, self.accelerator.num_processes)
        tallies = torch.zeros(len(TALLIES), device=self.args.device)
        inner = self.accelerator.unwrap_model(model)
        # a checkpointed layer runs once more in the backward pass, and has to find the same attention there
        with attending(inner) if self.course.form.shares_prompt else nullcontext():
            for number, (micro_batch, counts) in enumerate(work, start=1):
                part = [by_index[index] for index in micro_batch]
                tallies += counts * self._backward(model, part, counts, is_last=number == len(work))
        self._agree_on_checkpoint()
        totals: Tensor = self.accelerator.reduce(tallies, reduction="sum")
        grad_norm = self.accelerator.clip_grad_norm_(model.parameters(), self.course.settings.max_grad_norm)
        self._note(step, batch, dict(zip(TALLIES, totals.tolist(), strict=True)), float(grad_norm or 0.0))
        return totals[TALLIES.index("loss")]

    def _references(self, model: nn.Module, step: Step) -> list[Tensor] | None:
        """Of the step's pools, for methods that need them; measured by all ranks together before the first step."""
        if self.reference is None:
            return None
        if not self.reference.by_pool:
            self.reference.fill(self._starting_logps(model))
        return [self.reference.by_pool[index] for index in step.pools]

    @torch.no_grad()
    def _starting_logps(self, model: nn.Module) -> Tensor:
        """Mean log-probability of every response of the course as the model is now, without dropout: [R]."""
        model.eval()
        pools, settings = self.course.pools, self.course.settings
        first_epoch = [step for step in self.course.plan.steps if step.epoch == 0]  # visits every pool once
        micro_batches = [micro_batch for step in first_epoch for micro_batch in step.micro_batches]
        found = [torch.zeros(len(pool.response_ids), device=self.args.device) for pool in pools]
        ranks = self.accelerator.process_index, self.accelerator.num_processes
        for micro_batch, counts in rank_share(micro_batches, *ranks):
            pieces = in_pieces([pools[index] for index in micro_batch], settings)
            logps = torch.cat([self._logps(model, piece) for piece in pieces])
            sizes = [len(pools[index].response_ids) for index in micro_batch]
            for index, of_pool in zip(micro_batch, torch.split(logps, sizes), strict=True):
                found[index] += counts * of_pool
        total: Tensor = self.accelerator.reduce(torch.cat(found), reduction="sum")
        return total

    def _backward(self, model: nn.Module, part: Sequence[Weighted], counts: int, is_last: bool) -> Tensor:
        """Gradients of one micro-batch; a pool over the budget goes through the model in pieces, twice.

        The first pass knows no gradients and yields the log-probabilities, hence the slope of the loss in each of
        them; in the second every piece adds slope times gradient. Same sum, and only one piece's activations exist.
        """
        settings = self.course.settings
        pieces = in_pieces([weighted.pool for weighted in part], settings)
        if len(pieces) == 1:
            with self._exchanging(model, is_last):
                loss, tallies = part_loss(self._logps(model, pieces[0]), part, settings)
                self._descend(loss, counts)
            return tallies
        with torch.no_grad():
            logps = torch.cat([self._logps(model, piece) for piece in pieces])
        loss, tallies = part_loss(logps.requires_grad_(), part, settings)
        slopes = torch.split(torch.autograd.grad(loss, logps)[0], [len(piece[0].response_ids) for piece in pieces])
        for piece, slope in zip(pieces, slopes, strict=True):
            with self._exchanging(model, is_last and piece is pieces[-1]):
                self._descend((self._logps(model, piece) * slope).sum(), counts)
        return tallies

    def _logps(self, model: nn.Module, pools: Sequence[EncodedPool]) -> Tensor:
        inner = self.accelerator.unwrap_model(model)
        in_bfloat16 = self.course.compute_dtype is torch.bfloat16
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=in_bfloat16):
            return _through(model, inner, lambda: response_logps(inner, pools, self.course.form))

    def _descend(self, loss: Tensor, counts: int) -> None:
        # data-parallel wrappers average gradients over the ranks, the shares are of the whole batch
        self.accelerator.backward(loss * counts * self.accelerator.num_processes)

    def _exchanging(self, model: nn.Module, exchanges: bool) -> AbstractContextManager[None]:
        """Ranks exchange gradients once a step, at its last backward pass."""
        return nullcontext() if exchanges else self.accelerator.no_sync(model)

    def _agree_on_checkpoint(self) -> None:
        """The main process's clock decides, for a checkpoint is written by all ranks together."""
        overdue = self.accelerator.is_main_process and self.clock.overdue
        votes: Tensor = self.accelerator.reduce(torch.tensor(float(overdue), device=self.args.device))
        self.checkpoint_due = bool(votes > 0)

    def _note(self, step: Step, batch: Sequence[Weighted], tallies: dict[str, float], grad_norm: float) -> None:
        number = self.state.global_step + 1
        n_pairs = sum(len(weighted.pool.pairs) for weighted in batch)
        if not (math.isfinite(tallies["loss"]) and math.isfinite(grad_norm)):
            raise WorkFailed(
                f"training stopped at step {number}: loss {tallies['loss']:g}, gradient norm {grad_norm:g}, "
                f"{tallies['nonfinite']:g} of {n_pairs} pairs not finite; step {number} was not applied. "
                f"Try a lower align.learning_rate or align.dtype=float32"
            )
        assert self.lr_scheduler is not None
        self.record = {
            "step": number,
            "n_steps": len(self.course.plan.steps),
            "epoch": step.epoch,
            "loss": tallies["loss"],
            "nll": tallies["nll"],
            **{name: tallies[name] / n_pairs for name in ("margin", "accuracy", "chosen_logp", "rejected_logp")},
            "grad_norm": grad_norm,
            "learning_rate": float(self.lr_scheduler.get_last_lr()[0]),
            "n_pairs": n_pairs,
            "n_pools": len(batch),
            "light_share": n_light(batch) / n_pairs,
            "nonfinite": tallies["nonfinite"],
        }

    def _write_record(self) -> None:
        """Keeps the record, and an alarm in it; every rank comes to the same one.

        Raises:
            WorkFailed: chosen and rejected answers both became too unlikely.
        """
        stop_at, history = self.course.settings.stop_on_collapse, self.state.log_history
        if found := alarms(history, stop_at):
            self.record["alarm"] = ", ".join(found)
        if self.journal is not None:
            self.journal.write(self.record)
        fell = fall(history)
        if stop_at is not None and fell.common > stop_at:
            raise WorkFailed(
                f"training stopped at step {self.record['step']}: since the first step chosen answers lost "
                f"{fell.chosen:.2f} and rejected ones {fell.rejected:.2f} nats per token (align.stop_on_collapse: "
                f"{stop_at:g}); the last checkpoint stays in {self.args.output_dir}. Try a lower align.learning_rate "
                f"or align.nll=1"
            )


class _Clock(TrainerCallback):
    """Times steps and asks for a checkpoint when one is due."""

    def __init__(self, trainer: PoolTrainer) -> None:
        self.trainer = trainer
        self.saved_at = self.began_at = time.monotonic()

    @property
    def overdue(self) -> bool:
        return time.monotonic() - self.saved_at >= 60 * self.trainer.course.settings.checkpoint_minutes

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.began_at = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        trainer = self.trainer
        step = trainer.course.plan.steps[state.global_step - 1]
        n_tokens = sum(trainer.course.pools[index].n_tokens for index in step.pools)
        trainer.record["tokens_per_second"] = n_tokens / max(time.monotonic() - self.began_at, 1e-9)
        trainer.log({name: value for name, value in trainer.record.items() if name not in ("step", "epoch")})
        trainer._write_record()
        control.should_save = trainer.checkpoint_due

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.saved_at = time.monotonic()


def rank_share(micro_batches: Sequence[T], rank: int, n_ranks: int) -> list[tuple[T, int]]:
    """This rank's micro-batches, and 1 for each that counts, 0 for one that does not.

    Ranks must make equally many passes; one that has no micro-batch left repeats another's.
    """
    n_passes = math.ceil(len(micro_batches) / n_ranks)
    mine = [(number * n_ranks + rank) for number in range(n_passes)]
    return [(micro_batches[index % len(micro_batches)], int(index < len(micro_batches))) for index in mine]


def in_pieces(pools: Sequence[EncodedPool], settings: Align) -> list[list[EncodedPool]]:
    """Pools that go through the model together: all of them, or a lone pool over the token budget cut by responses.

    With dropout the two passes of a pool in pieces would not see the same model, so such a pool stays whole.
    """
    [first, *others] = pools
    drops_out = settings.lora is not None and settings.lora.dropout > 0
    if others or first.n_tokens <= settings.tokens_per_batch or drops_out:
        return [list(pools)]
    pieces: list[list[tuple[int, ...]]] = []
    room = 0
    for response in first.response_ids:
        if not pieces or len(response) > room:
            pieces.append([])
            room = settings.tokens_per_batch - len(first.prompt_ids)
        pieces[-1].append(response)
        room -= len(response)
    return [[replace(first, response_ids=tuple(piece), pairs=(), gaps=())] for piece in pieces]


def _optimizer(settings: Align) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """None leaves the choice to the arguments: torch's own AdamW."""
    if settings.weights == "float32":
        return None
    return MasterAdamW, {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}


def _one_step(items: list[Step]) -> dict[str, Step]:
    return {"step": items[0]}


def _through(wrapper: nn.Module, inner: nn.Module, compute: Callable[[], Tensor]) -> Tensor:
    """`compute` as if it were the forward pass of `wrapper`, so that data-parallel hooks see it."""
    forward: Callable[..., Any] = inner.forward

    def redirected() -> Tensor:
        inner.forward = forward
        return compute()

    inner.forward = redirected
    result: Tensor = wrapper()
    return result
