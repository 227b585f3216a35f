"""Every snippet of the README of torch-optstate, with `gradient.optim` for `torch_optstate`, and what it promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gradient.optim

BASIC = """
import torch
from torch.optim import AdamW
from gradient.optim import wrap

model = torch.nn.Linear(10, 1)
optimizer = AdamW(model.parameters(), lr=1e-3)

# Wrap the optimizer
# This will automatically manage state compression
optimizer = wrap(optimizer)

# Training loop (standard PyTorch)
for input, target in dataset:
    optimizer.zero_grad()
    output = model(input)
    loss = loss_fn(output, target)
    loss.backward()
    optimizer.step()
"""

INT8_MOMENTUM = """
from gradient.optim import wrap, WarmupPolicy

# Keep in FP32 for 1000 steps, then compress momentum to INT8
# Variance (if present) stays in FP32 for stability.
policy = WarmupPolicy(warmup_steps=1000)
optimizer = wrap(optimizer, policy=policy)
"""

MIXED = """
from gradient.optim import wrap, ConfigurablePolicy, FP16Codec, FP32Codec

# Define a policy that stores 'exp_avg' in FP16 and 'exp_avg_sq' in FP32
policy = ConfigurablePolicy(
    codecs_map={
        'exp_avg': FP16Codec(),
        'momentum_buffer': FP16Codec()
    },
    default_codec=FP32Codec() # Fallback for variance
)
optimizer = wrap(optimizer, policy=policy)
"""

ADVANCED = """
from gradient.optim import wrap, ConfigurablePolicy, FP16Codec, FP32Codec

# Warmup for 100 steps, then switch to FP16 for momentum
policy = ConfigurablePolicy(
    codecs_map={'exp_avg': FP16Codec()},
    default_codec=FP32Codec(),
    warmup_steps=100
)
optimizer = wrap(optimizer, policy=policy)
"""


def dataset(count: int = 20) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 32, 10, generator=generator)
    return [(batch, batch.sum(1, keepdim=True)) for batch in inputs]


def run(snippet: str, **names: Any) -> dict[str, Any]:
    exec(compile(snippet, "README", "exec"), names)
    return names


def big() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Linear(100, 100)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def steps(model: torch.nn.Module, optimizer: Any, count: int) -> None:
    for seed in range(count):
        optimizer.zero_grad()
        inputs = torch.randn(8, 100, generator=torch.Generator().manual_seed(seed))
        model(inputs).square().mean().backward()
        optimizer.step()


def kinds(optimizer: Any) -> dict[str, str]:
    """How the state of the weight is kept."""
    entry = optimizer.store.entries[optimizer.param_groups[0]["params"][0]]
    return {key: getattr(value, "kind", "in full") for key, value in entry.items() if key != "step"}


def test_basic_usage_trains_and_gives_back_the_optimizer() -> None:
    names = run(BASIC, dataset=dataset(), loss_fn=torch.nn.functional.mse_loss)
    assert isinstance(names["optimizer"], torch.optim.AdamW)
    assert float(names["optimizer"].state[names["model"].weight]["step"]) == 20


def test_momentum_is_coded_after_the_warm_up_and_variance_stays_in_full() -> None:
    model, optimizer = big()
    optimizer = run(INT8_MOMENTUM, optimizer=optimizer)["optimizer"]
    before = None
    for _ in range(2):
        steps(model, optimizer, 500)
        before = before or optimizer.store.get_memory_usage()
    assert kinds(optimizer) == {"exp_avg": "signed-sqrt", "exp_avg_sq": "in full"}
    # Three eighths less, and scales.
    assert optimizer.store.get_memory_usage() < 0.65 * before


def test_momentum_in_half_precision_and_variance_in_full() -> None:
    model, optimizer = big()
    optimizer = run(MIXED, optimizer=optimizer)["optimizer"]
    steps(model, optimizer, 3)
    assert kinds(optimizer) == {"exp_avg": "float16", "exp_avg_sq": "in full"}
    sgd = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    sgd = run(MIXED, optimizer=sgd)["optimizer"]
    steps(model, sgd, 3)
    assert kinds(sgd) == {"momentum_buffer": "float16"}


def test_a_warm_up_with_codecs_of_ones_own() -> None:
    model, optimizer = big()
    optimizer = run(ADVANCED, optimizer=optimizer)["optimizer"]
    steps(model, optimizer, 99)
    assert kinds(optimizer) == {"exp_avg": "in full", "exp_avg_sq": "in full"}
    steps(model, optimizer, 1)
    assert kinds(optimizer) == {"exp_avg": "float16", "exp_avg_sq": "in full"}


@pytest.mark.parametrize("make", ["wrap_low_memory_adamw", "wrap_max_compression_adamw"])
def test_the_shortcuts_train_and_take_less_than_half(make: str) -> None:
    model, _ = big()
    optimizer = getattr(gradient.optim, make)(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    steps(model, optimizer, 12)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95) and isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.store.get_memory_usage() < 0.5 * 8 * sum(param.numel() for param in model.parameters())


def test_activations_are_computed_again_where_the_model_can() -> None:
    class Model(torch.nn.Module):
        asked: Any = None

        def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None) -> None:
            self.asked = gradient_checkpointing_kwargs

    class Older(torch.nn.Module):
        asked = False

        def gradient_checkpointing_enable(self) -> None:
            self.asked = True

    model, older = Model(), Older()
    assert gradient.optim.enable_gradient_checkpointing(model, use_reentrant=False)
    assert model.asked == {"use_reentrant": False}
    assert gradient.optim.enable_gradient_checkpointing(older) and older.asked
    assert not gradient.optim.enable_gradient_checkpointing(torch.nn.Linear(1, 1))


def test_modules_in_segments_give_the_same_gradients() -> None:
    torch.manual_seed(0)
    modules = [torch.nn.Linear(10, 10) for _ in range(4)]
    inputs = torch.randn(3, 10, requires_grad=True)
    gradient.optim.checkpoint_sequential_modules(modules, 2, use_reentrant=False)(inputs).sum().backward()
    found, inputs.grad = inputs.grad, None
    torch.nn.Sequential(*modules)(inputs).sum().backward()
    torch.testing.assert_close(found, inputs.grad)
