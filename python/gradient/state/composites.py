"""Tensors that are made of others: sparse, quantized, nested, oneDNN's, zeros without memory, conjugated views.

Each kind is a named value of `docs/format/objects.md`: parts, which are tensors again, and what else it takes to put
them together. Parts share the memory of the whole wherever torch lets them, so they are stored, restored in place and
found to be aliases as any tensor is. What comes from a commit is checked here before torch sees it: torch trusts it.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from gradient._core import Named, StoredTensor
from gradient.errors import CorruptionError, GradientError
from gradient.memory import is_shortage
from gradient.state import tensors
from gradient.state.paths import refused

Parts = dict[str, Tensor]
BITS: dict[str, Callable[[Tensor], Tensor]] = {"conjugate": torch.conj, "negative": torch._neg_view}
"""What is meant by a tensor's conj and neg bits, and what flips them; in the order in which they are stored."""


class Composite(ABC):
    """One kind of tensor that is made of others."""

    names: ClassVar[tuple[str, ...]]
    """The names of its values; a part without a key is the value itself."""
    shares: ClassVar[bool] = True
    """Whether writing to the parts writes to the whole."""

    @abstractmethod
    def matches(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is of this kind."""

    @abstractmethod
    def take(self, tensor: Tensor) -> tuple[str, Parts, Any]:
        """Give name, parts and extra.

        Raises:
            ValueError: The tensor can not be taken apart; the message says why.
        """

    @abstractmethod
    def make(self, name: str, parts: Parts, extra: Any) -> Tensor:
        """Put parts together; their elements may not have been read yet.

        Raises:
            Exception: They do not fit together; `compose` makes a `CorruptionError` of it.
        """

    def finish(self, made: Tensor, parts: Parts) -> None:  # noqa: B027 - most have nothing to do.
        """Check and complete a tensor whose parts have been read.

        Raises:
            Exception: As `make`.
        """

    def shared(self, made: Tensor) -> Parts:
        """Give the parts whose memory is that of the parts it was made of."""
        return self.take(made)[1] if self.shares else {}

    def replaceable(self, live: Tensor) -> bool:
        """Tell whether a live one can be given other parts."""
        return True

    def replace(self, live: Tensor, made: Tensor) -> None:
        """Make a live tensor what another one is; it stays the same object."""
        live.data = made

    def misfit(self, live: Tensor, parts: Mapping[str, Any], extra: Any) -> str | None:
        """Say which shape or dtype the stored parts have, if it is not the live tensor's."""
        shape, dtype = self.whole(parts, extra)
        if list(live.shape) == list(shape) and tensors.NAMES.get(live.dtype) == dtype:
            return None
        return f"{dtype} {list(shape)}"

    @abstractmethod
    def whole(self, parts: Mapping[str, Any], extra: Any) -> tuple[Sequence[int], str]:
        """Give the shape and the dtype that the tensor made of stored parts has."""


class _Coo(Composite):
    names = ("sparse-coo",)

    def matches(self, tensor: Tensor) -> bool:
        return tensor.layout is torch.sparse_coo

    def take(self, tensor: Tensor) -> tuple[str, Parts, Any]:
        parts = {"indices": tensor._indices(), "values": tensor._values()}
        return "sparse-coo", parts, [list(tensor.shape), tensor.is_coalesced()]

    def make(self, name: str, parts: Parts, extra: Any) -> Tensor:
        shape, coalesced = extra
        if parts["indices"].dtype is not torch.int64:
            raise ValueError("indices of another dtype")
        made = torch.sparse_coo_tensor(parts["indices"], parts["values"], shape, check_invariants=False)
        return made._coalesced_(coalesced)

    def finish(self, made: Tensor, parts: Parts) -> None:
        # Without the flag: it is kept as it was, and only indices out of range are dangerous.
        torch._validate_sparse_coo_tensor_args(made._indices(), made._values(), made.shape, False)

    def whole(self, parts: Mapping[str, Any], extra: Any) -> tuple[Sequence[int], str]:
        return extra[0], parts["values"].dtype


_COMPRESSED = {
    name: (layout, f"{compressed}_indices", f"{plain}_indices")
    for name, layout, compressed, plain in (
        ("sparse-csr", torch.sparse_csr, "crow", "col"),
        ("sparse-csc", torch.sparse_csc, "ccol", "row"),
        ("sparse-bsr", torch.sparse_bsr, "crow", "col"),
        ("sparse-bsc", torch.sparse_bsc, "ccol", "row"),
    )
}


class _Compressed(Composite):
    names = tuple(_COMPRESSED)

    def matches(self, tensor: Tensor) -> bool:
        return any(tensor.layout is layout for layout, _, _ in _COMPRESSED.values())

    def take(self, tensor: Tensor) -> tuple[str, Parts, Any]:
        name, keys = next((name, rest) for name, (layout, *rest) in _COMPRESSED.items() if tensor.layout is layout)
        parts = {key: getattr(tensor, key)() for key in keys}
        return name, {**parts, "values": tensor.values()}, list(tensor.shape)

    def make(self, name: str, parts: Parts, extra: Any) -> Tensor:
        layout, *keys = _COMPRESSED[name]
        compressed, plain = (parts[key] for key in keys)
        return torch.sparse_compressed_tensor(
            compressed,
            plain,
            parts["values"],
            extra,
            layout=layout,
            dtype=parts["values"].dtype,
            check_invariants=False,
        )

    def finish(self, made: Tensor, parts: Parts) -> None:
        # Not torch's own check: it wants sorted columns, which torch's products do not have.
        _, *keys = _COMPRESSED[next(name for name, row in _COMPRESSED.items() if made.layout is row[0])]
        compressed, plain = (parts[key] for key in keys)
        values, batch = parts["values"], compressed.dim() - 1
        if compressed.dtype is not plain.dtype or plain.dtype not in (torch.int32, torch.int64):
            raise ValueError("indices of one dtype, int32 or int64")
        rows_first = made.layout in (torch.sparse_csr, torch.sparse_bsr)
        blocked = made.layout in (torch.sparse_bsr, torch.sparse_bsc)
        block = list(values.shape[batch + 1 : batch + 3]) if blocked else [1, 1]
        if batch < 0 or made.dim() < batch + 2 or len(block) < 2 or 0 in block:
            raise ValueError("as many dimensions as the shape")
        matrix = [made.shape[batch], made.shape[batch + 1]]
        lines, across = (length // step for length, step in zip(matrix, block, strict=True))
        if not rows_first:
            lines, across = across, lines
        outer, dense = made.shape[:batch], made.shape[batch + 2 :]
        if (
            any(length % step for length, step in zip(matrix, block, strict=True))
            or compressed.shape != (*outer, lines + 1)
            or plain.shape != (*outer, *plain.shape[-1:])
            or values.shape != (*plain.shape, *(block if blocked else ()), *dense)
        ):
            raise ValueError("indices and values of the shape")
        falls = bool((compressed[..., 1:] < compressed[..., :-1]).any() | (compressed[..., 0] != 0).any())
        if falls or bool((compressed[..., -1] != plain.shape[-1]).any()):
            raise ValueError("compressed indices that rise from 0 to the number of elements")
        if bool(((plain < 0) | (plain >= across)).any()):
            raise ValueError("indices inside the shape")

    def replace(self, live: Tensor, made: Tensor) -> None:
        # `live.data = made` leaves the old indices in it (torch 2.15).
        live.resize_as_sparse_(made)
        live.copy_(made)

    def misfit(self, live: Tensor, parts: Mapping[str, Any], extra: Any) -> str | None:
        _, own, _ = self.take(live)
        other = [f"{parts[key].dtype} {key}" for key in own if tensors.NAMES.get(own[key].dtype) != parts[key].dtype]
        return super().misfit(live, parts, extra) or (" and ".join(other) or None)

    def whole(self, parts: Mapping[str, Any], extra: Any) -> tuple[Sequence[int], str]:
        return extra, parts["values"].dtype


_CODES = {"qint8": torch.int8, "quint8": torch.uint8, "qint32": torch.int32}
_PACKED = {"quint4x2": 2, "quint2x4": 4}
"""Quantized dtypes with several elements to a byte."""


class _Quantized(Composite):
    names = ("quantized",)

    def matches(self, tensor: Tensor) -> bool:
        return tensor.is_quantized

    def take(self, tensor: Tensor) -> tuple[str, Parts, Any]:
        try:
            scheme = str(tensor.qscheme()).removeprefix("torch.")
        except RuntimeError:
            raise ValueError("a quantized tensor without a quantizer is not supported") from None
        dtype = tensors.NAMES[tensor.dtype]
        extra: dict[str, Any] = {"scheme": scheme, "dtype": dtype}
        parts: Parts = {"codes": _codes(tensor)}
        if dtype in _PACKED:
            if tensor.storage_offset() or not tensor.is_contiguous():
                raise ValueError(f"a view of a tensor of dtype {dtype} is not supported")
            extra["shape"] = list(tensor.shape)
        if scheme == "per_tensor_affine":
            extra |= {"scale": tensor.q_scale(), "zero_point": tensor.q_zero_point()}
        elif scheme in ("per_channel_affine", "per_channel_affine_float_qparams"):
            extra["axis"] = tensor.q_per_channel_axis()
            parts["scales"] = tensor.q_per_channel_scales()
            parts["zero_points"] = tensor.q_per_channel_zero_points()
        else:
            raise ValueError(f"a tensor quantized {scheme} is not supported")
        return "quantized", parts, extra

    def make(self, name: str, parts: Parts, extra: Any) -> Tensor:
        packed = extra["dtype"] in _PACKED
        if parts["codes"]._is_zerotensor():
            raise ValueError("codes that lie in memory")
        shape = extra["shape"] if packed else parts["codes"].shape
        if packed and parts["codes"].shape != (-(-math.prod(shape) // _PACKED[extra["dtype"]]),):
            raise ValueError("as many codes as elements")
        # Memory of its own only for packed codes; of the others the codes' memory becomes the tensor's.
        size = shape if packed else [0] * len(shape)
        dtype = tensors.dtype_of(extra["dtype"])
        if extra["scheme"] == "per_tensor_affine":
            made = torch._empty_affine_quantized(
                size, scale=extra["scale"], zero_point=extra["zero_point"], dtype=dtype, device=parts["codes"].device
            )
        else:
            scales, zero_points, axis = parts["scales"], parts["zero_points"], extra["axis"]
            if not (0 <= axis < len(shape) and scales.shape == zero_points.shape == (shape[axis],)):
                raise ValueError("as many scales and zero points as channels")
            floats = extra["scheme"].endswith("float_qparams")
            wanted = (torch.float32, torch.float32) if floats else (torch.float64, torch.int64)
            if (scales.dtype, zero_points.dtype) != wanted:
                raise ValueError("scales and zero points of another dtype")
            made = torch._empty_per_channel_affine_quantized(
                size, scales=scales, zero_points=zero_points, axis=axis, dtype=dtype, device=parts["codes"].device
            )
        if packed:
            return made
        codes = parts["codes"]
        if codes.dtype is not _CODES[extra["dtype"]]:
            raise ValueError("codes of another dtype")
        made.set_(codes.untyped_storage(), codes.storage_offset(), codes.shape, codes.stride())
        return made

    def finish(self, made: Tensor, parts: Parts) -> None:
        own = _codes(made)
        if own.data_ptr() != parts["codes"].data_ptr():
            own.copy_(parts["codes"])

    def shared(self, made: Tensor) -> Parts:
        parts = super().shared(made)
        if tensors.NAMES[made.dtype] in _PACKED:
            del parts["codes"]
        return parts

    def whole(self, parts: Mapping[str, Any], extra: Any) -> tuple[Sequence[int], str]:
        return extra.get("shape", parts["codes"].shape), extra["dtype"]


def _codes(tensor: Tensor) -> Tensor:
    """Look at the memory of a quantized tensor."""
    dtype = tensors.NAMES[tensor.dtype]
    view = torch.empty(0, dtype=_CODES.get(dtype, torch.uint8), device=tensor.device)
    if dtype in _PACKED:
        length = -(-tensor.numel() // _PACKED[dtype])
        return view.set_(tensor.untyped_storage(), 0, (length,), (1,))
    return view.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


class _Nested(Composite):
    names = ("nested",)

    def matches(self, tensor: Tensor) -> bool:
        return tensor.is_nested

    def replaceable(self, live: Tensor) -> bool:
        return live.layout is torch.strided

    def replace(self, live: Tensor, made: Tensor) -> None:
        if live.layout is torch.strided:
            live.data = made
        else:
            live._metadata_cache = made._metadata_cache  # type: ignore[attr-defined]

    def take(self, tensor: Tensor) -> tuple[str, Parts, Any]:
        if tensor.layout is not torch.strided:
            return self._take_jagged(tensor)
        if not tensor.size(0):
            empty: dict[str, Any] = {"layout": "strided", "sizes": [], "strides": [], "offsets": []}
            return "nested", {"values": torch.empty(0, dtype=tensor.dtype)}, empty
        sizes = tensor._nested_tensor_size().tolist()
        strides, offsets = tensor._nested_tensor_strides().tolist(), tensor._nested_tensor_storage_offsets().tolist()
        extra = {"layout": "strided", "sizes": sizes, "strides": strides, "offsets": offsets}
        return "nested", {"values": tensor.values()}, extra

    def _take_jagged(self, tensor: Any) -> tuple[str, Parts, Any]:
        parts = {"values": tensor._values, "offsets": tensor._offsets}
        if tensor._lengths is not None:
            parts["lengths"] = tensor._lengths
        known = {"shortest": tensor._maybe_min_seqlen, "longest": tensor._maybe_max_seqlen}
        return "nested", parts, {"layout": "jagged", "ragged": tensor._ragged_idx, **known}

    def make(self, name: str, parts: Parts, extra: Any) -> Tensor:
        values = parts["values"]
        if extra["layout"] == "jagged":
            if not 1 <= extra["ragged"] <= values.dim():
                raise ValueError("a ragged dimension that the values have")
            made: Tensor = torch.nested.nested_tensor_from_jagged(
                values,
                parts["offsets"],
                parts.get("lengths"),
                jagged_dim=extra["ragged"],
                min_seqlen=extra["shortest"],
                max_seqlen=extra["longest"],
            )
            return made
        if not extra["sizes"]:
            return torch.nested.nested_tensor([], dtype=values.dtype, device=values.device)
        for size, stride, offset in zip(extra["sizes"], extra["strides"], extra["offsets"], strict=True):
            reach = sum((length - 1) * step for length, step in zip(size, stride, strict=True))
            if min([offset, *size, *stride]) < 0 or (0 not in size and offset + reach >= values.numel()):
                raise ValueError("inner tensors inside the values")
        if values.dim() != 1 or not values.is_contiguous():
            raise ValueError("values in one dimension")
        form = len(extra["sizes"]), len(extra["sizes"][0])
        sizes, strides = (torch.tensor(extra[key], dtype=torch.int64).reshape(form) for key in ("sizes", "strides"))
        return torch._nested_view_from_buffer(values, sizes, strides, torch.tensor(extra["offsets"]))

    def finish(self, made: Tensor, parts: Parts) -> None:
        if "offsets" not in parts:
            return
        offsets, lengths = parts["offsets"], parts.get("lengths")
        room: int = parts["values"].shape[made._ragged_idx - 1]  # type: ignore[attr-defined]
        starts, ends = offsets[:-1], offsets[1:] if lengths is None else offsets[:-1] + lengths
        if offsets.dim() != 1 or not len(offsets) or bool((starts < 0).any() | (ends < starts).any()):
            raise ValueError("offsets that rise")
        if bool((ends > room).any()):
            raise ValueError("rows inside the values")
        rows = ends - starts
        shortest, longest = made._maybe_min_seqlen, made._maybe_max_seqlen  # type: ignore[attr-defined]
        least, most = (int(rows.min()), int(rows.max())) if len(rows) else (0, 0)
        if shortest is not None and not 0 <= shortest <= least:
            raise ValueError("a shortest row that is not longer than any")
        if longest is not None and not most <= longest <= max(most, room):
            raise ValueError("a longest row that is not shorter than any, nor longer than the values")

    def misfit(self, live: Tensor, parts: Mapping[str, Any], extra: Any) -> str | None:
        dtype, found = parts["values"].dtype, extra["layout"]
        layout = "strided" if live.layout is torch.strided else "jagged"
        if tensors.NAMES.get(live.dtype) != dtype or layout != found:
            return f"nested {dtype}, {found}"
        _, own, here = self.take(live)
        if layout == "strided":
            count, rank = (len(extra["sizes"]), len(extra["sizes"][0]) if extra["sizes"] else 0)
            same = count == live.size(0) and (not count or rank == live.dim() - 1)
            return None if same else f"{count} tensors of {rank} dimensions"
        if extra["ragged"] != here["ragged"]:
            return f"ragged in dimension {extra['ragged']} and not {here['ragged']}"
        shapes = {key: list(part.shape) for key, part in parts.items()}
        return None if shapes == {key: list(part.shape) for key, part in own.items()} else f"parts of shapes {shapes}"

    def whole(self, parts: Mapping[str, Any], extra: Any) -> tuple[Sequence[int], str]:
        return (), parts["values"].dtype


class _Zero(Composite):
    names = ("zero",)
    shares = False

    def matches(self, tensor: Tensor) -> bool:
        return tensor._is_zerotensor()

    def take(self, tensor: Tensor) -> tuple[str, Parts, Any]:
        order = tensors.order_of(tensor)
        return "zero", {}, [tensors.NAMES[tensor.dtype], list(tensor.shape), None if order is None else list(order)]

    def make(self, name: str, parts: Parts, extra: Any) -> Tensor:
        return self._zeros(extra, torch.device("cpu"))

    def replace(self, live: Tensor, made: Tensor) -> None:
        # Without parts that say where it lies.
        live.data = self._zeros(self.take(made)[2], live.device)

    @staticmethod
    def _zeros(extra: Any, device: torch.device) -> Tensor:
        dtype, shape, order = extra
        if order is None:
            return torch._efficientzerotensor(shape, dtype=tensors.dtype_of(dtype), device=device)
        base = torch._efficientzerotensor([shape[dim] for dim in order], dtype=tensors.dtype_of(dtype), device=device)
        return base.permute(tensors.inverse(order))

    def whole(self, parts: Mapping[str, Any], extra: Any) -> tuple[Sequence[int], str]:
        return extra[1], extra[0]


class _Mkldnn(Composite):
    names = ("mkldnn",)
    shares = False

    def matches(self, tensor: Tensor) -> bool:
        return tensor.is_mkldnn

    def take(self, tensor: Tensor) -> tuple[str, Parts, Any]:
        return "mkldnn", {"": tensor.to_dense()}, None

    def make(self, name: str, parts: Parts, extra: Any) -> Tensor:
        return torch.empty_like(parts[""]).to_mkldnn()

    def finish(self, made: Tensor, parts: Parts) -> None:
        made.copy_(parts[""].to_mkldnn())

    def whole(self, parts: Mapping[str, Any], extra: Any) -> tuple[Sequence[int], str]:
        return parts[""].shape, parts[""].dtype


_KINDS: tuple[Composite, ...] = (_Zero(), _Nested(), _Quantized(), _Coo(), _Compressed(), _Mkldnn())
NAMES = {name: kind for kind in _KINDS for name in kind.names}
"""Every name of the format that stands for such a tensor, but for the bits."""


def kind_of(tensor: Tensor) -> Composite | None:
    """Give the kind of a tensor that is made of others; None for one that is not."""
    return next((kind for kind in _KINDS if kind.matches(tensor)), None)


def is_jagged(tensor: Tensor) -> bool:
    """Tell whether it is torch's own class for jagged nested tensors: the one subclass that is known."""
    module = sys.modules.get("torch.nested._internal.nested_tensor")
    return module is not None and type(tensor) is module.NestedTensor


def rows_of(tensor: Any) -> Parts:
    """Give the parts of a jagged tensor that say where its rows lie."""
    parts = {"offsets": tensor._offsets, "lengths": tensor._lengths}
    return {key: part for key, part in parts.items() if part is not None}


def with_rows_of(tensor: Any, other: Any) -> Tensor:
    """Give a jagged tensor the offsets of another one, which are equal: torch takes no two tensors of offsets for one.

    Its elements stay where they lie.
    """
    made: Tensor = torch.nested.nested_tensor_from_jagged(
        tensor._values,
        other._offsets,
        other._lengths,
        jagged_dim=tensor._ragged_idx,
        min_seqlen=tensor._maybe_min_seqlen,
        max_seqlen=tensor._maybe_max_seqlen,
    )
    return made


def bits_of(tensor: Tensor) -> tuple[str, ...]:
    """Name the bits of a view that is not what its memory says: conjugate, negative."""
    return tuple(name for name, has in (("conjugate", tensor.is_conj()), ("negative", tensor.is_neg())) if has)


def identity(tensor: Tensor) -> object:
    """Tell tensors of any kind apart: equal for two that are the same one."""
    if tensors.is_plain(tensor):
        return tensors.identity(tensor)
    if kind_of(tensor) is not None:
        return id(tensor)
    bits = bits_of(tensor)
    return (tensors.identity(flip(tensor, bits)), bits)


def has_no_bits(tensor: Tensor) -> bool:
    """Tell whether a tensor is of a kind whose conj and neg bits torch does not heed."""
    return not isinstance(kind_of(tensor), _Zero | None)


def flip(tensor: Tensor, bits: Sequence[str]) -> Tensor:
    """Look at the same memory with these bits the other way round."""
    for name in reversed(bits):
        tensor = BITS[name](tensor)
    return tensor


def node(name: str, parts: Mapping[str, object], extra: Any) -> Named:
    """Make the named value of parts that are nodes already."""
    if name == "zero":
        return Named(name, extra[0], extra[1:])
    return Named(name, parts.get("", parts), extra)


def parts_of(named: Any) -> tuple[dict[str, Any], Any]:
    """Give what `node` was called with."""
    if named.name == "zero":
        return {}, [named.value, *named.extra]
    return (named.value, named.extra) if isinstance(named.value, dict) else ({"": named.value}, named.extra)


class Facts(NamedTuple):
    """What is known of a tensor of a commit before its elements are read."""

    shape: tuple[int, ...]
    dtype: str


def facts(node: Any) -> Facts | None:
    """Give shape and dtype of what a node is, whatever it is made of; None if it is no tensor, or one by an alias."""
    if isinstance(node, StoredTensor):
        return None if node.numpy else Facts(tuple(node.shape), node.dtype)
    if not isinstance(node, Named):
        return None
    if node.name in BITS:
        return facts(node.value)
    if node.name not in NAMES:
        return None
    parts, extra = parts_of(node)
    inner = {key: facts(part) for key, part in parts.items()}
    if None in inner.values():
        return None
    shape, dtype = NAMES[node.name].whole(inner, extra)
    return Facts(tuple(shape), dtype)


def facts_of(tensor: Tensor) -> Facts:
    """Give what `facts` gives for the node of a tensor."""
    nested = tensor.is_nested
    return Facts(() if nested else tuple(tensor.shape), tensors.NAMES[tensor.dtype])


def inside(path: tuple[Any, ...], key: str) -> tuple[Any, ...]:
    """Give the path of a part."""
    return (*path, key) if key else path


def take(tensor: Tensor, where: str, *, check: bool = True) -> tuple[Composite, str, Parts, Any]:
    """Take a tensor apart that has a kind.

    Args:
        tensor: The tensor.
        where: Its place, for the error.
        check: Whether its indices are looked at; not if they are about to be written.

    Raises:
        InvalidInputError: It can not be taken apart, or its indices are out of range and it would not be taken back.
    """
    kind = kind_of(tensor)
    assert kind is not None
    try:
        name, parts, extra = kind.take(tensor.detach())
        if check and isinstance(kind, _Coo | _Compressed | _Nested):
            kind.finish(tensor, parts)
    except (ValueError, RuntimeError) as error:
        if is_shortage(error):
            raise
        raise refused(where, f"it can not be stored: {str(error).splitlines()[0]}") from error
    return kind, name, parts, extra


def compose(name: str, parts: Mapping[str, object], extra: Any, where: str) -> tuple[Tensor, Callable[[], None]]:
    """Put a tensor of a commit together.

    Returns:
        The tensor, and what has to be called once the elements of its parts have been read.

    Raises:
        CorruptionError: The parts do not fit together; the function returned raises it, too.
        InvalidInputError: The installed torch has no such dtype.
    """
    kind = NAMES[name]
    found = {key: part for key, part in parts.items() if isinstance(part, Tensor)}
    if len(found) < len(parts):
        raise CorruptionError(f"{where} has parts that are no tensors", code="bad-value")
    made = _checked(lambda: kind.make(name, found, extra), where)
    return made, partial(finish, kind, made, found, where)


def finish(kind: Composite, made: Tensor, parts: Parts, where: str) -> None:
    """Check and complete a tensor whose parts have been read.

    Raises:
        CorruptionError: Its indices or offsets are out of range.
    """
    _checked(lambda: _finish(kind, made, parts), where)


def _finish(kind: Composite, made: Tensor, parts: Parts) -> None:
    for key, own in kind.shared(made.detach()).items():
        # What torch has copied was copied before the elements were read.
        if own.numel() and not own._is_zerotensor() and own.data_ptr() != parts[key].data_ptr():
            raise ValueError(f"{key} that torch takes as they are")
    kind.finish(made, parts)


def _checked(step: Callable[[], Any], where: str) -> Any:
    try:
        with torch.no_grad():
            return step()
    except GradientError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        if is_shortage(error):
            raise
        told = str(error).partition("\n")[0]
        raise CorruptionError(f"the parts of {where} make no tensor: {told}", code="bad-value") from error
