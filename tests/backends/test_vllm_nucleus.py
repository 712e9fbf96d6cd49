"""The nucleus that is found without a sort is the one that a sort finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selfpriority.backends.vllm_nucleus import LIKELIEST, ROWS_AT_ONCE, keep_nucleus


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


def of_spread(*spreads: float) -> Tensor:
    """Rows of logits from peaked (a large spread) to flat."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(spreads), 3000, generator=generator) * torch.tensor(spreads)[:, None]


PEAKED, BROAD, FLAT = 8.0, 1.0, 0.3


@pytest.mark.parametrize(
    "spreads",
    [(PEAKED,) * 4, (BROAD,) * 4, (FLAT,) * 4, (BROAD, PEAKED, FLAT) * (ROWS_AT_ONCE // 2)],
    ids=["peaked", "broad", "flat", "of all kinds, more than are looked at together"],
)
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
def test_the_same_tokens_stay_as_by_a_sort(spreads: tuple[float, ...], top_p: float) -> None:
    logits = of_spread(*spreads)
    kept = logits.clone()
    keep_nucleus(kept, torch.full((len(spreads),), top_p))
    for row, left in zip(logits, kept, strict=True):
        stay = set(left.isfinite().nonzero()[:, 0].tolist())
        assert stay == sorted_nucleus(row, top_p)
        assert torch.equal(left[sorted(stay)], row[sorted(stay)])


def test_the_rows_above_reach_each_way_of_looking() -> None:
    sizes = [len(sorted_nucleus(row, 0.9)) for row in of_spread(PEAKED, BROAD, FLAT)]
    assert 0 < sizes[0] < LIKELIEST[0] < sizes[1] < LIKELIEST[1] < sizes[2]


def test_every_row_has_a_nucleus_of_its_own_and_a_wide_one_keeps_all() -> None:
    kept = torch.tensor([[3.0, 2.0, 1.0, 0.0]]).repeat(3, 1)
    keep_nucleus(kept, torch.tensor([0.1, 0.8, 0.999]))
    assert kept.isfinite().sum(dim=1).tolist() == [1, 2, 4]
    assert kept[:, 0].tolist() == [3.0, 3.0, 3.0]
