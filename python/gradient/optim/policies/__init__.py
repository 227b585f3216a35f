"""Policies: which codec a tensor of an optimizer's state has. One file each, and a line here."""

from gradient.optim.policies.adaptive import AdaptiveWarmupPolicy
from gradient.optim.policies.configurable import ConfigurablePolicy
from gradient.optim.policies.eight_bit import EightBitPolicy
from gradient.optim.policies.policy import MOMENTA, VARIANCES, ParameterFacts, Policy, chosen_codecs, tensors_of
from gradient.optim.policies.selective import Rule, SelectivePolicy
from gradient.optim.policies.warmup import WarmupPolicy

__all__ = [
    "MOMENTA",
    "VARIANCES",
    "AdaptiveWarmupPolicy",
    "ConfigurablePolicy",
    "EightBitPolicy",
    "ParameterFacts",
    "Policy",
    "Rule",
    "SelectivePolicy",
    "WarmupPolicy",
    "chosen_codecs",
    "tensors_of",
]
