"""What a fork may reset: optimizers to empty state with the script's hyper-parameters, schedulers, random seeds."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

NUMPY_SEED_BITS = 32
"""NumPy's global generator takes no wider seed."""


class Script:
    """What the script had set up when it attached, before anything was restored.

    Attributes:
        optimizers: The optimizers by name.
        schedulers: The schedulers by name.
    """

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer], schedulers: Mapping[str, Any]) -> None:
        self.optimizers = dict(optimizers)
        self.schedulers = dict(schedulers)
        self._groups = {name: _settings(optimizer) for name, optimizer in optimizers.items()}
        self._scheduler_states = {
            name: copy.deepcopy(scheduler.state_dict()) for name, scheduler in self.schedulers.items()
        }

    def reset_optimizers(self) -> None:
        """Empty every optimizer's state and give its groups the hyper-parameters that they had at attach."""
        for name, optimizer in self.optimizers.items():
            optimizer.state.clear()
            for group, settings in zip(optimizer.param_groups, self._groups[name], strict=False):
                for key in [key for key in group if key != "params" and key not in settings]:
                    del group[key]
                for key, value in settings.items():
                    _put(group, key, value)

    def reset_schedulers(self) -> None:
        """Set every scheduler back to what it was at attach."""
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(copy.deepcopy(self._scheduler_states[name]))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device). NumPy's global generator gets the lower 32 bits."""
    random.seed(seed)
    np.random.seed(seed % (1 << NUMPY_SEED_BITS))
    torch.manual_seed(seed)


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [
        {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]


def _put(group: dict[str, Any], key: str, value: Any) -> None:
    held = group.get(key)
    if isinstance(held, torch.Tensor) and isinstance(value, torch.Tensor) and held.shape == value.shape:
        # A tensor learning rate may be captured by a compiled step: it keeps its place in memory.
        with torch.no_grad():
            held.copy_(value)
    else:
        group[key] = copy.deepcopy(value)
