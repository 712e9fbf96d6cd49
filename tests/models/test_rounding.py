"""float32 to bfloat16 by draws: right on average, exact where it can be, the same every time."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from selfpriority.models import rounding
from selfpriority.models.rounding import rounded, to_bfloat16


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_weight_goes_up_as_often_as_it_is_near(sign):
    """Around 1 a bfloat16's last place is 2^-7 above and 2^-8 below."""
    for value, low, high, share in [(1 + 2**-9, 1.0, 1 + 2**-7, 0.25), (1 - 3 * 2**-10, 1 - 2**-8, 1.0, 0.25)]:
        drawn = (sign * rounded(torch.full((40_000,), sign * value), "w")).float()
        assert set(drawn.tolist()) == {low, high}
        assert (drawn == high).float().mean().item() == pytest.approx(share, abs=0.01)


def test_what_bfloat16_can_hold_stays_as_it_is():
    weights = torch.tensor([[0.0, -0.0, 1.0], [-3.5, 2.0**-133, 3.3895e38]]).to(torch.bfloat16).float()
    odd = torch.tensor([float("inf"), -float("inf"), float("nan"), torch.finfo(torch.float32).max])
    assert torch.equal(rounded(weights, "w").float(), weights)
    assert str(rounded(odd, "w").tolist()) == "[inf, -inf, nan, inf]"


def test_draws_are_those_of_the_name_however_the_weight_is_cut(monkeypatch):
    weight = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    whole = rounded(weight, "a")
    assert whole.shape == weight.shape
    assert torch.equal(whole, rounded(weight, "a"))
    assert not torch.equal(whole, rounded(weight, "b"))
    assert torch.equal(rounded(weight.T.contiguous().T, "a"), whole)
    monkeypatch.setattr(rounding, "CHUNK", 8)
    assert (rounded(weight, "a").float() - weight).abs().max() < 2**-6


def test_a_model_becomes_bfloat16_and_its_tied_weights_stay_one(tiny_model):
    llama = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    llama.lm_head.weight = llama.model.embed_tokens.weight
    low = to_bfloat16(llama)
    assert {tensor.dtype for tensor in [*low.parameters(), *low.buffers()]} == {torch.bfloat16}
    assert low.lm_head.weight is low.model.embed_tokens.weight
