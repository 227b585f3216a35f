"""Second moments in eight bits."""

from __future__ import annotations

from typing import Literal

from gradient.errors import InvalidInputError
from gradient.optim.codecs.codec import BuiltinCodec

LOTS_FROM = 0.99
"""An average that keeps so much of itself a step moves by less than a code, and is rounded stochastically."""


class FourthRootCodec(BuiltinCodec):
    """Fourth roots, a byte each, and a float32 scale for 64 of them: 1.0625 bytes an element, not negative.

    Zero stays zero and nothing else becomes it: an update never divides by a second moment that was rounded away.

    Args:
        rounding: "nearest"; "stochastic" so that values are right on average; "auto" does that where
            beta2 is 0.99 or more, where rounding to the nearest would keep an average from moving. What is drawn is
            a function of a seed of the parameter and of its steps, the same on every machine.
        offload_to_cpu: See `BuiltinCodec`.
    """

    kind = "fourth-root"

    def __init__(
        self, rounding: Literal["auto", "nearest", "stochastic"] = "auto", offload_to_cpu: bool = False
    ) -> None:
        super().__init__(offload_to_cpu)
        if rounding not in ("auto", "nearest", "stochastic"):
            raise InvalidInputError(
                f'rounding is "auto", "nearest" or "stochastic" and no {rounding!r}', code="bad-option"
            )
        self.rounding = rounding

    def is_stochastic(self, beta2: float | None) -> bool:
        """See `BuiltinCodec.is_stochastic`."""
        if self.rounding == "auto":
            return beta2 is None or beta2 >= LOTS_FROM
        return self.rounding == "stochastic"
