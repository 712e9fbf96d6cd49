"""How much of what a training changed is in what was saved: the saved change projected on that of the float32 weights.

With d the change of the float32 weights and s that of the saved ones, the share is <s, d> / <d, d> over all trained
weights: to first order, the part of any effect of d that s has. 1: all of it; 0: none. One tensor at a time; the
starting weights are read again from their files. Knows names and tensors, and nothing of pools.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor

from selfpriority.models.arithmetic import settled
from selfpriority.models.files import folder_of, matching, resolve
from selfpriority.models.rounding import chunks
from selfpriority.models.weights import base_of, open_model
from selfpriority.recipe import Backend, HfBackend

ENOUGH = 0.9
"""The share under which a warning is due."""
_PREFIX, _BASE = "base_model.model.", ".base_layer"  # of names under peft


@dataclass(frozen=True)
class Survival:
    """What is left of a training's movement."""

    share: float
    """In what was saved; of adapters, once they are merged as they are read here. 1 where nothing moved."""
    nearest: float
    """In the same weights rounded to the nearest bfloat16, as other programs read or merge them."""
    form: str
    """The type of what was saved, or of what adapters are merged into."""

    @property
    def text(self) -> str:
        """As a line says it."""
        return f"{self.share:.3f} (in {self.form}; rounded to the nearest bfloat16: {self.nearest:.3f})"

    def warning(self, reader: Backend) -> str | None:
        """What to do where too little is left, in the files or in the type that `reader` opens them in."""
        if self.share < ENOUGH:
            return (
                f"only {self.share:.3f} of the training's movement is in the saved policy (under {ENOUGH:g}): train "
                f"more steps or raise align.learning_rate, or save with align.save=float32"
            )
        is_low = isinstance(reader, HfBackend) and settled(reader).dtype == "bfloat16"
        if self.form == "float32" and is_low and self.nearest < ENOUGH:
            return (
                f"backend.dtype reads the policy in bfloat16, where {self.nearest:.3f} of the training's movement is "
                f"left (under {ENOUGH:g}): save with align.save=bfloat16 or read with backend.dtype=float32"
            )
        return None


@dataclass
class Tally:
    """Sums of the projection."""

    saved: float = 0.0
    nearest: float = 0.0
    whole: float = 0.0

    def add(self, before: Tensor, after: Tensor, saved: Tensor) -> None:
        """One tensor as it was, as it is in float32, and as it is saved; all of one shape."""
        for part, new in chunks(after.detach()):
            old, kept = (other.detach().reshape(-1)[part].to(new.device).float() for other in (before, saved))
            moved = new.float() - old
            self.whole += _sum(moved * moved)
            self.saved += _sum((kept - old) * moved)
            self.nearest += _sum((new.to(torch.bfloat16).float() - old) * moved)

    def survival(self, form: str) -> Survival:
        """The shares."""
        if not self.whole:
            return Survival(1.0, 1.0, form)
        return Survival(self.saved / self.whole, self.nearest / self.whole, form)


@dataclass
class Starting:
    """The weights that a training started from, by name.

    Read from the model's files one at a time; a weight that is called otherwise there, or that an adapter was merged
    into, makes the model be opened once more, after the training's gradients have gone.

    Args:
        model: a name, folder or hub id.
        dtype: what training held them in.
    """

    model: str
    dtype: torch.dtype
    _files: dict[str, Any] | None = None
    _opened: dict[str, Tensor] = field(default_factory=dict)

    def weight(self, name: str, like: Tensor) -> Tensor:
        """The weight of this name, of the shape of `like`."""
        if self._files is None:
            self._files = dict(self._named())
        file = self._files.get(name)
        if file is not None and list(file.get_slice(name).get_shape()) == list(like.shape):
            found: Tensor = file.get_tensor(name).to(self.dtype)
            return found
        if not self._opened:
            opened = open_model(self.model, self.dtype).model
            self._opened = dict(opened.named_parameters(remove_duplicate=False))
        return self._opened[name].detach()

    def _named(self) -> Iterator[tuple[str, Any]]:
        source = resolve(self.model)
        folder = folder_of(source)
        if folder is None or base_of(source) is not None:
            return
        for path in matching(folder, ["*.safetensors"]):
            file = safe_open(path, framework="pt")
            yield from ((name, file) for name in file.keys())  # type: ignore[no-untyped-call]  # noqa: SIM118


@dataclass(frozen=True)
class Adapted:
    """A linear layer under an adapter, and what the adapter adds to its weight."""

    name: str
    """Of its weight in the plain model."""
    weight: Tensor
    """As training held it; packed where it is quantized."""
    change: Tensor
    """float32"""


def adapted_layers(model: PeftModel, weights: dict[str, Tensor] | None) -> Iterator[Adapted]:
    """The linear layers under the adapter, one change at a time.

    Args:
        model: under one adapter.
        weights: by name, where the model itself holds but a shard of them.
    """
    held = weights or {name: weight.detach() for name, weight in model.named_parameters()}
    adapter = model.active_adapter
    for name, module in model.named_modules():
        low, high, base = (
            held.get(f"{name}.{part}")
            for part in (f"lora_A.{adapter}.weight", f"lora_B.{adapter}.weight", "base_layer.weight")
        )
        if low is None or high is None or base is None:
            continue
        change = (high.float() @ low.float()) * module.scaling[adapter]
        plain = f"{name.removeprefix(_PREFIX)}.weight".replace(_BASE, "")
        yield Adapted(plain, base, change.T if getattr(module, "fan_in_fan_out", False) else change)


def _sum(products: Tensor) -> float:
    return float(products.sum(dtype=torch.float64))


def base_name(model: str | Path) -> str:
    """What an adapter's training read its base from: the model, or the base of the adapter that it is."""
    source = resolve(str(model))
    return base_of(source) or source
