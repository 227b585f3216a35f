"""NumPy arrays and scalars as the leaves of a commit, and back: `dtype.str`, memory order, little-endian bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradient._core import Named, TensorLeaf
from gradient.state.paths import refused
from gradient.state.tensors import Bytes, dense_order, inverse

if TYPE_CHECKING:
    from gradient._types import ReadableTensor

Array = NDArray[Any]


def leaf(array: Array, where: str) -> TensorLeaf:
    """Describe an array for a commit; one in row-major order is looked at and not copied.

    Raises:
        InvalidInputError: Objects, structures and long doubles, whose bytes do not say what they are.
    """
    _check(array.dtype, where)
    return TensorLeaf(array.dtype.str, array.shape, raw(array).data, order=order_of(array), numpy=True)


def raw(array: Array) -> Bytes:
    """Give the elements in row-major order as little-endian bytes."""
    if array.dtype.itemsize == 0:
        return np.empty(0, np.uint8)
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8)


def order_of(array: Array) -> tuple[int, ...] | None:
    """Give the dimensions from the largest to the smallest stride; None for row-major and for not dense ones."""
    if array.flags.c_contiguous:
        return None
    return dense_order(array.shape, array.strides, array.dtype.itemsize)


def scalar(value: np.generic, where: str) -> Named:
    """Describe a NumPy scalar.

    Raises:
        InvalidInputError: As for arrays.
    """
    _check(value.dtype, where)
    return Named("numpy-scalar", raw(np.asarray(value)).tobytes(), value.dtype.str)


def scalar_from(data: bytes, dtype: str) -> np.generic:
    """Make the scalar again."""
    kind = np.dtype(dtype)
    if kind.itemsize == 0:
        empty_text: np.generic = kind.type()
        return empty_text
    found: Array = np.frombuffer(data, dtype=kind.newbyteorder("<")).astype(kind.newbyteorder("="))
    scalar: np.generic = found[0]
    return scalar


def empty(stored: ReadableTensor) -> Array:
    """Make an array of the stored one's dtype, shape and memory order; its elements are not set."""
    dtype = np.dtype(stored.dtype)
    if stored.order is None:
        return np.empty(stored.shape, dtype)
    base: Array = np.empty([stored.shape[dim] for dim in stored.order], dtype)
    return base.transpose(inverse(stored.order))


def takes_bytes(array: Array) -> bool:
    """Tell whether little-endian row-major bytes can be written into the array's memory as they are."""
    return bool(array.flags.c_contiguous and array.dtype == array.dtype.newbyteorder("<"))


def _check(dtype: np.dtype[Any], where: str) -> None:
    wide = (dtype.kind == "f" and dtype.itemsize > 8) or (dtype.kind == "c" and dtype.itemsize > 16)
    if dtype.kind not in "biufcmMSU" or wide:
        raise refused(where, f"a NumPy array or scalar of dtype {dtype} is not supported")
