"""A training run with everything whose position can be lost: used whole, in-process and as a child that is killed.

Batches from a shuffled, resumable loader, spoiled item by item with the generators of Python, NumPy and torch; an
accumulation of two that straddles the epochs' ends (each has five batches); dropout; AdamW; on request a gradient
scaler, which skips its first steps, and an average of the weights. Time is counted in ticks: one for each batch, and
one for the end of each epoch. What it is made of at a tick is an SHA-256 that is computed without Gradient.
"""

from __future__ import annotations

import copy
import hashlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from gradient import GradientEngine, resumable

NUM_EXAMPLES, BATCH, ACCUMULATE = 10, 2, 2
TICKS_IN_EPOCH = NUM_EXAMPLES // BATCH + 1
PLACES: dict[str, Callable[[int], bool]] = {
    "mid-epoch": lambda tick: tick % TICKS_IN_EPOCH in (2, 3),
    # The last batch of an epoch, and the end of it.
    "boundary": lambda tick: tick % TICKS_IN_EPOCH in (5, 0),
    "mid-accumulation": lambda tick: _batches(tick) % ACCUMULATE == 1,
}
"""Where a run commits, by tick."""


class Spoiled(Dataset):  # type: ignore[type-arg]
    def __init__(self) -> None:
        self.inputs = torch.linspace(-1, 1, NUM_EXAMPLES * 6).reshape(NUM_EXAMPLES, 6)

    def __len__(self) -> int:
        return NUM_EXAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = self.inputs[index] * (1 + 0.1 * random.gauss(0, 1)) + 0.1 * torch.randn(6)
        return inputs, (inputs.sum() + 0.1 * np.random.standard_normal()).sin().reshape(1).float()


class Recipe:
    """Everything that trains.

    Args:
        seed: What the script seeds itself with.
        workers: Processes that load.
        scaler: Whether there is a gradient scaler.
        ema: Whether there is an average of the weights.
        close: A descriptor that the workers must not keep open.
    """

    def __init__(
        self, *, seed: int = 0, workers: int = 0, scaler: bool = False, ema: bool = False, close: int | None = None
    ) -> None:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3, 0.9)
        self.scaler = torch.amp.GradScaler("cpu", enabled=scaler, init_scale=2.0**127, growth_interval=2)
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        self.ema = torch.optim.swa_utils.AveragedModel(self.model, multi_avg_fn=average) if ema else None
        start = None if close is None or not workers else lambda worker_id: os.close(close)
        loader = DataLoader(Spoiled(), BATCH, shuffle=True, num_workers=workers, worker_init_fn=start)
        self.loader = resumable(loader, seed=4)
        self.data = hashlib.sha256()

    def attach(self, **options: Any) -> GradientEngine:
        """Attach with all of it."""
        scaler = {"scaler": self.scaler} if self.scaler.is_enabled() else {}
        engine = GradientEngine.attach(
            self.model, self.optimizer, self.scheduler, dataloader=self.loader, **scaler, **options
        )
        if self.ema is not None:
            engine.register("ema", self.ema)
        return engine

    def ticks(self, last: int) -> Iterator[int]:
        """Train up to a tick, from wherever the loader is; gives each tick when it is over."""
        while self._tick() < last:
            for inputs, targets in self.loader:
                self.data = hashlib.sha256(inputs.numpy().tobytes() + targets.numpy().tobytes())
                self._train(inputs, targets)
                yield self._tick()
                if self._tick() >= last:
                    return
            self.data = hashlib.sha256(b"the end of an epoch")
            yield self._tick()

    def _train(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        noise = 0.01 * torch.randn_like(inputs) * random.random() * np.random.rand()
        loss = nn.functional.mse_loss(self.model(inputs + noise.float()), targets) / ACCUMULATE
        self.scaler.scale(loss).backward()
        if _batches(self._tick()) % ACCUMULATE:
            return
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def _tick(self) -> int:
        return self.loader.epoch * TICKS_IN_EPOCH + self.loader.batches

    def digest(self) -> str:
        """SHA-256 of weights, gradients, moments, rates, scale, average, generators and the last batch."""
        made = hashlib.sha256(self.data.digest())
        for parameter in self.model.parameters():
            state = sorted(self.optimizer.state.get(parameter, {}).items())
            for tensor in (parameter, parameter.grad, *(value for _, value in state)):
                made.update(b"none" if tensor is None else tensor.detach().numpy().tobytes())
        for tensor in self.ema.state_dict().values() if self.ema is not None else ():
            made.update(tensor.numpy().tobytes())
        facts = (
            self.optimizer.param_groups[0]["lr"],
            self.scheduler.last_epoch,
            sorted(self.scaler.state_dict().items()),
        )
        made.update(repr((*facts, random.getstate(), [str(part) for part in _numpy_state()])).encode())
        made.update(torch.get_rng_state().numpy().tobytes())
        return made.hexdigest()


def run_whole(last: int, **options: Any) -> dict[int, str]:
    """Digests of a run that Gradient has no part in, tick by tick."""
    recipe = Recipe(**options)
    return {tick: recipe.digest() for tick in recipe.ticks(last)}


def _batches(tick: int) -> int:
    epoch, within = divmod(tick, TICKS_IN_EPOCH)
    return epoch * (TICKS_IN_EPOCH - 1) + within


def _numpy_state() -> list[Any]:
    state: Any = copy.deepcopy(np.random.get_state())
    return [part.tolist() if hasattr(part, "tolist") else part for part in state]
