"""Tensors of an optimizer's state as they are coded: what a code means, with torch on both sides.

| kind | codes | a value |
|---|---|---|
| `signed-sqrt` | int8 | `scale * (code / 127) * abs(code / 127)`; for first moments |
| `fourth-root` | uint8 | `scale * (code / 255) ** 4`; for second moments; only zero is 0 |
| `float32` `bfloat16` `float16` | that dtype | the code itself |

Scales are float32, one for each block of 64 elements inside a row; a row is everything after dimension 0, and rows that
are shorter than a block are one row together. Codes have the shape and the memory order of the tensor that they stand
for. On the CPU the compiled kernels do the work, elsewhere torch's operations (`_coded_ops.py`) give the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from gradient import _coded_ops, _core
from gradient.errors import InvalidInputError

if TYPE_CHECKING:
    from gradient._core import Floating

Kind: TypeAlias = Literal["signed-sqrt", "fourth-root", "float32", "bfloat16", "float16"]

BLOCK = 64
"""Elements that share a scale."""
BLOCKWISE: dict[str, torch.dtype] = {"signed-sqrt": torch.int8, "fourth-root": torch.uint8}
"""Kinds that have scales, and the dtype of their codes."""
FLOATS: dict[torch.dtype, Floating] = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
"""What the kernels compute with, and what else values are kept as."""
_PIECE = 1 << 16
"""Elements that torch's operations work on at a time on the CPU: what a cache holds."""
_PIECE_ELSEWHERE = 1 << 22
WIDTHS: dict[str, torch.dtype] = {name: dtype for dtype, name in FLOATS.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A tensor that is coded.

    Attributes:
        kind: How; a row of the table above.
        codes: The codes, in the shape and memory order of the tensor.
        scales: float32 [blocks]; None for kinds without.
        dtype: What decoding gives.
        seed: What its stochastic rounding is drawn from, beside `draws`.
        draws: How often it was rounded stochastically before.
    """

    kind: str
    codes: Tensor
    scales: Tensor | None
    dtype: torch.dtype
    seed: int = 0
    draws: int = 0

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor."""
        return self.codes.shape

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return self.codes.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def decode(self, device: torch.device | str | None = None) -> Tensor:
        """Give the tensor, in new memory.

        Args:
            device: Where it goes; default: where the codes are.
        """
        codes, scales = self.codes, self.scales
        if device is not None and codes.device != torch.device(device):
            codes, scales = codes.to(device), None if scales is None else scales.to(device)
        if scales is None:
            return codes.to(self.dtype, copy=True)
        dtype = self.dtype if self.dtype in FLOATS else torch.float32
        values = torch.empty_like(codes, dtype=dtype)
        length = row_len(codes)
        assert length is not None, "codes are dense: they were made so"
        if codes.device.type != "cpu":
            _coded_ops.decode(self.kind, flat(codes), scales, flat(values), length)
        elif codes.numel():
            _core.decode_moment(self.kind, FLOATS[dtype], flat(codes), scales, flat(values), row_len=length, **how())
        return values.to(self.dtype)


def encode(
    values: Tensor,
    kind: str,
    *,
    seed: int = 0,
    draws: int | None = None,
    device: torch.device | str | None = None,
    into: Coded | None = None,
) -> Coded:
    """Code a tensor.

    Args:
        values: Floating point, strided, any device; for `fourth-root` not negative. One that is not dense is coded as
            if it were contiguous.
        kind: A row of the table above.
        seed: What stochastic rounding is drawn from.
        draws: How often it was rounded stochastically before; None rounds to the nearest.
        device: Where the codes go; default: where the values are.
        into: Codes whose memory is taken, if it fits.

    Raises:
        InvalidInputError: The values are not floating point; or a number is negative where none may be.

    Guarantees:
        Zeros come back exactly, and so does the largest value of a block that is 2^-92 or more (2^-112 for
        `signed-sqrt`); what was decoded of such a block is coded to the same bits. A block with a number that is not
        finite comes back without one that is.
    """
    values = values.detach()
    if not values.is_floating_point():
        raise InvalidInputError(f"{kind} codes floating point values and no {values.dtype}")
    if kind in WIDTHS:
        return Coded(kind, values.to(WIDTHS[kind], copy=True).to(device or values.device), None, values.dtype)
    if kind == "fourth-root" and into is not None and values.numel() and bool(values.amin() < 0):
        # The kernels ask for themselves, and have written something by then.
        raise InvalidInputError("a second moment has a number that is less than zero")
    codes = zeros(values, kind, seed=seed, draws=draws or 0, into=into)
    source = values if values.dtype in FLOATS else values.float()
    if source.stride() != codes.codes.stride():
        source = torch.empty_like(codes.codes, dtype=source.dtype).copy_(source)
    length = row_len(codes.codes)
    assert codes.scales is not None, "these kinds have scales"
    assert length is not None, "zeros are dense"
    drawn = None if draws is None else (seed, draws)
    if values.device.type != "cpu":
        _coded_ops.encode(kind, flat(source), flat(codes.codes), codes.scales, length, drawn)
    elif values.numel():
        name = FLOATS[source.dtype]
        _core.encode_moment(
            kind, name, flat(source), flat(codes.codes), codes.scales, row_len=length, stochastic=drawn, **how()
        )
    if device is None or torch.device(device) == values.device:
        return codes
    return Coded(kind, codes.codes.to(device), codes.scales.to(device), values.dtype, seed, codes.draws)


def settle(values: Tensor, before: Coded, factor: float) -> None:
    """Let first moments decay whose gradient has died down: in place, so much that they lose a code when coded again.

    Rounded to the nearest, a small code of a moment that decays would come back as itself for ever.

    Args:
        values: The moments after a step.
        before: How they were coded before it, as signed square roots.
        factor: How much of itself a moment keeps a step. What was added is told by that, and is next to nothing where a
            gradient would be an eighth of the moment at most.
    """
    if values.shape != before.shape or factor >= 1:
        return
    placed = values if values.stride() == before.codes.stride() else torch.empty_like(before.codes, dtype=values.dtype)
    if placed is not values:
        placed.copy_(values)
    all_values = flat(placed)
    for piece, part in _pieces(before):
        own, old = all_values[piece], part.decode(values.device).reshape(-1)
        kept = old * factor
        added = own - kept
        idle = added.abs() < old.abs() * ((1 - factor) / 8)
        if not bool(idle.any()):
            continue
        # Codes c - 1 and c meet at (c - 1/2)^2, which is a quarter more than c^2 - c.
        codes = part.codes.to(values.device).abs().clamp(min=1).reshape(-1)
        below = old * (1 - codes.to(old.dtype).reciprocal())
        own.copy_(torch.where(idle & (below.abs() < kept.abs()), below + added, own))
    if placed is not values:
        values.copy_(placed)


def _pieces(whole: Coded) -> Iterator[tuple[slice, Coded]]:
    """Cut a coded tensor in pieces of rows, or of whole blocks of one: where each lies in memory, and its codes."""
    length, numel = row_len(whole.codes), whole.codes.numel()
    assert length is not None, "codes are dense: they were made so"
    assert whole.scales is not None, "only kinds with scales are cut"
    if not numel:
        return
    length = numel if length < BLOCK else length
    size = _PIECE if whole.codes.device.type == "cpu" else _PIECE_ELSEWHERE
    rows, width = max(size // length, 1) * length, min(length, size)
    for row in range(0, numel, rows):
        for column in range(0, length, width):
            stop = row + rows if width == length else row + min(column + width, length)
            codes = flat(whole.codes)[row + column : stop].view(-1, min(width, length - column))
            first = row // length * -(-length // BLOCK) + column // BLOCK
            scales = whole.scales[first : first + num_blocks(codes)]
            yield slice(row + column, stop), Coded(whole.kind, codes, scales, whole.dtype)


def zeros(like: Tensor, kind: str, *, seed: int = 0, draws: int = 0, into: Coded | None = None) -> Coded:
    """Code a tensor of zeros: shape, memory order, dtype and device are those of `like`, as far as it is dense.

    Memory that is taken from `into` is left as it is, to be written.
    """
    if into is not None and (into.kind, into.shape, into.codes.device) == (kind, like.shape, like.device):
        dense = row_len(like) is not None
        if kind in BLOCKWISE and (into.codes.stride() == like.stride() if dense else into.codes.is_contiguous()):
            return Coded(kind, into.codes, into.scales, like.dtype, seed, draws)
    codes = torch.zeros_like(like, dtype=BLOCKWISE.get(kind) or WIDTHS[kind], requires_grad=False)
    if kind in WIDTHS:
        return Coded(kind, codes, None, like.dtype)
    if row_len(codes) is None:
        codes = codes.contiguous()
    scales = torch.zeros(num_blocks(codes), dtype=torch.float32, device=like.device)
    return Coded(kind, codes, scales, like.dtype, seed, draws)


def row_len(tensor: Tensor) -> int | None:
    """Give the elements of a row, in memory; None if the elements do not lie densely.

    Where dimension 0 is not the outermost in memory there are no rows: all elements are one.
    """
    numel = tensor.numel()
    if numel == 0 or tensor.dim() == 0:
        return max(numel, 1)
    length = numel // tensor.shape[0]
    if tensor.is_contiguous():
        return length
    if torch.empty_like(tensor, device="meta").stride() != tensor.stride():
        return None
    return length if tensor.shape[0] == 1 or tensor.stride(0) == length else numel


def num_blocks(tensor: Tensor) -> int:
    """Give the number of blocks of a dense tensor, which is that of its scales."""
    length, numel = row_len(tensor), tensor.numel()
    if length is None or numel == 0:
        return 0
    if length < BLOCK:
        length = numel
    return numel // length * -(-length // BLOCK)


def flat(tensor: Tensor) -> Tensor:
    """View a dense tensor as the one dimension that its elements are in memory."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))


class _How:
    """Which instructions, read from the environment once."""

    capability: str | None = None


def how() -> dict[str, Any]:
    """Give threads and instruction set for the kernels: torch's threads, and the best that the processor has.

    `GRADIENT_CPU_CAPABILITY` names another one, as torch's `ATEN_CPU_CAPABILITY` does; the bits are the same.

    Raises:
        InvalidInputError: The processor does not have that one.
    """
    if _How.capability is None:
        known = _core.cpu_capabilities()
        asked = os.environ.get("GRADIENT_CPU_CAPABILITY") or known[0]
        if asked not in known:
            raise InvalidInputError(
                f"GRADIENT_CPU_CAPABILITY={asked}: this processor has {', '.join(known)}", code="bad-option"
            )
        _How.capability = asked
    return {"threads": torch.get_num_threads(), "capability": _How.capability}
