"""The training loop: one item of the plan is one whole optimizer batch of pools, and one turn of the loop.

Stops before the optimizer on a loss or gradient that is not finite, and at the end of a step, behind a checkpoint,
when it is interrupted. Knows encoded pools, and neither chat templates nor where the policy goes.
"""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors import SafetensorError
from torch import Tensor, nn

from selfpriority.errors import WorkFailed
from selfpriority.interrupts import deferred_interrupts
from selfpriority.recipe import Align
from selfpriority.training.alarms import alarms, fall
from selfpriority.training.average import Average
from selfpriority.training.checkpoints import Checkpoints
from selfpriority.training.engines import is_sharded
from selfpriority.training.groups import Step
from selfpriority.training.journal import Journal, Record
from selfpriority.training.objective import n_light
from selfpriority.training.optimizer import MasterAdamW, join
from selfpriority.training.passes import Batch, Course, Passes
from selfpriority.training.reference import Reference
from selfpriority.training.states import (
    load_random,
    load_states,
    save_random,
    save_states,
    unseen,
    whole_weights,
)
from selfpriority.training.together import NOT_SHARED
from selfpriority.training.trackers import Trackers

_HISTORY = "history.json"
_OF_PAIRS = ("margin", "accuracy", "chosen_logp", "rejected_logp")  # 0 where no answer is compared with another
_KEPT = re.compile(r"bias|layernorm|rmsnorm|(^|\.|_)norm($|\.)")  # names of weights that never decay


def learning_rate_factor(step: int, n_warmup: int, n_steps: int) -> float:
    """Linear rise over `n_warmup` steps, then cosine decay; no step, the first included, is at rate 0."""
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(n_steps - n_warmup, 1)))


