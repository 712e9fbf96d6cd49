"""Mean hidden states over spans of tokens: forward passes as deep as the deepest layer asked for.

Knows a transformers causal model and token ids; nothing of requests or heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selfpriority.backends.batches import passes
from selfpriority.backends.pulse import beat
from selfpriority.errors import InputError


class _DeepEnough(Exception):
    """Ends a forward pass after the last layer that is needed."""


@torch.inference_mode()
def span_means(
    model: Any, rows: Sequence[tuple[Sequence[int], Sequence[range]]], layers: Sequence[int], pad_id: int
) -> dict[int, Tensor]:
    """Mean over the tokens of each span at each layer.

    Args:
        model: a causal language model.
        rows: (token ids, positions of each span) each; every row has as many spans, none of them empty.
        layers: 0 is the embedding, L the output of the L-th block (before any final norm).
        pad_id: fills the rows up; what it is does not matter.

    Returns:
        layer -> [rows, spans, hidden size], float32, on CPU.

    Raises:
        InputError: a layer that the model does not have.
    """
    ids, mask = right_padded([tokens for tokens, _ in rows], pad_id, model.device)
    weights = torch.zeros(len(rows), len(rows[0][1]), ids.shape[1], device=model.device)
    for i, (_, spans) in enumerate(rows):
        for s, span in enumerate(spans):
            weights[i, s, span.start : span.stop] = 1 / len(span)
    modules = _modules(model)
    if layers[0] < 0 or layers[-1] >= len(modules):
        raise InputError(f"layer {layers[-1]}: this model has layers 0 to {len(modules) - 1}")
    parts = []
    lengths = [len(tokens) + 1 for tokens, _ in rows]
    for part in passes(lengths):
        n = max(lengths[part])
        parts.append(_pass_means(model, layers, ids[part, :n], mask[part, :n], weights[part, :, :n]))
        beat(part.stop, 0)
    return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}


def _pass_means(model: Any, layers: Sequence[int], ids: Tensor, mask: Tensor, weights: Tensor) -> dict[int, Tensor]:
    """Of some rows in one forward pass; `weights` [rows, spans, tokens] of the means."""
    modules = _modules(model)
    means: dict[int, Tensor] = {}

    def keep(layer: int, output: Any) -> None:
        states: Tensor = output[0] if isinstance(output, tuple) else output
        means[layer] = torch.einsum("bst,bth->bsh", weights, states.float()).cpu()
        if len(means) == len(layers):
            raise _DeepEnough

    hooks = [modules[n].register_forward_hook(lambda _, __, output, n=n: keep(n, output)) for n in layers]
    try:
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    except _DeepEnough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return means


def right_padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask [rows, longest + 1]; the extra column for the reason in `decoding`."""
    width = max(map(len, rows)) + 1
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids.to(device), mask.to(device)


def _modules(model: Any) -> list[nn.Module]:
    """The module whose output is layer 0, 1, ..."""
    n_blocks = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            return [model.get_input_embeddings(), *module]
    raise InputError(f"hidden states of {type(model).__name__} cannot be read: its blocks are not in one list")
