"""Codecs: how a tensor of an optimizer's state is kept. One file each, and a line here."""

from gradient.optim.codecs.codec import BuiltinCodec, Codec
from gradient.optim.codecs.floats import BF16Codec, FP16Codec, FP32Codec
from gradient.optim.codecs.fourth_root import FourthRootCodec
from gradient.optim.codecs.signed_sqrt import Int8MomentumCodec, SignedSqrtCodec

BUILTIN: tuple[type[BuiltinCodec], ...] = (
    BF16Codec,
    FP16Codec,
    FP32Codec,
    FourthRootCodec,
    Int8MomentumCodec,
    SignedSqrtCodec,
)
"""All that there are."""

__all__ = [
    "BUILTIN",
    "BF16Codec",
    "BuiltinCodec",
    "Codec",
    "FP16Codec",
    "FP32Codec",
    "FourthRootCodec",
    "Int8MomentumCodec",
    "SignedSqrtCodec",
]
