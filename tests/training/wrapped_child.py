"""Runs with compressed optimizer state, used in the test's process and as children that are killed.

A gradient is made of single multiplications, so that it has the same bits for any number of threads; what differs from
step to step is drawn with torch's generator, which commits bring back. What a run is made of is an SHA-256 that is
computed without the engine.
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradient import GradientEngine, wrap
from gradient.optim import Lion, Policy

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import reporter

STEPS = 200
EVERY = 40


@dataclass(frozen=True)
class Recipe:
    """An optimizer, and the dtype of what it trains."""

    make: Callable[[Any], torch.optim.Optimizer]
    dtype: torch.dtype = torch.float32


RECIPES = {
    "adamw-nearest": Recipe(lambda params: torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.95))),
    "adamw-by-lot": Recipe(lambda params: torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.999))),
    "adamw-bfloat16": Recipe(
        lambda params: torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.999)), dtype=torch.bfloat16
    ),
    "sgd": Recipe(lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9, nesterov=True, weight_decay=1e-3)),
    "lion": Recipe(lambda params: Lion(params, lr=1e-3, weight_decay=0.1)),
    "nadam": Recipe(lambda params: torch.optim.NAdam(params, lr=1e-2)),
}


class Weights(nn.Module):
    """Rows that end inside a block, and in two pieces of 65,536; channels last; rows shorter than a block; small."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        shapes = {"rows": (131, 521), "filters": (16, 32, 3, 3), "short": (140, 33), "small": (40,)}
        for name, shape in shapes.items():
            values = torch.randn(shape).to(dtype)
            if len(shape) == 4:
                values = values.to(memory_format=torch.channels_last)
            self.register_parameter(name, nn.Parameter(values))

    def forward(self) -> torch.Tensor:
        """Give a loss whose gradient is that of each number on its own."""
        losses = []
        for weight in self.parameters():
            factors = torch.randn(weight.shape[-1]).square().to(weight.dtype)
            losses.append(((weight - 0.5) ** 2 * factors).sum())
        return torch.stack(losses).sum()


class Run:
    """A model and its optimizer.

    Args:
        name: A row of `RECIPES`.
        wrapped: The optimizer's state is kept compressed.
        policy: How; default: `wrap`'s own.
        seed: What torch's generator is seeded with.
    """

    def __init__(self, name: str, *, wrapped: bool = True, policy: Policy | None = None, seed: int = 0) -> None:
        recipe = RECIPES[name]
        torch.manual_seed(seed)
        self.model = Weights(recipe.dtype)
        self.optimizer: Any = recipe.make(self.model.parameters())
        if wrapped:
            wrap(self.optimizer, policy)
        self.scheduler: Any = None
        self.scaler: Any = None
        self.at = 0

    def attach(self, workspace: Path | str, **options: Any) -> GradientEngine:
        """Attach with all of it, to the repository `model`."""
        scaler = {} if self.scaler is None else {"scaler": self.scaler}
        engine = GradientEngine.attach(
            self.model, self.optimizer, self.scheduler, workspace=workspace, repo="model", **scaler, **options
        )
        if "resume" in options:
            self.at = engine.current_step
        return engine

    def step(self) -> None:
        loss = self.model()
        if self.scaler is None:
            loss.backward()
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad()
        if self.scheduler is not None:
            self.scheduler.step()
        self.at += 1

    def train(self, last: int) -> Run:
        """Train up to a step."""
        while self.at < last:
            self.step()
        return self

    def weights(self) -> str:
        """SHA-256 of the weights."""
        return _sha([*self.model.parameters()])

    def digest(self) -> str:
        """SHA-256 of weights, of the state as it is kept, of the groups, and of the next number that is drawn."""
        form = {"format": "native"} if hasattr(self.optimizer, "store") else {}
        kept = torch.get_rng_state()
        drawn = torch.rand(3)
        torch.set_rng_state(kept)
        more = [part.state_dict() for part in (self.scheduler, self.scaler) if part is not None]
        given = self.optimizer.state_dict(**form)
        # A parameter that was asked for has a state, which is empty.
        given["state"] = {number: state for number, state in given["state"].items() if state}
        return _sha([[*self.model.parameters()], given, drawn, more])


def _sha(value: Any) -> str:
    made = hashlib.sha256()

    def take(one: Any) -> None:
        if isinstance(one, torch.Tensor):
            made.update(f"{one.dtype}{tuple(one.shape)}{one.stride()}".encode())
            made.update(one.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(one, Mapping):
            for key in sorted(one, key=str):
                made.update(f"{key}:".encode())
                take(one[key])
        elif isinstance(one, list | tuple):
            for part in one:
                take(part)
        else:
            made.update(repr(one).encode())

    take(value)
    return made.hexdigest()


def warm_up() -> None:
    """All is imported; nothing of it has been called, as nothing has in a fresh interpreter."""


def main(arguments: Sequence[str]) -> int:
    """Train from wherever the repository says to the last step; `--hold STEP` waits for death at that step's end.

    `--plain` leaves the engine out.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--reports", type=int, required=True)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--hold", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args(arguments)
    report = reporter(options.reports)
    torch.set_num_threads(options.threads)
    if options.plain:
        run = Run(options.recipe).train(STEPS)
        report(weights=run.weights(), digest=run.digest(), threads=torch.get_num_threads())
        return 0
    # Another seed than a run that goes on has: what was drawn is in the commit.
    run = Run(options.recipe, seed=0 if not Path("ws").exists() else 9)
    with run.attach("ws", resume="latest") as engine:
        engine.autocommit(every=EVERY)
        report(start=run.at)
        while run.at < STEPS:
            report(begin=run.at + 1)
            run.step()
            handle = engine.maybe_commit(run.at)
            if handle is not None:
                report(committed=run.at, root=handle.root)
            if run.at == options.hold:
                signal.pause()
        report(weights=run.weights(), digest=run.digest())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
