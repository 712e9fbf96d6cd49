"""A `transformers.Trainer` whose unit is the optimizer batch of pools.

One item of the data loader is one whole optimizer batch; mean gap and counts of Eq. 3 are taken over it, so
the result does not depend on how it is cut into micro-batches or spread over ranks (docs/deviations.md 6). Stops
before the optimizer on a loss or gradient that is not finite. Knows encoded pools, and neither files nor
chat templates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from selfpriority.errors import WorkFailed
from selfpriority.recipe import Align
from selfpriority.training.alarms import alarms, fall
from selfpriority.training.attention import attending
from selfpriority.training.encode import EncodedPool
from selfpriority.training.engines import engine_arguments, shard_on_cpu
from selfpriority.training.groups import Plan, Step
from selfpriority.training.journal import Journal, Record
from selfpriority.training.logps import Form, called_as, response_logps
from selfpriority.training.objective import NEEDS_REFERENCE, TALLIES, Weighted, n_light, part_loss, weigh
from selfpriority.training.optimizer import MasterAdamW
from selfpriority.training.ranks import Share, deal, in_pieces, smallest
from selfpriority.training.reference import Reference
from selfpriority.training.states import load_states, save_states, whole_weights

STATES, SCHEDULER = "states", "scheduler.pt"  # what a checkpoint holds beside what `Trainer` notes


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
    clipping = {"max_grad_norm": 0.0}  # done in training_step, where a norm that is not finite can stop the run
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        num_train_epochs=1,  # the plan holds every epoch
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        optim="adamw_torch_fused",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",  # `Clock` asks for checkpoints
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=not torch.accelerator.is_available(),  # unsaid, several processes on a CPU do not find each other
        seed=seed,
        **{**clipping, **engine_arguments(settings)},
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

    def create_accelerator_and_postprocess(self) -> None:
        """As `Trainer`, and shards where the arguments say so."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and not self.is_fsdp_enabled:
            shard_on_cpu(self.accelerator, self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

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

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Nothing within a checkpoint: its weights are written with the optimizer's state."""
        if self.is_deepspeed_enabled or not _internal_call:
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        save_states(self.model_wrapped, self._plain_optimizer, Path(output_dir) / STATES)
        if self.args.should_save:
            assert self.lr_scheduler is not None
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_deepspeed_enabled:  # else read with the optimizer's state, once the model is cut into shards
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.is_deepspeed_enabled or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        load_states(self.model_wrapped, self._plain_optimizer, Path(checkpoint) / STATES)
        assert self.lr_scheduler is not None
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER, weights_only=True))

    @property
    def _plain_optimizer(self) -> torch.optim.Optimizer:
        optimizer: Any = self.optimizer  # accelerate's wrapper of the real one
        return optimizer.optimizer  # type: ignore[no-any-return]

    def whole_weights(self) -> dict[str, Tensor] | None:
        """All weights by name on the main process, where the model itself holds a part; None where it holds all."""
        if self.is_deepspeed_enabled:
            weights: dict[str, Tensor] = self.accelerator.get_state_dict(self.model_wrapped)
            return weights
        return whole_weights(self.model_wrapped) if self.is_fsdp_enabled else None

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
        tallies = torch.zeros(len(TALLIES), device=self.args.device)
        passes = self._passes(model, step, batch, tallies)
        # a checkpointed layer runs once more in the backward pass, and has to find the same attention there
        with attending(self.accelerator.unwrap_model(model)) if self.course.form.shares_prompt else nullcontext():
            for number, each in enumerate(passes, start=1):
                with self._exchanging(model, is_last=number == len(passes)):
                    loss = each.loss(self._logps(model, each.pools))
                    # engines average gradients over the ranks, the shares are of the whole batch
                    self.accelerator.backward(loss * self.accelerator.num_processes)
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
            self.clock.began_at = time.monotonic()  # no part of the first step
        return [self.reference.by_pool[index] for index in step.pools]

    @torch.no_grad()
    def _starting_logps(self, model: nn.Module) -> Tensor:
        """Mean log-probability of every response of the course as the model is now, without dropout: [R]."""
        model.eval()
        pools, settings = self.course.pools, self.course.settings
        found = [torch.zeros(len(pool.response_ids), device=self.args.device) for pool in pools]
        first_epoch = [step for step in self.course.plan.steps if step.epoch == 0]  # visits every pool once
        for step in first_epoch:
            share, n_passes = self._share(step), 0
            for micro_batch in share.micro_batches:
                pieces = in_pieces([pools[index] for index in micro_batch], settings)
                logps = torch.cat([self._logps(model, piece) for piece in pieces])
                sizes = [len(pools[index].response_ids) for index in micro_batch]
                for index, of_pool in zip(micro_batch, torch.split(logps, sizes), strict=True):
                    found[index] += of_pool
                n_passes += len(pieces)
            spare = smallest([pools[index] for index in step.pools])
            for _ in range(share.n_passes - n_passes):  # of other ranks
                self._logps(model, [spare])
        total: Tensor = self.accelerator.reduce(torch.cat(found), reduction="sum")
        return total

    def _share(self, step: Step) -> Share:
        """What this rank computes of an optimizer batch."""
        course, n_ranks = self.course, self.accelerator.num_processes
        shares = deal(step.pools, course.pools, course.settings, course.form.shares_prompt, n_ranks)
        rank: int = self.accelerator.process_index
        return shares[rank]

    def _passes(self, model: nn.Module, step: Step, batch: Sequence[Weighted], tallies: Tensor) -> list[_Pass]:
        """This rank's passes with gradients over one optimizer batch, as many as every other rank makes.

        A pool over the budget goes through the model in pieces, twice. The first pass is made here, without gradients:
        it yields the log-probabilities, hence the slope of the loss in each of them; in the second every piece adds
        slope times gradient. Same sum, and only one piece's activations exist.
        """
        course, share = self.course, self._share(step)
        by_index = dict(zip(step.pools, batch, strict=True))
        passes: list[_Pass] = []
        n_looks = 0
        for micro_batch in share.micro_batches:
            part = [by_index[index] for index in micro_batch]
            pieces = in_pieces([weighted.pool for weighted in part], course.settings)
            if len(pieces) == 1:
                passes.append(_Pass(pieces[0], partial(self._tallied, part, tallies)))
            else:
                passes += self._looked_at(model, pieces, part, tallies)
                n_looks += len(pieces)
        spare = smallest([weighted.pool for weighted in batch])
        for _ in range(share.n_looks - n_looks):
            with torch.no_grad():
                self._logps(model, [spare])
        return passes + [_Pass([spare], _nothing)] * (share.n_passes - len(passes))

    def _looked_at(
        self, model: nn.Module, pieces: Sequence[list[EncodedPool]], part: Sequence[Weighted], tallies: Tensor
    ) -> Iterator[_Pass]:
        """The second passes over a pool in pieces, after the first."""
        with torch.no_grad():
            logps = torch.cat([self._logps(model, piece) for piece in pieces])
        loss = self._tallied(part, tallies, logps.requires_grad_())
        slopes = torch.split(torch.autograd.grad(loss, logps)[0], [len(piece[0].response_ids) for piece in pieces])
        return (_Pass(piece, partial(_inner, slope)) for piece, slope in zip(pieces, slopes, strict=True))

    def _tallied(self, part: Sequence[Weighted], tallies: Tensor, logps: Tensor) -> Tensor:
        loss, counted = part_loss(logps, part, self.course.settings)
        tallies += counted
        return loss

    def _logps(self, model: nn.Module, pools: Sequence[EncodedPool]) -> Tensor:
        inner = self.accelerator.unwrap_model(model)
        in_bfloat16 = self.course.compute_dtype is torch.bfloat16
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=in_bfloat16):
            # inside the call of the wrapper, so that its hooks see the pass
            return called_as(inner, lambda _: response_logps(inner, pools, self.course.form), wrapper=model)

    @contextmanager
    def _exchanging(self, model: nn.Module, is_last: bool) -> Iterator[None]:
        """Whole copies exchange gradients once a step; shards do in every pass, or each rank held all gradients."""
        if self.is_deepspeed_enabled:  # steps within the backward pass of a batch that is said to be whole
            self.accelerator.gradient_state._set_sync_gradients(is_last)
        with nullcontext() if is_last or self.is_fsdp_enabled else self.accelerator.no_sync(model):
            yield

    def _agree_on_checkpoint(self) -> None:
        """The main process's clock decides, for a checkpoint is written by all ranks together."""
        overdue = self.accelerator.is_main_process and self.clock.overdue
        votes: Tensor = self.accelerator.reduce(torch.tensor(float(overdue), device=self.args.device))
        self.checkpoint_due = bool(votes > 0)

    def _note(self, step: Step, batch: Sequence[Weighted], tallies: dict[str, float], grad_norm: float) -> None:
        number = self.state.global_step + 1
        n_pairs = sum(len(weighted.pool.pairs) for weighted in batch)
        if not (math.isfinite(tallies["loss"]) and math.isfinite(grad_norm)):
            outcome = "was applied by DeepSpeed" if self.is_deepspeed_enabled else "was not applied"
            raise WorkFailed(
                f"training stopped at step {number}: loss {tallies['loss']:g}, gradient norm {grad_norm:g}, "
                f"{tallies['nonfinite']:g} of {n_pairs} pairs not finite; step {number} {outcome}. "
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


@dataclass(frozen=True)
class _Pass:
    """One forward and backward pass."""

    pools: Sequence[EncodedPool]
    loss: Callable[[Tensor], Tensor]
    """What the log-probabilities of the pools add to the loss of the batch."""


def _inner(slope: Tensor, logps: Tensor) -> Tensor:
    return (logps * slope).sum()


def _nothing(logps: Tensor) -> Tensor:
    """Gradients of 0, so that the pass takes part in every exchange and adds nothing."""
    return 0.0 * logps.sum()


def _optimizer(settings: Align) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """None leaves the choice to the arguments: torch's own AdamW."""
    if settings.weights == "float32":
        return None
    return MasterAdamW, {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}


def _one_step(items: list[Step]) -> dict[str, Step]:
    return {"step": items[0]}
