"""Nodes of a commit as Python values again; the tensors in them are filled when the plan's jobs are read."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gradient._core import Alias, Named, StoredTensor
from gradient.errors import CorruptionError, InvalidInputError
from gradient.memory import check_declared, short_of_memory
from gradient.state import arrays, coded_state, composites, tensors
from gradient.state.paths import Path, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradient._types import ReadableTensor

    Make = Callable[[StoredTensor, Path], Any]
    Later = Callable[[Callable[[], None]], object]

_FACTORIES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, set, dict)}
_TENSORS = {*composites.BITS, *composites.NAMES}
"""Names of named values that are tensors."""


class Unflattener:
    """Rebuilds the values of one component, in the order in which they were flattened.

    Args:
        section: The component's section, for errors.
        name: The component's name.
        make: Gives the tensor or array for a stored one; called once for each, aliases share it.
        later: Takes what has to be called once the elements of all of these were read.
        mapping: The component's mapping, for aliases of what nobody asked for: it is built when an alias needs it.
    """

    def __init__(
        self, section: str, name: str, make: Make, later: Later, mapping: dict[Any, Any] | None = None
    ) -> None:
        self._where = (section, name)
        self._make = make
        self._later = later
        self._mapping = mapping
        self._made: dict[Path, Any] = {}

    def value(self, node: Any, path: Path) -> Any:
        """Rebuild the value at `path`.

        Raises:
            CorruptionError: The node is none that this version knows, or an alias of nothing.
        """
        kind = type(node)
        if kind is StoredTensor:
            made = self._made[path] = self._make(node, path)
            return made
        if kind is Alias:
            return self.alias(node, path)
        if kind is dict:
            return {key: self.value(item, (*path, key)) for key, item in node.items()}
        if kind is list:
            return [self.value(item, (*path, index)) for index, item in enumerate(node)]
        if kind is tuple:
            return tuple([self.value(item, (*path, index)) for index, item in enumerate(node)])
        if kind is Named:
            return self._named(node, path)
        return node

    def alias(self, node: Alias, path: Path) -> Any:
        """Give the tensor that an alias means.

        Raises:
            CorruptionError: There is none at its path, or not before this one.
        """
        target = tuple(node.path)
        if target not in self._made and self._mapping is not None:
            meant = find(self._mapping, target)
            if isinstance(meant, StoredTensor) or (isinstance(meant, Named) and meant.name in _TENSORS):
                self.value(meant, target)
        if target not in self._made:
            raise CorruptionError(
                f"{shown(*self._where, path)} is an alias of {shown(*self._where, target)}, where no tensor is",
                code="bad-alias",
            )
        return self._made[target]

    def note(self, path: Path, tensor: Tensor) -> None:
        """Take a live tensor for the one at `path`: aliases of it get this one."""
        self._made[path] = tensor

    def _named(self, node: Named, path: Path) -> Any:
        if node.name in composites.BITS:
            made = self._made[path] = _flipped(self.value(node.value, path), node.name, shown(*self._where, path))
            return made
        if node.name in composites.NAMES:
            return self._composite(node, path)
        if node.name == "numpy-scalar":
            return arrays.scalar_from(_as(bytes, node.value), _as(str, node.extra))
        value = self.value(node.value, path)
        if node.name == "ordered-dict":
            return OrderedDict(value)
        if node.name == "counter":
            # Not Counter(value): that one would add up, which is the same only for a fresh one.
            counter: Counter[Any] = Counter()
            dict.update(counter, value)
            return counter
        if node.name == "default-dict":
            return defaultdict(None if node.extra is None else _FACTORIES[_as(str, node.extra)], value)
        if node.name == "deque":
            return deque(value, None if node.extra is None else _as(int, node.extra))
        raise CorruptionError(
            f"{shown(*self._where, path)} is a {node.name}, which this version can not restore",
            code="unsupported-value",
            hint="update gradient",
        )

    def _composite(self, node: Named, path: Path) -> Tensor:
        parts, extra = composites.parts_of(node)
        inner = {key: self.value(part, composites.inside(path, key)) for key, part in parts.items()}
        made, finish = composites.compose(node.name, inner, extra, shown(*self._where, path))
        self._later(finish)
        self._made[path] = made
        return made


def find(mapping: dict[Any, Any], path: Path) -> Any:
    """Give the node at a path in a component's mapping; None if there is none."""
    node: Any = mapping
    try:
        for key in path:
            inner: Any = node.value if isinstance(node, Named) else node
            node = inner[key]
    except (LookupError, TypeError):
        return None
    return node


def to_torch(stored: ReadableTensor | Named) -> Tensor:
    """Make a torch tensor of a tensor or array of a commit, in new memory on the CPU.

    Args:
        stored: A leaf as `_core.Repository.component` or `Repo.state` gives it; or what `Repo.state` gives for a tensor
            that only torch has (sparse, quantized, nested, conjugated ...).

    Returns:
        The tensor with the dtype, shape and memory order, or layout and parameters, it was committed with.

    Raises:
        CorruptionError: Its bytes are not what was committed.
        InvalidInputError: The installed torch has no such dtype; or it declares more bytes than there is memory
            (`restore-too-large`).
        StorageError: There is not enough memory (`out-of-memory`).
    """
    # A leaf of `Repo.state` wraps the core's, whose `numpy` is a flag and no method.
    core: Any = getattr(stored, "core", stored)
    with short_of_memory("a tensor can not be made"):
        return _to_composite(core) if isinstance(core, Named) else _to_plain(core)


def _to_plain(core: Any) -> Tensor:
    check_declared(
        core.nbytes,
        None,
        what=f"a tensor ({core.dtype} {list(core.shape)})",
        way_out="restore it on a machine that has as much",
    )
    if core.numpy:
        array = arrays.empty(core)
        data = np.frombuffer(core.bytes(), dtype=array.dtype.newbyteorder("<"))
        return torch.from_numpy(data.reshape(core.shape).astype(array.dtype.newbyteorder("=")))
    made = tensors.empty(core)
    if core.nbytes:
        flat = torch.frombuffer(bytearray(core.bytes()), dtype=torch.uint8)
        tensors.copy_bits(made, flat.view(made.dtype).reshape(made.shape))
    return made


def _to_composite(named: Any) -> Tensor:
    if named.name == coded_state.NAME:
        return coded_state.decoded(named, to_torch)
    if named.name in composites.BITS:
        return _flipped(to_torch(named.value), named.name, "the tensor")
    if named.name not in composites.NAMES:
        raise InvalidInputError(f"a {named.name} is no tensor", code="no-tensor")
    parts, extra = composites.parts_of(named)
    inner = {key: to_torch(part) for key, part in parts.items()}
    made, finish = composites.compose(named.name, inner, extra, "the tensor")
    finish()
    return made


def _flipped(value: object, bit: str, where: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise CorruptionError(f"{where} is an alias of what is no tensor", code="bad-alias")
    if composites.has_no_bits(value):
        raise CorruptionError(f"{where} is the {bit} of a tensor that has no such view", code="bad-value")
    return composites.flip(value, (bit,))


def _as(kind: type[Any], value: object) -> Any:
    if type(value) is not kind:
        raise CorruptionError(
            f"a named value holds {type(value).__name__} instead of {kind.__name__}", code="bad-value"
        )
    return value
