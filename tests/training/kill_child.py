"""The training script of the kill tests, run as a child: trains, commits, says at each step what it is made of.

Everything that a commit has to bring back is in it: a model with dropout and batch norm, AdamW, ReduceLROnPlateau, data
drawn with the generators of Python, NumPy and torch, an epoch's order drawn with a generator of the script's own, and
the position in it as registered state. What it says is SHA-256, made without Gradient.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import reporter

STEPS = 40
EVERY = 3
NUM_EXAMPLES = 40
BATCH = 8
LEAVE_OUT = "KILL_CHILD_LEAVE_OUT"
"""Names a captured item that this child's commits shall lack; see leave_out.py. For canaries."""


class Data:
    """Examples in an order drawn anew for each epoch, spoiled by all three global generators."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.examples = np.linspace(-1, 1, NUM_EXAMPLES * 8, dtype=np.float32).reshape(NUM_EXAMPLES, 8)
        self.order: list[int] = []
        self.position = 0

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.position + BATCH > len(self.order):
            self.order, self.position = self.generator.permutation(NUM_EXAMPLES).tolist(), 0
        picked = self.order[self.position : self.position + BATCH]
        self.position += BATCH
        scale = 1 + 0.2 * random.random() + 0.2 * np.random.rand(BATCH, 1).astype(np.float32)
        inputs = torch.from_numpy(self.examples[picked] * scale.astype(np.float32)) + 0.1 * torch.randn(BATCH, 8)
        targets = inputs.sum(1, keepdim=True).sin() + 0.3 * random.gauss(0, 1)
        return inputs, targets

    def state(self) -> dict[str, Any]:
        return {"order": self.order, "position": self.position}

    def set_state(self, state: dict[str, Any]) -> None:
        self.order, self.position = list(state["order"]), state["position"]


class Run:
    """Everything that trains, freshly seeded."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        random.seed(11)
        np.random.seed(12)
        torch.manual_seed(13)
        self.model = nn.Sequential(
            nn.Linear(8, 16),
            nn.BatchNorm1d(16),
            nn.Dropout(0.2),
            nn.ReLU(),
            nn.Linear(16, 16),
            nn.Tanh(),
            nn.Linear(16, 1),
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-2)
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, factor=0.7, patience=2)
        self.data = Data(np.random.default_rng(14))

    def step(self) -> None:
        inputs, targets = self.data.next()
        loss = nn.functional.mse_loss(self.model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step(loss.item())

    def digests(self) -> dict[str, str]:
        """SHA-256 of weights, buffers, moments, the next value of each generator and the next batch."""
        digests = {
            "weights": _sha(*self.model.parameters()),
            "buffers": _sha(*self.model.buffers()),
            "moments": _sha(
                *(
                    value
                    for p in self.model.parameters()
                    for _, value in sorted(self.optimizer.state.get(p, {}).items())
                )
            ),
        }
        kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
        own, data = self.data.generator.bit_generator.state, self.data.state()
        digests["batch"] = _sha(*self.data.next())
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])
        # The generator of the script's own is at its epoch's start again; its next value is the next but one order.
        self.data.generator.bit_generator.state = own
        self.data.set_state(data)
        digests["python"] = _sha(random.random(), random.gauss(0, 1))
        digests["numpy"] = _sha(np.random.rand(), np.random.standard_normal())
        digests["torch"] = _sha(torch.rand(3), torch.randn(3))
        digests["own"] = _sha(self.data.generator.random())
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])
        self.data.generator.bit_generator.state = own
        return digests


def _sha(*values: torch.Tensor | float) -> str:
    digest = hashlib.sha256()
    for value in values:
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.float64(value)
        digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def warm_up() -> None:
    """Import all that a child needs, torch's lazy parts too; nothing of Gradient is opened."""
    run = Run()
    run.step()
    import gradient

    assert gradient.GradientEngine is not None


def main(arguments: Sequence[str]) -> int:
    """Train from wherever the repository says to the last step.

    `--resume argument|call|none` says which call restores, if the environment does not. `--plain` leaves Gradient out.
    `--hold STEP` waits for death at that step's end, so that a kill aimed at it can not miss it.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--reports", type=int, required=True)
    parser.add_argument("--workspace", default="ws")
    parser.add_argument("--resume", choices=("argument", "call", "none"), default="none")
    parser.add_argument("--hold", type=int)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args(arguments)
    report = reporter(options.reports)
    run = Run()
    if options.plain:
        for step in range(1, STEPS + 1):
            run.step()
            report(end=step, digests=run.digests(), lr=run.optimizer.param_groups[0]["lr"])
        return 0

    from gradient import GradientEngine

    if LEAVE_OUT in os.environ:
        from leave_out import leave_out

        leave_out(os.environ[LEAVE_OUT])
    report(attaching=True)
    with GradientEngine.attach(
        run.model,
        run.optimizer,
        run.scheduler,
        workspace=options.workspace,
        repo="model",
        resume="latest" if options.resume == "argument" else None,
    ) as engine:
        engine.register_state("data", getter=run.data.state, setter=run.data.set_state)
        engine.register_generator("own", run.data.generator)
        if options.resume == "call":
            engine.resume_latest()
        engine.autocommit(every=EVERY)
        start = engine.current_step
        report(start=start, digests=run.digests())
        for step in range(start + 1, STEPS + 1):
            report(begin=step)
            run.step()
            report(trained=step)
            handle = engine.maybe_commit(step)
            if handle is not None:
                report(committed=step, handle=str(handle), id=handle.id, root=handle.root)
            report(end=step, digests=run.digests(), lr=run.optimizer.param_groups[0]["lr"])
            if step == options.hold:
                signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
