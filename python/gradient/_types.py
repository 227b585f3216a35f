"""Types that several parts share. Nothing here imports anything of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

PathLike: TypeAlias = str | os.PathLike[str]
Metrics: TypeAlias = Mapping[str, int | float]

Compression: TypeAlias = Literal["off", "auto", "aggressive"]
Grads: TypeAlias = Literal["auto", "always", "never"]
Hyperparameters: TypeAlias = Literal["commit", "script"]
Deltas: TypeAlias = Literal["off", "auto", "all"]
"""When chunks are stored as differences: never, where that saves a tenth, wherever that saves anything."""

ModelState: TypeAlias = Literal["all", "trainable"]

SECTIONS: tuple[str, ...] = ("model", "optim", "scheduler", "scaler", "rng", "data", "grads", "extra")
"""The sections of a commit's state, in the order in which people think of them."""


@runtime_checkable
class Stateful(Protocol):
    """What can give its state and take it back."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any, /) -> Any: ...


@runtime_checkable
class CompressedOptimizer(Protocol):
    """An optimizer whose state is kept coded: what `gradient.wrap` makes."""

    def held_state(self, param: Any, /) -> dict[Any, Any]: ...
    def set_held_states(self, states: Mapping[Any, Mapping[Any, Any]], steps: Mapping[Any, int], /) -> bool: ...
    def held_steps(self) -> dict[Any, int]: ...


class ReadableTensor(Protocol):
    """A tensor of a commit: what `_core.StoredTensor` and `gradient.stored.StoredTensor` have in common."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def order(self) -> tuple[int, ...] | None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def digest(self) -> str: ...
    def bytes(self) -> bytes: ...
