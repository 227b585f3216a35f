"""State in 32 or 16 bits."""

from __future__ import annotations

from gradient.optim.codecs.codec import BuiltinCodec


class FP32Codec(BuiltinCodec):
    """In full: 4 bytes an element."""

    kind = "float32"


class BF16Codec(BuiltinCodec):
    """In bfloat16, rounded to the nearest: 2 bytes an element, errors up to 1 in 256.

    An average that moves by less than that in a step stays where it is: for second moments with beta2 above 0.99 use
    `FourthRootCodec`, which takes half.
    """

    kind = "bfloat16"


class FP16Codec(BuiltinCodec):
    """In float16, rounded to the nearest: 2 bytes an element, errors up to 1 in 2,048.

    Below 6e-8 everything is zero and above 65,504 infinite: second moments of gradients under 1e-4 do not fit.
    """

    kind = "float16"
