"""Live tensors that a restore writes, and what happens where several of them look at the same memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gradient.state import tensors
from gradient.state.unflatten import to_torch

if TYPE_CHECKING:
    from gradient._core import StoredTensor


class Target:
    """A live tensor, and what will be read into it."""

    def __init__(self, tensor: Tensor, stored: StoredTensor, where: str) -> None:
        self.tensor = tensor
        self.stored = stored
        self.where = where
        self.identity = tensors.identity(tensor)
        self.storage = tensor.untyped_storage()._cdata
        self.extent = tensors.extent(tensor)

    def meets(self, other: Target) -> bool:
        """Tell whether the two ranges of memory meet; interleaved tensors count, though they may share no byte."""
        return self.extent[0] < other.extent[1] and other.extent[0] < self.extent[1]

    def on(self, storage: torch.UntypedStorage) -> Tensor:
        """Look at another storage the way the tensor looks at its own."""
        view = torch.empty(0, dtype=self.tensor.dtype)
        return view.set_(storage, self.tensor.storage_offset(), self.tensor.shape, self.tensor.stride())


def clashes(targets: Sequence[Target]) -> list[str]:
    """Say which live tensors overlap and have values in the commit that can not both be.

    Costs nothing where no two of them meet. Where some do, their values are read and written to a scratch memory.

    Args:
        targets: Targets of one storage.
    """
    meeting = {
        target.where: target
        for index, first in enumerate(targets)
        for second in targets[index + 1 :]
        if first.meets(second)
        for target in (first, second)
    }
    if not meeting:
        return []
    scratch = torch.zeros(targets[0].tensor.untyped_storage().nbytes(), dtype=torch.uint8).untyped_storage()
    pairs = [(target, target.on(scratch), to_torch(target.stored)) for target in meeting.values()]
    for _, view, value in pairs:
        tensors.copy_bits(view, value)
    return [
        f"{target.where}: shares memory with another tensor here, which it did not in the commit"
        for target, view, value in pairs
        if not tensors.same_bits(view, value)
    ]
