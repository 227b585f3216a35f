"""Activations that are computed again instead of kept: torch's own, under the names that torch-optstate has."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint_sequential


def enable_gradient_checkpointing(model: nn.Module, use_reentrant: bool = True) -> bool:
    """Ask a model of Hugging Face's kind to compute activations again in the backward pass.

    Args:
        model: The model.
        use_reentrant: What torch's `checkpoint` is asked for, where the model takes it.

    Returns:
        Whether the model has such a method, `gradient_checkpointing_enable`.
    """
    enable: Any = getattr(model, "gradient_checkpointing_enable", None)
    if enable is None:
        return False
    taken = inspect.signature(enable).parameters
    takes_options = "gradient_checkpointing_kwargs" in taken or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values()
    )
    if takes_options:
        enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    elif "use_reentrant" in taken:
        enable(use_reentrant=use_reentrant)
    else:
        # Older models take nothing.
        enable()
    return True


def checkpoint_sequential_modules(
    modules: Sequence[nn.Module], segments: int, preserve_rng_state: bool = True, use_reentrant: bool = True
) -> Any:
    """Give a function that runs modules in segments and keeps only what goes in and out of each.

    Args:
        modules: The modules, in order.
        segments: Pieces that they are cut into.
        preserve_rng_state: Draw the same random numbers when a segment is computed again.
        use_reentrant: See `torch.utils.checkpoint.checkpoint_sequential`.
    """
    run_in_segments: Any = checkpoint_sequential

    def run(inputs: Any) -> Any:
        return run_in_segments(
            list(modules), segments, inputs, preserve_rng_state=preserve_rng_state, use_reentrant=use_reentrant
        )

    return run
