"""Mean log-probabilities: both forms against the model's own logits, and which models get which."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
)

from selfpriority.training import logps as module
from selfpriority.training.logps import Form, choose_form, response_logps

FORMS = [Form(True, True), Form(False, True), Form(True, False), Form(False, False)]


def naive_mean_logp(model, prompt, response):
    """One unpadded forward pass; every token of the response, nothing of the prompt."""
    logits = model(torch.tensor([prompt + response])).logits[0].float()
    logps = torch.log_softmax(logits, dim=-1)
    positions = range(len(prompt) - 1, len(prompt) + len(response) - 1)
    return torch.stack([logps[t, token] for t, token in zip(positions, response, strict=True)]).mean()


def expected(model, pools):
    return torch.stack([naive_mean_logp(model, p.prompt_ids, ids) for p in pools for ids in p.response_ids])


@pytest.mark.parametrize("form", FORMS)
def test_forms_agree_with_one_unpadded_pass_a_response(llama, encoded_pools, form):
    pools = encoded_pools(4)
    torch.testing.assert_close(response_logps(llama, pools, form), expected(llama, pools), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_the_forms_agree(llama, encoded_pools, form):
    pools = encoded_pools(3)
    wanted = torch.autograd.grad(expected(llama, pools).square().sum(), list(llama.parameters()))
    gradients = torch.autograd.grad(response_logps(llama, pools, form).square().sum(), list(llama.parameters()))
    scale = max(gradient.abs().max() for gradient in wanted)
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, want, atol=2e-6 * float(scale), rtol=0)


def test_chunks_of_the_head_do_not_change_the_result(llama, encoded_pools, monkeypatch):
    pools = encoded_pools(4)
    whole = response_logps(llama, pools, FORMS[0])
    monkeypatch.setattr(module, "_HEAD_CHUNK", 3)
    torch.testing.assert_close(response_logps(llama, pools, FORMS[0]), whole, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_end_token_counts_although_it_is_the_pad_token(llama, encoded_pools, form):
    pools = encoded_pools(3)  # every response ends in 2, which is eos and pad of the model
    assert llama.config.pad_token_id == llama.config.eos_token_id == 2
    without_end = [
        type(p)(p.prompt_id, p.prompt_ids, tuple(ids[:-1] for ids in p.response_ids), p.pairs, p.gaps) for p in pools
    ]
    with_end, without = response_logps(llama, pools, form), response_logps(llama, without_end, form)
    lengths = torch.tensor([len(ids) for p in pools for ids in p.response_ids])
    end_logps = with_end * lengths - without * (lengths - 1)
    assert (end_logps < -0.1).all()


def test_llama_shares_the_prompt(llama):
    assert choose_form(llama, longest=100) == Form(shares_prompt=True, chunks_head=True)


def _small(config_class, **more):
    return config_class(vocab_size=300, initializer_range=0.2, pad_token_id=0, bos_token_id=1, eos_token_id=2, **more)


LLAMA_LIKE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}


def test_a_model_without_position_ids_gets_the_plain_form(encoded_pools):
    model = BloomForCausalLM(_small(BloomConfig, hidden_size=32, n_layer=2, n_head=4)).eval()
    form = choose_form(model, longest=30)
    assert form == Form(shares_prompt=False, chunks_head=True)
    pools = encoded_pools(2)
    torch.testing.assert_close(response_logps(model, pools, form), expected(model, pools), atol=1e-5, rtol=1e-5)


def test_learned_positions_share_the_prompt(encoded_pools):
    model = GPT2LMHeadModel(_small(GPT2Config, n_embd=32, n_layer=2, n_head=4, n_positions=128)).eval()
    form = choose_form(model, longest=30)
    assert form.shares_prompt
    pools = encoded_pools(2)
    torch.testing.assert_close(response_logps(model, pools, form), expected(model, pools), atol=1e-5, rtol=1e-5)


def test_a_window_shorter_than_the_longest_sequence_gets_the_plain_form():
    model = MistralForCausalLM(_small(MistralConfig, sliding_window=16, **LLAMA_LIKE)).eval()
    assert choose_form(model, longest=16).shares_prompt
    assert not choose_form(model, longest=17).shares_prompt


def test_a_model_that_caps_its_logits_keeps_its_own_head(encoded_pools):
    config = _small(Gemma2Config, final_logit_softcapping=2.0, attn_implementation="eager", **LLAMA_LIKE)
    model = Gemma2ForCausalLM(config).eval()
    form = choose_form(model, longest=30)
    assert form == Form(shares_prompt=False, chunks_head=False)
    pools = encoded_pools(2)
    torch.testing.assert_close(response_logps(model, pools, form), expected(model, pools), atol=1e-5, rtol=1e-5)


def test_choosing_leaves_the_model_in_its_mode(llama):
    llama.train()
    choose_form(llama, longest=10)
    assert llama.training
