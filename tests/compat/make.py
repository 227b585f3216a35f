"""Makes the repository that `tests/compat` keeps of a format version: run once, when the version is new.

python tests/compat/make.py tests/compat/format-1
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Mapping

import numpy as np
import torch

from gradient import GradientEngine, Repo


def build() -> tuple[torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Make what the kept repository was made with."""
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 3))
    model.register_buffer("steps", torch.zeros(2, dtype=torch.int64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, engine: GradientEngine, step: int) -> None:
    """Take one step and commit it."""
    optimizer.zero_grad()
    model(torch.randn(4, 12)).square().mean().backward()
    optimizer.step()
    engine.commit(step, f"step {step}", metrics={"loss": 1.0 / step})


def state(repo: Repo, ref: str) -> dict[str, list[object]]:
    """Give every tensor of a commit: path to dtype, shape and the SHA-256 of its bytes."""
    found: dict[str, list[object]] = {}

    def walk(path: str, value: object) -> None:
        if hasattr(value, "bytes") and hasattr(value, "dtype"):
            found[path] = [value.dtype, list(value.shape), hashlib.sha256(value.bytes()).hexdigest()]
        elif isinstance(value, Mapping):
            for key, below in value.items():
                walk(f"{path}/{key}", below)
        elif isinstance(value, list | tuple):
            for number, below in enumerate(value):
                walk(f"{path}/{number}", below)

    for section, components in repo.state(ref).items():
        for name in components:
            walk(f"{section}/{name}", components[name])
    return found


def main(target: str) -> None:
    """Make the repository and what is expected of it."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = pathlib.Path(folder)
        model, optimizer, scheduler = build()
        with GradientEngine.attach(model, optimizer, scheduler, workspace=workspace, repo="net") as engine:
            engine.register_state(
                "notes", getter=lambda: {"odd": (1, None, b"x"), "set": {1, 2}}, setter=lambda _: None
            )
            engine.register_state("array", getter=lambda: np.arange(99, dtype=">i4"), setter=lambda _: None)
            for step in (1, 2):
                train(model, optimizer, engine, step)
            engine.fork("main@1", "exp")
            train(model, optimizer, engine, 5)
        with Repo.open(workspace / "net") as repo:
            repo.core.create_tag("best", repo.resolve("main@1").id)
            expected = {ref: state(repo, ref) for ref in ("main@1", "main@2", "exp@5", "best")}
        path = pathlib.Path(target)
        shutil.rmtree(path, ignore_errors=True)
        # Without the caches, which are rebuilt.
        shutil.copytree(workspace / "net", path / "net", ignore=shutil.ignore_patterns("cache"))
        (path / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
