"""The first loss computed a second time, slowly and plainly, to hold the training's own against.

Float32 weights, one row per answer, the model's own full logits, arithmetic in Python: shares nothing with
`training/` but the token ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfpriority.errors import WorkFailed
from selfpriority.recipe import Align
from selfpriority.records import Pair, PairedPool
from selfpriority.training.encode import EncodedPool

if TYPE_CHECKING:
    from selfpriority.training.adapters import Policy

TOLERANCE = 1e-4
"""Largest difference, relative to the loss where that is above 1, that float32 rounding explains."""


@dataclass(frozen=True)
class FirstLoss:
    """The loss of some pools before the first step, as one optimizer batch, computed twice."""

    by_training: float
    independent: float
    n_pools: int
    n_pairs: int

    @property
    def difference(self) -> float:
        """Absolute difference."""
        return abs(self.by_training - self.independent)

    @property
    def agrees(self) -> bool:
        """Whether rounding explains the difference; a loss that is not a number agrees with nothing."""
        return self.difference <= TOLERANCE * max(1.0, abs(self.independent))


def first_loss(
    policy: Policy, name: str, paired: Sequence[PairedPool], encoded: Sequence[EncodedPool], settings: Align
) -> FirstLoss:
    """Both losses of the same pools.

    Args:
        policy: as training loads it, in float32; its model is moved away and given up.
        name: folder or hub id the policy was loaded from, loaded again here.
        paired: the pools, for their scores.
        encoded: the same pools as training sees them.
        settings: the recipe's `align`.

    Raises:
        WorkFailed: memory ran out.
    """
    import torch  # a run can be looked at without it

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        by_training = _training_loss(policy.model.to(device).eval(), encoded, settings)
        policy.model.to("meta")  # its memory is free before the same model is loaded again
        logps = _plain_logps(name, device, paired, encoded)
    except torch.OutOfMemoryError as error:
        raise WorkFailed("out of memory while recomputing the first loss in float32") from error
    independent = plain_loss(paired, logps, settings)
    if settings.nll or settings.method == "sft":
        independent += (settings.nll or 1.0) * plain_nll(paired, logps, encoded, settings)
    return FirstLoss(by_training, independent, len(encoded), sum(len(pool.pairs) for pool in encoded))


def _training_loss(model: Any, encoded: Sequence[EncodedPool], settings: Align) -> float:
    import torch

    from selfpriority.training.logps import choose_form, response_logps
    from selfpriority.training.objective import part_loss, weigh

    form = choose_form(model, max(pool.longest for pool in encoded))
    with torch.no_grad():
        logps = response_logps(model, encoded, form)
        starting = torch.split(logps, [len(pool.response_ids) for pool in encoded])  # the model is its own reference
        loss, _ = part_loss(logps, weigh(encoded, settings, starting), settings)
    return float(loss)


def _plain_logps(
    name: str, device: str, paired: Sequence[PairedPool], encoded: Sequence[EncodedPool]
) -> list[dict[int, float]]:
    """Mean log-probability of every answer in a pair, by index in `Pool.responses`, a dictionary a pool."""
    import torch

    from selfpriority.models.weights import open_model

    model = open_model(name, torch.float32).model
    model.to(device).eval()
    found = []
    for pool, ids in zip(paired, encoded, strict=True):
        used = _used(pool)
        logps = {}
        for index, response in zip(used, ids.response_ids, strict=True):
            with torch.no_grad():
                row = torch.tensor([[*ids.prompt_ids, *response]], device=device)
                logits = model(input_ids=row).logits[0]  # [L, vocabulary]
            predictions = logits[len(ids.prompt_ids) - 1 : -1].double().log_softmax(-1)  # [response, vocabulary]
            logps[index] = float(predictions.gather(1, torch.tensor(response, device=device)[:, None]).mean())
        found.append(logps)
    return found


def plain_loss(paired: Sequence[PairedPool], logps: Sequence[Mapping[int, float]], settings: Align) -> float:
    """The mean over pairs before the first step, pair by pair, the gaps from raw scores.

    Args:
        paired: pools with their pairs, as one optimizer batch.
        logps: mean log-probability of the answers of every pool, by index in `Pool.responses`.
        settings: the recipe's `align`.
    """
    if settings.method == "kto":
        return plain_kto(paired, settings)
    gaps = [_gap(pool, pair, settings) for pool in paired for pair in pool.pairs]
    if not gaps:
        return 0.0
    mean_gap = math.fsum(gaps) / len(gaps)
    total = 0.0
    for pool, own in zip(paired, logps, strict=True):
        share = 1 / len(gaps) if settings.count == "pairs" else 1 / (len(paired) * len(pool.pairs))
        for pair in pool.pairs:
            weight = (_gap(pool, pair, settings) / mean_gap) ** settings.gap_exponent if mean_gap > 0 else 1.0
            distance = own[pair.chosen] - own[pair.rejected]
            total += share * weight * _pair_loss(distance, _unsafe(pool, pair, settings), settings)
    return total


def plain_kto(paired: Sequence[PairedPool], settings: Align) -> float:
    """The mean of KTO's losses before the first step, where each is a half: the policy is its own reference."""
    leads = [_leads(pool) for pool in paired]
    n_desirable = sum(lead > 0 for of_pool in leads for lead in of_pool)
    n_undesirable = sum(lead < 0 for of_pool in leads for lead in of_pool)
    desirable = max(1.0, n_undesirable / n_desirable)
    undesirable = max(1.0, 3 * n_desirable / (4 * n_undesirable))
    total = 0.0
    for of_pool in leads:
        n = sum(lead != 0 for lead in of_pool)
        share = 1 / (n_desirable + n_undesirable) if settings.count == "pairs" else 1 / (len(paired) * n)
        total += sum(share * (desirable if lead > 0 else undesirable) / 2 for lead in of_pool if lead)
    return total


