"""Nucleus sampling of the process that vLLM runs in, where it computes on a CPU.

vLLM sorts the whole vocabulary there for every token. The nucleus nearly always lies within the likeliest tokens, which
are found without a sort; where it does not, more are looked at, and in the end the row is sorted. The same tokens stay.
Like `vllm_process.py` it runs under an interpreter of its own: of this package it imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

LIKELIEST = (256, 2048)
"""Tokens among which the nucleus is looked for: first few, then more for rows in which these hold too little."""
ROWS_AT_ONCE = 32
"""Logits of so many rows stay in a processor's cache from one operation to the next."""
NAME = "nucleus"
"""Of the argument by which a question says how much of the probability its nucleus holds."""


def keep_nucleus(logits: Tensor, top_p: Tensor) -> None:
    """Puts minus infinity at all outside each row's nucleus: the fewest likeliest tokens that hold `top_p`.

    Args:
        logits: [rows, vocabulary], after temperature; changed in place.
        top_p: [rows], above 0 and below 1.
    """
    for start in range(0, len(logits), ROWS_AT_ONCE):
        rows = logits[start : start + ROWS_AT_ONCE]
        found = list(_nuclei(rows, top_p[start : start + ROWS_AT_ONCE]))
        rows.fill_(-torch.inf)
        for places, ids, values in found:
            rows[places, ids] = values


def _nuclei(logits: Tensor, top_p: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(rows [n, 1], tokens, their logits) [n, k], minus infinity at those outside; every row once."""
    n_rows, vocabulary = logits.shape
    total = logits.logsumexp(dim=-1, keepdim=True)
    rows = torch.arange(n_rows)
    for k in (*(k for k in LIKELIEST if k < vocabulary), vocabulary):
        left = logits if len(rows) == n_rows else logits[rows]
        values, ids = left.topk(k) if k < vocabulary else left.sort(descending=True)
        held, before = _held(values, total[rows])
        whole = held >= top_p[rows] if k < vocabulary else torch.ones_like(held, dtype=torch.bool)
        inside = values.masked_fill(before >= top_p[rows][:, None], -torch.inf)
        yield rows[whole][:, None], ids[whole], inside[whole]
        rows = rows[~whole]
        if not len(rows):
            return


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
                top_p = torch.tensor([self._asked[row] for row in rows])
                if len(rows) == len(logits):
                    keep_nucleus(logits, top_p)
                else:
                    some = logits[rows]
                    keep_nucleus(some, top_p)
                    logits[rows] = some
            return logits

    return Nucleus
