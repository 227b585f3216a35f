"""What the codes of floats of at most eight bits mean; NumPy has none of these dtypes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SMALL_FLOATS = {
    # exponent bits, mantissa bits, bias, and what the codes at the top mean
    "float8_e4m3fn": (4, 3, 7, "nan"),
    "float8_e5m2": (5, 2, 15, "ieee"),
    "float8_e4m3fnuz": (4, 3, 8, "unsigned-zero"),
    "float8_e5m2fnuz": (5, 2, 16, "unsigned-zero"),
    "float8_e8m0fnu": (8, 0, 127, "power"),
    "float4_e2m1fn_x2": (2, 1, 1, "finite"),
}

_tables: dict[str, NDArray[np.float32]] = {}


def table(dtype: str) -> NDArray[np.float32]:
    """What every code of a small float means, as float32 [number of codes]."""
    import numpy as np

    if dtype not in _tables:
        exponent_bits, mantissa_bits, bias, top = SMALL_FLOATS[dtype]
        sign_bits = 0 if top == "power" else 1
        codes = range(1 << (sign_bits + exponent_bits + mantissa_bits))
        meant = [_small_float(code, exponent_bits, mantissa_bits, bias, top) for code in codes]
        _tables[dtype] = np.array(meant, dtype=np.float32)
    return _tables[dtype]


def _small_float(code: int, exponent_bits: int, mantissa_bits: int, bias: int, top: str) -> float:
    if top == "power":
        return math.nan if code == 0xFF else math.ldexp(1.0, code - bias)
    mantissa = code & ((1 << mantissa_bits) - 1)
    exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1)
    negative = bool(code >> (mantissa_bits + exponent_bits))
    exponent_max, mantissa_max = (1 << exponent_bits) - 1, (1 << mantissa_bits) - 1
    if top == "unsigned-zero" and negative and exponent == 0 and mantissa == 0:
        return math.nan
    if top == "nan" and exponent == exponent_max and mantissa == mantissa_max:
        return math.nan
    if top == "ieee" and exponent == exponent_max:
        if mantissa:
            return math.nan
        return -math.inf if negative else math.inf
    if exponent == 0:
        size = math.ldexp(mantissa, 1 - bias - mantissa_bits)
    else:
        size = math.ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits)
    return -size if negative else size
