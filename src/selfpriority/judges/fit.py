"""Fit one linear head per objective on labelled answers, cross-validated by prompt.

Logistic regression with a quadratic penalty (C * sum(loss) + |w|^2 / 2, as in scikit-learn) on the features of
standardised mean hidden states (`heads.features`), by Newton's method. A single label is an observation of
w.x + b; a pair is one of w.(x_chosen - x_rejected), without b. Strong shrinkage (C about 1e-3) transfers
best. Knows no model but through `Embed`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfpriority.errors import InputError
from selfpriority.intervals import bootstrap_auc, bootstrap_mean_interval, pair_wins
from selfpriority.judges.heads import SPANS, Head, Heads, Pooling, features
from selfpriority.judges.labels import Labels
from selfpriority.language_model import Embed, Failure, LanguageModel, Vectors, ask
from selfpriority.records import Prompt, Stop

Floats = NDArray[np.float64]
Layers = int | tuple[int, ...]

_STEPS = 100
_TOLERANCE = 1e-8


@dataclass(frozen=True)
class FitSettings:
    """How heads are fitted."""

    layers: Layers | Mapping[str, Layers]
    """Layer or layers of the hidden states, for all objectives or for each; start with the middle of the model."""
    c: float | Mapping[str, float] = 1e-3
    """Inverse strength of the penalty, one for all objectives or one each."""
    pooling: Pooling | Mapping[str, Pooling] = "match"
    """What of the hidden states is read, for all objectives or for each."""
    folds: int = 5
    """Parts of the cross-validation; answers to one prompt stay together."""
    seed: int = 0
    """Deals prompts to folds."""


@dataclass(frozen=True)
class Reads:
    """Which hidden states of a model one head reads."""

    layers: tuple[int, ...]
    pooling: Pooling

    def request(self, prompt: Prompt, response: str, stop: Stop = "end", opening: str = "") -> Embed:
        """The states of one answer: the end token of a finished one is read, as of those rated later."""
        return Embed(prompt.messages, response, self.layers, SPANS[self.pooling], stop, opening)


@dataclass(frozen=True, eq=False)
class Observations:
    """Hidden states of one objective's labels, [n, width] each: a head's spans and layers side by side."""

    singles: Floats
    labels: NDArray[np.bool_]
    chosen: Floats
    rejected: Floats
    single_groups: tuple[str, ...]
    pair_groups: tuple[str, ...]
    single_weights: Floats
    pair_weights: Floats

    @property
    def answers(self) -> Floats:
        """All answers, single or in pairs, [n, width]."""
        return np.concatenate([self.singles, self.chosen, self.rejected])

    def mapped(self, function: Callable[[Floats], Floats]) -> Observations:
        """The same labels with `function` of the vectors."""
        singles, chosen, rejected = map(function, (self.singles, self.chosen, self.rejected))
        return replace(self, singles=singles, chosen=chosen, rejected=rejected)

    def take(self, groups: set[str]) -> Observations:
        """Only the answers of these groups."""
        s = np.asarray([group in groups for group in self.single_groups], dtype=np.bool_)
        p = np.asarray([group in groups for group in self.pair_groups], dtype=np.bool_)
        return Observations(
            self.singles[s],
            self.labels[s],
            self.chosen[p],
            self.rejected[p],
            tuple(group for group in self.single_groups if group in groups),
            tuple(group for group in self.pair_groups if group in groups),
            self.single_weights[s],
            self.pair_weights[p],
        )


def fit_heads(labels: Labels, model: LanguageModel, model_name: str, settings: FitSettings) -> Heads:
    """A head for every labelled objective; the card of the result says how well each does on unseen prompts.

    Args:
        labels: answers and pairs; objectives are fitted one by one.
        model: whose hidden states, by `Embed`.
        model_name: what the card calls it.
        settings: layers, shrinkage and folds.

    Raises:
        InputError: an objective without a layer, with one label only, or with fewer prompts than folds.
    """
    fitted: dict[str, Head] = {}
    described: dict[str, Any] = {}
    for objective in labels.objectives:
        reads, c = _reads(settings, objective), _setting(settings.c, objective, "c")
        observed, failed = observe(labels.of(objective), model, reads)
        _require_enough(objective, observed, settings.folds)
        fitted[objective] = fit_head(objective, reads, observed, c)
        described[objective] = {
            "layers": list(reads.layers),
            "pooling": reads.pooling,
            "c": c,
            "n_answers": len(observed.singles),
            "n_pairs": len(observed.chosen),
            "n_prompts": len({*observed.single_groups, *observed.pair_groups}),
            "failed": failed,
            "cross_validation": {"folds": settings.folds, **cross_validate(observed, reads, c, settings)},
        }
    card = {"model": model_name, "model_fingerprint": model.fingerprint, "objectives": described}
    return Heads(model_name, fitted, card)


def observe(labels: Labels, model: LanguageModel, reads: Reads) -> tuple[Observations, dict[str, int]]:
    """Hidden states of labelled answers, and how many requests failed for which reason.

    A pair is left out where one of its answers failed.
    """
    requests = [reads.request(row.prompt, row.response, row.stop, row.opening) for row in labels.answers]
    for pair in labels.pairs:
        requests += [reads.request(pair.prompt, text, pair.stop) for text in (pair.chosen, pair.rejected)]
    answers = ask(model, requests)
    states = [np.concatenate(answer.vectors) if isinstance(answer, Vectors) else None for answer in answers]
    failed = Counter(answer.reason for answer in answers if isinstance(answer, Failure))
    n = len(labels.answers)
    singles = [(row, state) for row, state in zip(labels.answers, states[:n], strict=True) if state is not None]
    twos = zip(labels.pairs, states[n::2], states[n + 1 :: 2], strict=True)
    pairs = [(row, good, bad) for row, good, bad in twos if good is not None and bad is not None]
    size = next((len(state) for state in states if state is not None), 0)
    observed = Observations(
        _rows([state for _, state in singles], size),
        np.asarray([row.label for row, _ in singles], dtype=np.bool_),
        _rows([good for _, good, _ in pairs], size),
        _rows([bad for _, _, bad in pairs], size),
        tuple(row.group for row, _ in singles),
        tuple(row.group for row, _, _ in pairs),
        np.asarray([row.weight for row, _ in singles], dtype=np.float64),
        np.asarray([row.weight for row, _, _ in pairs], dtype=np.float64),
    )
    return observed, dict(failed)


def fit_head(objective: str, reads: Reads, observed: Observations, c: float) -> Head:
    """The head that explains the observations best under the penalty; rated 5.5 at their mean logit."""
    mean, scale = observed.answers.mean(axis=0), observed.answers.std(axis=0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    seen = observed.mapped(lambda states: features((states - mean) / scale, reads.pooling))
    weights, bias = _solve(seen, c)
    logits = seen.answers @ weights + bias
    spread = float(logits.std())
    return Head(
        objective,
        reads.layers,
        reads.pooling,
        mean,
        scale,
        weights,
        bias,
        float(logits.mean()),
        spread if spread > 0.0 else 1.0,
    )


def cross_validate(observed: Observations, reads: Reads, c: float, settings: FitSettings) -> dict[str, Any]:
    """Agreement on unseen prompts: AUC of single answers and accuracy on pairs, with intervals."""
    scores: list[float] = []
    labels: list[bool] = []
    wins: list[float] = []
    single_groups: list[str] = []
    pair_groups: list[str] = []
    folds = deal(sorted({*observed.single_groups, *observed.pair_groups}), settings.folds, settings.seed)
    for held in folds:
        seen = observed.take(set().union(*(fold for fold in folds if fold is not held)))
        unseen = observed.take(held)
        head = fit_head("", reads, seen, c)
        scores += [head.logit(x) for x in unseen.singles]
        labels += unseen.labels.tolist()
        wins += pair_wins([head.logit(x) for x in unseen.chosen], [head.logit(x) for x in unseen.rejected])
        single_groups += unseen.single_groups
        pair_groups += unseen.pair_groups
    both = len(set(labels)) == 2
    auc = asdict(bootstrap_auc(scores, labels, single_groups, seed=settings.seed)) if both else None
    accuracy = asdict(bootstrap_mean_interval(wins, pair_groups, seed=settings.seed)) if wins else None
    return {"auc": auc, "pair_accuracy": accuracy}


def deal(groups: Sequence[str], folds: int, seed: int) -> list[set[str]]:
    """Groups dealt to folds of nearly equal size, in an order that depends on the seed only."""
    order = np.random.default_rng(seed).permutation(len(groups))
    return [{groups[i] for i in order[fold::folds]} for fold in range(folds)]


def _solve(observed: Observations, c: float) -> tuple[Floats, float]:
    """Weights and bias. A pair counts as two answers (both signs); with both kinds, each kind counts half."""
    singles = np.c_[observed.singles, np.ones(len(observed.singles))]
    pairs = np.c_[observed.chosen - observed.rejected, np.zeros(len(observed.chosen))]
    n, m = float(observed.single_weights.sum()), float(observed.pair_weights.sum())
    share = (n + 2 * m) / ((n > 0) + (m > 0))
    kinds = ((observed.single_weights, n), (observed.pair_weights, m))
    each = np.concatenate([weights * share / total if total else weights for weights, total in kinds])
    signs = np.r_[np.where(observed.labels, 1.0, -1.0), np.ones(len(pairs))]
    solution = _newton(np.concatenate([singles, pairs]) * signs[:, None], c * each)
    return solution[:-1], float(solution[-1])


def _newton(signed: Floats, weights: Floats) -> Floats:
    """Argmin of sum_i weights_i * log(1 + exp(-signed_i . v)) + |v[:-1]|^2 / 2, by damped Newton steps."""
    width = signed.shape[1]
    penalty = np.r_[np.ones(width - 1), 1e-9]  # the bias is free; where nothing informs it, it stays 0
    v = np.zeros(width)
    for _ in range(_STEPS):
        p = 0.5 * (1.0 - np.tanh(0.5 * (signed @ v)))
        gradient = penalty * v - signed.T @ (weights * p)
        hessian = (signed * (weights * p * (1.0 - p))[:, None]).T @ signed + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while _cost(signed, weights, penalty, v - size * step) > _cost(signed, weights, penalty, v) and size > 1e-6:
            size /= 2.0
        v = v - size * step
        if float(gradient @ step) < _TOLERANCE:
            break
    return v


def _cost(signed: Floats, weights: Floats, penalty: Floats, v: Floats) -> float:
    return float(weights @ np.logaddexp(0.0, -(signed @ v)) + 0.5 * (penalty * v) @ v)


def _reads(settings: FitSettings, objective: str) -> Reads:
    layers = _setting(settings.layers, objective, "layer")
    pooling = _setting(settings.pooling, objective, "pooling")
    return Reads((layers,) if isinstance(layers, int) else tuple(layers), pooling)


def _rows(states: Sequence[Floats], size: int) -> Floats:
    return np.asarray(states, dtype=np.float64).reshape(len(states), size)


def _setting(given: Any, objective: str, name: str) -> Any:
    if not isinstance(given, Mapping):
        return given
    if objective not in given:
        raise InputError(f"fit: no {name} for {objective}; given for {', '.join(given) or 'nothing'}")
    return given[objective]


def _require_enough(objective: str, observed: Observations, folds: int) -> None:
    n_prompts = len({*observed.single_groups, *observed.pair_groups})
    if n_prompts < folds:
        raise InputError(f"labels: {objective}: {n_prompts} different prompts, {folds} are needed for {folds} folds")
    if not len(observed.chosen) and len(set(observed.labels.tolist())) < 2:
        raise InputError(f"labels: {objective}: all answers have one label, a head needs both")
