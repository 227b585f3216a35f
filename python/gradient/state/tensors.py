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
from gradient.errors import CorruptionError
from gradient.state.paths import refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradient._types import ReadableTensor

Bytes = NDArray[np.uint8]
Identity = tuple[int, torch.Size, tuple[int, ...], torch.dtype, torch.device]


_NAMES = (
    "bool", "uint8", "int8", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float4_e2m1fn_x2", "uint16", "int16", "float16", "bfloat16", "uint32", "int32", "float32", "complex32", "uint64",
    "int64", "float64", "complex64", "complex128", "int1", "int2", "int3", "int4", "int5", "int6", "int7", "uint1",
    "uint2", "uint3", "uint4", "uint5", "uint6", "uint7", "bits8", "bits1x8", "bits2x4", "bits4x2", "bits16",
    "bcomplex32",
)  # fmt: skip
_QUANTIZED = ("qint8", "quint8", "qint32", "quint4x2", "quint2x4")
DTYPES: dict[torch.dtype, str] = {getattr(torch, name): name for name in _NAMES if hasattr(torch, name)}
"""Dtypes that a commit can hold (`docs/format/objects.md`), as far as the installed torch has them."""

NAMES = {**DTYPES, **{getattr(torch, name): name for name in _QUANTIZED if hasattr(torch, name)}}
"""Dtypes that a tensor in a commit can have, quantized ones too."""

NAMES_TO_DTYPES = {name: dtype for dtype, name in NAMES.items()}
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
_HINT = "keep a plain tensor there, or leave it out"


def check(tensor: Tensor, where: str, *, known: bool = False) -> None:
    """Refuse what no commit can hold.

    Args:
        tensor: Any tensor.
        where: Its place, for the error.
        known: It is a subclass that is known.

    Raises:
        InvalidInputError: A meta, fake or functional tensor, one of `torch.func`, an unknown subclass, a dtype that is
            not in `NAMES`.
    """
    reason = unsupported(tensor, known=known)
    if reason is not None:
        raise refused(where, reason, hint=_HINT)


def unsupported(tensor: Tensor, *, known: bool = False) -> str | None:
    """Say why a commit can not hold a tensor; None if it can. It may be made of others: see `composites`."""
    kind = type(tensor)
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
        return "a lazy module's tensor has no elements before its first forward pass"
    if kind not in _EXACT and not known:
        return f"a tensor of class {kind.__module__}.{kind.__qualname__} is not supported"
    for found, what in (
        (tensor.is_meta, "a meta tensor has no elements"),
        (torch._is_functional_tensor(tensor), "a functional tensor is not supported"),
        (torch._C._functorch.is_functorch_wrapped_tensor(tensor), "a tensor inside torch.func is not supported"),
        # Newer torch has no such thing.
        (getattr(tensor, "has_names", bool)(), "a tensor with named dimensions is not supported"),
        (tensor.dtype not in NAMES, f"a tensor of dtype {str(tensor.dtype).removeprefix('torch.')} is not supported"),
    ):
        if found:
            return what
    return None


def special(tensor: Tensor) -> str | None:
    """Say what a tensor is if its elements do not simply lie in memory; None if they do."""
    if tensor.layout is not torch.strided or tensor.is_mkldnn:
        return f"a tensor of layout {str(tensor.layout).removeprefix('torch.').lstrip('_')}"
    for found, what in (
        (tensor.is_quantized, "a quantized tensor"),
        (tensor.is_nested, "a nested tensor"),
        (tensor.is_conj(), "a conjugated view"),
        (tensor.is_neg(), "a negated view"),
        (tensor._is_zerotensor(), "a ZeroTensor"),
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


def empty(stored: ReadableTensor, *, device: torch.device | str | None = None) -> Tensor:
    """Make a tensor of the stored one's dtype, shape and memory order; its elements are not set.

    Raises:
        CorruptionError: Torch can have no tensor of that shape, wherever it is.
        InvalidInputError: The installed torch has no such dtype.
    """
    dtype, order = dtype_of(stored.dtype), stored.order
    shape = stored.shape if order is None else [stored.shape[dim] for dim in order]
    try:
        made = torch.empty(shape, dtype=dtype, device=device)
    except RuntimeError:
        # Also what a device says that has no memory left, or has failed: a shape alone takes none.
        _check_shape(shape, dtype)
        raise
    return made if order is None else made.permute(inverse(order))


def _check_shape(shape: Sequence[int], dtype: torch.dtype) -> None:
    try:
        torch.empty(shape, dtype=dtype, device="meta")
    except RuntimeError as error:
        told = str(error).partition("\n")[0]
        raise CorruptionError(f"no tensor has the shape {list(shape)}: {told}", code="bad-value") from error


def dtype_of(name: str) -> torch.dtype:
    """Give a dtype by name.

    Raises:
        InvalidInputError: The installed torch has no such dtype.
    """
    dtype: torch.dtype | None = NAMES_TO_DTYPES.get(name)
    if dtype is None:
        raise refused("restore", f"this torch has no dtype {name}", code="unknown-dtype", hint="update torch")
    return dtype


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
    """Show dtype and shape as errors do: `float32 [4, 3]`; of what is not plain also what it is."""
    if tensor.is_nested and tensor.layout is torch.strided:
        # It has no shape.
        dtype = str(tensor.dtype).removeprefix("torch.")
        return f"nested {dtype}, {tensor.size(0)} tensors of {max(tensor.dim() - 1, 0)} dimensions"
    layout = "" if tensor.layout is torch.strided else f"{str(tensor.layout).removeprefix('torch.').lstrip('_')} "
    return f"{layout}{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def stored_described(stored: ReadableTensor) -> str:
    """Show the dtype and shape of a tensor of a commit."""
    return f"{stored.dtype} {list(stored.shape)}"


def fits(stored: ReadableTensor, tensor: Tensor) -> bool:
    """Tell whether dtype and shape are the stored tensor's."""
    return DTYPES.get(tensor.dtype) == stored.dtype and tuple(tensor.shape) == tuple(stored.shape)
