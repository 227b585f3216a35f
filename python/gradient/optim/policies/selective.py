"""Another policy for some parameters: by name, by shape, by the module that has them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from gradient.errors import InvalidInputError
from gradient.optim.codecs import Codec
from gradient.optim.kept import say_once
from gradient.optim.policies.eight_bit import EightBitPolicy
from gradient.optim.policies.policy import ParameterFacts, Policy


@dataclass(frozen=True)
class Rule:
    """Parameters, and the policy that they have. All that is given has to hold.

    Attributes:
        policy: The policy; None keeps their state in full.
        name: A pattern of the parameter's name, as `*.embed.weight`.
        module: A type of module, or several.
        shape: Says of a parameter's shape whether it is meant.
    """

    policy: Policy | None
    name: str | None = None
    module: type[nn.Module] | tuple[type[nn.Module], ...] | None = None
    shape: Callable[[torch.Size], bool] | None = None

    def __post_init__(self) -> None:
        """Accept what a rule can be made of.

        Raises:
            InvalidInputError: Something is of another type.
        """
        modules = self.module if isinstance(self.module, tuple) else (self.module,)
        for what, value, is_right in (
            ("policy is a gradient.optim.Policy or None", self.policy, isinstance(self.policy, Policy | None)),
            ("name is a pattern, as '*.embed.weight',", self.name, isinstance(self.name, str | None)),
            (
                "module is a type of module, as torch.nn.Embedding, or a tuple of them,",
                self.module,
                self.module is None or all(isinstance(one, type) and issubclass(one, nn.Module) for one in modules),
            ),
            (
                "shape is a function of a shape, as lambda shape: shape.numel() > 1000,",
                self.shape,
                self.shape is None or callable(self.shape),
            ),
        ):
            if not is_right:
                raise InvalidInputError(f"a rule's {what} and no {value!r}", code="bad-option")

    def holds(self, param: Tensor, facts: ParameterFacts) -> bool:
        """Tell whether a parameter is meant."""
        if self.name is not None and not fnmatch.fnmatchcase(facts.name or "", self.name):
            return False
        if self.module is not None and not (facts.module and issubclass(facts.module, self.module)):
            return False
        return self.shape is None or bool(self.shape(param.shape))


class SelectivePolicy(Policy):
    """The policy of the first rule that holds for a parameter.

    Args:
        rules: The rules. Names and modules are known if `wrap` is given the model; names also if the optimizer was
            made from `model.named_parameters()`.
        default: The policy where none holds; default: `EightBitPolicy()`.
    """

    def __init__(self, rules: Sequence[Rule], default: Policy | None = None) -> None:
        if not isinstance(rules, Sequence):
            raise InvalidInputError(f"rules is a list of gradient.optim.Rule and no {rules!r}", code="bad-option")
        for rule in rules:
            if not isinstance(rule, Rule):
                raise InvalidInputError(f"{rule!r} is no gradient.optim.Rule", code="bad-option")
        if not isinstance(default, Policy | None):
            raise InvalidInputError(f"default is a gradient.optim.Policy or None and no {default!r}", code="bad-option")
        self.rules = list(rules)
        self.default = default or EightBitPolicy()
        self._facts: MutableMapping[Tensor, ParameterFacts] = WeakTensorKeyDictionary()

    def bind(self, facts: Mapping[Tensor, ParameterFacts]) -> None:
        """See `Policy.bind`."""
        for rule in self.rules:
            for what, asked in (("name", rule.name), ("module", rule.module)):
                num_unknown = sum(getattr(fact, what) is None for fact in facts.values())
                if asked is not None and num_unknown:
                    raise InvalidInputError(
                        f"a rule chooses by {what}, and of {num_unknown} of {len(facts)} parameters the {what} is not "
                        "known",
                        code="names-unknown",
                        hint="give the model that has all of them: gradient.wrap(optimizer, policy, model=model)",
                    )
            if facts and not any(rule.holds(param, fact) for param, fact in facts.items()):
                say_once(f"{rule} holds for none of the optimizer's parameters")
        # One policy may be that of several optimizers.
        self._facts.update(facts)
        for policy in (self.default, *(rule.policy for rule in self.rules)):
            if policy is not None:
                policy.bind(facts)

    def get_codecs(self, param: Tensor, state: Mapping[str, Any], step: int) -> dict[str, Codec]:
        """See `Policy.get_codecs`."""
        facts = self._facts.get(param, ParameterFacts())
        rule = next((rule for rule in self.rules if rule.holds(param, facts)), None)
        policy = self.default if rule is None else rule.policy
        return {} if policy is None else policy.get_codecs(param, state, step)

    def next_change(self, step: int) -> int | None:
        """Give the next of any of the policies."""
        policies = [self.default, *(rule.policy for rule in self.rules if rule.policy is not None)]
        changes = [policy.next_change(step) for policy in policies]
        return min((change for change in changes if change is not None), default=None)

    def __getstate__(self) -> dict[str, Any]:
        # Parameters are the run's; whoever takes a copy binds its own.
        return {**vars(self), "_facts": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _facts=WeakTensorKeyDictionary())
