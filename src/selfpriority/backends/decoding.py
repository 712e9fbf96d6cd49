"""Token ids in, token ids or next-token logits out, every prefix computed once.

Knows a transformers causal model; nothing of requests, chats or text.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from selfpriority.backends.batches import n_shared, passes, rows_at_once
from selfpriority.backends.kv_cache import Rows, growing_cache, is_growing, part_of, put_rows
from selfpriority.backends.pulse import beat
from selfpriority.errors import WorkFailed

_COMPACT_AT = 0.875  # share of rows still open under which the finished ones are dropped from the cache
_WORTH_SHARING = 16  # tokens that all prefixes begin with, from which on a pass of their own is cheaper
_WORTH_DRAWING = 64  # the same of prompts that are gone on from: behind fewer, draws stay as they were


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float
    """0 is greedy."""
    top_p: float
    max_new_tokens: int
    end_ids: frozenset[int]
    pad_id: int
    seed: int


@torch.inference_mode()
def generate(
    model: Any, prompts: Sequence[Sequence[int]], copies: Sequence[int], sampling: Sampling
) -> list[list[int]]:
    """Token ids of `copies[i]` continuations of every prompt, in order, the end token included if drawn.

    Every prompt is computed once, whatever its number of copies, and a long text that all begin with, such as a
    constitution, once for all of them. Finished rows leave the batch.

    Raises:
        WorkFailed: the model's next-token distribution is not finite.
    """
    start = _begun(model, prompts, sampling.pad_id, sampling.max_new_tokens, is_gone_on=True)
    cache, mask, logits = start.cache, start.mask, start.logits
    del start
    select = torch.arange(len(prompts)).repeat_interleave(torch.tensor(copies)).to(model.device)
    cache.batch_select_indices(select)
    logits, mask = logits[select], mask[select]

    generator = torch.Generator(device=model.device)
    generator.manual_seed(sampling.seed)
    drawn: list[list[int]] = [[] for _ in range(len(select))]
    n_tokens = 0
    rows = list(range(len(select)))  # which output each row of the tensors belongs to
    while True:
        tokens = _draw(logits, sampling, generator)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not _finished(drawn[row], sampling):
                drawn[row].append(token)
                n_tokens += 1
        still_open = [i for i, row in enumerate(rows) if not _finished(drawn[row], sampling)]
        beat(len(drawn) - len(still_open), n_tokens)
        if not still_open:
            return drawn
        if len(still_open) <= _COMPACT_AT * len(rows):
            rows = [rows[i] for i in still_open]
            keep = torch.tensor(still_open, device=model.device)
            cache.batch_select_indices(keep)
            tokens, mask = tokens[keep], mask[keep]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        logits = _next_logits(model, tokens[:, None], mask, cache)


@dataclass(frozen=True)
class _Start:
    """What rows begin with, computed."""

    cache: DynamicCache
    mask: Tensor
    """[prefixes, longest + 1]"""
    logits: Tensor
    """[prefixes, vocabulary] behind each of them"""


@torch.inference_mode()
def next_token_logits(
    model: Any,
    prefixes: Sequence[Sequence[int]],
    suffixes: Sequence[Sequence[Sequence[int]]],
    pad_id: int,
    endings: Sequence[Sequence[Sequence[int]]] | None = None,
    most: int | None = None,
) -> Tensor:
    """Logits after `prefixes[i] + suffix` for each suffix in `suffixes[i]`: [suffixes, vocabulary], float32.

    A prefix may be empty, a suffix not. Every prefix is computed once, and what they all begin with once for all of
    them. Where `endings[i]` holds some, each suffix's row is followed by one for each of them, which stands behind
    it and is no more than its own tokens of work.

    Args:
        model: a causal model.
        prefixes: token ids.
        suffixes: token ids, some for each prefix.
        pad_id: any token.
        endings: token ids, some or none for each prefix.
        most: tokens whose keys and values may be held at once; many suffixes of a single prefix are read in parts.
    """
    n_more = _longest(suffix for group in suffixes for suffix in group) + 1
    n_more += _longest(ending for group in endings or () for ending in group) + 1 if any(endings or ()) else 0
    start = None
    if any(prefixes):
        start = _begun(model, prefixes, pad_id, n_more)
    if most is not None and start is not None and len(prefixes) == 1:
        n_behind = max(1, len(endings[0])) if endings else 1
        n_rows = rows_at_once(len(suffixes[0]), n_behind * (start.mask.shape[1] + n_more), most)
        parts = [suffixes[0][first : first + n_rows] for first in range(0, len(suffixes[0]), n_rows)]
        if len(parts) > 1:
            read = [_behind(model, copy.deepcopy(start), [part], pad_id, endings) for part in parts]
            return torch.cat(read)
    return _behind(model, start, suffixes, pad_id, endings)


def _begun(model: Any, prefixes: Sequence[Sequence[int]], pad_id: int, n_more: int, is_gone_on: bool = False) -> _Start:
    """The prefixes computed, with room for `n_more` tokens behind each; what all begin with, once for all.

    `is_gone_on`: they are prompts, of which answers are yet to come; else they are answers, told as they are read.
    """
    n_once = n_shared(prefixes)
    is_worth = n_once >= (_WORTH_DRAWING if is_gone_on else _WORTH_SHARING)
    if is_worth and is_growing(cache := growing_cache(model.config, n_once + 1)):
        shared = _read(model, [prefixes[0][:n_once]], pad_id, cache, is_told=False)
        own = _left_padded([prefix[n_once:] for prefix in prefixes], pad_id, model.device)
        return _forked(model, shared, own, n_more, is_told=not is_gone_on)
    cache = growing_cache(model.config, _longest(prefixes) + 1 + n_more)
    return _read(model, prefixes, pad_id, cache, is_told=not is_gone_on)


def _read(model: Any, prefixes: Sequence[Sequence[int]], pad_id: int, cache: DynamicCache, is_told: bool) -> _Start:
    """The prefixes computed, in an empty cache."""
    ids, mask = _left_padded(prefixes, pad_id, model.device)
    return _Start(cache, mask, _first_logits(model, ids, mask, cache, is_told))


def _forked(model: Any, shared: _Start, own: tuple[Tensor, Tensor], n_more: int, is_told: bool) -> _Start:
    """Rows, ids and mask, computed behind what they all begin with, in passes over some of them each."""
    ids, own_mask = own
    mask = torch.cat([shared.mask.expand(len(ids), -1), own_mask], dim=1)
    whole = growing_cache(model.config, mask.shape[1] + n_more)

    def read(rows: slice) -> Tensor:
        branch = copy.deepcopy(shared.cache)
        branch.batch_select_indices(torch.zeros(rows.stop - rows.start, dtype=torch.long, device=model.device))
        logits = _next_logits(model, ids[rows], mask[rows], branch)
        put_rows(whole, branch, Rows(rows.start, len(ids), mask.shape[1]))
        return logits

    # a pass holds what all begin with once for each of its rows
    return _Start(whole, mask, _in_pieces(model, passes([mask.shape[1]] * len(mask)), read, is_told))


def _behind(
    model: Any,
    start: _Start | None,
    suffixes: Sequence[Sequence[Sequence[int]]],
    pad_id: int,
    endings: Sequence[Sequence[Sequence[int]]] | None,
) -> Tensor:
    """As `next_token_logits`, behind prefixes that were computed, whose cache is used up; None: there are none."""
    owner = torch.tensor([i for i, group in enumerate(suffixes) for _ in group], device=model.device)
    ids, mask = _left_padded([suffix for group in suffixes for suffix in group], pad_id, model.device)
    n_ending = max((len(ending) + 1 for group in endings or () for ending in group), default=0)
    if start is not None:
        cache = start.cache
        cache.batch_select_indices(owner)
        mask = torch.cat([start.mask[owner], mask], dim=1)
        logits = _next_logits(model, ids, mask, cache).float()
    else:
        cache = growing_cache(model.config, ids.shape[1] + n_ending)
        logits = _first_logits(model, ids, mask, cache).float()
    if endings is None or not n_ending:
        return logits
    behind = [(row, ending) for row, i in enumerate(owner.tolist()) for ending in endings[i]]
    rows = torch.tensor([row for row, _ in behind], device=model.device)
    ids, ending_mask = _left_padded([ending for _, ending in behind], pad_id, model.device)
    cache.batch_select_indices(rows)
    after = _next_logits(model, ids, torch.cat([mask[rows], ending_mask], dim=1), cache).float()
    order = torch.cat([torch.arange(len(owner), device=model.device), rows]).argsort(stable=True)
    return torch.cat([logits, after])[order]


def _longest(rows: Iterable[Sequence[int]]) -> int:
    return max(map(len, rows), default=0)


def _first_logits(model: Any, ids: Tensor, mask: Tensor, cache: DynamicCache, is_told: bool = False) -> Tensor:
    """As `_next_logits` of an empty cache, in passes over some rows each where the cache can be filled so.

    A pass leaves out the padding that stands before all of its rows, but for the column that `_left_padded` adds.
    """
    n_rows, width = ids.shape
    lengths = [length + 1 for length in mask.sum(dim=1).tolist()]
    pieces = passes(lengths)
    if len(pieces) == 1 or not is_growing(cache):
        return _next_logits(model, ids, mask, cache)

    def read(rows: slice) -> Tensor:
        front = width - max(lengths[rows])
        part = part_of(cache, Rows(rows.start, n_rows, width))
        assert part is not None
        return _next_logits(model, ids[rows, front:], mask[rows, front:], part)

    return _in_pieces(model, pieces, read, is_told)


def _in_pieces(model: Any, pieces: Sequence[slice], read: Callable[[slice], Tensor], is_told: bool) -> Tensor:
    """Logits behind all rows, of which `read` makes some at a time.

    `is_told`: each is an answer that is read for what stands behind it, and told; no draw hangs on its own logits.
    """
    head, states = model.get_output_embeddings(), []
    handle = head.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    try:
        logits = []
        for rows in pieces:
            logits.append(read(rows))
            if is_told:
                beat(rows.stop, 0)
    finally:
        handle.remove()
    by_piece = torch.cat(logits)
    if len(pieces) == 1 or is_told:
        return by_piece
    # few rows are multiplied in another order than many, and no draw may depend on how the prompts were cut
    at_once: Tensor = head(torch.cat(states))[:, -1].to(by_piece.dtype)  # a model in training may put out float32
    # of a model that does more after its head than others, what it says itself counts
    return at_once if torch.allclose(at_once, by_piece, rtol=1e-2, atol=1e-2) else by_piece


def _next_logits(model: Any, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
    """Logits [rows, vocabulary] after the last of the new `ids`; `mask` also covers those in the cache."""
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: Tensor = output.logits[:, -1]
    return logits


def _left_padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask [rows, longest + 1].

    The extra column keeps the mask from being all ones: on CPU, attention with a mask is up to twice as fast
    for grouped-query models as without (torch 2.13, transformers 5.23).
    """
    width = max(map(len, rows)) + 1
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        if row:
            ids[i, -len(row) :] = torch.tensor(row)
            mask[i, -len(row) :] = 1
    return ids.to(device), mask.to(device)


