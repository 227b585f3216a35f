"""What a policy is: it says which codec each tensor of a parameter's state has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradient.errors import InvalidInputError
from gradient.optim.codecs import Codec
from gradient.optim.kept import say_once

MOMENTA = frozenset({"exp_avg", "momentum_buffer"})
"""What torch's optimizers call first moments."""
VARIANCES = frozenset({"exp_avg_sq", "square_avg", "acc_delta"})
"""What they call averages of squares."""


@dataclass(frozen=True)
class ParameterFacts:
    """What is known of a parameter beside its values.

    Attributes:
        name: Its name in the model, or in the group's `param_names`; None if nobody said.
        module: The type of the module that has it; None if nobody said.
    """

    name: str | None = None
    module: type[nn.Module] | None = None


class Policy(ABC):
    """Chooses codecs. Subclass it for a policy of your own."""

    @abstractmethod
    def get_codecs(self, param: Tensor, state: Mapping[str, Any], step: int) -> dict[str, Codec]:
        """Say how the state of a parameter is kept after a step.

        Args:
            param: The parameter.
            state: Its state by key; a tensor that is coded is decoded when it is read. Before a parameter's first step
                it has zeros.
            step: How many steps the parameter has had, from 1.

        Returns:
            A codec for each key that is to be coded; what has none is kept as it is.
        """

    def next_change(self, step: int) -> int | None:
        """Give the first step after this one at which codecs may change; None if they never do again."""
        return step + 1

    def bind(self, facts: Mapping[Tensor, ParameterFacts]) -> None:  # noqa: B027 - most do not ask.
        """Take what is known of the optimizer's parameters, before the first step and when a group is added.

        Raises:
            InvalidInputError: What the policy asks for is not known.
        """


def chosen_codecs(policy: Policy, param: Tensor, state: Mapping[str, Any], step: int) -> Mapping[str, Codec]:
    """Ask a policy for codecs; what the state does not have is said once, and left out.

    Raises:
        InvalidInputError: It gives no mapping.
    """
    codecs = policy.get_codecs(param, state, step)
    if not isinstance(codecs, Mapping):
        raise InvalidInputError(
            f"{type(policy).__name__}.get_codecs gave {codecs!r} and no codecs by key",
            code="bad-option",
            hint="return {} where nothing is to be coded",
        )
    unknown = codecs.keys() - state.keys()
    if unknown and len(state):
        asked, has = (", ".join(sorted(map(str, keys))) for keys in (unknown, state.keys()))
        say_once(f"{type(policy).__name__} has codecs for {asked}, which the state does not have: it has {has}")
    return {key: codec for key, codec in codecs.items() if key in state and codec is not None}


def tensors_of(state: Mapping[str, Any]) -> Iterator[tuple[str, torch.Size, torch.dtype]]:
    """Give key, shape and dtype of each tensor of a state that has elements to code; nothing is decoded.

    Counters, which have no dimension, and whole numbers are none of them.
    """
    facts = getattr(state, "facts", None)
    if facts is None:
        pairs = ((key, value) for key, value in state.items() if isinstance(value, Tensor))
        found = [(key, value.shape, value.dtype) for key, value in pairs]
    else:
        found = list(facts())
    for key, shape, dtype in found:
        if len(shape) and dtype.is_floating_point:
            yield key, shape, dtype