class Trainer:
    """Trains on the course's plan.

    Args:
        model: what is trained, in place.
        course: pools, plan and settings.
        accelerator: as `engines.accelerator_for` makes it.
        seed: of what is drawn while training.
        checkpoints: where they go.
    """

    def __init__(
        self, model: nn.Module, course: Course, accelerator: Accelerator, seed: int, checkpoints: Checkpoints
    ) -> None:
        set_seed(seed)
        torch.empty((), dtype=torch.int64).random_()  # once drawn by a data loader: dropout stays what it was
        self.course, self.accelerator, self.checkpoints = course, accelerator, checkpoints
        made: Any = accelerator.prepare(model, _optimizer(model, course.settings))
        self.model, self.optimizer = made
        self.passes = Passes(self.model, accelerator, course)
        self.average = Average(course.settings.average) if course.settings.average else None
        has_reference = course.settings.has_reference
        self.reference = Reference(course.pools, self.passes.mismatched) if has_reference else None
        self.history: list[Record] = []
        """Records of all steps so far, those before the checkpoint included."""
        self.saved_at = time.monotonic()

    def train(self, checkpoint: Path | None, journal: Journal | None = None, trackers: Trackers | None = None) -> None:
        """Runs what is left of the course behind a checkpoint; processes that keep no journal and trackers have None.

        Raises:
            WorkFailed: loss or gradient norm is not finite (the optimizer has not been stepped), or a collapse.
            KeyboardInterrupt: interrupted; the last step is in a checkpoint.
        """
        if checkpoint:
            self._load(checkpoint)
        elif self.reference:
            self.passes.measure(self.reference)
        self.model.train()
        with deferred_interrupts(at_once_if_repeated=self.accelerator.num_processes == 1) as interrupts:
            for step in self.course.plan.steps[len(self.history) :]:
                record = self._step(step)
                self._log(record, journal, trackers)
                if self.average:
                    self.average.update(self.accelerator.unwrap_model(self.model), self._held)
                is_due, is_interrupted = self._agreed(self._is_overdue(), bool(interrupts))
                if is_due or is_interrupted:
                    self._save(len(self.history))
                if is_interrupted:
                    raise KeyboardInterrupt

    def whole_weights(self) -> dict[str, Tensor] | None:
        """All weights by name on the main process, where the model itself holds a part; None where it holds all."""
        return whole_weights(self.model) if is_sharded(self.accelerator) else None

    def master(self, name: str, weight: Tensor) -> Tensor:
        """The float32 that a finished weight stands for: its average, what the optimizer completes, or itself."""
        if self.average and name in self.average.weights:
            return self.average.weights[name]
        return self._held(weight)

    def _held(self, weight: Tensor) -> Tensor:
        state = self.optimizer.optimizer.state.get(weight, {})
        return join(weight.detach(), state["rest"]) if "rest" in state else weight.detach()

    def _step(self, step: Step) -> Record:
        """One optimizer step; returns its record."""
        began, settings = time.monotonic(), self.course.settings
        rate = self._set_learning_rate()
        batch = self.passes.gradients(step, self.reference)
        grad_norm = self.accelerator.clip_grad_norm_(self.model.parameters(), settings.max_grad_norm)
        record = self._record(step, batch, float(grad_norm or 0.0), rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        n_tokens = sum(self.course.pools[index].n_tokens for index in step.pools)
        return {**record, "tokens_per_second": n_tokens / max(time.monotonic() - began, 1e-9)}

    def _set_learning_rate(self) -> float:
        settings, n_steps = self.course.settings, len(self.course.plan.steps)
        factor = learning_rate_factor(len(self.history), round(settings.warmup * n_steps), n_steps)
        rate = settings.learning_rate * factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _record(self, step: Step, batch: Batch, grad_norm: float, rate: float) -> Record:
        number, tallies = len(self.history) + 1, batch.tallies
        n_pairs = sum(len(weighted.pool.pairs) for weighted in batch.weighted)
        if not (math.isfinite(tallies["loss"]) and math.isfinite(grad_norm)):
            raise WorkFailed(
                f"training stopped at step {number}: loss {tallies['loss']:g}, gradient norm {grad_norm:g}, "
                f"{tallies['nonfinite']:g} of {n_pairs} pairs not finite; step {number} was not applied. "
                f"Try a lower align.learning_rate or align.dtype=float32"
            )
        return {
            "step": number,
            "n_steps": len(self.course.plan.steps),
            "epoch": step.epoch,
            "loss": tallies["loss"],
            "nll": tallies["nll"],
            **{name: tallies[name] / max(n_pairs, 1) for name in _OF_PAIRS},
            "grad_norm": grad_norm,
            "learning_rate": rate,
            "n_pairs": n_pairs,
            "n_pools": len(batch.weighted),
            "light_share": n_light(batch.weighted) / max(n_pairs, 1),
            "nonfinite": tallies["nonfinite"],
            **({"z0": batch.kto.z0} if batch.kto else {}),
        }

    def _log(self, record: Record, journal: Journal | None, trackers: Trackers | None) -> None:
        """Keeps the record, and an alarm in it; every rank comes to the same one.

        Raises:
            WorkFailed: chosen and rejected answers both became too unlikely.
        """
        self.history.append(record)
        if trackers is not None:
            trackers.log(record)
        stop_at = self.course.settings.stop_on_collapse
        if found := alarms(self.history, stop_at):
            record["alarm"] = ", ".join(found)
        if journal is not None:
            journal.write(record)
        fell = fall(self.history)
        if stop_at is not None and fell.common > stop_at:
            raise WorkFailed(
                f"training stopped at step {record['step']}: since the first step chosen answers lost "
                f"{fell.chosen:.2f} and rejected ones {fell.rejected:.2f} nats per token (align.stop_on_collapse: "
                f"{stop_at:g}); the last checkpoint stays in {self.checkpoints.folder}. Try a lower "
                f"align.learning_rate or align.nll=1"
            )

    def _is_overdue(self) -> bool:
        minutes = (time.monotonic() - self.saved_at) / 60
        return self.accelerator.is_main_process and minutes >= self.course.settings.checkpoint_minutes

    def _agreed(self, *wishes: bool) -> list[bool]:
        """What any rank wishes, for a checkpoint is written by all of them together."""
        votes: Tensor = self.accelerator.reduce(torch.tensor(wishes, dtype=torch.float32, device=self.passes.device))
        return [vote > 0 for vote in votes.tolist()]

    def _save(self, step: int) -> None:
        folder, rank = self.checkpoints.begin(step), self.accelerator.process_index
        save_states(self.accelerator.unwrap_model(self.model), self.optimizer.optimizer, folder, rank)
        save_random(folder, rank)
        if self.accelerator.is_main_process:
            for part in (self.average, self.reference):
                if part is not None:
                    part.save(folder)
            (folder / _HISTORY).write_text(json.dumps(self.history), encoding="utf-8")
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            lost = unseen(folder, self.accelerator.num_processes)
            if lost is not None:
                raise WorkFailed(f"{folder}: what process {lost} wrote is not seen by the main one; {NOT_SHARED}")
            self.checkpoints.complete(folder)
        self.saved_at = time.monotonic()

    def _load(self, checkpoint: Path) -> None:
        """Continues from a checkpoint.

        Raises:
            WorkFailed: it is damaged.
        """
        try:
            load_states(self.accelerator.unwrap_model(self.model), self.optimizer.optimizer, checkpoint)
            for part in (self.average, self.reference):
                if part is not None:
                    part.load(checkpoint)
            if self.reference and self.reference.token_weights is not None:
                self.passes.weigh_tokens(self.reference.token_weights)
            self.history = json.loads((checkpoint / _HISTORY).read_text(encoding="utf-8"))
            load_random(checkpoint, self.accelerator.process_index)
        except (SafetensorError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise WorkFailed(f"{checkpoint}: unreadable ({reason}); remove it and run the same command") from error


def _optimizer(model: nn.Module, settings: Align) -> torch.optim.Optimizer:
    """AdamW over what is trained; biases and the weights of norms do not decay."""
    norms = {weight for module in model.modules() if isinstance(module, nn.LayerNorm) for weight in module.parameters()}
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    kept = {name for name, weight in trained if weight in norms or _KEPT.search(name.lower())}
    groups = [
        {"params": [weight for name, weight in trained if name not in kept], "weight_decay": settings.weight_decay},
        {"params": [weight for name, weight in trained if name in kept], "weight_decay": 0.0},
    ]
    if settings.weights == "bfloat16":
        return MasterAdamW(groups, lr=settings.learning_rate)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
