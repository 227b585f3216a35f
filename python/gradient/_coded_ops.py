"""The codes of `coded.py` by torch's operations, for tensors that are not on the CPU: the same bits.

Every value is a function of IEEE operations that are rounded once, as in `gradient-codec/src/quantize`. Where those
multiply and add at once, 64 bits are used here, in which nothing is rounded on the way. What takes part at a time is a
piece of a tensor, so that no whole tensor is ever there in full precision twice.
"""

# B = blocks, K = 64 elements of a block

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gradient.errors import InvalidInputError

_BLOCK = 64
_PIECE = 1 << 22
"""Elements that are worked on at a time, about."""
_MOMENTUM_FULL = 127.0 * 127.0
_MOMENTUM_SCALE_MIN = 2.0**-112
_VARIANCE_FULL = 255.0**4
_VARIANCE_SCALE_MIN = 2.0**-92
_MASK = 0xFFFFFFFF


def encode(
    kind: str, values: Tensor, codes: Tensor, scales: Tensor, row_len: int, stochastic: tuple[int, int] | None
) -> None:
    """Code `values`, one dimension, into `codes` and `scales`."""
    if kind == "fourth-root" and values.numel() and bool(values.amin() < 0):
        raise InvalidInputError("a second moment has a number that is less than zero")
    key = None if stochastic is None else stochastic_key(*stochastic)
    first = 0
    for start, stop, columns in _pieces(values.numel(), row_len):
        values_bk = _blocks(values[start:stop].float(), columns)
        if kind == "signed-sqrt":
            codes_bk, scales_b = _encode_momentum(values_bk)
        else:
            codes_bk, scales_b = _encode_variance(values_bk, first, key)
        codes[start:stop] = _unblocked(codes_bk, columns).to(codes.dtype)
        scales[first : first + len(scales_b)] = scales_b
        first += len(scales_b)


def decode(kind: str, codes: Tensor, scales: Tensor, values: Tensor, row_len: int) -> None:
    """Give back into `values`, one dimension, what `codes` and `scales` stand for."""
    first = 0
    for start, stop, columns in _pieces(values.numel(), row_len):
        codes_bk = _blocks(codes[start:stop].float(), columns)
        scales_b = scales[first : first + len(codes_bk)]
        if kind == "signed-sqrt":
            parts_bk = (codes_bk * codes_bk.abs()) * (1.0 / _MOMENTUM_FULL)
        else:
            roots_bk = codes_bk * _single(1.0 / 255.0)
            squares_bk = roots_bk * roots_bk
            parts_bk = squares_bk * squares_bk
        values[start:stop] = _unblocked(parts_bk * scales_b[:, None], columns).to(values.dtype)
        first += len(codes_bk)


def stochastic_key(seed: int, draws: int) -> int:
    """Give the key of stochastic rounding; `Rounding::key` of the compiled module."""
    wide = (1 << 64) - 1
    word = (seed * 0x9E3779B97F4A7C15 & wide) ^ ((draws + 0x9E3779B97F4A7C15) & wide)
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & wide
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & wide
    return (word ^ (word >> 31)) >> 32


def _pieces(numel: int, row_len: int) -> list[tuple[int, int, int]]:
    """Cut elements into pieces of whole rows, or of whole blocks of a row: start, stop and the length of its rows."""
    if row_len < _BLOCK:
        row_len = numel
    pieces = []
    if row_len <= _PIECE:
        step = _PIECE // max(row_len, 1) * row_len
        pieces = [(start, min(start + step, numel), row_len) for start in range(0, numel, max(step, 1))]
    else:
        for row in range(0, numel, row_len):
            for start in range(row, row + row_len, _PIECE):
                stop = min(start + _PIECE, row + row_len)
                pieces.append((start, stop, stop - start))
    return pieces


def _blocks(values: Tensor, columns: int) -> Tensor:
    rows = values.view(-1, columns)
    return functional.pad(rows, (0, -columns % _BLOCK)).reshape(-1, _BLOCK)


