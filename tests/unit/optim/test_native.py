"""The fused kernels do what torch's optimizers do, in full to rounding and with codes within a bound."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch import nn, optim

from gradient import coded
from gradient.errors import InvalidInputError
from gradient.optim import (
    AdaptiveWarmupPolicy,
    BF16Codec,
    ConfigurablePolicy,
    EightBitPolicy,
    FourthRootCodec,
    FP16Codec,
    FP32Codec,
    Lion,
    SignedSqrtCodec,
    WarmupPolicy,
    wrap,
)

IN_FULL = EightBitPolicy(min_elements=10**9)
ALL_CODED = EightBitPolicy(0)
KINDS = {
    "Adam": lambda params, **more: optim.Adam(params, lr=0.01, **more),
    "Adam with decay": lambda params, **more: optim.Adam(params, lr=0.01, weight_decay=0.1, **more),
    "Adam decoupled": lambda params, **more: optim.Adam(
        params, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True, **more
    ),
    "AdamW": lambda params, **more: optim.AdamW(params, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1, **more),
    "AdamW slow": lambda params, **more: optim.AdamW(params, lr=0.01, betas=(0.9, 0.999), eps=1e-6, **more),
    "SGD": lambda params, **more: optim.SGD(params, lr=0.1, momentum=0.9, **more),
    "SGD dampened": lambda params, **more: optim.SGD(
        params, lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1, **more
    ),
    "SGD nesterov": lambda params, **more: optim.SGD(
        params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, **more
    ),
    "Lion": lambda params, **more: Lion(params, lr=0.01, weight_decay=0.1, **more),
}
LAYOUTS = {
    "plain": lambda: torch.randn(40, 130),
    "short rows": lambda: torch.randn(500, 3),
    "one dimension": lambda: torch.randn(1000),
    "no dimension": lambda: torch.randn(()),
    "channels last": lambda: torch.randn(16, 12, 3, 3).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(90, 70).t(),
    "permuted": lambda: torch.randn(6, 70, 9).permute(2, 0, 1),
}

# Says how many threads of their own steps have, and what they led to. Where torch has had threads, a child of `fork`
# can not compute with more than one: the step is all that it does with two.
FORKS = """
import os, signal, sys
import torch
from torch import nn
from gradient.optim import wrap

torch.set_num_threads(2)
params = [nn.Parameter(torch.ones(1000, 300)) for _ in range(2)]
for param in params:
    param.grad = torch.full_like(param, 0.5)
if sys.argv[1] == "stepped":
    wrap(torch.optim.AdamW(params[:1])).step()
child = os.fork()
if child == 0:
    signal.alarm(20)  # for threads that are not there it would wait for ever
torch.set_num_threads(1)
wrapped = wrap(torch.optim.AdamW(params[1:]))
wrapped.step()
torch.set_num_threads(2)
wrapped.step()
torch.set_num_threads(1)
names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
own = sum(name.startswith("gradient-optim") for name in names)
least, most = (float(value) for value in params[1].detach().aminmax())
status = os.waitpid(child, 0)[1] if child else 0
print("parent" if child else "child", own, least, most, flush=True)
if child == 0:
    os._exit(0)
print("status", status)
"""


def gradient_like(param, seed):
    """A gradient whose scales differ by place."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-3, 0, max(param.shape[-1:], default=1))
    return (torch.randn(param.shape, generator=generator) * (scale if param.dim() else 1.0)).to(param.dtype)


def trained(kind, values, policy, steps=10, start=0, gradient=gradient_like, **more):
    params = [nn.Parameter(value.clone()) for value in values]
    optimizer = KINDS[kind](params, **more)
    if policy is not None:
        wrap(optimizer, policy)
    for seed in range(start, start + steps):
        for number, param in enumerate(params):
            param.grad = gradient(param, 100 * seed + number)
        optimizer.step()
    return params, optimizer


