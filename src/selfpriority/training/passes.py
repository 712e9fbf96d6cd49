"""An optimizer batch through the model: this rank's micro-batches forward and backward, gradients of the whole batch.

Mean gap and counts of Eq. 3 are taken over the whole batch, so the result does not depend on how it is cut into
micro-batches or spread over ranks (docs/deviations.md 6). Knows encoded pools and a wrapped model; no optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from selfpriority.method.rival_losses import kto_baseline, tis_weights
from selfpriority.recipe import Align
from selfpriority.training.adapters import leave_casts_to_autocast, scale_between
from selfpriority.training.attention import attending
from selfpriority.training.desirable import Kto, balance_of, mismatched
from selfpriority.training.encode import EncodedPool
from selfpriority.training.engines import is_sharded
from selfpriority.training.groups import Plan, Step
from selfpriority.training.logps import Form, called_as, response_logps
from selfpriority.training.objective import TALLIES, Weighted, part_loss, weigh
from selfpriority.training.ranks import Share, deal, in_pieces, smallest
from selfpriority.training.reference import Reference


@dataclass(frozen=True)
class Course:
    """What is trained on, in which order, under which settings."""

    pools: Sequence[EncodedPool]
    plan: Plan
    form: Form
    settings: Align
    compute_dtype: torch.dtype
    """bfloat16 runs the forward pass under autocast; weights keep their own type."""


@dataclass(frozen=True)
class Batch:
    """An optimizer batch whose gradients are there."""

    weighted: Sequence[Weighted]
    tallies: dict[str, float]
    """Sums over all ranks, by the names in `objective.TALLIES`."""
    kto: Kto | None = None
    """Of `method: kto`."""


class Passes:
    """Passes of a course's pools through a model.

    Args:
        model: as `accelerator` has wrapped it.
        accelerator: knows the ranks.
        course: pools and settings.
    """

    def __init__(self, model: nn.Module, accelerator: Accelerator, course: Course) -> None:
        self.model, self.accelerator, self.course = model, accelerator, course
        self.inner: nn.Module = accelerator.unwrap_model(model)
        self.device: torch.device = accelerator.device
        self._in_bfloat16 = course.compute_dtype is torch.bfloat16
        if self._in_bfloat16:
            leave_casts_to_autocast(self.inner)
        scale_between(self.inner)
        self.mismatched = mismatched(course.pools) if course.settings.method == "kto" else []
        """For KTO, as many pools as the course has, with answers to other prompts."""
        self._balance = balance_of(course.pools) if self.mismatched else None

    def gradients(self, step: Step, reference: Reference | None) -> Batch:
        """Leaves the gradients of the loss over one whole optimizer batch, not clipped, in the model's weights."""
        settings = self.course.settings
        references = [reference.by_pool[index] for index in step.pools] if reference else None
        kto = Kto(self._balance, self._z0(step, reference)) if reference and self._balance else None
        weighted = weigh([self.course.pools[index] for index in step.pools], settings, references, kto)
        tallies = torch.zeros(len(TALLIES), device=self.device)
        passes = self._passes(step, weighted, tallies)
        # a checkpointed layer runs once more in the backward pass, and has to find the same attention there
        with attending(self.inner) if self.course.form.shares_prompt else nullcontext():
            for number, each in enumerate(passes, start=1):
                # whole copies exchange gradients once a step; shards in every pass, or each rank held all gradients
                exchanges = number == len(passes) or is_sharded(self.accelerator)
                with nullcontext() if exchanges else self.accelerator.no_sync(self.model):
                    loss = each.loss(self._logps(each.pools))
                    # engines average gradients over the ranks, the shares are of the whole batch
                    self.accelerator.backward(loss * self.accelerator.num_processes)
        totals: Tensor = self.accelerator.reduce(tallies, reduction="sum")
        return Batch(weighted, dict(zip(TALLIES, totals.tolist(), strict=True)), kto)

    def measure(self, reference: Reference) -> None:
        """Fills the reference with the model as it is now."""
        first_epoch = [step for step in self.course.plan.steps if step.epoch == 0]  # visits every pool once
        if self.course.settings.method == "tis_dpo":
            reference.token_weights = self._token_weights(first_epoch)
            self.weigh_tokens(reference.token_weights)
        own = self._measured(self.course.pools, first_epoch)
        reference.fill(own, self._measured(self.mismatched, first_epoch) if self.mismatched else None)

    def weigh_tokens(self, weights: Tensor) -> None:
        """Lets the tokens of the pools weigh so much, [tokens] of all responses, pool after pool."""
        left = iter(weights.tolist())
        pools = [
            replace(pool, token_weights=tuple(tuple(islice(left, len(ids))) for ids in pool.response_ids))
            for pool in self.course.pools
        ]
        self.course = replace(self.course, pools=pools)

    def _token_weights(self, steps: Sequence[Step]) -> Tensor:
        """TIS-DPO's weights of all tokens: what the model as it is now finds likelier under the good persona."""
        good, bad = (
            self._measured(
                [replace(pool, prompt_ids=pool.persona_ids[side]) for pool in self.course.pools], steps, True
            )
            for side in (0, 1)
        )
        lengths = [len(ids) for pool in self.course.pools for ids in pool.response_ids]
        return torch.cat([tis_weights(ratios) for ratios in torch.split((good - bad).cpu(), lengths)])

    def _z0(self, step: Step, reference: Reference) -> float:
        """KTO's z0 over one whole optimizer batch: the same on all ranks, however the batch is cut."""
        sizes = [len(pool.response_ids) for pool in self.mismatched]
        now = torch.split(self._measured(self.mismatched, [step]).cpu(), sizes)
        lengths = [len(ids) for index in step.pools for ids in self.mismatched[index].response_ids]
        return kto_baseline(
            torch.cat([now[index] for index in step.pools]),
            torch.cat([reference.mismatched[index] for index in step.pools]),
            torch.tensor(lengths),
        )

    @torch.no_grad()
    def _measured(self, pools: Sequence[EncodedPool], steps: Sequence[Step], by_token: bool = False) -> Tensor:
        """Mean log-probability of every response as the model is now, no dropout: [R], or [R, 2] where tokens weigh.

        Args:
            pools: the course's, or others in their places.
            steps: visit no pool twice; responses of pools that they do not visit are 0.
            by_token: log-probability of every token of every response instead: [N].
        """
        was_training = self.model.training
        self.model.eval()
        settings = self.course.settings
        found = [torch.zeros(_shape(pool, by_token), device=self.device) for pool in pools]
        for step in steps:
            share, n_passes = self._share(step, pools), 0
            for micro_batch in share.micro_batches:
                pieces = in_pieces([pools[index] for index in micro_batch], settings)
                logps = torch.cat([self._logps(piece, by_token) for piece in pieces])
                sizes = [len(found[index]) for index in micro_batch]
                for index, of_pool in zip(micro_batch, torch.split(logps, sizes), strict=True):
                    found[index] += of_pool
                n_passes += len(pieces)
            spare = smallest([pools[index] for index in step.pools])
            for _ in range(share.n_passes - n_passes):  # of other ranks
                self._logps([spare])
        self.model.train(was_training)
        total: Tensor = self.accelerator.reduce(torch.cat(found), reduction="sum")
        return total

    def _share(self, step: Step, pools: Sequence[EncodedPool]) -> Share:
        """What this rank computes of an optimizer batch of pools."""
        course, n_ranks = self.course, self.accelerator.num_processes
        shares = deal(step.pools, pools, course.settings, course.form.shares_prompt, n_ranks)
        rank: int = self.accelerator.process_index
        return shares[rank]

    def _passes(self, step: Step, batch: Sequence[Weighted], tallies: Tensor) -> list[_Pass]:
        """This rank's passes with gradients over one optimizer batch, as many as every other rank makes.

        A pool over the budget goes through the model in pieces, twice. The first pass is made here, without gradients:
        it yields the log-probabilities, hence the slope of the loss in each of them; in the second every piece adds
        slope times gradient. Same sum, and only one piece's activations exist.
        """
        share = self._share(step, self.course.pools)
        by_index = dict(zip(step.pools, batch, strict=True))
        passes: list[_Pass] = []
        n_looks = 0
        for micro_batch in share.micro_batches:
            part = [by_index[index] for index in micro_batch]
            pieces = in_pieces([weighted.pool for weighted in part], self.course.settings)
            if len(pieces) == 1:
                passes.append(_Pass(pieces[0], partial(self._tallied, part, tallies)))
            else:
                passes += self._looked_at(pieces, part, tallies)
                n_looks += len(pieces)
        spare = smallest([weighted.pool for weighted in batch])
        for _ in range(share.n_looks - n_looks):
            with torch.no_grad():
                self._logps([spare])
        return passes + [_Pass([spare], _nothing)] * (share.n_passes - len(passes))

    def _looked_at(
        self, pieces: Sequence[list[EncodedPool]], part: Sequence[Weighted], tallies: Tensor
    ) -> Iterator[_Pass]:
        """The second passes over a pool in pieces, after the first."""
        with torch.no_grad():
            logps = torch.cat([self._logps(piece) for piece in pieces])
        loss = self._tallied(part, tallies, logps.requires_grad_())
        slopes = torch.split(torch.autograd.grad(loss, logps)[0], [len(piece[0].response_ids) for piece in pieces])
        return (_Pass(piece, partial(_inner, slope)) for piece, slope in zip(pieces, slopes, strict=True))

    def _tallied(self, part: Sequence[Weighted], tallies: Tensor, logps: Tensor) -> Tensor:
        loss, counted = part_loss(logps, part, self.course.settings)
        tallies += counted
        return loss

    def _logps(self, pools: Sequence[EncodedPool], by_token: bool = False) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            # inside the call of the wrapper, so that its hooks see the pass
            return called_as(
                self.inner, lambda _: response_logps(self.inner, pools, self.course.form, by_token), wrapper=self.model
            )


def _shape(pool: EncodedPool, by_token: bool) -> tuple[int, ...]:
    """Of what is measured of a pool."""
    if by_token:
        return (sum(map(len, pool.response_ids)),)
    return (len(pool.response_ids), 2) if pool.token_weights else (len(pool.response_ids),)


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
