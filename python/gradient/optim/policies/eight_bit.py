"""The default: moments of what is large in eight bits, from the first step on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradient.errors import InvalidInputError
from gradient.optim.codecs import Codec, FourthRootCodec, SignedSqrtCodec
from gradient.optim.policies.policy import MOMENTA, VARIANCES, Policy, tensors_of

_CODED = frozenset({torch.float32, torch.bfloat16, torch.float16})


class EightBitPolicy(Policy):
    """First moments as signed square roots and second moments as fourth roots, a byte each.

    Of parameters with two dimensions or more and at least `min_elements`; the state of all others is kept in full, as
    is what is neither a first nor a second moment (maxima, sums, factors, step sizes). A second moment is coded where
    nothing is subtracted from it: RMSprop keeps it in full with `centered=True`.

    Args:
        min_elements: Elements from which on a tensor is coded.
        offload_to_cpu: Keep codes in the memory of the CPU, wherever the parameter is.
    """

    def __init__(self, min_elements: int = 4096, offload_to_cpu: bool = False) -> None:
        if type(min_elements) is not int or min_elements < 0:
            raise InvalidInputError(f"min_elements is a whole number from 0 and no {min_elements!r}", code="bad-option")
        self.min_elements = min_elements
        self.momentum_codec = SignedSqrtCodec(offload_to_cpu)
        self.variance_codec = FourthRootCodec(offload_to_cpu=offload_to_cpu)

    def get_codecs(self, param: Tensor, state: Mapping[str, Any], step: int) -> dict[str, Codec]:
        """See `Policy.get_codecs`."""
        if param.dim() < 2 or math.prod(param.shape) < self.min_elements or param.dtype not in _CODED:
            return {}
        chosen: dict[str, Codec] = {}
        for key, shape, dtype in tensors_of(state):
            if shape != param.shape or dtype not in _CODED:
                continue
            if key in MOMENTA:
                chosen[key] = self.momentum_codec
            elif key in VARIANCES and "grad_avg" not in state:
                chosen[key] = self.variance_codec
        return chosen

    def next_change(self, step: int) -> int | None:
        """Never."""
        return None
