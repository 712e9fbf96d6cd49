"""Gradients of tied embeddings: against autograd's own sum, and how many matrices of the vocabulary they take."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from selfpriority.training.encode import EncodedPool
from selfpriority.training.logps import Form, response_logps
from selfpriority.training.tied_embeddings import tied_lookup

VOCABULARY, HIDDEN = 4_000, 32
POOLS = [
    EncodedPool("a", (5, 6, 7, 2), ((9, 10, 11, 2), (12, 13, 9, 9)), ((0, 1),), (1.0,), (1.0, 0.0)),
    EncodedPool("b", (8, 6), ((3, 4, 2),), (), (), (0.0,)),
]


def model(tied: bool = True, padding: int | None = None) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        pad_token_id=padding,
    )
    return LlamaForCausalLM(config).double()


def gradient(model: LlamaForCausalLM, form: Form) -> torch.Tensor:
    model.zero_grad()
    response_logps(model, POOLS, form).square().sum().backward()
    return model.get_input_embeddings().weight.grad.clone()


@pytest.mark.parametrize("padding", [None, 2], ids=["no padding token", "the end token pads"])
@pytest.mark.parametrize("shares_prompt", [True, False], ids=["packed", "plain"])
def test_the_gradient_is_the_sum_of_both_uses(padding, shares_prompt):
    """With the model's own head and lookup autograd sums; a token met twice and one that pads are among them."""
    policy = model(padding=padding)
    wanted = gradient(policy, Form(shares_prompt, chunks_head=False))
    got = gradient(policy, Form(shares_prompt, chunks_head=True))
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-9)
    assert wanted[2].any()


def test_gradients_of_several_passes_add_up():
    policy = model()
    once = gradient(policy, Form(True, True))
    policy.zero_grad()
    for _ in range(2):
        response_logps(policy, POOLS, Form(True, True)).square().sum().backward()
    torch.testing.assert_close(policy.get_input_embeddings().weight.grad, 2 * once)


class Matrices(TorchDispatchMode):
    """Counts results as large as the embeddings that share memory with nothing that went in."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        went_in = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((args, kwargs))}
        self.count += sum(
            tensor.numel() == VOCABULARY * HIDDEN and tensor.untyped_storage().data_ptr() not in went_in
            for tensor in tensors_in(result)
        )
        return result


def tensors_in(tree):
    return [part for part in tree_leaves(tree) if isinstance(part, torch.Tensor)]


def test_the_backward_pass_makes_one_matrix_of_the_vocabulary():
    policy = model()
    for chunks_head, at_most in ((True, 1), (False, 3)):
        loss = response_logps(policy, POOLS, Form(False, chunks_head)).sum()
        with Matrices() as made:
            loss.backward()
        assert made.count == at_most
        policy.zero_grad()


@pytest.mark.parametrize("change", ["untied", "frozen"])
def test_what_is_not_one_trained_matrix_is_left_alone(change):
    policy = model(tied=change != "untied")
    if change == "frozen":
        policy.requires_grad_(False)
    with tied_lookup(policy) as tie:
        assert tie is None
        assert not policy.get_input_embeddings()._forward_hooks
