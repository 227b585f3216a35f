"""Streams of gradients that optimizers are fed with: kept ones of real runs, and ones made by lot to break codes.

A kept stream is made once, by a run in fp32, and lies in the folder of the benches' data, 1 GB in all. Streams made by
lot are made again for every pass, from the same seed. Only tensors that are compressed are in a stream: those of two
dimensions or more and of 4,096 values or more.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import paired_tasks
from harness import DATA
from paired_tasks import TASKS, cosine

REAL_STEPS = 400
SHAPE = (256, 64)
"""Of the one tensor of a stream made by lot."""
BETAS = (0.95, 0.99, 0.999)


@dataclass(frozen=True)
class Stream:
    """Gradients of some tensors, step by step."""

    title: str
    shapes: list[torch.Size]
    num_steps: int
    passes: Callable[[], Iterator[list[Tensor]]]
    """Begins a pass: gives the gradients of each step."""
    betas: tuple[float, ...] = (0.999,)
    from_step: int = 0
    """Where errors begin to be counted."""
    ignored: Tensor | None = None
    """Of all values in a row: those whose errors are not counted."""
    unseen: Tensor | None = None
    """Of all values in a row: those that have no gradient, so that their weights have to stand still."""
    unseen_from: int = 0
    """The step from which they have to."""

    @property
    def num_values(self) -> int:
        return sum(shape.numel() for shape in self.shapes)


REAL: dict[str, tuple[str, str, Callable[[int], paired_tasks.Run]]] = {
    "lm": (
        "language model over bytes, 2 layers",
        "lm",
        functools.partial(paired_tasks.language, width=96, layers=2, heads=4, tied=False),
    ),
    "conv": ("convolutions with BatchNorm, trained with SGD", "digits", paired_tasks.digits),
    "zipf": (
        "8,192 embeddings, words after Zipf's law",
        "zipf",
        functools.partial(paired_tasks.zipf, rows=8192),
    ),
}


def record(task: str, make: Callable[[int], paired_tasks.Run]) -> list[Tensor]:
    """Train in fp32 and give the clipped gradients of each compressed tensor, [steps, *shape]."""
    torch.manual_seed(0)
    run = make(0)
    optimizer = TASKS[task].optimizer(run.model.parameters())
    schedule = cosine(optimizer, REAL_STEPS)
    compressed = [weight for weight in run.model.parameters() if weight.ndim >= 2 and weight.numel() >= 4096]
    kept = [torch.empty(REAL_STEPS, *weight.shape) for weight in compressed]
    for step in range(REAL_STEPS):
        optimizer.zero_grad()
        run.batch_loss().backward()
        nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        for weight, gradients in zip(compressed, kept, strict=True):
            assert weight.grad is not None
            gradients[step] = weight.grad
        optimizer.step()
        schedule.step()
    return kept


def real(name: str) -> Stream:
    """The kept stream, made if it is not there."""
    title, task, make = REAL[name]
    path = DATA / "gradients" / f"{name}.pt"
    if not path.exists():
        print(f"keeping the gradients of {REAL_STEPS} steps: {title}", file=sys.stderr)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        torch.save(record(task, make), unfinished)
        os.replace(unfinished, path)
    kept = torch.load(path, weights_only=True, mmap=True)

    def passes() -> Iterator[list[Tensor]]:
        for step in range(REAL_STEPS):
            yield [gradients[step].clone() for gradients in kept]

    shapes = [gradients.shape[1:] for gradients in kept]
    return Stream(f"real gradients, {title}", shapes, REAL_STEPS, passes, betas=BETAS)


def by_lot(
    title: str,
    num_steps: int,
    scale: Tensor | float,
    change: Callable[[int, Tensor], Tensor] = lambda _, gradient: gradient,
    *,
    shape: tuple[int, int] = SHAPE,
    from_step: int = 0,
    ignored: Tensor | None = None,
    unseen: Tensor | None = None,
    unseen_from: int = 0,
) -> Stream:
    """Normal gradients times a scale for each value, then changed with the step in mind."""

    def passes() -> Iterator[list[Tensor]]:
        generator = torch.Generator().manual_seed(2)
        for step in range(num_steps):
            yield [change(step, scale * torch.randn(shape, generator=generator))]

    return Stream(title, [torch.Size(shape)], num_steps, passes, (0.999,), from_step, ignored, unseen, unseen_from)


def log_normal_scale(sigma: float) -> Tensor:
    return 1e-3 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)).mul(sigma).exp()


def fall() -> Stream:
    """Half of the values, drawn by lot, get gradients a tenth as large from step 1,000 on; scales as with sigma 1."""
    falling = torch.rand(SHAPE, generator=torch.Generator().manual_seed(4)) < 0.5
    later = torch.where(falling, 0.1, 1.0)
    return by_lot(
        "half of the gradients fall tenfold, scales log-normal with sigma 1, errors after the fall",
        3000,
        log_normal_scale(1.0),
        lambda step, gradient: gradient * later if step >= 1000 else gradient,
        from_step=1000,
    )


def log_normal(sigma: float) -> Stream:
    return by_lot(f"scales log-normal inside a block, sigma {sigma:.0f}", 1500, log_normal_scale(sigma))


def outlier() -> Stream:
    """A scale of a million for one value in 256, each in a block of 64 with others."""
    ignored = torch.zeros(SHAPE, dtype=torch.bool).view(-1, 256)
    ignored[:, 77] = True
    scale = torch.where(ignored.view(SHAPE), 1.0, 1e-6)
    title = "one value in 256 a million times the others, errors of the others"
    return by_lot(title, 1500, scale, ignored=ignored.flatten())


def half_zero() -> Stream:
    """At each step, half of the gradients are zero."""
    generator = torch.Generator()

    def drop(step: int, gradient: Tensor) -> Tensor:
        return gradient * (torch.rand(SHAPE, generator=generator.manual_seed(step)) < 0.5)

    return by_lot("half of the gradients zero at each step", 1500, 1e-3, drop)


def unseen() -> Stream:
    """Every second row, of 32 values, never has a gradient; a block of 64 has two rows."""
    seen = (torch.arange(512) % 2 == 0)[:, None].expand(512, 32)
    title = "every second row never seen, its weights must not move"
    return by_lot(title, 1500, 1e-3 * seen.float(), shape=(512, 32), unseen=~seen.flatten())


def stopped() -> Stream:
    """Half of the values, drawn by lot, have no gradient from step 500 on; by step 900 their momentum is gone.

    A code that rounds what decays back to where it was lets them drift for ever.
    """
    stops = torch.rand(SHAPE, generator=torch.Generator().manual_seed(4)) < 0.5
    return by_lot(
        "half of the values have no gradient any more, their weights must come to rest",
        1500,
        1e-3,
        lambda step, gradient: gradient.masked_fill(stops, 0) if step >= 500 else gradient,
        unseen=stops.flatten(),
        unseen_from=900,
    )


STREAMS: dict[str, Callable[[], Stream]] = {
    **{name: functools.partial(real, name) for name in REAL},
    "fall": fall,
    "sigma-1": functools.partial(log_normal, 1.0),
    "sigma-2": functools.partial(log_normal, 2.0),
    "outlier": outlier,
    "half-zero": half_zero,
    "unseen": unseen,
    "stopped": stopped,
}
