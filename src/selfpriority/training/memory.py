"""What a training keeps in memory for every parameter from its first step to its last, by its settings.

Activations are not counted: they depend on `tokens_per_batch` and the model's shape. Plain arithmetic; knows
neither models nor devices.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfpriority.recipe import Align

_FLOAT32, _BFLOAT16 = 4.0, 2.0
_MOMENTS = 2 * _FLOAT32  # of AdamW
_REST = 2.0  # what turns a bfloat16 weight into its float32 master
# 4 bits, and per 64 weights a scale of 8 bits, whose own scale and offset are shared by 256 of them
_NF4 = 0.5 + 1 / 64 + _FLOAT32 / (64 * 256)


@dataclass(frozen=True)
class Footprint:
    """Bytes per parameter."""

    weights: float
    """Of a trained parameter, its weight."""
    casts: float
    """Its copy in the type of the arithmetic, which lives from its forward to its backward pass."""
    gradients: float
    optimizer: float
    """Moments, and what completes a bfloat16 weight."""
    average: float
    """Moving average of the weights."""
    frozen: float
    """Of a parameter that is not trained: the linear layers under an adapter; 0 in full fine-tuning."""

    @property
    def trained(self) -> float:
        """All of a trained parameter."""
        return self.weights + self.casts + self.gradients + self.optimizer + self.average

    def total(self, n_trained: int, n_frozen: int = 0) -> float:
        """Bytes of a model with so many parameters of either kind."""
        return self.trained * n_trained + self.frozen * n_frozen


def footprint(settings: Align, in_bfloat16: bool) -> Footprint:
    """Bytes per parameter.

    Args:
        settings: `weights`, `lora` and `average` count here.
        in_bfloat16: the arithmetic, as `adapters.compute_dtype` finds it for settings and hardware.
    """
    average = _FLOAT32 if settings.average else 0.0
    casts = _BFLOAT16 if in_bfloat16 else 0.0
    if settings.lora is not None:
        base = _NF4 if settings.lora.quantize == "nf4" else _BFLOAT16 if in_bfloat16 else _FLOAT32
        return Footprint(_FLOAT32, casts, _FLOAT32, _MOMENTS, average, base)
    if settings.weights == "bfloat16":
        return Footprint(_BFLOAT16, 0.0, _BFLOAT16, _MOMENTS + _REST, average, 0.0)
    return Footprint(_FLOAT32, casts, _FLOAT32, _MOMENTS, average, 0.0)
