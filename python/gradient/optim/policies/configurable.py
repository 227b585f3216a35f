"""A codec for each key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradient.errors import InvalidInputError
from gradient.optim.codecs import Codec, FP32Codec
from gradient.optim.policies.policy import Policy, tensors_of
from gradient.optim.policies.warmup import check_codec, check_steps


class ConfigurablePolicy(Policy):
    """Takes codecs by the key of the state.

    Args:
        codecs_map: Keys, as `exp_avg`, to codecs.
        default_codec: The codec of all other floating point tensors; default: they are kept in full. Counters, which
            have no dimension, are always kept as they are.
        warmup_steps: Steps of a parameter before its state is coded.
    """

    def __init__(
        self, codecs_map: Mapping[str, Codec], default_codec: Codec | None = None, warmup_steps: int = 0
    ) -> None:
        if not isinstance(codecs_map, Mapping):
            raise InvalidInputError(
                f"codecs_map is a mapping of keys to codecs and no {codecs_map!r}", code="bad-option"
            )
        check_steps(warmup_steps)
        self.default_codec = check_codec(default_codec, FP32Codec())
        self.codecs_map = {key: check_codec(codec, self.default_codec) for key, codec in codecs_map.items()}
        self.warmup_steps = warmup_steps

    def get_codecs(self, param: Tensor, state: Mapping[str, Any], step: int) -> dict[str, Codec]:
        """See `Policy.get_codecs`."""
        if step < self.warmup_steps:
            return {}
        named = {key: codec for key, codec in self.codecs_map.items() if key not in state}
        return named | {key: self.codecs_map.get(key, self.default_codec) for key, _, _ in tensors_of(state)}

    def next_change(self, step: int) -> int | None:
        """At the end of the warm-up."""
        return self.warmup_steps if step < self.warmup_steps else None
