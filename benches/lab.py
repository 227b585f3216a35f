"""The 204 MB training state that commits and restores are measured on: `train_gpt.py` at a kept step."""

from __future__ import annotations

import pathlib
from typing import Any

import torch

from train_gpt import GPT

State = dict[str, Any]


def load(path: pathlib.Path) -> State:
    return torch.load(path, weights_only=True)


def learning_rate(state: State) -> str:
    """What to print of a state's learning rate: the run's, and what the schedule makes of it there."""
    (group,) = state["optimizer"]["param_groups"]
    return f"lr {group['initial_lr']:.0e} ({group['lr']:.2e} here)"


def live(state: State) -> tuple[GPT, torch.optim.AdamW]:
    """A model and its optimizer that hold `state`."""
    torch.manual_seed(0)
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, weight_decay=0.1, betas=(0.9, 0.95))
    put(model, optimizer, state)
    return model, optimizer


def put(model: GPT, optimizer: torch.optim.AdamW, state: State) -> None:
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])


def raw_bytes(model: GPT, optimizer: torch.optim.AdamW) -> int:
    """Bytes of the distinct tensors of the state."""
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}
    for values in optimizer.state.values():
        tensors |= {tensor.data_ptr(): tensor.nbytes for tensor in values.values()}
    return sum(tensors.values())
