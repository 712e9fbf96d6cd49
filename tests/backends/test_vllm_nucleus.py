"""The nucleus that is found without a sort is the one that a sort finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selfpriority.backends.vllm_nucleus import LIKELIEST, keep_nucleus


def sorted_nucleus(row: Tensor, top_p: float) -> set[int]:
    """Tokens by falling probability until they hold top_p."""
    chances = row.double().softmax(dim=-1)
    found: set[int] = set()
    held = 0.0
    for token in chances.argsort(descending=True).tolist():
        if held >= top_p:
            break
        found.add(token)
        held += float(chances[token])
    return found


@pytest.mark.parametrize("spread", [8.0, 2.0, 0.3], ids=["peaked", "broad", "flat"])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
def test_the_same_tokens_stay_as_by_a_sort(spread: float, top_p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3000, generator=generator) * spread
    kept = keep_nucleus(logits, torch.full((4,), top_p))
    for row, left in zip(logits, kept, strict=True):
        stay = set(left.isfinite().nonzero()[:, 0].tolist())
        assert stay == sorted_nucleus(row, top_p)
        assert torch.equal(left[sorted(stay)], row[sorted(stay)])


def test_the_flat_rows_reach_beyond_the_likeliest_tokens() -> None:
    """Or the case above tests no fall-back."""
    generator = torch.Generator().manual_seed(0)
    assert len(sorted_nucleus(torch.randn(3000, generator=generator) * 0.3, 0.9)) > LIKELIEST


def test_every_row_has_a_nucleus_of_its_own_and_a_wide_one_keeps_all() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]]).repeat(3, 1)
    kept = keep_nucleus(logits, torch.tensor([0.1, 0.8, 0.999]))
    assert kept.isfinite().sum(dim=1).tolist() == [1, 2, 4]
    assert kept[:, 0].tolist() == [3.0, 3.0, 3.0]