def assert_by_kernels(optimizer):
    assert len(optimizer.store.slots) == sum(len(group["params"]) for group in optimizer.param_groups)


def distance(found, expected, start):
    """How far apart two are, as a share of the way from where both began."""
    return ((found - expected).norm() / (expected - start).norm()).item()


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_in_full_the_kernels_do_what_the_optimizer_itself_does(kind, layout, maximize):
    torch.manual_seed(0)
    values = LAYOUTS[layout]()
    (found,), optimizer = trained(kind, [values], IN_FULL, maximize=maximize)
    (expected,), plain = trained(kind, [values], None, maximize=maximize)
    assert_by_kernels(optimizer)
    assert found.stride() == values.stride()
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)
    for key, value in plain.state[expected].items():
        torch.testing.assert_close(optimizer.state[found][key], value, rtol=1e-5, atol=1e-7)


# Coded state after 30 steps of noise, which is the worst that there is: each step replaces what it knows. Lion takes
# the sign of an average, and those near zero change theirs.
BOUNDS = {
    "Adam": 0.03, "Adam with decay": 0.03, "Adam decoupled": 0.03, "AdamW": 0.04, "AdamW slow": 0.03,
    "SGD": 0.01, "SGD dampened": 0.01, "SGD nesterov": 0.01, "Lion": 0.15,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_with_codes_weights_stay_near_those_in_full(kind):
    torch.manual_seed(0)
    values = torch.randn(64, 256)
    steps = 30

    def gradient(param, seed):
        return torch.randn(param.shape, generator=torch.Generator().manual_seed(seed)) + 0.5

    (found,), optimizer = trained(kind, [values], ALL_CODED, steps, gradient=gradient)
    (expected,), _ = trained(kind, [values], None, steps, gradient=gradient)
    assert_by_kernels(optimizer)
    assert optimizer.store.get_memory_usage() <= len(optimizer._native.rule.keys) * 1.0625 * values.numel() + 8
    assert 0 < distance(found.detach(), expected.detach(), values) < BOUNDS[kind]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("policy", [IN_FULL, ALL_CODED, ConfigurablePolicy({}, FP32Codec())])
@pytest.mark.parametrize("kind", ["AdamW", "SGD nesterov", "Lion"])
def test_parameters_in_half_precision_are_stepped_as_in_full_and_rounded_each_step(kind, policy, dtype):
    torch.manual_seed(0)
    values = torch.randn(40, 130).to(dtype)
    (found,), optimizer = trained(kind, [values], policy, 5)
    (expected,), _ = trained(
        kind, [values.float()], None, 5, gradient=lambda param, seed: gradient_like(param.to(dtype), seed).float()
    )
    assert_by_kernels(optimizer)
    assert found.dtype == dtype
    away = found.float() - expected
    # Five roundings; what Lion or Adam turns the other way is a step or two off.
    bound = 5 * torch.finfo(dtype).eps * (expected.abs() + 1)
    assert (away.abs() <= bound).float().mean() > 0.98
    assert away.abs().max() <= 0.11
    assert all(state["exp_avg" if kind != "SGD nesterov" else "momentum_buffer"].dtype == dtype
               for state in optimizer.state.values())  # fmt: skip


@pytest.mark.parametrize("policy", [IN_FULL, ALL_CODED])
@pytest.mark.parametrize("kind", ["AdamW", "SGD", "Lion"])
@pytest.mark.parametrize("layout", ["channels last", "transposed", "permuted"])
def test_the_order_of_a_gradient_in_memory_makes_no_difference(layout, kind, policy):
    torch.manual_seed(0)
    values = LAYOUTS[layout]()

    def contiguous(param, seed):
        return gradient_like(param, seed).contiguous()

    def strange(param, seed):
        wide = torch.zeros(*param.shape[:-1], 2 * param.shape[-1])[..., ::2]
        return wide.copy_(gradient_like(param, seed))

    def same(param, seed):
        return torch.empty_like(param).copy_(gradient_like(param, seed))

    results = [trained(kind, [values], policy, 4, gradient=way)[0][0] for way in (contiguous, strange, same)]
    assert results[0].equal(results[1]) and results[0].equal(results[2])


def test_a_contiguous_parameter_takes_gradients_that_are_not():
    values = torch.randn(70, 90)
    one, _ = trained("AdamW", [values], ALL_CODED, 3)
    two, _ = trained("AdamW", [values], ALL_CODED, 3, gradient=lambda *args: gradient_like(*args).t().contiguous().t())
    assert one[0].equal(two[0])


@pytest.mark.parametrize("kind", ["AdamW", "AdamW slow", "SGD", "Lion"])
def test_any_number_of_threads_gives_the_same_bits(kind):
    torch.manual_seed(0)
    # More than one tile of 65,536 elements, with a tail, and small ones beside it.
    values = [torch.randn(500, 333), torch.randn(64, 64), torch.randn(333), torch.randn(7, 3)]
    gradients = [[torch.randn_like(value) for value in values] for _ in range(5)]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            params = [nn.Parameter(value.clone()) for value in values]
            optimizer = wrap(KINDS[kind](params))
            for number in range(50):
                for param, gradient in zip(params, gradients[number % 5], strict=True):
                    param.grad = gradient
                optimizer.step()
            kept = [(value.codes, value.scales) for value in optimizer.store.entries[params[0]].values()
                    if isinstance(value, coded.Coded)]  # fmt: skip
            results.append([*params, *(part for pair in kept for part in pair)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(one.equal(two) for one, two in zip(results[0], other, strict=True))


def test_how_parameters_are_grouped_makes_no_difference():
    torch.manual_seed(0)
    values = [torch.randn(64, 64) for _ in range(3)]

    def weights(grouping):
        params = [nn.Parameter(value.clone()) for value in values]
        optimizer = wrap(optim.AdamW([{"params": [params[index] for index in part]} for part in grouping]))
        for seed in range(3):
            for number, param in enumerate(params):
                param.grad = gradient_like(param, 10 * seed + number)
            optimizer.step()
        return params

    for one, two in zip(weights([[0, 1, 2]]), weights([[0], [1, 2]]), strict=True):
        assert one.equal(two)


@pytest.mark.parametrize("kind", ["AdamW", "SGD", "Lion"])
def test_backward_over_values_that_a_step_has_changed_raises(kind):
    weight = nn.Parameter(torch.randn(64, 64))
    optimizer = wrap(KINDS[kind]([weight]))
    loss = weight.square().sum()
    weight.grad = torch.ones_like(weight)
    version = weight._version
    optimizer.step()
    assert weight._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("kind", ["AdamW", "SGD", "Lion"])
def test_parameters_that_share_memory_are_refused_and_not_changed(kind):
    memory = torch.randn(100, 64)
    before = memory.clone()
    params = [nn.Parameter(memory[:60]), nn.Parameter(memory[50:])]
    optimizer = wrap(KINDS[kind](params))
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(ValueError, match=r"overlap|share"):
        optimizer.step()
    assert memory.equal(before)


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
@pytest.mark.parametrize("policy", [IN_FULL, ALL_CODED])
@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_a_gradient_that_is_no_number_shows_in_the_weights(kind, policy, odd):
    weight = nn.Parameter(torch.randn(64, 128))
    optimizer = wrap(KINDS[kind]([weight]), policy)
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        weight.grad[5, 70] = odd
        optimizer.step()
    assert not bool(weight[5, 70].isfinite())
    # Other blocks are not touched.
    assert bool(weight[:5].isfinite().all() and weight[6:].isfinite().all() and weight[5, :64].isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["AdamW slow", "AdamW"])
def test_rows_that_never_have_a_gradient_never_move(kind, dtype):
    weight = nn.Parameter(torch.randn(64, 128).to(dtype))
    before = weight.detach().clone()
    optimizer = KINDS[kind]([weight])
    optimizer.param_groups[0]["weight_decay"] = 0.0
    wrap(optimizer)
    for seed in range(20):
        weight.grad = torch.zeros_like(weight)
        weight.grad[:, ::2] = gradient_like(weight[:, ::2], seed)
        optimizer.step()
    assert weight[:, 1::2].equal(before[:, 1::2]) and not weight[:, ::2].equal(before[:, ::2])


def kinds_of(optimizer, param):
    entry = optimizer.store.entries[param]
    return {key: value.kind if isinstance(value, coded.Coded) else str(value.dtype).removeprefix("torch.")
            for key, value in entry.items() if key != "step"}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_warmup_codes_after_exactly_its_steps_and_the_kernels_go_on(dtype):
    weight, small = nn.Parameter(torch.randn(64, 64).to(dtype)), nn.Parameter(torch.randn(64).to(dtype))
    optimizer = wrap(optim.AdamW([weight, small]), WarmupPolicy(3, variance_codec=FourthRootCodec()))
    seen = []
    for seed in range(5):
        for param in (weight, small):
            param.grad = gradient_like(param, seed)
        optimizer.step()
        seen.append(kinds_of(optimizer, weight))
    assert seen[:2] == [{"exp_avg": "float32", "exp_avg_sq": "float32"}] * 2
    assert seen[2:] == [{"exp_avg": "signed-sqrt", "exp_avg_sq": "fourth-root"}] * 3
    assert set(kinds_of(optimizer, small).values()) == {"float32"}
    assert optimizer.state[weight]["step"] == 5
    assert_by_kernels(optimizer)


def test_a_warmup_of_no_steps_codes_from_the_first_one():
    weight = nn.Parameter(torch.randn(64, 64))
    optimizer = wrap(optim.SGD([weight], momentum=0.9), WarmupPolicy(0))
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert kinds_of(optimizer, weight) == {"momentum_buffer": "signed-sqrt"}


def test_until_a_warmup_ends_steps_are_those_in_full():
    torch.manual_seed(0)
    values = [torch.randn(64, 64)]
    one, _ = trained("AdamW", values, WarmupPolicy(100), 5)
    two, _ = trained("AdamW", values, IN_FULL, 5)
    assert one[0].equal(two[0])


def test_an_adaptive_warmup_ends_with_the_step_after_the_loss_stops_falling():
    weight = nn.Parameter(torch.randn(64, 64))
    policy = AdaptiveWarmupPolicy(1000, patience=2)
    optimizer = wrap(optim.AdamW([weight]), policy)
    seen, ended = [], []
    for loss in (3.0, 2.0, 2.0, 2.0, 2.0):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        seen.append(kinds_of(optimizer, weight)["exp_avg"])
        ended.append(policy.update_on_loss(loss))
    assert ended == [False, False, False, True, False]
    assert seen == ["float32"] * 4 + ["signed-sqrt"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("codec", "kind", "bound"), [(FP16Codec(), "float16", 2e-3), (BF16Codec(), "bfloat16", 8e-3)])
def test_moments_in_half_precision_are_stepped_by_the_kernels(codec, kind, bound, dtype):
    torch.manual_seed(0)
    values = torch.randn(64, 100).to(dtype)
    (found,), optimizer = trained("AdamW", [values], ConfigurablePolicy({"exp_avg": codec}, BF16Codec()), 10)
    (expected,), _ = trained(
        "AdamW", [values.float()], None, 10, gradient=lambda param, seed: gradient_like(param.to(dtype), seed).float()
    )
    assert_by_kernels(optimizer)
    assert kinds_of(optimizer, found) == {"exp_avg": kind, "exp_avg_sq": "bfloat16"}
    limit = (
        0.02 + 10 * torch.finfo(dtype).eps * (dtype != torch.float32) * values.float().norm() / 0.03 / values.numel()
    )
    assert distance(found.detach().float(), expected.detach(), values.float()) < limit + bound


def test_beta2_decides_whether_codes_are_drawn_by_lot():
    torch.manual_seed(0)
    values = [torch.randn(64, 64)]
    fast, slow = (
        ConfigurablePolicy({"exp_avg_sq": FourthRootCodec("nearest")}),
        ConfigurablePolicy({"exp_avg_sq": FourthRootCodec("stochastic")}),
    )
    auto = ConfigurablePolicy({"exp_avg_sq": FourthRootCodec()})
    for kind, same, other in (("AdamW", fast, slow), ("AdamW slow", slow, fast)):
        weights = [trained(kind, values, policy, 3)[0][0] for policy in (auto, same, other)]
        assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])


def test_lots_of_two_parameters_are_not_the_same():
    value = torch.randn(64, 64)
    _, optimizer = trained(
        "AdamW slow", [value, value], ALL_CODED, 3, gradient=lambda param, seed: gradient_like(param, seed // 100)
    )
    one, two = (optimizer.store.entries[param]["exp_avg_sq"].codes for param in optimizer.param_groups[0]["params"])
    assert one.ne(two).float().mean() > 0.1


class Mine(optim.AdamW):
    """Another class, which may do anything."""


GENERIC = {
    "amsgrad": (lambda params: optim.Adam(params, lr=0.05, amsgrad=True), torch.float32),
    "a subclass": (lambda params: Mine(params, lr=0.05), torch.float32),
    "double": (lambda params: optim.Adam(params, lr=0.05), torch.float64),
    "no momentum": (lambda params: optim.SGD(params, lr=10.0), torch.float32),
}


@pytest.mark.parametrize("case", GENERIC)
def test_what_the_kernels_do_not_do_is_done_by_the_optimizer_itself(case):
    make, dtype = GENERIC[case]
    torch.manual_seed(0)
    model = nn.Linear(64, 64).to(dtype)
    optimizer = wrap(make(model.parameters()))
    inputs = torch.randn(100, 64, dtype=dtype)
    target = torch.randn(100, 64, dtype=dtype) * 0.1
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (model(inputs) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert not optimizer.store.slots
    assert losses[-1] < 0.8 * losses[0]


def test_the_largest_second_moments_of_amsgrad_stay_in_full():
    weight = nn.Parameter(torch.randn(64, 64))
    optimizer = wrap(optim.Adam([weight], amsgrad=True))
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert kinds_of(optimizer, weight)["max_exp_avg_sq"] == "float32"
    assert kinds_of(optimizer, weight)["exp_avg_sq"] == "fourth-root"


@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_sparse_gradients_are_stepped_as_unwrapped(dampening):
    def trained_table(wrapped):
        torch.manual_seed(0)
        table = nn.Embedding(100, 64, sparse=True)
        optimizer = optim.SGD(table.parameters(), lr=0.1, momentum=0.9, dampening=dampening)
        if wrapped:
            wrap(optimizer, IN_FULL)
        for seed in range(4):
            optimizer.zero_grad()
            table(torch.arange(seed, 60 + seed)).square().sum().backward()
            optimizer.step()
        return table.weight, optimizer

    found, optimizer = trained_table(True)
    assert not optimizer.store.slots
    torch.testing.assert_close(found, trained_table(False)[0])


def test_kernels_and_the_optimizer_itself_take_turns_on_one_state():
    torch.manual_seed(0)
    values = torch.randn(64, 64)

    def weights(policy):
        param = nn.Parameter(values.clone())
        optimizer = optim.Adam([param], lr=0.01, foreach=False)
        if policy is not None:
            wrap(optimizer, policy)
        for seed in range(6):
            # Torch's own steps while a group asks for what the kernels do not do.
            optimizer.param_groups[0]["differentiable"] = bool(seed % 2)
            param.grad = gradient_like(param, seed)
            with torch.no_grad():
                optimizer.step()
        return param, optimizer

    found, optimizer = weights(IN_FULL)
    torch.testing.assert_close(found, weights(None)[0], rtol=1e-5, atol=1e-6)
    assert optimizer.state[found]["step"] == 6


def test_steps_that_are_assigned_are_counted_on_from():
    weight = nn.Parameter(torch.randn(64, 64))
    optimizer = wrap(optim.AdamW([weight]))
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.state[weight]["step"] = torch.tensor(9.0)
    optimizer.step()
    assert optimizer.state[weight]["step"] == 10


def test_a_state_in_another_shape_is_refused():
    weight = nn.Parameter(torch.randn(64, 64))
    optimizer = wrap(optim.SGD([weight], momentum=0.9))
    optimizer.state[weight]["momentum_buffer"] = torch.ones(32, 64)
    weight.grad = torch.ones_like(weight)
    with pytest.raises(InvalidInputError, match="momentum_buffer has the shape"):
        optimizer.step()


def test_measured_errors_are_those_of_coding_and_steps_are_the_same():
    torch.manual_seed(0)
    values = torch.randn(64, 64)
    results = []
    for measured in (True, False):
        param = nn.Parameter(values.clone())
        optimizer = wrap(optim.AdamW([param]), measure_error=measured)
        for seed in range(3):
            param.grad = gradient_like(param, seed)
            optimizer.step()
        results.append((param, optimizer.store.stats()))
    assert results[0][0].equal(results[1][0])
    assert results[1][1]["exp_avg"].error is None
    # Codes alone: half of one in 127 of the root, one in 255 drawn by lot.
    assert 0.001 < results[0][1]["exp_avg"].error < 0.008
    assert 0.001 < results[0][1]["exp_avg_sq"].error < 0.03


def test_policies_agree_with_codecs_by_name():
    weight = nn.Parameter(torch.randn(64, 64))
    optimizer = wrap(optim.SGD([weight], momentum=0.9), ConfigurablePolicy({"momentum_buffer": SignedSqrtCodec()}))
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert kinds_of(optimizer, weight) == {"momentum_buffer": "signed-sqrt"}


@pytest.mark.parametrize("form", ["torch", "native"])
@pytest.mark.parametrize("shape", [(300, 1000), (300_000,)])
def test_state_that_torch_moves_to_shared_memory_is_stepped_where_it_is_then(form, shape):
    weights = []
    for is_shared in (False, True):
        weight = nn.Parameter(torch.ones(shape))
        optimizer = wrap(optim.AdamW([weight], lr=0.1))
        weight.grad = torch.ones(shape)
        optimizer.step()
        if is_shared:
            # As a queue of torch.multiprocessing does; other tensors take the memory that was.
            ForkingPickler.dumps(optimizer.state_dict(format=form))
            others = [torch.full(shape, 7.0) for _ in range(4)]
        for _ in range(3):
            optimizer.step()
        weights.append((weight, dict(optimizer.state[weight])))
    assert weights[0][0].equal(weights[1][0])
    assert all(value.equal(weights[1][1][key]) for key, value in weights[0][1].items())
    assert all(bool(other.eq(7).all()) for other in others)


def test_state_whose_memory_is_replaced_is_stepped_where_it_is_now():
    bias = nn.Parameter(torch.ones(64))
    optimizer = wrap(optim.AdamW([bias], lr=0.1))
    bias.grad = torch.ones(64)
    optimizer.step()
    average = optimizer.state[bias]["exp_avg"]
    average.data = torch.zeros(64)
    optimizer.step()
    assert optimizer.state[bias]["exp_avg"] is average
    torch.testing.assert_close(average, torch.full((64,), 0.1))


@pytest.mark.parametrize("grad_dtype", [torch.float16, torch.float32])
def test_a_gradient_of_another_dtype_is_left_to_the_optimizer_itself(grad_dtype):
    weights = []
    for is_wrapped in (False, True):
        weight = nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
        weight.grad_dtype = None
        optimizer = optim.SGD([weight], lr=0.1, momentum=0.9, foreach=False)
        weights.append(weight)
        if is_wrapped:
            wrap(optimizer)
        weight.grad = torch.ones(64, 64, dtype=grad_dtype)
        optimizer.step()
    assert weights[0].equal(weights[1]) and float(weights[0][0, 0]) < 0.95


def test_asking_whether_a_step_unscales_for_itself_changes_nothing():
    weight, double = nn.Parameter(torch.ones(64, 64)), nn.Parameter(torch.ones(64, 64, dtype=torch.float64))
    optimizer = wrap(optim.SGD([weight, double], momentum=0.9, dampening=0.5))
    weight.grad, double.grad = torch.ones(64, 64), torch.ones(64, 64, dtype=torch.float64)
    assert optimizer._step_supports_amp_scaling is False
    assert not optimizer.state and not optimizer.store.slots


def test_nothing_is_stepped_where_the_optimizer_itself_refuses_a_gradient():
    weight, table = nn.Parameter(torch.ones(64, 64)), nn.Embedding(100, 64, sparse=True)
    before = weight.detach().clone(), table.weight.detach().clone()
    optimizer = wrap(optim.AdamW([weight, table.weight]))
    weight.grad = torch.ones(64, 64)
    table(torch.arange(5)).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert weight.equal(before[0]) and table.weight.equal(before[1])


def test_small_state_of_half_precision_is_kept_in_full_whether_it_was_loaded_or_not():
    biases = []
    for is_loaded in (False, True):
        bias = nn.Parameter(torch.ones(64, dtype=torch.bfloat16))
        optimizer = wrap(optim.AdamW([bias]))
        bias.grad = torch.ones(64, dtype=torch.bfloat16)
        optimizer.step()
        if is_loaded:
            optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
        biases.append(optimizer.store.entries[bias]["exp_avg"])
    assert [value.kind for value in biases] == ["float32", "float32"]


@pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "GOMP_parallel")),
    reason="a torch with OpenMP as GCC calls it is missing",
)
@pytest.mark.parametrize("before", ["stepped", "not stepped"])
def test_steps_share_torchs_threads_but_not_in_a_forked_child(before):
    told = subprocess.run([sys.executable, "-c", FORKS, before], capture_output=True, text=True, timeout=60, check=True)
    lines = dict(line.split(maxsplit=1) for line in told.stdout.splitlines())
    assert lines["status"] == "0", told.stderr
    assert lines["parent"].startswith("0 "), "threads of our own take processors away from torch's, which still spin"
    assert lines["child"].startswith("1 ")
    assert lines["parent"].split()[1:] == lines["child"].split()[1:]
    assert lines["child"].split()[1] == lines["child"].split()[2] != "1.0"


@pytest.mark.parametrize("kind", ["AdamW", "SGD", "Lion"])
def test_the_mode_of_a_thread_makes_no_difference(kind):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(500, 300, generator=generator)
    # Numbers, and squares of numbers, that are less than the smallest normal one.
    gradients = [torch.randn(500, 300, generator=generator) * 1e-39, torch.randn(500, 300, generator=generator) * 1e-20]
    before, results = torch.get_num_threads(), []
    try:
        for flushed, threads in ((False, 1), (True, 1), (True, 2), (False, 2)):
            assert torch.set_flush_denormal(flushed)
            torch.set_num_threads(threads)
            param = nn.Parameter(values.clone())
            optimizer = wrap(KINDS[kind]([param]), IN_FULL)
            for number in range(4):
                param.grad = gradients[number % 2].clone()
                optimizer.step()
            torch.set_flush_denormal(False)
            moments = [value for value in optimizer.store.entries[param].values() if isinstance(value, torch.Tensor)]
            results.append([param.detach(), *moments])
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
    assert 0 < results[0][1].abs().max() < 1e-18
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert one.view(torch.int32).equal(two.view(torch.int32))
