"""Shortcuts of torch-optstate: AdamW with a policy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.nn import Parameter
from torch.optim import AdamW

from gradient.errors import InvalidInputError
from gradient.optim.codecs import Codec, FourthRootCodec, FP16Codec, FP32Codec
from gradient.optim.policies import WarmupPolicy
from gradient.optim.wrapping import wrap

_EIGHT_BITS = ("int8", "int8_variance", "int8_all")


def make_low_memory_policy(
    warmup_steps: int = 10,
    variance_mode: str = "fp16",
    momentum_key: str = "exp_avg",
    variance_key: str = "exp_avg_sq",
    min_int8_elements: int = 4096,
    small_tensor_codec: Codec | None = None,
    device_resident: bool | None = None,
) -> WarmupPolicy:
    """Make a policy with momentum in eight bits and the variance as asked.

    Args:
        warmup_steps: See `WarmupPolicy`, as for all others.
        variance_mode: "fp16", "int8" (or "int8_variance", "int8_all") for fourth roots, or "fp32". Variances of small
            gradients underflow in float16; "int8" has no such limit and takes half.
        momentum_key: What the first moment is called.
        variance_key: What the second moment is called.
        min_int8_elements: Elements from which on a tensor is coded in eight bits.
        small_tensor_codec: The codec of smaller ones.
        device_resident: Whether codes stay where the parameter is.

    Raises:
        InvalidInputError: The mode is unknown.
    """
    offload = device_resident is False
    if variance_mode == "fp16":
        codec: Codec = FP16Codec(offload)
    elif variance_mode in _EIGHT_BITS:
        codec = FourthRootCodec(offload_to_cpu=offload)
    elif variance_mode == "fp32":
        codec = FP32Codec(offload)
    else:
        raise InvalidInputError(
            f'variance_mode is "fp16", "int8" or "fp32" and no {variance_mode!r}', code="bad-option"
        )
    return WarmupPolicy(
        warmup_steps, momentum_key, variance_key, codec, min_int8_elements, small_tensor_codec, device_resident
    )


def wrap_low_memory_adamw(
    params: Iterable[Parameter],
    lr: float = 5e-5,
    weight_decay: float = 0.01,
    warmup_steps: int = 10,
    variance_mode: str = "fp16",
    chunk_size: int | None = 32,
    initial_chunk_size: int | None = 1,
    pin_memory: bool | None = None,
    min_int8_elements: int = 4096,
    small_tensor_codec: Codec | None = None,
    device_resident: bool | None = None,
    chunk_size_on_cuda: int | None = None,
    **adamw_kwargs: Any,
) -> Any:
    """Make an AdamW and wrap it with `make_low_memory_policy`; the arguments are those of the three."""
    policy = make_low_memory_policy(
        warmup_steps=warmup_steps,
        variance_mode=variance_mode,
        min_int8_elements=min_int8_elements,
        small_tensor_codec=small_tensor_codec,
        device_resident=device_resident,
    )
    optimizer = AdamW(params, lr=lr, weight_decay=weight_decay, **adamw_kwargs)
    return wrap(optimizer, policy, chunk_size, chunk_size_on_cuda, initial_chunk_size, pin_memory)


def wrap_max_compression_adamw(
    params: Iterable[Parameter],
    lr: float = 5e-5,
    weight_decay: float = 0.01,
    chunk_size: int | None = None,
    chunk_size_on_cuda: int | None = 256,
    initial_chunk_size: int | None = 1,
    pin_memory: bool | None = None,
    device_resident: bool | None = None,
    **adamw_kwargs: Any,
) -> Any:
    """Make an AdamW with both moments of every tensor in eight bits from the first step on."""
    policy = make_low_memory_policy(
        warmup_steps=0, variance_mode="int8", min_int8_elements=0, device_resident=device_resident
    )
    optimizer = AdamW(params, lr=lr, weight_decay=weight_decay, **adamw_kwargs)
    return wrap(optimizer, policy, chunk_size, chunk_size_on_cuda, initial_chunk_size, pin_memory)
