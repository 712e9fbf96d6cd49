"""AdamW for bfloat16 weights that loses nothing: a weight and 16 more bits are its float32 master copy.

Updates of a fine-tune are mostly below bfloat16's resolution, so bfloat16 weights alone would not move. Here the
model sees the master rounded to bfloat16, and the optimizer holds what rounding took away: 14 bytes a parameter
with gradient and moments, against 18 of float32 weights under bfloat16 arithmetic. Knows parameters, not models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

_HALF = 1 << 15  # of what one unit of a bfloat16's last place is worth in the bits of a float32


class MasterAdamW(Optimizer):
    """AdamW on the float32 masters of bfloat16 weights; other weights are their own masters.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        weight_decay: decoupled.
        betas: decay of the two moments.
        eps: added to the root of the second.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step, weight by weight, so that only one master exists at a time."""
        if closure is not None:
            raise ValueError("the gradients have to be there: a closure is not called")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step_one(weight, group)

    def _step_one(self, weight: Tensor, group: dict[str, Any]) -> None:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), device=weight.device)
            state["exp_avg"] = torch.zeros_like(weight, dtype=torch.float32)
            state["exp_avg_sq"] = torch.zeros_like(weight, dtype=torch.float32)
            if weight.dtype is torch.bfloat16:
                state["rest"] = torch.zeros_like(weight, dtype=torch.int16)
        master = join(weight, state["rest"]) if "rest" in state else weight
        adamw(
            [master],
            [weight.grad.to(master.dtype)],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            fused=True,  # one pass over the weight and no temporary copies of it
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        if "rest" in state:
            rounded, state["rest"] = split(master)
            weight.copy_(rounded)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's, but every state keeps its own type; torch would cast all to that of the weight."""
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        for number, weight in zip(numbers, weights, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                self.state[weight][name] = value.to(weight.device)


def split(master: Tensor) -> tuple[Tensor, Tensor]:
    """float32 -> the nearest bfloat16 (ties away from 0), and what is missing as int16, in float32's last places."""
    bits = master.view(torch.int32)
    rounded = (bits + _HALF) >> 16
    return rounded.to(torch.int16).view(torch.bfloat16), (bits - (rounded << 16)).to(torch.int16)


def join(rounded: Tensor, rest: Tensor) -> Tensor:
    """The float32 that `split` took apart, bit by bit."""
    bits = (rounded.view(torch.int16).to(torch.int32) << 16) + rest.to(torch.int32)
    return bits.view(torch.float32)
