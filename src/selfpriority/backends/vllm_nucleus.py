"""Nucleus sampling of the process that vLLM runs in, where it computes on a CPU.

vLLM sorts the whole vocabulary there for every token. The nucleus nearly always lies within the likeliest tokens, which
are found without a sort; where it does not, that row is sorted. The same tokens stay. Like `vllm_process.py` it runs
under an interpreter of its own: of this package it imports nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LIKELIEST = 256
"""Tokens among which the nucleus is looked for."""
NAME = "nucleus"
"""Of the argument by which a question says how much of the probability its nucleus holds."""


def keep_nucleus(logits: Tensor, top_p: Tensor) -> Tensor:
    """Logits with minus infinity for all outside each row's nucleus: the fewest likeliest tokens that hold `top_p`.

    Args:
        logits: [rows, vocabulary], after temperature.
        top_p: [rows], above 0 and below 1.
    """
    total = logits.logsumexp(dim=-1, keepdim=True)
    values, ids = logits.topk(min(LIKELIEST, logits.shape[-1]), dim=-1)
    held, before = _held(values, total)
    kept = torch.full_like(logits, -torch.inf)
    kept.scatter_(1, ids, values.masked_fill(before >= top_p[:, None], -torch.inf))
    for row in (held < top_p).nonzero()[:, 0].tolist():  # flat as at a high temperature: rare
        values, ids = logits[row].sort(descending=True)
        _, before = _held(values, total[row])
        kept[row].scatter_(0, ids, values.masked_fill(before >= top_p[row], -torch.inf))
    return kept


def _held(values: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """What falling logits hold of the probability together, and what those before each hold."""
    chances = (values - total).exp()
    up_to = chances.cumsum(dim=-1)
    return up_to[..., -1], up_to - chances


def processor() -> type[Any]:
    """The class that vLLM makes one of, to be named in `logits_processors`.

    Raises:
        ImportError: this vLLM has no such interface.
    """
    from vllm.v1.sample.logits_processor import LogitsProcessor
    from vllm.v1.sample.logits_processor.builtin import process_dict_updates

    class Nucleus(LogitsProcessor):  # type: ignore[misc]
        """Looks for the nucleus of rows that ask for one."""

        def __init__(self, *_: Any) -> None:
            self._asked: dict[int, float] = {}
            """Row of the batch -> its top_p."""

        def is_argmax_invariant(self) -> bool:
            return True  # so it is applied after temperature, and never to greedy rows

        def update_state(self, batch_update: Any) -> None:
            process_dict_updates(self._asked, batch_update, lambda params, *_: (params.extra_args or {}).get(NAME))

        def apply(self, logits: Tensor) -> Tensor:
            if self._asked:
                rows = sorted(self._asked)
                logits[rows] = keep_nucleus(logits[rows], torch.tensor([self._asked[row] for row in rows]))
            return logits

    return Nucleus
