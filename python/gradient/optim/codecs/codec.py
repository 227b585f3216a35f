"""What a codec is: a tensor of an optimizer's state in, something smaller out, and back."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from gradient import coded
from gradient.coded import Coded
from gradient.errors import InvalidInputError


class Codec(ABC):
    """Packs one tensor. Subclass it for a codec of your own, which runs on the generic path.

    What `encode` gives is kept between steps. `decode` has to give a tensor of the same shape and dtype, in memory
    that nothing else uses; nothing is kept of the tensor itself. A commit stores the decoded tensor, so what is
    encoded again after a resume should be coded to the same.
    """

    @abstractmethod
    def encode(self, tensor: Tensor) -> Any:
        """Pack a tensor of any shape, dtype and device; it must not be kept or changed."""

    @abstractmethod
    def decode(self, packed: Any, device: torch.device | None = None) -> Tensor:
        """Unpack what `encode` gave, to a device; None leaves it where it is."""

    @abstractmethod
    def bytes(self, packed: Any) -> int:
        """Say how many bytes of memory the packed form takes."""

    def batch_encode(self, tensors: Sequence[Tensor]) -> list[Any]:
        """Pack several tensors."""
        return [self.encode(tensor) for tensor in tensors]

    def batch_decode(self, packed_list: Sequence[Any], device: torch.device | None = None) -> list[Tensor]:
        """Unpack several."""
        return [self.decode(packed, device=device) for packed in packed_list]


class BuiltinCodec(Codec):
    """A codec of one of the kinds of `gradient.coded`: the fused kernels work on what it packs.

    Args:
        offload_to_cpu: Keep what is packed in the memory of the CPU, wherever the parameter is.
    """

    kind: ClassVar[str]

    def __init__(self, offload_to_cpu: bool = False) -> None:
        if not isinstance(offload_to_cpu, bool):
            raise InvalidInputError(f"offload_to_cpu is True or False and no {offload_to_cpu!r}", code="bad-option")
        self.offload_to_cpu = offload_to_cpu

    def encode(self, tensor: Tensor) -> Coded:
        """Pack a floating point tensor; see `gradient.coded.encode`."""
        return self.encode_as(tensor, seed=0, draws=None)

    def encode_as(self, tensor: Tensor, *, seed: int, draws: int | None, into: Any = None) -> Coded:
        """Pack a tensor; rounded stochastically unless `draws` is None. Memory of `into` is taken if it fits."""
        into = into if isinstance(into, Coded) else None
        return coded.encode(tensor, self.kind, seed=seed, draws=draws, device=self._device(), into=into)

    def decode(self, packed: Coded, device: torch.device | None = None) -> Tensor:
        """Unpack; the dtype is that of the tensor that was packed."""
        return packed.decode(device)

    def bytes(self, packed: Coded) -> builtins.int:
        """Say how many bytes codes and scales take."""
        return packed.nbytes

    def is_stochastic(self, beta2: float | None) -> bool:
        """Tell whether rounding is stochastic for an average that keeps so much of itself a step; None if unknown."""
        return False

    def _device(self) -> torch.device | None:
        return torch.device("cpu") if self.offload_to_cpu else None

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> builtins.int:
        return hash((type(self), *sorted(vars(self).items())))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"
