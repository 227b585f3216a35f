"""Torch tensors as the leaves of a commit, bit for bit: dtypes, memory order, raw bytes, who shares memory.

Bytes are always moved through integers of the element's width: no float copy gets a chance to touch a NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from gradient._core import TensorLeaf
from gradient.state.paths import refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradient._types import ReadableTensor

Bytes = NDArray[np.uint8]
Identity = tuple[int, torch.Size, tuple[int, ...], torch.dtype, torch.device]


_NAMES = (
    "bool", "uint8", "int8", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float4_e2m1fn_x2", "uint16", "int16", "float16", "bfloat16", "uint32", "int32", "float32", "complex32", "uint64",
    "int64", "float64", "complex64", "complex128",
)  # fmt: skip
DTYPES: dict[torch.dtype, str] = {getattr(torch, name): name for name in _NAMES if hasattr(torch, name)}
"""Dtypes that a commit can hold (`docs/format/objects.md`), as far as the installed torch has them."""

_BY_NAME = {name: dtype for dtype, name in DTYPES.items()}
_PLAIN_KEYS = frozenset(
    torch._C._dispatch_keys(plain).raw_repr()
    for plain in (torch.empty(0), torch.empty(0, requires_grad=True), torch.nn.Parameter(torch.empty(0)))
)
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_NUMPY = frozenset({
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32,
    torch.float64, torch.complex64, torch.complex128,
})  # fmt: skip
_EXACT = frozenset({Tensor, torch.nn.Parameter})
_LATER = "it comes with a later release; until then keep a plain dense tensor there, or leave it out"


def check(tensor: Tensor, where: str) -> None:
    """Refuse what a commit can not hold yet.

    Raises:
        InvalidInputError: A subclass, a sparse, quantized, nested, conjugated, negated or meta tensor, or a dtype
            that is not in `DTYPES`; the message names `where`.
    """
    reason = unsupported(tensor)
    if reason is not None:
        raise refused(where, reason, hint=_LATER)


def unsupported(tensor: Tensor) -> str | None:
    """Say why a commit can not hold a tensor yet; None if it can."""
    kind = type(tensor)
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
        return "a lazy module's tensor has no elements before its first forward pass"
    if kind not in _EXACT:
        return f"a tensor of class {kind.__module__}.{kind.__qualname__} is not supported"
    if tensor.layout is not torch.strided:
        return f"a tensor of layout {str(tensor.layout).removeprefix('torch.')} is not supported"
    for found, what in (
        (tensor.is_quantized, "a quantized tensor is not supported"),
        (tensor.is_nested, "a nested tensor is not supported"),
        (tensor.is_meta, "a meta tensor has no elements"),
        (tensor.is_conj(), "a conjugated view is not supported; `tensor.resolve_conj()` makes a plain tensor"),
        (tensor.is_neg(), "a negated view is not supported; `tensor.resolve_neg()` makes a plain tensor"),
        (tensor._is_zerotensor(), "a ZeroTensor is not supported"),
        (torch._is_functional_tensor(tensor), "a functional tensor is not supported"),
        (tensor.dtype not in DTYPES, f"a tensor of dtype {str(tensor.dtype).removeprefix('torch.')} is not supported"),
    ):
        if found:
            return what
    return None


def is_plain(tensor: Tensor) -> bool:
    """Tell in well under a microsecond that `check` would pass; False tells nothing.

    Whatever makes a tensor special (sparse, quantized, nested, conjugated, functional, a subclass ...) has a dispatch
    key of its own.
    """
    if type(tensor) not in _EXACT or tensor.dtype not in DTYPES:
        return False
    keys: int = torch._C._dispatch_keys(tensor).raw_repr()
    return keys in _PLAIN_KEYS


def leaf(tensor: Tensor) -> TensorLeaf:
    """Describe a tensor for a commit, which `check` or `is_plain` has passed.

    A contiguous tensor on the CPU is not copied: the leaf looks at its memory. Any other is gathered first.
    """
    return TensorLeaf(DTYPES[tensor.dtype], tuple(tensor.shape), raw(tensor).data, order=order_of(tensor))


def raw(tensor: Tensor) -> Bytes:
    """Give the elements in row-major order of the shape as bytes; a view of the memory where that is possible."""
    plain = tensor.detach()
    # NumPy knows most dtypes itself; the others go as integers, and so does what has to be moved.
    bits = plain if plain.dtype in _NUMPY and plain.is_contiguous() else as_integers(plain)
    if not bits.is_contiguous():
        bits = bits.contiguous()
    if bits.device.type != "cpu":
        bits = bits.cpu()
    array: NDArray[np.generic] = bits.numpy()
    return array.reshape(-1).view(np.uint8)


def as_integers(tensor: Tensor) -> Tensor:
    """View the elements as integers of their width; complex128 as pairs."""
    width = tensor.dtype.itemsize
    if width == 16:
        tensor, width = torch.view_as_real(tensor), 8
    return tensor.view(_INTEGERS[width])


def order_of(tensor: Tensor) -> tuple[int, ...] | None:
    """Give the dimensions from the largest to the smallest stride; None for row-major and for not dense ones."""
    if tensor.is_contiguous():
        return None
    return dense_order(tensor.shape, tensor.stride(), 1)


def dense_order(shape: Sequence[int], strides: Sequence[int], unit: int) -> tuple[int, ...] | None:
    """Sort the dimensions by stride; None unless the elements fill their memory without gaps."""
    order = sorted(range(len(shape)), key=lambda dim: (-strides[dim], dim))
    expected = unit
    for dim in reversed(order):
        if shape[dim] != 1 and strides[dim] != expected:
            return None
        expected *= shape[dim]
    return tuple(order)


def identity(tensor: Tensor) -> Identity:
    """Name the memory and how it is looked at: equal for two tensors that are the same one."""
    # An empty tensor has no memory to tell it from others.
    start = tensor.data_ptr() if tensor.numel() else -id(tensor.untyped_storage())
    return (start, tensor.shape, tensor.stride(), tensor.dtype, tensor.device)


def extent(tensor: Tensor) -> tuple[int, int]:
    """Give the first byte in the storage and the one after the last; empty tensors have an empty range."""
    width = tensor.dtype.itemsize
    start = int(tensor.storage_offset()) * width
    if tensor.numel() == 0:
        return start, start
    reach: int = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (reach + 1) * width


def overlaps_itself(tensor: Tensor) -> bool:
    """Tell whether two elements may share memory, as in an expanded tensor: it can not be written."""
    if tensor.is_contiguous() or tensor.numel() == 0:
        return False
    dims = sorted(zip(tensor.stride(), tensor.shape, strict=True))
    reach = 0
    for stride, length in dims:
        if length == 1:
            continue
        if stride <= reach:
            return True
        reach += stride * (length - 1)
    return False


def empty(stored: ReadableTensor, *, device: torch.device | None = None) -> Tensor:
    """Make a tensor of the stored one's dtype, shape and memory order; its elements are not set.

    Raises:
        InvalidInputError: The installed torch has no such dtype.
    """
    dtype = _BY_NAME.get(stored.dtype)
    if dtype is None:
        raise refused("restore", f"this torch has no dtype {stored.dtype}", code="unknown-dtype", hint="update torch")
    if stored.order is None:
        return torch.empty(stored.shape, dtype=dtype, device=device)
    base = torch.empty([stored.shape[dim] for dim in stored.order], dtype=dtype, device=device)
    return base.permute(inverse(stored.order))


def inverse(order: Sequence[int]) -> list[int]:
    """Invert a permutation."""
    return sorted(range(len(order)), key=order.__getitem__)


def copy_bits(target: Tensor, source: Tensor) -> None:
    """Copy elements of one dtype and shape bit for bit, whatever the strides and devices; bumps the version."""
    with torch.no_grad():
        as_integers(target.detach()).copy_(as_integers(source.detach()))


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Compare dtype, shape and every bit of the elements."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return bool(np.array_equal(raw(left), raw(right)))


def described(tensor: Tensor) -> str:
    """Show dtype and shape as errors do: `float32 [4, 3]`."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def stored_described(stored: ReadableTensor) -> str:
    """Show the dtype and shape of a tensor of a commit."""
    return f"{stored.dtype} {list(stored.shape)}"


def fits(stored: ReadableTensor, tensor: Tensor) -> bool:
    """Tell whether dtype and shape are the stored tensor's."""
    return DTYPES.get(tensor.dtype) == stored.dtype and tuple(tensor.shape) == tuple(stored.shape)
