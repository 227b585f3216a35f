"""A training script with a wrapped optimizer, run as a child: says each step, and at the end what the weights are.

Data is a function of the step. It commits to a workspace in the folder that it is given, and goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gradient
from gradient.optim import Lion

EVERY = 10

KINDS: dict[str, Any] = {
    "adamw-nearest": lambda params: torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.95)),
    "adamw-stochastic": lambda params: torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.999)),
    "adamw-bfloat16": lambda params: torch.optim.AdamW(params, lr=1e-2),
    "sgd": lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9, nesterov=True),
    "lion": lambda params: Lion(params, lr=1e-3),
    "nadam": lambda params: torch.optim.NAdam(params, lr=1e-2),
}


def made(kind: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    # More than a tile of 65,536 elements, rows with a tail, and biases.
    model = nn.Sequential(nn.Linear(130, 600), nn.Tanh(), nn.Linear(600, 70), nn.Tanh(), nn.Linear(70, 3))
    model.to(torch.bfloat16 if kind.endswith("bfloat16") else torch.float32)
    return model, KINDS[kind](model.parameters())


def train_once(model: nn.Module, optimizer: Any, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(8, 130, generator=generator).to(next(model.parameters()).dtype)
    # The same sums for any number of threads: those of the model are not what is looked at.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    optimizer.zero_grad()
    ((model(inputs) - inputs[:, :3]) ** 2).mean().backward()
    torch.set_num_threads(threads)
    optimizer.step()


def digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for param in model.parameters():
        found.update(param.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def through_a_file(kind: str, model: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
    """Give another model and optimizer, with what was saved of these."""
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(format="native")}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    model, optimizer = made(kind)
    gradient.wrap(optimizer)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return model, optimizer


def trained(kind: str, steps: int, *, threads: int = 1, saved_at: int = 0) -> str:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model, optimizer = made(kind)
        gradient.wrap(optimizer)
        for step in range(1, steps + 1):
            train_once(model, optimizer, step)
            if step == saved_at:
                model, optimizer = through_a_file(kind, model, optimizer)
        return digest(model)
    finally:
        torch.set_num_threads(before)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = {kind: made(kind) for kind in KINDS}
    engines = {}
    for kind, (model, optimizer) in parts.items():
        gradient.wrap(optimizer)
        engine = gradient.GradientEngine.attach(model, optimizer, workspace=options.folder, repo=kind, resume="latest")
        engine.autocommit(every=EVERY)
        engines[kind] = engine
    start = min(engine.current_step for engine in engines.values())
    print(f"from {start}", flush=True)
    for step in range(start + 1, options.steps + 1):
        for kind, (model, optimizer) in parts.items():
            # Killed between two of them, one may be a commit ahead.
            if step > engines[kind].current_step:
                train_once(model, optimizer, step)
                engines[kind].maybe_commit(step)
        print(f"step {step}", flush=True)
    for kind, (model, _) in parts.items():
        print(f"{kind} {digest(model)}", flush=True)


if __name__ == "__main__":
    main()
    sys.exit(0)
