"""The codes of `coded.py` by torch's operations, for tensors that are not on the CPU: the same bits.

Every value is a function of IEEE operations that are rounded once, in the order of `gradient-codec/src/quantize`. Where
those multiply and add at once, the numbers here are such that nothing is rounded in between, or 64 bits are used. What
takes part at a time is a piece of a tensor, so that no whole tensor is ever there in full precision twice.
"""

# B = blocks, K = 64 elements of a block

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK = 64
_PIECE = 1 << 22
"""Elements that are worked on at a time, about."""
_MOMENTUM_FULL = 127.0 * 127.0
_MOMENTUM_SCALE_MIN = 2.0**-112
_VARIANCE_FULL = 255.0**4
_VARIANCE_SCALE_MIN = 2.0**-94
_MASK = 0xFFFFFFFF


def encode(kind: str, values: Tensor, codes: Tensor, scales: Tensor, row_len: int, lot: tuple[int, int] | None) -> None:
    """Code `values`, one dimension, into `codes` and `scales`."""
    if kind == "fourth-root" and bool((values < 0).any()):
        from gradient.errors import InvalidInputError

        raise InvalidInputError("a second moment has a number that is less than zero")
    key = None if lot is None else lot_key(*lot)
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


def lot_key(number: int, count: int) -> int:
    """Give what lots are drawn with; `Rounding::key` of the compiled module."""
    wide = (1 << 64) - 1
    word = (number * 0x9E3779B97F4A7C15 & wide) ^ ((count + 0x9E3779B97F4A7C15) & wide)
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


def _scales(magnitudes_bk: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Give the scales to divide by, and those to keep."""
    # The maximum of numbers and a NaN is a NaN.
    largest_b = magnitudes_bk.amax(dim=1)
    scales_b = torch.where(largest_b < least, torch.full_like(largest_b, least), largest_b)
    return scales_b, torch.where(largest_b == 0, torch.zeros_like(largest_b), scales_b)


def _encode_momentum(values_bk: Tensor) -> tuple[Tensor, Tensor]:
    magnitudes_bk = values_bk.abs()
    scales_b, kept_b = _scales(magnitudes_bk, _MOMENTUM_SCALE_MIN)
    squares_bk = magnitudes_bk * (torch.full_like(scales_b, _MOMENTUM_FULL) / scales_b)[:, None]
    roots_bk = torch.round(squares_bk.sqrt() - 0.25)
    edges_bk = roots_bk * roots_bk + (roots_bk + 0.25)
    roots_bk = torch.where(edges_bk < squares_bk, roots_bk + 1, roots_bk)
    codes_bk = torch.copysign(roots_bk, values_bk)
    return torch.where(codes_bk.isnan(), torch.full_like(codes_bk, -128), codes_bk).clamp(-128, 127), kept_b


def _encode_variance(values_bk: Tensor, first: int, key: int | None) -> tuple[Tensor, Tensor]:
    magnitudes_bk = values_bk.abs()
    scales_b, kept_b = _scales(magnitudes_bk, _VARIANCE_SCALE_MIN)
    fourths_bk = magnitudes_bk * (torch.full_like(scales_b, _VARIANCE_FULL) / scales_b)[:, None]
    guesses_bk = fourths_bk.sqrt().sqrt()
    if key is None:
        roots_bk = torch.round(guesses_bk - 0.25)
        roots_bk = torch.where(_fourth(roots_bk + 0.5) < fourths_bk, roots_bk + 1, roots_bk)
    else:
        roots_bk = torch.round(guesses_bk)
        roots_bk = torch.where(fourths_bk < _fourth(roots_bk), roots_bk - 1, roots_bk)
        odd_bk = 2 * roots_bk + 1
        gaps_bk = odd_bk * (odd_bk * odd_bk * 2.0**-17 + 2.0**-17)
        wide_bk = roots_bk.double()
        # A product of two whole numbers below 2^16 is exact; the difference is rounded once, to 32 bits.
        rests_bk = (fourths_bk.double() - (wide_bk * wide_bk) ** 2).float()
        lots_bk = _lots(len(values_bk), first, key, values_bk.device) * gaps_bk
        roots_bk = torch.where(lots_bk < rests_bk, roots_bk + 1, roots_bk)
    codes_bk = torch.where(magnitudes_bk > 0, torch.nan_to_num(roots_bk, nan=1.0).clamp(1, 255), 0.0)
    return codes_bk, kept_b


def _fourth(roots: Tensor) -> Tensor:
    squares = roots * roots
    return squares * squares


def _lots(num_blocks: int, first: int, key: int, device: torch.device) -> Tensor:
    """Draw odd numbers below 65,536, float32 [B, K]: sixteen words a block, each turned by eight bits for the next."""
    blocks_b = torch.arange(first, first + num_blocks, dtype=torch.int64, device=device)
    lanes = torch.arange(16, dtype=torch.int64, device=device)
    words = ((blocks_b * 16) & _MASK)[:, None] + lanes
    words = (words & _MASK) ^ (key ^ (blocks_b >> 28))[:, None]
    words = ((words ^ (words >> 16)) * 0x21F0AAAD) & _MASK
    words = ((words ^ (words >> 15)) * 0x735A2D97) & _MASK
    words = words ^ (words >> 15)
    groups = []
    for _ in range(4):
        groups.append((words & 0xFFFF) | 1)
        words = ((words >> 8) | (words << 24)) & _MASK
    return torch.cat(groups, dim=1).float()
