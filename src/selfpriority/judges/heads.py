"""Fitted heads: one linear direction per objective on a model's hidden states, as plain numbers in a folder.

A folder holds `heads.safetensors` (the numbers) and `card.json` (model, layers and pooling per objective,
data, licence, agreement). Source: docs/judging.md. Knows no model: hidden states come as one vector.
Another pooling is another word in `Pooling`, written in the card and refused by whoever does not know it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from selfpriority.errors import InputError
from selfpriority.language_model import Span
from selfpriority.outside import parse_json, read_text
from selfpriority.rating import HIGHEST, LOWEST

Pooling = Literal["mean", "match"]
"""`mean`: over the tokens of the response. `match`: also over those of the last user turn, and whether both agree."""
SPANS: dict[Pooling, tuple[Span, ...]] = {"mean": ("response",), "match": ("response", "prompt")}
"""Spans whose mean hidden states a pooling reads."""
Floats = NDArray[np.float64]

STEEPNESS = 0.8
_PARTS = ("mean", "scale", "weights", "line")


@dataclass(frozen=True, eq=False)
class Head:
    """One objective's direction in the hidden states of some layers."""

    objective: str
    layers: tuple[int, ...]
    """0 is the embedding, L the output of the L-th block."""
    pooling: Pooling
    mean: Floats
    """[width], subtracted from the vector; width = spans x layers x hidden size, in the order of `Embed`."""
    scale: Floats
    """[width], divides it; positive."""
    weights: Floats
    """[width], of `features`."""
    bias: float
    centre: float
    """Logit that is rated 5.5: the mean over the fitted answers."""
    spread: float
    """Standard deviation of the logit over the fitted answers."""

    def logit(self, vector: Sequence[float] | Floats) -> float:
        """The number w . features((x - mean) / scale) + b."""
        standardised = (np.asarray(vector, dtype=np.float64) - self.mean) / self.scale
        return float(self.weights @ features(standardised, self.pooling)) + self.bias

    def distance(self, vector: Sequence[float] | Floats) -> float:
        """How far a vector lies from those that were fitted: the mean square of (x - mean) / scale; theirs is 1."""
        return float(np.mean(((np.asarray(vector, dtype=np.float64) - self.mean) / self.scale) ** 2))

    def rating(self, vector: Sequence[float] | Floats) -> float:
        """1 + 9 sigmoid(0.8 z), z = (logit - centre) / spread: rising, 5.5 at the centre, inside (1, 10)."""
        return rating_of((self.logit(vector) - self.centre) / self.spread)


@dataclass(frozen=True, eq=False)
class Heads:
    """Heads of one model by objective, and the card that says where they come from.

    Examples:
        >>> heads = read_heads("my-heads")
        >>> head = heads.by_objective["harmlessness"]
        >>> head.weights.shape == (len(head.layers) * 32,)  # of a model whose hidden states have 32 numbers
        True
    """

    model: str
    by_objective: Mapping[str, Head]
    card: Mapping[str, Any]
    """JSON-able; free but for `model` and `objectives`, which `write_heads` and `read_heads` keep."""

    @property
    def fingerprint(self) -> str:
        """Hash of the numbers."""
        digest = hashlib.sha256()
        for name, head in sorted(self.by_objective.items()):
            digest.update(f"{name}|{head.layers}|{head.pooling}".encode())
            for array in _arrays(head).values():
                digest.update(array.tobytes())
        return digest.hexdigest()


def features(standardised: Floats, pooling: Pooling) -> Floats:
    """What the weights of a head multiply, [..., width] from [..., width].

    `mean` takes the states as they are. `match` takes the response's, and in place of the prompt's the products
    of both, element by element: what an answer says can only be beside the point against what was asked.
    """
    if pooling == "mean":
        return standardised
    response, prompt = np.split(standardised, 2, axis=-1)
    return np.concatenate([response, response * prompt], axis=-1)


