"""Every snippet of the README of torch-optstate 0.1.0, verbatim but for the package's name, and what it promises."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, NAdam, Optimizer, RMSprop

from gradient.coded import Coded
from gradient.optim import (
    AdaptiveWarmupPolicy,
    ConfigurablePolicy,
    FP16Codec,
    FP32Codec,
    Int8MomentumCodec,
    OptimizerWrapper,
    WarmupPolicy,
    auto_wrap,
    checkpoint_sequential_modules,
    enable_gradient_checkpointing,
    make_low_memory_policy,
    wrap,
    wrap_low_memory_adamw,
    wrap_max_compression_adamw,
)

BASIC = """
import torch
from torch.optim import AdamW
from torch_optstate import wrap

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
from torch_optstate import wrap, WarmupPolicy

# Keep in FP32 for 1000 steps, then compress momentum to INT8
# Variance (if present) stays in FP32 for stability.
policy = WarmupPolicy(warmup_steps=1000)
optimizer = wrap(optimizer, policy=policy)
"""

MIXED = """
from torch_optstate import wrap, ConfigurablePolicy, FP16Codec, FP32Codec

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
from torch_optstate import wrap, ConfigurablePolicy, FP16Codec, FP32Codec

# Warmup for 100 steps, then switch to FP16 for momentum
policy = ConfigurablePolicy(
    codecs_map={'exp_avg': FP16Codec()},
    default_codec=FP32Codec(),
    warmup_steps=100
)
optimizer = wrap(optimizer, policy=policy)
"""

WIDTH = 64


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_here(snippet: str, names: dict[str, Any]) -> dict[str, Any]:
    assert "torch_optstate" in snippet
    exec(snippet.replace("torch_optstate", "gradient.optim"), names)
    return names


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(WIDTH, 128), nn.Tanh(), nn.Linear(128, WIDTH))


def train(model: nn.Module, optimizer: Optimizer, steps: int, *, seed: int = 0) -> float:
    """Train on rows that are turned around; gives the mean loss of the last ten steps."""
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        inputs = torch.randn(16, WIDTH, generator=generator)
        loss = nn.functional.mse_loss(model(inputs), inputs.flip(1))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / len(losses[-10:])


def wrapped_by(snippet: str, optimizer: Optimizer) -> Any:
    return run_here(snippet, {"optimizer": optimizer})["optimizer"]


def kinds(optimizer: Any) -> dict[str, set[str]]:
    """How the state of parameters with two dimensions is kept, by key."""
    found: dict[str, set[str]] = {}
    for param, entry in optimizer.store.entries.items():
        for key, value in entry.items():
            if param.dim() == 2 and isinstance(value, Coded | torch.Tensor):
                kind = value.kind if isinstance(value, Coded) else str(value.dtype).removeprefix("torch.")
                found.setdefault(key, set()).add(kind)
    return found


def saved(optimizer: Any) -> float:
    """Which part of the bytes in full is not taken."""
    stats = optimizer.store.stats().values()
    return 1 - sum(one.bytes_after for one in stats) / sum(one.bytes_before for one in stats)


# The snippets


@pytest.mark.parametrize("model", ["torch.nn.Linear(10, 1)", "torch.nn.Linear(10, 500)"])
def test_basic_usage_trains_as_the_unwrapped_optimizer_does(model: str) -> None:
    def trained(snippet: str) -> tuple[float, dict[str, Any]]:
        torch.manual_seed(0)
        dataset = [(inputs, inputs.sum(1, keepdim=True)) for inputs in torch.randn(300, 8, 10)]
        names = {"dataset": dataset, "loss_fn": lambda output, target: ((output - target) ** 2).mean()}
        run_here(snippet.replace("torch.nn.Linear(10, 1)", model), names)
        return float(names["loss"].detach()), names

    loss, names = trained(BASIC)
    expected, _ = trained(BASIC.replace("\noptimizer = wrap(optimizer)\n", "\n"))
    assert loss == pytest.approx(expected, rel=0.01)
    assert loss < names["loss_fn"](torch.zeros(()), names["target"])
    assert isinstance(names["optimizer"], AdamW)
    # 5,000 elements are enough to be coded, and ten are not.
    assert (saved(names["optimizer"]) > 0.6) == ("500" in model)


@pytest.mark.parametrize(
    ("kind", "options", "key"), [(AdamW, {}, "exp_avg"), (SGD, {"momentum": 0.9}, "momentum_buffer")]
)
def test_momentum_is_in_full_for_a_thousand_steps_and_then_in_eight_bits(
    kind: Callable[..., Optimizer], options: dict[str, Any], key: str
) -> None:
    model = network()
    optimizer = wrapped_by(INT8_MOMENTUM, kind(model.parameters(), lr=1e-3, **options))
    train(model, optimizer, 999)
    assert set.union(*kinds(optimizer).values()) == {"float32"}
    assert saved(optimizer) == 0
    loss = train(model, optimizer, 1, seed=1)
    assert kinds(optimizer)[key] == {"signed-sqrt"}
    assert kinds(optimizer).get("exp_avg_sq") in ({"float32"}, None)
    # Their table says 37.5 % of AdamW's state and 75 % of SGD's; blocks of 64 with a scale each cost a part of that.
    assert saved(optimizer) > (0.36 if kind is AdamW else 0.72)
    assert train(model, optimizer, 50, seed=2) < 1.1 * loss


@pytest.mark.parametrize(
    ("kind", "options", "key", "percent"),
    [(AdamW, {}, "exp_avg", 25), (SGD, {"momentum": 0.9}, "momentum_buffer", 50)],
)
def test_mixed_precision_has_momentum_in_half_and_variance_in_full(
    kind: Callable[..., Optimizer], options: dict[str, Any], key: str, percent: int
) -> None:
    model = network()
    optimizer = wrapped_by(MIXED, kind(model.parameters(), lr=1e-3, **options))
    before = train(model, optimizer, 10)
    assert kinds(optimizer)[key] == {"float16"}
    assert kinds(optimizer).get("exp_avg_sq") in ({"float32"}, None)
    assert 100 * saved(optimizer) == pytest.approx(percent, abs=0.01)
    assert train(model, optimizer, 100) < before


def test_advanced_configuration_switches_after_its_warmup() -> None:
    model = network()
    optimizer = wrapped_by(ADVANCED, AdamW(model.parameters()))
    train(model, optimizer, 99)
    assert kinds(optimizer)["exp_avg"] == {"float32"}
    train(model, optimizer, 1)
    assert kinds(optimizer) == {"exp_avg": {"float16"}, "exp_avg_sq": {"float32"}}


# What is promised: why, and how it works


POLICIES: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "momentum": lambda: WarmupPolicy(20),
    "mixed": lambda: ConfigurablePolicy({"exp_avg": FP16Codec(), "momentum_buffer": FP16Codec()}, FP32Codec()),
    "low memory": make_low_memory_policy,
    "all in eight bits": lambda: make_low_memory_policy(0, "int8", min_int8_elements=0),
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (AdamW, {"lr": 1e-2}),
        (SGD, {"lr": 0.3, "momentum": 0.9}),
        (RMSprop, {"lr": 1e-3, "momentum": 0.5}),
        (NAdam, {"lr": 1e-2}),
    ],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_existing_optimizers_train_on_with_minimal_loss(
    policy: str, kind: Callable[..., Optimizer], options: dict[str, Any]
) -> None:
    def trained(compressed: bool) -> tuple[float, Any]:
        model = network()
        optimizer = kind(model.parameters(), **options)
        wrap(optimizer, POLICIES[policy]()) if compressed else None
        first = train(model, optimizer, 1)
        last = train(model, optimizer, 200, seed=1)
        assert last < 0.5 * first
        return last, optimizer

    loss, optimizer = trained(True)
    assert loss == pytest.approx(trained(False)[0], rel=0.05)
    # 25 % to 75 %, but for what scales take.
    assert 0.17 < saved(optimizer) < 0.75


@pytest.mark.parametrize("kind", [AdamW, NAdam])
def test_state_in_full_is_freed_after_a_step(kind: Callable[..., Optimizer]) -> None:
    def in_full(model: nn.Module) -> int:
        gc.collect()
        own = {id(one) for param in model.parameters() for one in (param, param.grad)}
        tensors = [one for one in gc.get_objects() if type(one) is torch.Tensor and id(one) not in own]
        # Other tests' tensors may still live, and a nested one has no shape.
        plain = [one for one in tensors if not one.is_nested]
        return sum(one.dtype == torch.float32 and one.shape == (128, WIDTH) for one in plain)

    model = network()
    before = in_full(model)
    optimizer = kind(model.parameters())
    train(model, optimizer, 2)
    assert in_full(model) == before + 2
    wrap(optimizer)
    assert in_full(model) == before
    train(model, optimizer, 2)
    assert in_full(model) == before
    assert optimizer.state[model[0].weight]["exp_avg"].dtype == torch.float32


def test_the_wrapper_is_between_the_loop_and_the_step_and_the_loop_does_not_notice() -> None:
    model = network()
    inner = AdamW(model.parameters(), lr=1e-2)
    rates = torch.optim.lr_scheduler.StepLR(inner, 1, 0.5)
    optimizer = wrap(inner)
    assert isinstance(optimizer, OptimizerWrapper)
    assert isinstance(optimizer, AdamW)
    calls: list[Any] = []
    optimizer.register_step_post_hook(lambda *given: calls.append(given))
    train(model, optimizer, 3)
    rates.step()
    assert (len(calls), optimizer.param_groups[0]["lr"]) == (3, 0.005)
    optimizer.zero_grad(set_to_none=True)
    before = model[0].weight.detach().clone()

    def closure() -> torch.Tensor:
        loss = model(torch.ones(1, WIDTH)).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure) > 0
    assert not before.equal(model[0].weight)


# Codes that are drawn by lot are drawn again when they are given in full.
@pytest.mark.parametrize(("form", "beta2"), [("torch", 0.95), ("native", 0.95), ("native", 0.999)])
def test_state_dicts_go_round_and_schedulers_go_on_afterwards(form: str, beta2: float) -> None:
    model = network()
    optimizer = wrap(AdamW(model.parameters(), lr=1e-2, betas=(0.9, beta2)))
    train(model, optimizer, 5)
    file = io.BytesIO()
    torch.save(dict(optimizer.state_dict(format=form)), file)
    file.seek(0)
    other_model = network()
    other_model.load_state_dict(model.state_dict())
    other = wrap(AdamW(other_model.parameters(), lr=1.0, betas=(0.9, beta2)))
    rates = torch.optim.lr_scheduler.StepLR(other, 1, 0.5)
    other.load_state_dict(torch.load(file, weights_only=True))
    for mine, theirs in zip(model.parameters(), other_model.parameters(), strict=True):
        for key, value in optimizer.state[mine].items():
            assert value.equal(other.state[theirs][key])
    assert saved(other) == pytest.approx(saved(optimizer), abs=0.001)
    train(other_model, other, 1)
    rates.step()
    # The groups are the ones that the scheduler has.
    assert other.param_groups[0]["lr"] == 0.005
    assert rates.optimizer.param_groups is other.param_groups


def test_an_optimizer_that_is_not_wrapped_takes_what_a_wrapped_one_gives() -> None:
    model = network()
    optimizer = wrap(AdamW(model.parameters()))
    train(model, optimizer, 5)
    plain = AdamW(model.parameters())
    plain.load_state_dict(optimizer.state_dict())
    assert plain.state[model[0].weight]["exp_avg"].equal(optimizer.state[model[0].weight]["exp_avg"])
    assert plain.state[model[0].weight]["step"] == 5
    train(model, plain, 1)


# What its 0.1.1 has


def test_auto_wrap_chooses_for_itself() -> None:
    model = network()
    optimizer = auto_wrap(AdamW(model.parameters()), profile=True)
    train(model, optimizer, 3)
    assert saved(optimizer) > 0.7
    assert optimizer.store.pin_memory is False
    assert optimizer.last_step_timings["step"] > 0
    chosen = auto_wrap(AdamW(model.parameters()), WarmupPolicy(), 8, 256, 1, False)
    assert isinstance(chosen.policy, WarmupPolicy)


@pytest.mark.parametrize(
    ("mode", "variance", "least"),
    [("fp16", "float16", 0.55), ("int8", "fourth-root", 0.7), ("fp32", "float32", 0.35)],
)
def test_the_low_memory_adamw_codes_after_ten_steps_as_asked(mode: str, variance: str, least: float) -> None:
    model = network()
    optimizer = wrap_low_memory_adamw(model.parameters(), lr=1e-2, variance_mode=mode, betas=(0.9, 0.99))
    train(model, optimizer, 9)
    assert saved(optimizer) == 0
    train(model, optimizer, 1)
    # A second moment in float16 would be zero where gradients are small: it has eight bits that are not.
    variance = "fourth-root" if mode == "fp16" else variance
    assert kinds(optimizer) == {"exp_avg": {"signed-sqrt"}, "exp_avg_sq": {variance}}
    assert saved(optimizer) > least
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.99)


def test_the_most_compressed_adamw_codes_every_tensor_from_the_first_step() -> None:
    model = network()
    optimizer = wrap_max_compression_adamw(model.parameters(), lr=1e-2, device_resident=True)
    first = train(model, optimizer, 1)
    stats = optimizer.store.stats()
    assert all(stats[key].num_coded == stats[key].num_tensors == 4 for key in ("exp_avg", "exp_avg_sq"))
    assert train(model, optimizer, 200, seed=1) < 0.5 * first


def test_an_adaptive_warmup_ends_when_the_loss_stands_still() -> None:
    model = network()
    policy = AdaptiveWarmupPolicy(warmup_steps=1000, patience=3, variance_codec=Int8MomentumCodec())
    optimizer = wrap(AdamW(model.parameters()), policy)
    train(model, optimizer, 5)
    assert saved(optimizer) == 0
    assert [policy.update_on_loss(1.0) for _ in range(4)] == [False, False, False, True]
    train(model, optimizer, 1)
    assert saved(optimizer) > 0.7


def test_models_that_can_are_asked_to_compute_activations_again() -> None:
    asked: list[Any] = []

    class Model(nn.Module):
        def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None) -> None:
            asked.append(gradient_checkpointing_kwargs)

    class Older(nn.Module):
        def gradient_checkpointing_enable(self, use_reentrant: bool = True) -> None:
            asked.append(use_reentrant)

    class Oldest(nn.Module):
        def gradient_checkpointing_enable(self) -> None:
            asked.append(None)

    assert all(enable_gradient_checkpointing(kind(), use_reentrant=False) for kind in (Model, Older, Oldest))
    assert asked == [{"use_reentrant": False}, False, None]
    assert not enable_gradient_checkpointing(nn.Linear(1, 1))


def test_modules_in_segments_give_the_same_gradients() -> None:
    model, same = network(), network()
    inputs = torch.ones(2, WIDTH, requires_grad=True)
    run = checkpoint_sequential_modules(list(model), segments=2, use_reentrant=False)
    run(inputs).sum().backward()
    same(inputs).sum().backward()
    assert all(one.grad.equal(two.grad) for one, two in zip(model.parameters(), same.parameters(), strict=True))
