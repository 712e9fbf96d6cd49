"""Attention over pools that lie in one packed row: prompts see themselves, a response its prompt and itself.

Replaces a model's own attention through transformers' attention interface while pools are computed. Every layer's
weights then meet each distinct token once and no padding, and attention costs what the separate sequences cost:
no [row, row] mask exists. Knows keys, queries and where segments lie; nothing of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from selfpriority.training.explicit_attention import attention

NAME = "selfpriority_pools"
_CHANGES_SCORES = ("softcap", "position_bias", "s_aux", "sinks")  # what some models add and this does not compute


@dataclass(frozen=True)
class Segments:
    """Where P prompts and R responses lie in a packed row of N tokens, each padded to the longest of its kind."""

    prompts: Tensor
    """[P, longest prompt] places in the row."""
    responses: Tensor
    """[R, longest response] places in the row."""
    owners: Tensor
    """[R] index of a response's prompt."""
    prompt_mask: Tensor
    """[1, 1, longest prompt, longest prompt], True where a query sees a key."""
    response_mask: Tensor
    """[R or 1, 1, longest response, longest prompt + longest response]; 1 where all prompts are equally long."""
    back: Tensor
    """[N] place of every token of the row among the padded prompts, then the padded responses."""

    def to(self, device: torch.device) -> Segments:
        """The same on another device."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def segments_of(pools: Sequence[tuple[int, Sequence[int]]]) -> Segments:
    """Segments of a row that holds, pool after pool, a prompt and its responses.

    Args:
        pools: (tokens of the prompt, tokens of each response), all positive.
    """
    prompt_lengths = torch.tensor([n for n, _ in pools])
    lengths = torch.tensor([n for _, responses in pools for n in responses])
    owners = torch.arange(len(pools)).repeat_interleave(torch.tensor([len(responses) for _, responses in pools]))
    starts, prompt_starts, end = [], [], 0
    for n_prompt, responses in pools:
        prompt_starts.append(end)
        end += n_prompt
        for n in responses:
            starts.append(end)
            end += n
    prompts, in_prompt = _places(torch.tensor(prompt_starts), prompt_lengths)
    answers, in_answer = _places(torch.tensor(starts), lengths)
    own = torch.ones(answers.shape[1], answers.shape[1], dtype=torch.bool).tril()
    if bool(in_prompt.all()):
        seen = torch.ones(1, 1, answers.shape[1], prompts.shape[1], dtype=torch.bool)
    else:
        seen = in_prompt[owners][:, None, None].expand(-1, 1, answers.shape[1], -1)
    back = torch.empty(end, dtype=torch.long)
    back[torch.cat([prompts[in_prompt], answers[in_answer]])] = torch.cat(
        [in_prompt.flatten(), in_answer.flatten()]
    ).nonzero()[:, 0]
    return Segments(
        prompts,
        answers,
        owners,
        prompt_mask=torch.ones(prompts.shape[1], prompts.shape[1], dtype=torch.bool).tril()[None, None],
        response_mask=torch.cat([seen, own.expand(len(seen), 1, -1, -1)], dim=3),
        back=back,
    )


@contextmanager
def attending(model: Any) -> Iterator[None]:
    """Runs `model` with this attention, which expects `segments` among the arguments of its forward pass."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def pool_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **given: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row.

    Args:
        module: the model's attention layer, unused.
        query: [1, query heads, N, head size]
        key: [1, heads, N, head size]
        value: [1, heads, N, value size]
        attention_mask: none is made for this attention.
        given: `segments`, what lies where; `scaling` of the scores, without which it is 1 / sqrt(head size);
            `dropout` of the attention weights; and what else a model gives its attention.

    Returns:
        [1, N, query heads, value size], and no weights.

    Raises:
        ValueError: the model does not hand `segments` on, or changes scores in a way that is not computed here.
    """
    segments: Segments | None = given.get("segments")
    if segments is None or any(given.get(name) is not None for name in _CHANGES_SCORES):
        raise ValueError("this model's attention cannot run over packed pools")
    n_heads = key.shape[1]
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))  # [N, heads, size]

    def attend(at: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        # the query heads that share a key head are stacked as further queries, so keys are not copied for each
        rows, length = at.shape
        folded = q[at].view(rows, length, n_heads, -1, q.shape[2]).permute(0, 2, 3, 1, 4).flatten(2, 3)
        groups = folded.shape[2] // length
        out = attention(
            folded,
            keys.transpose(1, 2),
            values.transpose(1, 2),
            mask.repeat(1, 1, groups, 1),
            given.get("scaling"),
            given.get("dropout", 0.0),
        )  # [rows, heads, groups * length, value size]
        apart = out.view(rows, n_heads, groups, length, -1).permute(0, 3, 1, 2, 4)
        return apart.reshape(rows * length, n_heads * groups, -1)

    of_prompts, of_values = k[segments.prompts], v[segments.prompts]  # [P, longest prompt, heads, size]
    own, owned = k[segments.responses], v[segments.responses]
    both = torch.cat([of_prompts[segments.owners], own], dim=1), torch.cat([of_values[segments.owners], owned], dim=1)
    prompts = attend(segments.prompts, of_prompts, of_values, segments.prompt_mask)
    responses = attend(segments.responses, *both, segments.response_mask)
    return torch.cat([prompts, responses])[segments.back][None], None


def _places(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Places [rows, longest] of segments, and which of them hold a token; the rest points at the segment's start."""
    offsets = torch.arange(int(lengths.max()))
    holds = offsets < lengths[:, None]
    return starts[:, None] + torch.where(holds, offsets, 0), holds


AttentionInterface.register(NAME, pool_attention)
