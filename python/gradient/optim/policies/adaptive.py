"""In full until the loss stops falling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradient.optim.codecs import Codec
from gradient.optim.policies.warmup import WarmupPolicy


class AdaptiveWarmupPolicy(WarmupPolicy):
    """A `WarmupPolicy` that ends as soon as the loss has not fallen for some steps. Call `update_on_loss` each step.

    Args:
        patience: Calls without a new best loss after which the warm-up ends.
        tol: How much less than the best a loss has to be to count as a new best.

    The others are those of `WarmupPolicy`.
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
        patience: int = 5,
        tol: float = 1e-3,
    ) -> None:
        super().__init__(
            warmup_steps,
            momentum_key,
            variance_key,
            variance_codec,
            min_int8_elements,
            small_tensor_codec,
            device_resident,
        )
        self.patience = patience
        self.tol = tol
        self.best_loss: float | None = None
        self.stale_steps = 0
        self.compression_active = False

    def update_on_loss(self, loss_value: float) -> bool:
        """Take a loss; say whether the warm-up ended with it. State is coded with the next step."""
        if self.best_loss is None or loss_value < self.best_loss - self.tol:
            self.best_loss, self.stale_steps = loss_value, 0
            return False
        self.stale_steps += 1
        if self.compression_active or self.stale_steps < self.patience:
            return False
        self.compression_active = True
        return True

    def activate_compression(self) -> None:
        """End the warm-up now."""
        self.compression_active = True

    def get_codecs(self, param: Tensor, state: Mapping[str, Any], step: int) -> dict[str, Codec]:
        """See `Policy.get_codecs`."""
        return super().get_codecs(param, state, max(step, self.warmup_steps) if self.compression_active else step)

    def next_change(self, step: int) -> int | None:
        """Any step, until the warm-up has ended."""
        return None if step >= self.warmup_steps else step + 1
