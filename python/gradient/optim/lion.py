"""Lion, which torch does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradient.errors import InvalidInputError


class Lion(Optimizer):
    """The sign of an average of gradients, with decoupled weight decay.

    With m the momentum, `p = p (1 - lr weight_decay) - lr sign(beta1 m + (1 - beta1) g)`, then
    `m = beta2 m + (1 - beta2) g`. Learning rates are three to ten times smaller than AdamW's, weight decay as much
    larger. `gradient.wrap` keeps the momentum in eight bits and takes the fused kernel.

    Args:
        params: Parameters, as any optimizer of torch takes them.
        lr: Learning rate, from 0.
        betas: How much the momentum counts in the direction, and how much of it stays; from 0 to 1.
        weight_decay: Weight decay, from 0.
        maximize: Go up the gradient.

    Raises:
        InvalidInputError: A number is out of range; or a gradient is sparse or complex, in a step.

    Source:
        Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        for name, value, is_good in (
            ("lr", lr, float(lr) >= 0),
            ("betas", betas, all(0 <= beta < 1 for beta in betas)),
            ("weight_decay", weight_decay, weight_decay >= 0),
        ):
            if not is_good:
                raise InvalidInputError(f"{name}={value} is out of range", code="bad-option")
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do a step; a closure is called first, and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for param in group["params"]:
                grad = param.grad
                if grad is None:
                    continue
                if grad.is_sparse or grad.is_complex():
                    raise InvalidInputError("Lion takes neither sparse nor complex gradients")
                grad = -grad if group["maximize"] else grad
                state = self.state[param]
                if not state:
                    state["exp_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
                momentum = state["exp_avg"]
                direction = momentum.mul(beta1).add_(grad, alpha=1 - beta1).sign_()
                lr = float(group["lr"])
                param.mul_(1 - lr * group["weight_decay"]).add_(direction, alpha=-lr)
                momentum.mul_(beta2).add_(grad, alpha=1 - beta2)
        return loss
