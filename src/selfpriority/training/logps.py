"""Mean log-probability of every response of some pools, end token included, with gradients.

Two forms of one computation. *Packed*: all pools lie in one row without padding, each prompt once and its responses
after it, positions restarting behind the prompt and `attention` keeping them apart. *Plain*: a row per response.
`choose_form` asks the model itself which it computes correctly. Knows neither pairs nor losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from selfpriority.training.attention import attending, segments_of
from selfpriority.training.encode import EncodedPool
from selfpriority.training.explicit_attention import as_torch_does
from selfpriority.training.head import token_logps
from selfpriority.training.tied_embeddings import Tie, tied_lookup

_HEAD_CHUNK = 256  # positions whose logits exist at once
_TOLERANCE = {torch.float32: 1e-4}
_LOW_PRECISION_TOLERANCE = 5e-2
# how an architecture refuses a form it does not know is its own choice
_REFUSALS = (TypeError, ValueError, RuntimeError, IndexError, AttributeError)


@dataclass(frozen=True)
class Form:
    """How a model is run."""

    shares_prompt: bool
    """All pools packed in one row, or a row per response."""
    chunks_head: bool
    """The output head applied in chunks, or the model's own logits (which some models post-process)."""


@dataclass(frozen=True)
class _Layout:
    """A micro-batch as tensors; N response tokens of R responses."""

    inputs: dict[str, Any]
    rows: Tensor
    """[N] row of the position that predicts each response token."""
    columns: Tensor
    """[N] column of that position."""
    targets: Tensor
    """[N] token ids."""
    owners: Tensor
    """[N] index of the response a token belongs to."""
    lengths: Tensor
    """[R] tokens of each response."""


def response_logps(model: nn.Module, pools: Sequence[EncodedPool], form: Form, by_token: bool = False) -> Tensor:
    """mean_t log pi(y_t | x, y_<t) of every response, pool after pool: [R], float32 or better.

    Args:
        model: a causal language model, or a `PeftModel` of one.
        pools: where their tokens weigh, it is [R, 2], the mean_t w_t log pi(y_t | x, y_<t) in the second column.
        form: how the model is run.
        by_token: log pi(y_t | x, y_<t) of every token of every response instead: [N].
    """
    causal_lm: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    layout = _packed(pools) if form.shares_prompt else _plain(pools)
    layout = _to(layout, next(model.parameters()).device)
    with attending(model) if form.shares_prompt else nullcontext():
        if form.chunks_head:
            with tied_lookup(causal_lm) as tie:
                hidden = causal_lm.base_model(**layout.inputs, use_cache=False).last_hidden_state  # [B, L, hidden]
            predicting = hidden[layout.rows, layout.columns]
            logps = _chunked(causal_lm.get_output_embeddings(), predicting, layout.targets, tie)
        else:
            logits = causal_lm(**layout.inputs, use_cache=False).logits  # [B, L, vocabulary]
            logps = _token_logps(logits[layout.rows, layout.columns], layout.targets)
    if by_token:
        return logps
    plain = _means(logps, layout)
    weights = [weight for pool in pools for response in pool.token_weights for weight in response]
    if not weights:
        return plain
    return torch.stack([plain, _means(logps * torch.tensor(weights).to(logps), layout)], dim=1)


def _means(logps: Tensor, layout: _Layout) -> Tensor:
    """Of every response over its tokens: [N] -> [R]."""
    sums = torch.zeros(len(layout.lengths), dtype=logps.dtype, device=logps.device).index_add(0, layout.owners, logps)
    return sums / layout.lengths


def choose_form(model: nn.Module, longest: int) -> Form:
    """The fastest form that agrees with the model's own logits on a toy pool.

    Args:
        model: a causal language model, or a `PeftModel` of one.
        longest: tokens of the longest prompt plus response; a sliding window shorter than that needs the
            plain form, with the model's own attention.
    """
    toy = [EncodedPool("", (5, 6, 7, 8), ((9, 10, 11), (12, 13)), ((0, 1),), (1.0,), (1.0, 0.0))]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        own = response_logps(model, toy, Form(False, False))
    tolerance = _TOLERANCE.get(next(model.parameters()).dtype, _LOW_PRECISION_TOLERANCE)

    def agrees(form: Form) -> bool:
        try:
            with torch.no_grad(), as_torch_does():  # what kept weights round otherwise decides nothing here
                logps = response_logps(model, toy, form)
        except _REFUSALS:
            return False
        return torch.allclose(logps, own, atol=tolerance, rtol=0)

    chunks_head = agrees(Form(False, True))
    shares_prompt = _sees_all(model, longest) and agrees(Form(True, chunks_head))
    model.train(was_training)
    return Form(shares_prompt, chunks_head)


def _sees_all(model: Any, longest: int) -> bool:
    config = model.config.get_text_config()
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return all(window is None or window >= longest for window in windows)


