"""A small training run that uses every kind of state, and a fingerprint of it that is made without our code."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn


class Run:
    """Model with dropout, batch norm and noise of its own; AdamW; ReduceLROnPlateau; data from three generators."""

    def __init__(self, seed: int = 0, *, width: int = 24, lr: float = 1e-2) -> None:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(8, width), nn.BatchNorm1d(width), nn.Dropout(0.25), nn.ReLU(), nn.Linear(width, 1)
        )
        # Bytes that no codec makes smaller, so that a test finds them on disk.
        self.model.register_buffer("noise", torch.randint(0, 1 << 62, (64,)))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr)
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, patience=1)

    @property
    def parts(self) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        return self.model, self.optimizer, self.scheduler

    @property
    def noise(self) -> torch.Tensor:
        return self.model.get_buffer("noise")

    def step(self) -> float:
        scale = 1 + 0.1 * random.random() + 0.1 * float(np.random.rand())
        loss = (self.model(torch.randn(16, 8) * scale) ** 2).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.noise.copy_(torch.randint(0, 1 << 62, (64,)))
        self.scheduler.step(loss.item())
        return loss.item()

    def train(self, steps: int) -> list[float]:
        return [self.step() for _ in range(steps)]

    def fingerprint(self) -> str:
        """SHA-256 of weights, moments, hyper-parameters, scheduler and all three generators."""
        digest = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
        for parameter in self.model.parameters():
            for key, value in sorted(self.optimizer.state[parameter].items()):
                digest.update(key.encode())
                digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        groups = [
            {key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups
        ]
        digest.update(repr(groups).encode())
        digest.update(repr(sorted(self.scheduler.state_dict().items())).encode())
        digest.update(repr(random.getstate()).encode())
        digest.update(
            repr([part.tolist() if hasattr(part, "tolist") else part for part in np.random.get_state()]).encode()
        )
        digest.update(torch.get_rng_state().numpy().tobytes())
        return digest.hexdigest()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in an empty folder, without variables of ours and without what earlier attaches left."""
    from gradient.engine import committing, session, settings

    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GRADIENT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(settings, "_remembered", None)
    yield tmp_path
    for left in list(session.open_sessions):
        committing.finish(left)
    for name in [name for name in os.environ if name.startswith("GRADIENT_")]:
        del os.environ[name]


@pytest.fixture
def new_run() -> Callable[..., Run]:
    return Run


@pytest.fixture
def run(new_run: Callable[..., Run]) -> Run:
    return new_run()


@pytest.fixture
def ws(tmp_path: Path) -> Path:
    """Where the workspace of a test goes; nothing is there yet."""
    return tmp_path / "ws"
