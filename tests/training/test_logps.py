"""Mean log-probabilities: both forms against the model's own logits, and which models get which."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from selfpriority.training import explicit_attention, head
from selfpriority.training import logps as module
from selfpriority.training.encode import EncodedPool
from selfpriority.training.logps import Form, choose_form, response_logps

FORMS = [Form(True, True), Form(False, True), Form(True, False), Form(False, False)]


def naive_mean_logp(model, prompt, response):
    """One unpadded forward pass; every token of the response, nothing of the prompt."""
    logits = model(torch.tensor([prompt + response])).logits[0]
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
    without_end = [replace(pool, response_ids=tuple(ids[:-1] for ids in pool.response_ids)) for pool in pools]
    with_end, without = response_logps(llama, pools, form), response_logps(llama, without_end, form)
    lengths = torch.tensor([len(ids) for p in pools for ids in p.response_ids])
    end_logps = with_end * lengths - without * (lengths - 1)
    assert (end_logps < -0.1).all()


def test_llama_shares_the_prompt(llama):
    assert choose_form(llama, longest=100) == Form(shares_prompt=True, chunks_head=True)


def test_no_rounding_of_kept_attention_decides_the_form(llama, monkeypatch):
    """In bfloat16 an odd text's log-probability moves by more than the forms may differ, whatever is right."""
    model = copy.deepcopy(llama).to(torch.bfloat16)

    def told(*given):
        raise AssertionError("the weights were kept")

    monkeypatch.setattr(explicit_attention._Kept, "apply", told)
    assert choose_form(model, longest=100).shares_prompt
    pool = EncodedPool("p", (5, 6), ((9, 10), (12,)), ((0, 1),), (1.0,), (1.0, 0.0))
    with pytest.raises(AssertionError, match="were kept"):
        response_logps(model, [pool], Form(True, True))


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


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements any result had."""

    def __init__(self):
        super().__init__()
        self.n_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [part for part in tree_leaves(result) if isinstance(part, torch.Tensor)]
        self.n_elements = max([self.n_elements, *(tensor.numel() for tensor in tensors)])
        return result


class AnotherHead(torch.nn.Linear):
    """Not known to be a plain matrix."""


@pytest.mark.parametrize("shares_prompt", [True, False])
@pytest.mark.parametrize("kind", [torch.nn.Linear, AnotherHead])
def test_logits_of_a_whole_batch_never_exist(kind, shares_prompt, monkeypatch):
    """By slices of the vocabulary for a plain head, by chunks of positions for any other."""
    vocabulary, n_tokens, chunk = 5_000, 4 * 3 * 150, module._HEAD_CHUNK
    bytes_of_chunk = 4 * chunk * vocabulary  # the constants are made for larger batches than a test has
    monkeypatch.setattr(head, "SLICE_BYTES", bytes_of_chunk)
    monkeypatch.setattr(head, "KEPT_BYTES", bytes_of_chunk)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**LLAMA_LIKE, "max_position_embeddings": 512}, vocab_size=vocabulary))
    model.lm_head = kind(32, vocabulary, bias=False)
    pools = [EncodedPool("", (5,) * 20, ((6,) * 150,) * 3, ((0, 1), (1, 2)), (1.0, 1.0), (1.0, 1.0, 0.0))] * 4
    assert n_tokens > 4 * chunk
    with LargestTensor() as chunked:
        response_logps(model, pools, Form(shares_prompt, True)).sum().backward()
    assert 32 * vocabulary < chunked.n_elements <= chunk * vocabulary  # forward and backward, the weight included
    with LargestTensor() as whole:
        response_logps(model, pools, Form(shares_prompt, False)).sum().backward()
    assert whole.n_elements > n_tokens * vocabulary


HEADS = {
    "untied": (False, None),
    "tied": (True, None),
    "untied, adapters without the head": (False, "all-linear"),
    "untied, adapter on the head": (False, ["q_proj", "lm_head"]),
    "tied, adapters without the head": (True, ["q_proj", "down_proj"]),
    "tied, adapter on the head": (True, ["q_proj", "lm_head"]),
}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # by peft
@pytest.mark.filterwarnings(
    "ignore:Model has `tie_word_embeddings=True`:UserWarning"
)  # by peft; nothing is merged here
@pytest.mark.parametrize("form", FORMS[:2], ids=["packed", "plain"])
@pytest.mark.parametrize(("tied", "adapted"), HEADS.values(), ids=HEADS)
def test_every_kind_of_head_has_the_values_and_gradients_of_the_naive_path(encoded_pools, tied, adapted, form):
    torch.manual_seed(0)
    model = LlamaForCausalLM(_small(LlamaConfig, tie_word_embeddings=tied, **LLAMA_LIKE))
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    if adapted:
        model = get_peft_model(
            model, LoraConfig(r=4, target_modules=adapted, init_lora_weights=False, task_type="CAUSAL_LM")
        )
    pools = encoded_pools(3)
    assert choose_form(model, longest=30) == FORMS[0]
    torch.testing.assert_close(response_logps(model, pools, form), expected(model, pools), atol=1e-6, rtol=1e-6)
    exact = copy.deepcopy(model).double()  # sums in another order: float32 rounds gradients 2e-6 apart
    trained = [weight for weight in exact.parameters() if weight.requires_grad]
    wanted = torch.autograd.grad(expected(exact, pools).square().sum(), trained)
    gradients = torch.autograd.grad(response_logps(exact, pools, form).square().sum(), trained)
    assert any(bool(want.any()) for want in wanted)
    scale = float(max(gradient.abs().max() for gradient in wanted))
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, want, atol=1e-6 * scale, rtol=0)


def test_choosing_leaves_the_model_in_its_mode(llama):
    llama.train()
    choose_form(llama, longest=10)
    assert llama.training