def _unblocked(blocks: Tensor, columns: int) -> Tensor:
    return blocks.view(-1, columns + -columns % _BLOCK)[:, :columns].reshape(-1)


def _single(value: float) -> float:
    """Round to 32 bits."""
    return float(torch.tensor(value, dtype=torch.float32))


def _scales(magnitudes_bk: Tensor, least: float, most: float) -> tuple[Tensor, Tensor]:
    """Give what to multiply by, so that the largest becomes `most`, and the scales to keep."""
    # The maximum of numbers and a NaN is a NaN.
    largest_b = magnitudes_bk.amax(dim=1)
    scales_b = torch.where(largest_b < least, torch.full_like(largest_b, least), largest_b)
    factors_b = torch.full_like(scales_b, most) / scales_b
    return factors_b[:, None], torch.where(largest_b == 0, torch.zeros_like(largest_b), scales_b)


def _encode_momentum(values_bk: Tensor) -> tuple[Tensor, Tensor]:
    magnitudes_bk = values_bk.abs()
    factors_b, kept_b = _scales(magnitudes_bk, _MOMENTUM_SCALE_MIN, 4.0 * _MOMENTUM_FULL)
    squares_bk = (magnitudes_bk * factors_b).nan_to_num(nan=0.0)
    # Twice the root is a whole number where one code ends and the next begins; there it is the smaller one.
    twice_bk = squares_bk.sqrt().round()
    halves_bk = torch.floor((twice_bk + (twice_bk * twice_bk < squares_bk)) / 2)
    return torch.copysign(halves_bk, values_bk), kept_b


def _encode_variance(values_bk: Tensor, first: int, key: int | None) -> tuple[Tensor, Tensor]:
    magnitudes_bk = values_bk.abs()
    factors_b, kept_b = _scales(magnitudes_bk, _VARIANCE_SCALE_MIN, _VARIANCE_FULL)
    if key is None:
        fourths_bk = _at_most(magnitudes_bk * (factors_b * 16.0), 16.0 * _VARIANCE_FULL).double()
        twice_bk = fourths_bk.sqrt().sqrt().round()
        codes_bk = torch.floor((twice_bk + (twice_bk**4 < fourths_bk)) / 2)
    else:
        # Whole numbers below 2^53 and their sums are exact in 64 bits; what the kernels round is rounded here.
        fourths_bk = _at_most(magnitudes_bk * factors_b, _VARIANCE_FULL).double()
        roots_bk = fourths_bk.sqrt().sqrt().round()
        roots_bk = roots_bk - (fourths_bk < roots_bk**4).double()
        rests_bk = (fourths_bk - roots_bk**4).float().double()
        gaps_bk = (((4 * roots_bk + 6) * roots_bk + 4) * roots_bk + 1).float().double() / 65536.0
        lots_bk = _lots(len(values_bk), first, key, values_bk.device).double() * gaps_bk
        codes_bk = roots_bk + (lots_bk < rests_bk).double()
    return torch.where(magnitudes_bk != 0, codes_bk.clamp(min=1), codes_bk), kept_b


def _at_most(values: Tensor, limit: float) -> Tensor:
    return torch.where(values < limit, values, torch.full_like(values, limit))


def _lots(num_blocks: int, first: int, key: int, device: torch.device) -> Tensor:
    """Draw 2, 6, ... or 65,534, float32 [B, K]: sixteen words a block, each turned by eight bits for the next."""
    blocks_b = torch.arange(first, first + num_blocks, dtype=torch.int64, device=device)
    lanes = torch.arange(16, dtype=torch.int64, device=device)
    words = ((blocks_b * 16) & _MASK)[:, None] + lanes
    words = (words & _MASK) ^ (key ^ (blocks_b >> 28))[:, None]
    words = ((words ^ (words >> 16)) * 0x21F0AAAD) & _MASK
    words = ((words ^ (words >> 15)) * 0x735A2D97) & _MASK
    words = words ^ (words >> 15)
    groups = []
    for _ in range(4):
        groups.append((words & 0xFFFC) | 2)
        words = ((words >> 8) | (words << 24)) & _MASK
    return torch.cat(groups, dim=1).float()
