"""AdamW on the masters of bfloat16 weights against AdamW on float32 weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from selfpriority.training.optimizer import MasterAdamW, join, split

TIE = torch.tensor([0x3F808000, 0x3F818000, -0x407F8000], dtype=torch.int32).view(torch.float32)


@pytest.mark.parametrize("values", [torch.randn(10_000), 1e-6 * torch.randn(10_000), TIE, torch.tensor([0.0, -0.0])])
def test_a_float32_is_split_and_joined_bit_by_bit(values):
    rounded, rest = split(values)
    assert rounded.dtype is torch.bfloat16
    assert rest.dtype is torch.int16
    assert torch.equal(join(rounded, rest).view(torch.int32), values.view(torch.int32))
    half_a_unit = (values.abs() * 2**-8).clamp(min=1e-38)
    assert ((rounded.float() - values).abs() <= half_a_unit).all()


def gradient(step):
    return torch.randn(40, 30, generator=torch.Generator().manual_seed(step)).to(torch.bfloat16)


def weight(dtype):
    return nn.Parameter(torch.randn(40, 30, generator=torch.Generator().manual_seed(99)).to(torch.bfloat16).to(dtype))


def test_masters_are_those_of_adamw_in_float32():
    ours, plain = weight(torch.bfloat16), weight(torch.float32)
    settings = {"lr": 1e-5, "weight_decay": 0.1}
    optimizer, reference = MasterAdamW([ours], **settings), torch.optim.AdamW([plain], **settings)
    for step in range(20):
        ours.grad, plain.grad = gradient(step), gradient(step).float()
        optimizer.step()
        reference.step()
    assert torch.equal(join(ours.detach(), optimizer.state[ours]["rest"]), plain)
    assert torch.equal(ours, split(plain.detach())[0])


def test_small_updates_are_not_lost():
    kept, lost = weight(torch.bfloat16), weight(torch.bfloat16)
    start = kept.detach().clone()
    optimizer, plain = MasterAdamW([kept], lr=1e-4), torch.optim.AdamW([lost], lr=1e-4, weight_decay=0.0)
    for _ in range(30):  # 30 steps of 1e-4 in one direction
        kept.grad, lost.grad = torch.ones_like(kept), torch.ones_like(lost)
        optimizer.step()
        plain.step()
    large = start.abs() > 0.25  # where 1e-4 is under half of bfloat16's last place
    assert torch.equal(lost[large], start[large])
    master = join(kept.detach(), optimizer.state[kept]["rest"])
    torch.testing.assert_close(start.float() - master, torch.full_like(master, 3e-3), atol=1e-5, rtol=0)


def test_continues_from_its_state_bit_by_bit():
    straight = weight(torch.bfloat16)
    optimizer = MasterAdamW([straight], lr=1e-3)
    for step in range(6):
        straight.grad = gradient(step)
        optimizer.step()
        if step == 2:
            saved, stopped = copy.deepcopy(optimizer.state_dict()), nn.Parameter(straight.detach().clone())
    continued = MasterAdamW([stopped], lr=1.0)
    continued.load_state_dict(saved)
    for step in range(3, 6):
        stopped.grad = gradient(step)
        continued.step()
    assert torch.equal(stopped, straight)
    for name, value in optimizer.state[straight].items():
        assert continued.state[stopped][name].dtype is value.dtype
        assert torch.equal(continued.state[stopped][name], value)


def test_float32_weights_are_their_own_masters():
    ours, plain = weight(torch.float32), weight(torch.float32)
    optimizer, reference = MasterAdamW([ours], lr=1e-3), torch.optim.AdamW([plain], lr=1e-3, weight_decay=0.0)
    ours.grad, plain.grad = gradient(0).float(), gradient(0).float()
    optimizer.step()
    reference.step()
    assert torch.equal(ours, plain)
    assert "rest" not in optimizer.state[ours]
