"""Python values as the core takes them: exact types only, and whatever is not of them is refused with its path."""

from __future__ import annotations

import datetime
import enum
import types
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gradient._core import Alias, Named
from gradient.state import arrays, composites, tensors
from gradient.state.paths import NESTING_MAX, Path, refused, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ATOMS = frozenset({type(None), bool, int, float, complex, bytes})
_FACTORIES = {kind: kind.__name__ for kind in (bool, int, float, complex, str, bytes, list, tuple, set, dict)}
_INSTEAD = (
    (torch.Size, "tuple(it)"),
    (enum.Enum, "its name"),
    (PurePath, "str(it)"),
    ((datetime.date, datetime.time), "it.isoformat()"),
    (datetime.timedelta, "it.total_seconds()"),
    ((torch.dtype, torch.device), "str(it)"),
    (range, "list(it)"),
)
"""What to keep in the place of common values that are no plain ones, and make them of again."""
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.LambdaType)


class Flattener:
    """Turns the values of one component into nodes for the core, and finds the tensors that are the same one.

    The first place of a tensor holds it, in the order of the walk; every later one is an `Alias` of the first. The
    order is that of the state's own lists and mappings, so equal states give equal nodes.

    Attributes:
        tensor_bytes: Bytes of all distinct tensors and arrays met so far.
    """

    def __init__(self, section: str, name: str) -> None:
        self.section = section
        self.name = name
        self.tensor_bytes = 0
        # The tensors are kept: freed memory could be given to another one, which would then look like an alias.
        self._seen: dict[object, tuple[Path, object, tuple[str, ...]]] = {}
        self._reserved: set[int] = set()

    def reserve(self, owned: Iterable[Tensor]) -> None:
        """Refuse from now on what is the memory of one of these: stored apart, it would come back as a copy."""
        self._reserved = {tensors.identity(tensor)[0] for tensor in owned if tensors.is_plain(tensor)}

    def value(self, value: Any, path: Path) -> object:
        """Flatten one value.

        Raises:
            InvalidInputError: The value, or one inside it, is of a type that a commit can not hold; the message has
                its path.
        """
        kind = type(value)
        if kind is Tensor:
            return self.tensor(value, path)
        if kind in _ATOMS:
            return value
        if kind is str:
            return self._text(value, path)
        if len(path) > NESTING_MAX:
            raise refused(self._where(path[:4]), f"nested deeper than {NESTING_MAX}, or it contains itself")
        if isinstance(value, Tensor):
            return self.tensor(value, path)
        if kind is dict:
            return self._mapping(value, path)
        if kind in (list, tuple) and _ATOMS.issuperset(map(type, value)):
            return kind(value)
        if kind is list:
            return [self.value(item, (*path, index)) for index, item in enumerate(value)]
        if kind is tuple:
            return tuple([self.value(item, (*path, index)) for index, item in enumerate(value)])
        if kind is np.ndarray:
            return self._array(value, path)
        if isinstance(value, np.generic):
            return arrays.scalar(value, self._where(path))
        return self._collection(value, path)

    def tensor(self, tensor: Tensor, path: Path) -> object:
        """Flatten a tensor: itself at its first place, an alias of that at the others.

        Raises:
            InvalidInputError: See `tensors.check` and `composites.take`.
        """
        if tensors.is_plain(tensor):
            return self._memory(tensor, path, ())
        tensors.check(tensor, self._where(path), known=composites.is_jagged(tensor))
        bits = composites.bits_of(tensor)
        if bits and composites.has_no_bits(tensor):
            what = tensors.described(tensor)
            raise refused(self._where(path), f"a {' and '.join(bits)} view of {what} is not supported")
        lies = composites.flip(tensor, bits)
        if composites.kind_of(lies) is None:
            return self._memory(lies, path, bits)
        # Of the whole only the object can be told from others; memory has its parts, and they are told by it.
        seen = self._seen.get(id(tensor))
        if seen is not None:
            return Alias(seen[0])
        self._seen[id(tensor)] = (path, tensor, ())
        kind, name, parts, extra = composites.take(lies, self._where(path))
        return _meant(composites.node(name, self._parts(kind, parts, path), extra), bits)

    def _memory(self, tensor: Tensor, path: Path, bits: tuple[str, ...]) -> object:
        """Flatten a tensor by how it lies in memory, and say which bits a view of it has."""
        key = tensors.identity(tensor)
        if key[0] in self._reserved:
            raise refused(self._where(path), "it shares its memory with a parameter", hint="keep a clone instead")
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = (path, tensor, bits)
            self.tensor_bytes += tensor.nbytes
            return _meant(tensors.leaf(tensor), bits)
        if seen[2] == bits:
            return Alias(seen[0])
        again = self._seen.setdefault((key, bits), (path, tensor, bits))
        if again[0] != path:
            return Alias(again[0])
        return _meant(Alias(seen[0]), tuple(name for name in composites.BITS if (name in bits) != (name in seen[2])))

    def _parts(self, kind: composites.Composite, parts: composites.Parts, path: Path) -> dict[str, object]:
        if not kind.shares:
            return {key: tensors.leaf(part) for key, part in parts.items()}
        return {key: self.tensor(part, (*path, key)) for key, part in parts.items()}

    def _array(self, array: Any, path: Path) -> object:
        seen = self._seen.get(id(array))
        if seen is not None:
            return Alias(seen[0])
        self._seen[id(array)] = (path, array, ())
        self.tensor_bytes += array.nbytes
        return arrays.leaf(array, self._where(path))

    def _collection(self, value: Any, path: Path) -> object:
        kind = type(value)
        if kind is set or kind is frozenset:
            for item in value:
                self._element(item, path)
            return value
        if kind in (OrderedDict, Counter, defaultdict, deque):
            self._no_attributes(value, path)
        if kind is OrderedDict:
            return Named("ordered-dict", self._mapping(value, path))
        if kind is Counter:
            return Named("counter", self._mapping(value, path))
        if kind is defaultdict:
            factory = value.default_factory
            if factory is not None and factory not in _FACTORIES:
                raise refused(self._where(path), f"a defaultdict of {factory!r} is not supported; only plain types are")
            return Named("default-dict", self._mapping(value, path), _FACTORIES.get(factory))
        if kind is deque:
            items = [self.value(item, (*path, index)) for index, item in enumerate(value)]
            return Named("deque", items, value.maxlen)
        if isinstance(value, _FUNCTIONS):
            name = getattr(value, "__qualname__", "a function")
            raise refused(self._where(path), f"the function {name} can not be stored: nothing in a commit is ever run")
        what = f"a value of type {kind.__module__}.{kind.__qualname__} can not be stored"
        instead = next((text for kinds, text in _INSTEAD if isinstance(value, kinds)), None)
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            instead = "it._asdict()"
        if instead is None:
            raise refused(self._where(path), what)
        raise refused(self._where(path), what, hint=f"keep {instead} there, and make it anew of that")

    def _mapping(self, mapping: Mapping[Any, object], path: Path) -> dict[object, object]:
        flat: dict[object, object] = {}
        for key, item in mapping.items():
            self._key(key, path)
            flat[key] = self.value(item, (*path, key))
        return flat

    def _key(self, key: object, path: Path) -> None:
        kind = type(key)
        if kind is str:
            self._text(key, path)
        elif kind is tuple:
            for part in key:  # type: ignore[attr-defined]
                self._key(part, path)
        elif kind not in _ATOMS:
            raise refused(self._where(path), f"a mapping with the key {key!r} can not be stored")

    def _element(self, item: object, path: Path) -> None:
        if type(item) is frozenset:
            for part in item:
                self._element(part, path)
            return
        try:
            self._key(item, path)
        except ValueError:
            raise refused(self._where(path), f"a set with the element {item!r} can not be stored") from None

    def _text(self, text: Any, path: Path) -> str:
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise refused(self._where(path), f"{text!r} has a lone surrogate and is no text") from None
        return str(text)

    def _no_attributes(self, value: object, path: Path) -> None:
        # `Module.state_dict()` hangs its version numbers on the OrderedDict; `load_state_dict` does without.
        extra = set(getattr(value, "__dict__", ())) - {"_metadata"}
        if extra:
            raise refused(
                self._where(path), f"a {type(value).__name__} with attributes {sorted(extra)} can not be stored"
            )

    def _where(self, path: Path) -> str:
        return shown(self.section, self.name, path)


def _meant(value: object, bits: tuple[str, ...]) -> object:
    for name in reversed(bits):
        value = Named(name, value)
    return value
