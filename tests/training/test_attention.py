"""Attention over packed pools against attention of every sequence on its own."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from selfpriority.training import explicit_attention
from selfpriority.training.attention import attending, pool_attention, segments_of

POOLS = [(3, [2, 5]), (6, [1, 4, 4]), (1, [3])]
EQUAL = [(3, [2, 5]), (3, [1])]


def separate(query, key, value, pools):
    """Causal attention of every prompt and of every prompt with one response, put back into the row."""
    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    out = torch.empty(query.shape[2], query.shape[1], value.shape[3], dtype=query.dtype)

    def attend(places):
        q, k, v = (states[:, :, places] for states in (query, key, value))
        return scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)

    start = 0
    for n_prompt, responses in pools:
        prompt = [*range(start, start + n_prompt)]
        out[prompt] = attend(prompt)
        start += n_prompt
        for n in responses:
            own = [*range(start, start + n)]
            out[own] = attend(prompt + own)[n_prompt:]
            start += n
    return out[None]


@pytest.mark.parametrize("pools", [POOLS, EQUAL, POOLS[:1]], ids=["unequal", "equal prompts", "one pool"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_equals_attention_of_separate_sequences(pools, heads):
    n_tokens = sum(n + sum(responses) for n, responses in pools)
    torch.manual_seed(0)
    query = torch.randn(1, 4, n_tokens, 8, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(1, heads, n_tokens, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    out, weights = pool_attention(torch.nn.Identity(), query, key, value, None, segments=segments_of(pools))
    wanted = separate(query, key, value, pools)
    torch.testing.assert_close(out, wanted, atol=1e-12, rtol=0)
    assert weights is None
    got = torch.autograd.grad(out.square().sum(), [query, key, value])
    for gradient, want in zip(got, torch.autograd.grad(wanted.square().sum(), [query, key, value]), strict=True):
        torch.testing.assert_close(gradient, want, atol=1e-10, rtol=0)


@pytest.mark.parametrize("given", [{}, {"softcap": 20.0}, {"position_bias": torch.zeros(1)}])
def test_refuses_what_it_would_compute_wrongly(given):
    states = torch.zeros(1, 1, 2, 4)
    segments = {"segments": segments_of([(1, [1])])} if given else {}
    with pytest.raises(ValueError, match="packed pools"):
        pool_attention(torch.nn.Identity(), states, states, states, None, **segments, **given)


def test_the_models_own_attention_comes_back(llama):
    before = llama.config._attn_implementation
    with attending(llama):
        assert llama.config._attn_implementation != before
    assert llama.config._attn_implementation == before


def exact(query, key, value, mask, scale=None):
    """Of the same numbers in double precision: the result and the gradients of the sum of its squares."""
    states = [part.detach().double().requires_grad_() for part in (query, key, value)]
    out = scaled_dot_product_attention(*states, attn_mask=mask, scale=scale)
    return out, torch.autograd.grad(out.square().sum(), states)


def apart(one, other):
    """Relative to the length of the other."""
    return float((one.detach().double() - other.detach()).norm() / other.detach().norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "under autocast"])
def test_kept_weights_give_what_torch_gives_within_bfloat16(monkeypatch, dtype):
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, n, 16).to(dtype).requires_grad_() for n in (12, 9, 9))
    mask = torch.ones(12, 9, dtype=torch.bool).tril()[None, None]
    wanted, slopes = exact(query, key, value, mask)
    told = []
    kept = explicit_attention._Kept.apply
    monkeypatch.setattr(explicit_attention._Kept, "apply", lambda *given: told.append(given) or kept(*given))
    with torch.autocast("cpu", torch.bfloat16):
        out = explicit_attention.attention(query, key, value, mask, None, 0.0)
    assert len(told) == 1
    assert out.dtype is torch.bfloat16
    assert apart(out, wanted) < 0.01
    for gradient, slope in zip(
        torch.autograd.grad(out.float().square().sum(), [query, key, value]), slopes, strict=True
    ):
        assert gradient.dtype is dtype
        assert apart(gradient, slope) < 0.015


def test_weights_are_kept_where_they_are_few_and_nothing_is_exact(monkeypatch):
    few = torch.zeros(1, 1, 4, 8, dtype=torch.bfloat16)
    many = torch.zeros(1, 1, 2**12, 8, dtype=torch.bfloat16)
    assert explicit_attention._is_better_kept(few, few)
    assert not explicit_attention._is_better_kept(few.float(), few.float())
    assert not explicit_attention._is_better_kept(many, many)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    told = []
    monkeypatch.setattr(explicit_attention, "scaled_dot_product_attention", lambda *given, **_: told.append(given))
    explicit_attention.attention(few, few, few, mask, None, 0.5)
    assert told[0][4] == 0.5


def test_kept_weights_stand_what_all_keys_have_in_common():
    """Some models' keys have a bias of hundreds, beside which bfloat16 would round the differences away."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 32).to(torch.bfloat16).requires_grad_() for n in (7, 9, 9))
    offset = torch.zeros(32, dtype=torch.bfloat16)
    offset[3] = 64.0  # scores of hundreds, apart by some
    biased = (key.detach() + offset).requires_grad_()
    mask = torch.rand(2, 1, 7, 9) > 0.3
    mask[..., 0] = True
    wanted, slopes = exact(query, biased, value, mask, scale=0.5)
    out = explicit_attention.attention(query, biased, value, mask, 0.5, 0.0)
    assert apart(out, wanted) < 0.02
    gradients = torch.autograd.grad(out.float().square().sum(), [query, biased, value])
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert apart(gradient, slope) < 0.05
