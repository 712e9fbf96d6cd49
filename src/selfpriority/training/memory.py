"""What a training keeps in memory: for every parameter from its first step to its last, and for every token of a batch.

Plain arithmetic on settings and a model's shape; knows neither models nor devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder of Llama's kind: what a token becomes on its way through."""

    layers: int
    hidden: int
    query: int
    """Of all query heads together."""
    key_value: int
    """Of all key heads together; values are alike."""
    inner: int
    """Of the gated MLP."""
    vocabulary: int


def shape_of(config: Any) -> Shape:
    """Sizes in a configuration as transformers names them."""
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    n_key_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return Shape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        query=text.num_attention_heads * head,
        key_value=n_key_heads * head,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
    )


def activations(shape: Shape, n_tokens: int, settings: Align, in_bfloat16: bool) -> float:
    """Bytes kept from the forward for the backward pass over `n_tokens` distinct tokens; an estimate.

    Per token and layer, h, q, k, m being hidden, query, key and inner size and b the bytes of the arithmetic:

    - attention keeps its queries, its result twice (in rows of responses and packed), keys and values: b (3 q + 2 k)
    - the MLP keeps gate, its activation, up and their product: b * 4 m
    - each of the two norms keeps input and normalised input, and its result is the input of linear layers: 24 h in
      float32. Under autocast each of these five linear layers keeps a copy of its own: 16 h + 10 h. With bfloat16
      weights it is the norm's float32 copy and twice two bytes: 16 h
    - an adapter keeps its layer's input, which is kept already

    The end of the model adds the last norm, and logits where `training/head.py` keeps them. With
    `gradient_checkpointing` every layer keeps its input alone, and one at a time all of the above.
    """
    from selfpriority.training.head import KEPT_BYTES  # imports torch, which arithmetic does not need

    h, q, k, m = shape.hidden, shape.query, shape.key_value, shape.inner
    arithmetic = _BFLOAT16 if in_bfloat16 else _FLOAT32
    has_low_weights = in_bfloat16 and (settings.lora is not None or settings.weights == "bfloat16")
    norms = 24 * h if not in_bfloat16 else 16 * h if has_low_weights else 26 * h
    layer = norms + arithmetic * (3 * q + 2 * k + 4 * m)
    stream = h * (_BFLOAT16 if has_low_weights else _FLOAT32)
    of_layers = shape.layers * stream + layer if settings.gradient_checkpointing else shape.layers * layer
    logits = n_tokens * shape.vocabulary * _FLOAT32
    return n_tokens * (of_layers + 3 * stream) + min(logits, KEPT_BYTES)


def passing(shape: Shape, n_tokens: int, settings: Align) -> float:
    """Bytes that the end of the model needs for a moment, beside the activations; an estimate.

    Slices of the logits and their exponentials, and in full fine-tuning a new gradient of the output head or of the
    embedding, the two largest matrices, before it is added to what there is. Where they are tied and several processes
    train, autograd makes both before it adds them (`training/tied_embeddings.py`).
    """
    from selfpriority.training.head import SLICE_BYTES

    slices = 2 * min(n_tokens * shape.vocabulary * _FLOAT32, SLICE_BYTES)
    if settings.lora is not None:
        return slices
    n_matrices = 1 if settings.n_together == 1 else 2
    return slices + n_matrices * shape.vocabulary * shape.hidden * footprint(settings, in_bfloat16=True).gradients