def rating_of(z: float) -> float:
    """A standardised logit on the open interval (1, 10)."""
    share = 1.0 / (1.0 + math.exp(-STEEPNESS * z)) if z >= 0 else 1.0 - 1.0 / (1.0 + math.exp(STEEPNESS * z))
    value = LOWEST + (HIGHEST - LOWEST) * share
    return min(max(value, math.nextafter(LOWEST, HIGHEST)), math.nextafter(HIGHEST, LOWEST))  # float saturates


def write_heads(folder: Path, heads: Heads) -> None:
    """Writes `heads.safetensors` and `card.json` into `folder`, made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{part}": array for name, head in heads.by_objective.items() for part, array in _arrays(head).items()
    }
    save_file(tensors, folder / "heads.safetensors")
    described = heads.card.get("objectives", {})
    objectives = {
        name: {"layers": list(head.layers), "pooling": head.pooling, **described.get(name, {})}
        for name, head in heads.by_objective.items()
    }
    card = {**heads.card, "model": heads.model, "objectives": objectives}
    (folder / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_heads(folder: str | Path) -> Heads:
    """The heads in a folder.

    Args:
        folder: as `spa fit-judge` makes it.

    Raises:
        InputError: a file is missing or malformed, or a pooling is unknown (file and field named).

    Examples:
        >>> sorted(read_heads("my-heads").by_objective)
        ['harmlessness', 'helpfulness']
    """
    folder = Path(folder)
    card_path, numbers_path = folder / "card.json", folder / "heads.safetensors"
    for path in (card_path, numbers_path):
        if not path.is_file():
            raise InputError(
                f"{folder}: is no folder of fitted heads, {path.name} is missing; `spa fit-judge` makes one"
            )
    try:
        card = parse_json(read_text(card_path), str(card_path)).value
        described, model = card["objectives"], card["model"]
        layers = {name: (_layers(entry), entry["pooling"]) for name, entry in described.items()}
        if not isinstance(model, str):
            raise TypeError("model must be a name")
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"{card_path}: not a card of fitted heads: {type(error).__name__} {error}") from None
    try:
        tensors = load_file(numbers_path)
    except SafetensorError as error:
        raise InputError(f"{numbers_path}: not a safetensors file: {error}") from None
    return Heads(model, {name: _head(name, *where, tensors, numbers_path) for name, where in layers.items()}, card)


def _arrays(head: Head) -> dict[str, NDArray[Any]]:
    line = np.asarray([head.bias, head.centre, head.spread], dtype=np.float64)
    wide = {"mean": head.mean, "scale": head.scale, "weights": head.weights}
    return {
        **{part: np.ascontiguousarray(array, dtype=np.float32) for part, array in wide.items()},
        "line": line,
    }


def _layers(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """Of a card's objective; cards of version 0.1 name a single layer."""
    layers = tuple(map(int, entry["layers"] if "layers" in entry else [entry["layer"]]))
    if min(layers) < 0:
        raise ValueError("a layer is counted from 0")
    return layers


def _head(name: str, layers: tuple[int, ...], pooling: Any, tensors: Mapping[str, NDArray[Any]], path: Path) -> Head:
    if pooling not in get_args(Pooling):
        raise InputError(f"{path.parent}/card.json: {name}: pooling {pooling!r} is unknown, known: {get_args(Pooling)}")
    missing = [part for part in _PARTS if f"{name}.{part}" not in tensors]
    if missing:
        raise InputError(f"{path}: {name}: tensors {', '.join(missing)} are missing")
    mean, scale, weights, line = (np.asarray(tensors[f"{name}.{part}"], dtype=np.float64) for part in _PARTS)
    if not mean.shape == scale.shape == weights.shape or line.shape != (3,) or mean.ndim != 1:
        raise InputError(f"{path}: {name}: mean, scale and weights must have one length, line must hold 3 numbers")
    if not all(np.isfinite(array).all() for array in (mean, scale, weights, line)) or scale.min() <= 0 or line[2] <= 0:
        raise InputError(f"{path}: {name}: numbers must be finite, scale and spread positive")
    bias, centre, spread = map(float, line)
    return Head(name, layers, pooling, mean, scale, weights, bias, centre, spread)
