"""In full for some steps, then momentum in eight bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradient.errors import InvalidInputError
from gradient.optim.codecs import BuiltinCodec, Codec, FP32Codec, Int8MomentumCodec
from gradient.optim.policies.policy import Policy, tensors_of


class WarmupPolicy(Policy):
    """Keeps state in full for `warmup_steps` steps; then codes the momentum in eight bits, and the variance as asked.

    Args:
        warmup_steps: Steps of a parameter before its state is coded; 0 codes from the first one on.
        momentum_key: What the first moment is called; `momentum_buffer` is one too.
        variance_key: What the second moment is called.
        variance_codec: Its codec after the warm-up; default: it stays in full.
        min_int8_elements: Elements from which on a tensor is coded in eight bits.
        small_tensor_codec: The codec of smaller ones after the warm-up; default: they stay in full.
        device_resident: True keeps codes where the parameter is, False in the memory of the CPU; default: where the
            parameter is.
    """

    def __init__(
        self,
        warmup_steps: int = 100,
        momentum_key: str = "exp_avg",
        variance_key: str = "exp_avg_sq",
        variance_codec: Codec | None = None,
        min_int8_elements: int = 4096,
        small_tensor_codec: Codec | None = None,
        device_resident: bool | None = None,
    ) -> None:
        check_steps(warmup_steps)
        self.warmup_steps = warmup_steps
        self.momentum_key = momentum_key
        self.variance_key = variance_key
        self.min_int8_elements = min_int8_elements
        self.device_resident = device_resident
        offload = device_resident is False
        self.int8_codec = Int8MomentumCodec(offload)
        self.variance_codec = check_codec(variance_codec, FP32Codec(offload))
        self.small_tensor_codec = check_codec(small_tensor_codec, FP32Codec(offload))

    def get_codecs(self, param: Tensor, state: Mapping[str, Any], step: int) -> dict[str, Codec]:
        """See `Policy.get_codecs`."""
        if step < self.warmup_steps:
            return {}
        chosen: dict[str, Codec] = {}
        for key, shape, _ in tensors_of(state):
            if key in (self.momentum_key, "momentum_buffer"):
                codec: Codec = self.int8_codec
            elif key == self.variance_key:
                codec = self.variance_codec
            else:
                continue
            is_eight_bit = isinstance(codec, BuiltinCodec) and codec.kind in ("signed-sqrt", "fourth-root")
            chosen[key] = self.small_tensor_codec if is_eight_bit and shape.numel() < self.min_int8_elements else codec
        return chosen

    def next_change(self, step: int) -> int | None:
        """At the end of the warm-up."""
        return self.warmup_steps if step < self.warmup_steps else None


def check_steps(warmup_steps: object) -> None:
    """Accept a whole number from 0.

    Raises:
        InvalidInputError: It is none.
    """
    if isinstance(warmup_steps, bool) or not isinstance(warmup_steps, int) or warmup_steps < 0:
        raise InvalidInputError(f"warmup_steps is a whole number from 0 and no {warmup_steps!r}", code="bad-option")


def check_codec(codec: object, default: Codec) -> Codec:
    """Accept a codec; None is the default.

    Raises:
        InvalidInputError: It is none.
    """
    if codec is None:
        return default
    if not isinstance(codec, Codec):
        raise InvalidInputError(
            f"{codec!r} is no gradient.optim.Codec", code="bad-option", hint="give an instance, as FP16Codec()"
        )
    return codec
