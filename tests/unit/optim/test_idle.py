"""What has no gradient any more comes to rest, whatever its neighbours in a block do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gradient

KINDS = {
    "AdamW": (torch.optim.AdamW, {"betas": (0.9, 0.95), "weight_decay": 0}),
    "AdamW, slow": (torch.optim.AdamW, {"betas": (0.9, 0.999), "weight_decay": 0}),
    "Adam with amsgrad": (torch.optim.Adam, {"betas": (0.9, 0.95), "amsgrad": True}),
    "NAdam": (torch.optim.NAdam, {"betas": (0.9, 0.95)}),
    "SGD": (torch.optim.SGD, {"momentum": 0.9}),
    "RMSprop with momentum": (torch.optim.RMSprop, {"momentum": 0.9, "alpha": 0.95}),
}


@pytest.mark.parametrize("name", KINDS)
def test_an_idle_parameter_stops(name: str) -> None:
    kind, options = KINDS[name]
    param = torch.nn.Parameter(torch.zeros(32, 128))
    optimizer: Any = gradient.wrap(kind([param], lr=1e-3, **options))
    torch.manual_seed(0)
    kept = {}
    for step in range(250):
        param.grad = torch.randn(32, 128)
        if step >= 20:
            param.grad[:, ::2] = 0
        optimizer.step()
        kept[step] = param.detach().clone()
    # With a beta of 0.9 hardly a billionth is left after 200 steps.
    assert torch.equal(kept[200][:, ::2], kept[249][:, ::2])
    assert not torch.equal(kept[200][:, 1::2], kept[249][:, 1::2])
    key = "exp_avg" if "exp_avg" in optimizer.state[param] else "momentum_buffer"
    assert not optimizer.state[param][key][:, ::2].any()
