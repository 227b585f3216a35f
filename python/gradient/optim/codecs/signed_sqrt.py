"""First moments in eight bits."""

from __future__ import annotations

from gradient.optim.codecs.codec import BuiltinCodec


class SignedSqrtCodec(BuiltinCodec):
    """Signed square roots, a byte each, and a float32 scale for 64 of them: 1.0625 bytes an element.

    Rounded to the nearest. Errors are up to 0.8 % of the largest value of a block, and go to zero with the value.
    """

    kind = "signed-sqrt"


class Int8MomentumCodec(SignedSqrtCodec):
    """What torch-optstate calls 8-bit momentum; asked for second moments it codes fourth roots, and says so."""
