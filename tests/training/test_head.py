import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from selfpriority.training import head
from selfpriority.training.head import token_logps


def case(n=23, vocabulary=301, size=16, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, size, generator=draw, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, size, generator=draw, dtype=dtype, requires_grad=True)
    targets = torch.randint(vocabulary, (n,), generator=draw)
    slopes = torch.randn(n, generator=draw, dtype=dtype)
    return hidden, weight, targets, slopes


@pytest.mark.parametrize("kept", [0, 2**28])
@pytest.mark.parametrize("slice_bytes", [23 * 8, 23 * 8 * 37, 2**26])
def test_values_and_gradients_are_those_of_the_whole_softmax(monkeypatch, slice_bytes, kept):
    monkeypatch.setattr(head, "SLICE_BYTES", slice_bytes)
    monkeypatch.setattr(head, "KEPT_BYTES", kept)
    hidden, weight, targets, slopes = case()
    plain = -cross_entropy(hidden @ weight.T, targets, reduction="none")
    wanted = torch.autograd.grad(plain @ slopes, (hidden, weight))
    ours = token_logps(hidden, weight, targets)
    got = torch.autograd.grad(ours @ slopes, (hidden, weight))
    torch.testing.assert_close(ours, plain, atol=1e-12, rtol=0)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


def test_float32_agrees_to_its_rounding():
    hidden, weight, targets, slopes = case(n=64, vocabulary=5000, size=64, dtype=torch.float32)
    exact = -cross_entropy(hidden.double() @ weight.double().T, targets, reduction="none")
    ours = token_logps(hidden, weight, targets)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, atol=2e-5, rtol=1e-6)
    (gradient,) = torch.autograd.grad(ours @ slopes, weight)
    (wanted,) = torch.autograd.grad(exact @ slopes.double(), weight)
    assert (gradient - wanted).norm() < 1e-6 * wanted.norm()


def test_autocast_multiplies_in_bfloat16_and_sums_in_float32():
    hidden, weight, targets, slopes = case(n=64, vocabulary=5000, size=64, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = token_logps(hidden, weight, targets)
        plain = -cross_entropy((hidden @ weight.T).float(), targets, reduction="none")
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-6)
    got, wanted = (torch.autograd.grad(x @ slopes, weight)[0] for x in (ours, plain))
    assert got.dtype == torch.float32
    assert (got - wanted).norm() < 1e-2 * wanted.norm()


def test_a_frozen_head_gets_no_gradient():
    hidden, weight, targets, slopes = case()
    weight.requires_grad_(False)
    (token_logps(hidden, weight, targets) @ slopes).backward()
    assert weight.grad is None
    assert hidden.grad is not None


class Largest(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_no_tensor_of_tokens_times_vocabulary_exists(monkeypatch):
    monkeypatch.setattr(head, "SLICE_BYTES", 2**16)
    monkeypatch.setattr(head, "KEPT_BYTES", 0)
    hidden, weight, targets, slopes = case(n=400, vocabulary=3000, size=8, dtype=torch.float32)
    with Largest() as seen:
        (token_logps(hidden, weight, targets) @ slopes).backward()
    assert seen.numel <= max(weight.numel(), 2**16 // 4)
