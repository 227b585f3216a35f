"""The 204 MB training state that commits and restores are measured on: `train_gpt.py` at a kept step."""

from __future__ import annotations

import copy
import pathlib
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from train_gpt import BATCH, CONTEXT, GPT, corpus

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
    # The optimizer would go on with the very tensors, and change `state` with its own.
    optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))


def raw_bytes(model: GPT, optimizer: torch.optim.AdamW) -> int:
    """Bytes of the distinct tensors of the state."""
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}
    for values in optimizer.state.values():
        tensors |= {tensor.data_ptr(): tensor.nbytes for tensor in values.values()}
    return sum(tensors.values())


def change_some(model: GPT, optimizer: torch.optim.AdamW | None) -> None:
    """Change one value in a thousand of the weights, and of both moments."""
    values = optimizer.state.values() if optimizer else ()
    moments = [value[key] for value in values for key in ("exp_avg", "exp_avg_sq")]
    with torch.no_grad():
        for tensor in (*model.parameters(), *moments):
            flat = tensor.view(-1)
            flat[torch.randint(0, flat.numel(), (flat.numel() // 1000 + 1,))] *= 1.001


class Run:
    """The run that made the states, going on from one of them; or another that begins there."""

    def __init__(self, states: pathlib.Path, step: int, *, lr: float | None = None, seed: int | None = None) -> None:
        """Go on from `step`.

        Args:
            states: The folder of the kept states.
            step: One of them.
            lr: A learning rate that stays; None is that of the state.
            seed: That of the batches; None is the batches of the run itself.
        """
        self.model, self.optimizer = live(load(states / f"s{step}.pt"))
        self._ids = corpus(states)
        self._generator = torch.Generator().manual_seed(1 if seed is None else seed)
        for _ in range(step if seed is None else 0):
            self._batch()
        if lr is not None:
            self.set_lr(lr)

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def step(self) -> None:
        """Train a step, as `train_gpt.py` does."""
        inputs, targets = self._batch()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.model(inputs)
        loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        starts = torch.randint(0, len(self._ids) - CONTEXT - 1, (BATCH,), generator=self._generator).tolist()
        inputs = torch.stack([self._ids[s : s + CONTEXT] for s in starts])
        return inputs, torch.stack([self._ids[s + 1 : s + CONTEXT + 1] for s in starts])