def _finished(drawn: list[int], sampling: Sampling) -> bool:
    return bool(drawn) and (drawn[-1] in sampling.end_ids or len(drawn) >= sampling.max_new_tokens)


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One token [rows] per row of `logits` [rows, vocabulary], from the nucleus that holds `top_p`.

    Draws from the whole distribution and rejects what lies outside the nucleus: the same distribution as by
    sorting the vocabulary, at a twentieth of the time. A token is inside if those more probable hold less
    than `top_p`; a rejected one takes all less probable ones with it, so a small `top_p` needs few draws too.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    rows = torch.arange(len(logits), device=logits.device)
    while len(rows):
        cumulative = probabilities.cumsum(dim=-1)
        total = cumulative[:, -1:]
        if not bool((total > 0).all()):
            raise WorkFailed("the model's next-token distribution is not finite; try backend.dtype: float32")
        at = torch.rand(len(rows), 1, generator=generator, device=logits.device) * total
        drawn = torch.searchsorted(cumulative, at, right=True).clamp_(max=logits.shape[1] - 1)
        probability = probabilities.gather(1, drawn)
        above = torch.where(probabilities > probability, probabilities, 0).sum(dim=-1, keepdim=True)
        inside = ((above < sampling.top_p) & (probability > 0))[:, 0]
        tokens[rows[inside]] = drawn[inside, 0]
        rows, probabilities = rows[~inside], probabilities[~inside]
        probabilities = torch.where(probabilities > probability[~inside], probabilities, 0)
    return tokens