def _leads(paired: PairedPool) -> list[int]:
    """Wins less losses of every answer."""
    n = range(len(paired.pool.responses))
    return [sum((pair.chosen == i) - (pair.rejected == i) for pair in paired.pairs) for i in n]


def _unsafe(paired: PairedPool, pair: Pair, settings: Align) -> list[bool]:
    """Whether chosen and rejected answer are unsafe."""
    if not settings.asks_for_safety:  # answers that nobody rated are never asked
        return [False, False]
    responses = paired.pool.responses
    return [responses[index].scores[0] < settings.safe_from for index in (pair.chosen, pair.rejected)]


def _pair_loss(distance: float, unsafe: Sequence[bool], settings: Align) -> float:
    """Of a pair whose mean log-probabilities are `distance` apart, while the policy still is its own reference."""
    if settings.method == "sft":
        return 0.0
    if settings.method == "safedpo":
        return -_log_sigmoid(-settings.unsafe_margin * (unsafe[1] - unsafe[0]))
    if settings.method == "bfpo":
        return ((1.5 * (not unsafe[0]) - 0.5 * (not unsafe[1]) - 0.5) / settings.beta) ** 2
    if settings.method in ("dpo", "tis_dpo"):  # however tokens weigh
        return math.log(2)
    if settings.method == "ipo":
        return 1 / (2 * settings.beta) ** 2
    return -_log_sigmoid(settings.beta * distance - settings.gamma)


def plain_nll(
    paired: Sequence[PairedPool],
    logps: Sequence[Mapping[int, float]],
    encoded: Sequence[EncodedPool],
    settings: Align,
) -> float:
    """Mean negative log-likelihood per token of the answers that are learned, each once."""
    total = n_tokens = 0.0
    for pool, own, ids in zip(paired, logps, encoded, strict=True):
        used = _used(pool)
        taught = _learned(pool, used, settings.learns)
        share = 1 / len(taught) if settings.learns == "winners" and pool.pairs else 1
        for index in taught:
            n_own = len(ids.response_ids[used.index(index)]) * share
            total -= n_own * own[index]
            n_tokens += n_own
    return total / n_tokens


def _used(paired: PairedPool) -> list[int]:
    """The answers that training sees: those in a pair, or all where there is no pair."""
    compared = {index for pair in paired.pairs for index in (pair.chosen, pair.rejected)}
    return sorted(compared or range(len(paired.pool.responses)))


def _learned(paired: PairedPool, used: Sequence[int], learn: str) -> list[int]:
    """Answers that are learned: `method.learned` written a second time."""
    if not paired.pairs:
        return list(used)
    wins = {i: sum(pair.chosen == i for pair in paired.pairs) for i in used}
    losses = {i: sum(pair.rejected == i for pair in paired.pairs) for i in used}
    if learn == "chosen":
        return [i for i in used if wins[i]]
    winners = [i for i in used if wins[i] > losses[i]]
    if learn == "winners":
        return winners
    return sorted(winners, key=lambda i: (losses[i] - wins[i], [-s for s in paired.pool.responses[i].scores], i))[:1]


def _gap(paired: PairedPool, pair: Pair, settings: Align) -> float:
    """What weighs a pair, from raw scores: `method.pair.weighing_gap` written a second time, which is the point."""
    chosen, rejected = (paired.pool.responses[index].scores for index in (pair.chosen, pair.rejected))
    if not chosen:
        return 1.0
    if settings.weight_gap == "signed":
        return abs(sum(chosen) - sum(rejected))
    if settings.weight_gap == "l1":
        return sum(abs(a - b) for a, b in zip(chosen, rejected, strict=True))
    return abs(chosen[pair.decided_by] - rejected[pair.decided_by])


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))
