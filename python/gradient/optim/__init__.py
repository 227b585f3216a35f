"""Optimizer state that is kept compressed in memory while training.

`wrap(optimizer)` is all that most need. Policies say which codec each tensor of the state has, codecs how it is kept;
both can be a user's own. Every name that torch-optstate has is here.
"""

from gradient.optim.codecs import (
    BF16Codec,
    Codec,
    FourthRootCodec,
    FP16Codec,
    FP32Codec,
    Int8MomentumCodec,
    SignedSqrtCodec,
)
from gradient.optim.lion import Lion
from gradient.optim.low_memory import make_low_memory_policy, wrap_low_memory_adamw, wrap_max_compression_adamw
from gradient.optim.policies import (
    AdaptiveWarmupPolicy,
    ConfigurablePolicy,
    EightBitPolicy,
    Policy,
    Rule,
    SelectivePolicy,
    WarmupPolicy,
)
from gradient.optim.recomputing import checkpoint_sequential_modules, enable_gradient_checkpointing
from gradient.optim.store import KeyStats, StateStore
from gradient.optim.wrapper import OptimizerWrapper
from gradient.optim.wrapping import auto_wrap, wrap

__all__ = [
    "AdaptiveWarmupPolicy",
    "BF16Codec",
    "Codec",
    "ConfigurablePolicy",
    "EightBitPolicy",
    "FP16Codec",
    "FP32Codec",
    "FourthRootCodec",
    "Int8MomentumCodec",
    "KeyStats",
    "Lion",
    "OptimizerWrapper",
    "Policy",
    "Rule",
    "SelectivePolicy",
    "SignedSqrtCodec",
    "StateStore",
    "WarmupPolicy",
    "auto_wrap",
    "checkpoint_sequential_modules",
    "enable_gradient_checkpointing",
    "make_low_memory_policy",
    "wrap",
    "wrap_low_memory_adamw",
    "wrap_max_compression_adamw",
]