def _packed(pools: Sequence[EncodedPool]) -> _Layout:
    ids: list[int] = []
    positions: list[int] = []
    columns: list[int] = []
    for pool in pools:
        n_prompt = len(pool.prompt_ids)
        last = len(ids) + n_prompt - 1  # of the prompt; it predicts the first token of every response
        ids += pool.prompt_ids
        positions += range(n_prompt)
        for response in pool.response_ids:
            columns += [last, *range(len(ids), len(ids) + len(response) - 1)]
            positions += range(n_prompt, n_prompt + len(response))
            ids += response
    inputs = {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "segments": segments_of([(len(pool.prompt_ids), list(map(len, pool.response_ids))) for pool in pools]),
    }
    return _layout(inputs, [0] * len(columns), columns, pools)


def _plain(pools: Sequence[EncodedPool]) -> _Layout:
    sequences = [(pool.prompt_ids, response) for pool in pools for response in pool.response_ids]
    rows = [row for row, (_, response) in enumerate(sequences) for _ in response]
    columns = [len(prompt) - 1 + t for prompt, response in sequences for t in range(len(response))]
    ids = [torch.tensor(prompt + response) for prompt, response in sequences]
    inputs = {
        "input_ids": pad_sequence(ids, batch_first=True),
        # from lengths, not from a pad id: where pad is the end token that would hide the real one
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
    }
    return _layout(inputs, rows, columns, pools)


def _layout(inputs: dict[str, Any], rows: list[int], columns: list[int], pools: Sequence[EncodedPool]) -> _Layout:
    responses = [response for pool in pools for response in pool.response_ids]
    lengths = torch.tensor([len(response) for response in responses])
    return _Layout(
        inputs,
        torch.tensor(rows),
        torch.tensor(columns),
        targets=torch.tensor(list(chain.from_iterable(responses))),
        owners=torch.arange(len(responses)).repeat_interleave(lengths),
        lengths=lengths,
    )


def _to(layout: _Layout, device: torch.device) -> _Layout:
    inputs = {name: given.to(device) for name, given in layout.inputs.items()}
    tensors = (layout.rows, layout.columns, layout.targets, layout.owners, layout.lengths)
    return _Layout(inputs, *(tensor.to(device) for tensor in tensors))


def _chunked(head: nn.Module, predicting: Tensor, targets: Tensor, tie: Tie | None) -> Tensor:
    """[N, hidden], [N] -> [N] log-probabilities without the logits of all at once.

    A plain matrix goes the fast way; whatever else a head may be (with a bias, an adapter, quantized, spread over
    devices or processes) is run as it is, and a chunk's logits are computed again for its gradient. Either way is one
    call of the head: an engine that shards weights gathers them when a module is called and frees them behind its
    gradient, which must come once, after the last chunk's.
    """
    weight = head.weight if type(head) is nn.Linear and head.bias is None else None
    matrix = weight if weight is not None and _is_whole(weight) else None

    def all_tokens(forward: Callable[[Tensor], Tensor], predicting: Tensor) -> Tensor:
        def one(hidden: Tensor, targets: Tensor) -> Tensor:
            return _token_logps(forward(hidden), targets)

        if matrix is not None:
            return token_logps(predicting, matrix, targets, tie)
        chunks = zip(torch.split(predicting, _HEAD_CHUNK), torch.split(targets, _HEAD_CHUNK), strict=True)
        return torch.cat([checkpoint(one, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks])

    return called_as(head, all_tokens, predicting)


def _is_whole(weight: Tensor) -> bool:
    """Whether it is the matrix itself, not a shard of FSDP2's nor another wrapper's."""
    return weight.dim() == 2 and not isinstance(weight, DTensor)


def called_as(
    module: nn.Module, compute: Callable[..., Tensor], *inputs: Tensor, wrapper: nn.Module | None = None
) -> Tensor:
    """`compute(forward, *inputs)` as if it were the forward pass of `module`, so that hooks see one call of it.

    Args:
        module: its own `forward` is put aside for this call, and handed to `compute`.
        compute: what is done instead.
        inputs: what hooks see go in.
        wrapper: called instead of the module; it calls the module in turn.
    """
    forward: Callable[..., Any] = module.forward
    before = vars(module).get("forward")

    def restore() -> None:
        vars(module).pop("forward", None)
        if before is not None:
            vars(module)["forward"] = before

    def redirected(*given: Tensor) -> Tensor:
        restore()
        return compute(forward, *given)

    vars(module)["forward"] = redirected
    try:
        result: Tensor = (wrapper or module)(*inputs)
    finally:
        restore()
    return result


def _token_logps(logits: Tensor, targets: Tensor) -> Tensor:
    precise = torch.promote_types(logits.dtype, torch.float32)
    return -cross_entropy(logits.to(precise), targets, reduction="none")
