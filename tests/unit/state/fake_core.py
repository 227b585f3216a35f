"""A stand-in for `gradient._core` in pure Python, as far as `gradient.state` needs it; used until that one is built.

It is as strict as the real one about exact types, and copies buffers when a commit is made, as the real one does.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

__version__ = "0.0.0"
DEBUG_BUILD = False
CHUNK_BYTES = 1 << 20


class TensorLeaf:
    def __init__(self, dtype, shape, data, *, order=None, numpy=False):
        view = memoryview(data)
        assert view.format == "B"
        assert view.contiguous
        assert type(dtype) is str
        self.dtype, self.shape, self.numpy = dtype, tuple(int(length) for length in shape), numpy
        self.order = None if order is None else tuple(order)
        self.data = view


class Alias:
    def __init__(self, path):
        self.path = tuple(path)


class Named:
    def __init__(self, name, value, extra=None):
        self.name, self.value, self.extra = name, value, extra


class StoredTensor:
    def __init__(self, leaf):
        self.dtype, self.shape, self.order, self.numpy = leaf.dtype, leaf.shape, leaf.order, leaf.numpy
        self._data = bytes(leaf.data)
        self.nbytes = len(self._data)
        width = self.nbytes // math.prod(self.shape) if math.prod(self.shape) else 1
        assert self.nbytes == math.prod(self.shape) * width
        told = repr((self.dtype, self.shape, self.order, self.numpy)).encode()
        self.digest = hashlib.sha256(told + self._data).hexdigest()

    def bytes(self):
        return self._data


def check_name(name, what="branch"):
    from gradient.errors import InvalidInputError

    if not name or "/" in name or "@" in name:
        raise InvalidInputError(f"{name!r} can not name a {what}")


def stored(node: Any) -> Any:
    """What a commit and a read make of a node."""
    kind = type(node)
    if kind is TensorLeaf:
        return StoredTensor(node)
    if kind is dict:
        return {key: stored(value) for key, value in node.items()}
    if kind in (list, tuple):
        return kind([stored(value) for value in node])
    if kind is Named:
        return Named(node.name, stored(node.value), node.extra)
    assert kind in (type(None), bool, int, float, complex, str, bytes, set, frozenset, Alias), kind
    return node


class Carried:
    """The content of a commit."""

    def __init__(self, sections):
        self.sections = {
            section: {name: stored(mapping) for name, mapping in components.items()}
            for section, components in sections.items()
        }
        self.available = {section: sorted(components) for section, components in self.sections.items()}

    def component(self, section, name):
        return self.sections[section][name]

    @staticmethod
    def read_into(jobs):
        for tensor, buffer in jobs:
            view = memoryview(buffer)
            assert len(view) == tensor.nbytes
            assert not view.readonly
            view[:] = tensor.bytes()
