"""Values of an optimizer's state as they are kept between steps: `gradient.coded.Coded`, and these."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradient.coded import Coded
from gradient.optim.codecs import Codec

logger = logging.getLogger("gradient")

_said: set[str] = set()


class Counter:
    """A parameter's number of steps, which torch keeps as a float32 tensor without dimensions.

    Attributes:
        value: The number.
    """

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def tensor(self) -> Tensor:
        """Give it as torch has it."""
        return torch.tensor(float(self.value), dtype=torch.float32)

    @classmethod
    def of(cls, value: Any) -> Counter:
        """Take it from what torch keeps."""
        return value if isinstance(value, cls) else cls(int(value))


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A tensor that a user's codec has packed.

    Attributes:
        codec: The codec.
        packed: What it gave.
        shape: The tensor's shape.
        dtype: The tensor's dtype.
    """

    codec: Codec
    packed: Any
    shape: torch.Size
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that the packed form takes, as the codec says."""
        return self.codec.bytes(self.packed)

    def decode(self, device: torch.device | str | None = None) -> Tensor:
        """Unpack it."""
        return self.codec.decode(self.packed, device=None if device is None else torch.device(device))


def full(value: Any, device: torch.device | str | None) -> Any:
    """Give a kept value as torch has it."""
    if isinstance(value, Coded | Packed):
        return value.decode(device)
    return value.tensor() if isinstance(value, Counter) else value


def nbytes(value: Any) -> int:
    """Give the bytes that a value takes: its tensors', and 8 for a number."""
    if isinstance(value, Tensor | Coded | Packed):
        return int(value.nbytes)
    if isinstance(value, list | tuple):
        return sum(map(nbytes, value))
    return 8 if isinstance(value, int | float | Counter) else 0


def say_once(text: str) -> None:
    """Log a sentence, once in the life of the process."""
    if text not in _said:
        _said.add(text)
        logger.warning("%s", text)
