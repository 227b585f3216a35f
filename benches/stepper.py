"""An optimizer to be measured: parameters in the shapes of known models, and gradients that differ in every step.

Two steppers of the same shapes begin with the same weights and are given the same gradients, so that `check_agreement`
can tell a fast step from one that did not do the work.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import Optimizer

import gradient
from train_gpt import GPT

Shapes = list[tuple[int, ...]]
Make = Callable[[list[nn.Parameter]], Optimizer]

# So many elements lie between the gradients of two steps: whole cache lines, in bf16 too.
SHIFT = 32
NUM_SHIFTS = 64
DISAGREEMENT_MAX = 0.25


def lab_gpt() -> Shapes:
    """The 17.0 M parameters of `train_gpt.py`; tied embeddings count once."""
    with torch.device("meta"):
        return [tuple(parameter.shape) for parameter in GPT().parameters()]


def squares(count: int) -> Shapes:
    return [(2048, 2048)] * count


def resnet50() -> Shapes:
    """The 161 parameters of ResNet-50 for 1000 classes (He et al. 2015, arXiv:1512.03385)."""
    shapes: Shapes = []

    def convolution(channels_out: int, channels_in: int, side: int) -> None:
        # The batch normalization after it has a weight and a bias.
        shapes.extend([(channels_out, channels_in, side, side), (channels_out,), (channels_out,)])

    convolution(64, 3, 7)
    channels = 64
    for width, num_blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(num_blocks):
            convolution(width, channels, 1)
            convolution(width, width, 3)
            convolution(4 * width, width, 1)
            if block == 0:
                convolution(4 * width, channels, 1)
            channels = 4 * width
    shapes += [(1000, channels), (1000,)]
    if len(shapes) != 161 or num_elements(shapes) != 25_557_032:
        raise AssertionError("these are not the shapes of ResNet-50")
    return shapes


def num_elements(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes)


def wrapped(make: Make) -> Make:
    """Our optimizer in place of what `make` makes."""
    return lambda parameters: gradient.wrap(make(parameters))


class Stepper:
    """Parameters with their optimizer."""

    def __init__(self, shapes: Shapes, make: Make, *, dtype: torch.dtype = torch.float32) -> None:
        self._pool = _normal(num_elements(shapes) + SHIFT * NUM_SHIFTS, dtype)
        self._shapes = shapes
        self.parameters = [nn.Parameter(values * 0.02) for values in self._views(0)]
        self.optimizer = make(self.parameters)
        self.num_steps = 0

    def sample(self) -> Callable[[], object]:
        """One step, as `harness.alternate` takes it: the gradients are there before it is timed."""
        self.num_steps += 1
        gradients = self._views(SHIFT * (self.num_steps % NUM_SHIFTS))
        for parameter, values in zip(self.parameters, gradients, strict=True):
            parameter.grad = values
        return self.optimizer.step

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.sample()()

    def moved(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The first parameter as it began, and as it is."""
        return next(self._views(0)) * 0.02, self.parameters[0].detach()

    def _views(self, start: int) -> Iterator[torch.Tensor]:
        for shape in self._shapes:
            stop = start + math.prod(shape)
            yield self._pool[start:stop].view(shape)
            start = stop


def check_agreement(ours: Stepper, peer: Stepper) -> None:
    """Raise if our weights went another way than the peer's: a step that does not do the work is not a fast one."""
    (start, own), (_, theirs) = ours.moved(), peer.moved()
    apart = ((own - theirs).float().norm() / (theirs - start).float().norm()).item()
    if ours.num_steps != peer.num_steps or not apart < DISAGREEMENT_MAX:
        raise AssertionError(f"after {ours.num_steps} steps our weights are {apart:.3f} of their way from the peer's")


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of the distinct tensors of the state; what a wrapped optimizer keeps its store knows."""
    store = getattr(optimizer, "store", None)
    if store is not None:
        return store.get_memory_usage()
    tensors: dict[int, int] = {}
    for value in _tensors(optimizer):
        names = value.__tensor_flatten__()[0] if hasattr(value, "__tensor_flatten__") else ()
        tensors |= {part.data_ptr(): part.nbytes for part in [getattr(value, name) for name in names] or [value]}
    return sum(tensors.values())


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tensors(optimizer: Optimizer) -> Iterable[torch.Tensor]:
    values = (value for state in optimizer.state.values() for value in state.values())
    return (value for value in values if isinstance(value, torch.Tensor))


@functools.lru_cache(maxsize=1)
def _normal(count: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers that weights and gradients are cut from; steppers of the same shapes share them."""
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).to(dtype)
