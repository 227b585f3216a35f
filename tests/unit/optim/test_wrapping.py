"""`wrap` leaves what uses an optimizer as it was: schedulers, hooks, scalers, closures, groups."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

import gradient
from gradient.errors import InvalidInputError
from gradient.optim import (
    EightBitPolicy,
    FP16Codec,
    OptimizerWrapper,
    Policy,
    Rule,
    SelectivePolicy,
    WarmupPolicy,
    auto_wrap,
    wrap,
)

LOOPS = ({"foreach": False}, {"foreach": True}, {"fused": True})
IN_FULL = EightBitPolicy(min_elements=10**9)


def weight_of(shape=(64, 64), seed=0, dtype=torch.float32):
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype))


def step(optimizer, seed=0, scale=1.0):
    for group in optimizer.param_groups:
        for param in group["params"]:
            generator = torch.Generator().manual_seed(seed)
            param.grad = (scale * torch.randn(param.shape, generator=generator)).to(param.dtype)
    return optimizer.step()


def held(optimizer):
    """Bits of all that is kept."""
    found = []
    for entry in optimizer.store.entries.values():
        for key, value in entry.items():
            for name in ("codes", "scales", "seed", "draws", "value"):
                part = getattr(value, name, None)
                found.append((key, name, part.tolist() if isinstance(part, torch.Tensor) else part))
            found.append((key, value.tolist() if isinstance(value, torch.Tensor) else None))
    return found


# What is wrapped.


def test_the_optimizer_itself_is_returned_and_is_still_of_its_class():
    optimizer = optim.AdamW([weight_of()])
    wrapped = gradient.wrap(optimizer)
    assert wrapped is optimizer and wrapped.optimizer is optimizer
    assert isinstance(wrapped, optim.AdamW) and isinstance(wrapped, OptimizerWrapper)
    assert wrapped.inner_class is optim.AdamW


@pytest.mark.parametrize("way", [gradient.wrap, gradient.auto_wrap, auto_wrap, OptimizerWrapper])
def test_every_way_to_wrap_keeps_the_state_in_eight_bits(way):
    optimizer = way(optim.Adam([weight_of()]))
    step(optimizer)
    assert optimizer.store.get_memory_usage() < 2.2 * 64 * 64


def test_another_optimizer_of_the_class_is_not_wrapped_with_it():
    other = optim.Adam([weight_of()])
    optimizer = wrap(optim.Adam([weight_of()]))
    step(other)
    assert type(other) is optim.Adam and type(optimizer) is not optim.Adam
    assert other.state[other.param_groups[0]["params"][0]]["exp_avg"].dtype == torch.float32
    assert not hasattr(other, "store")


def snapshot(optimizer):
    return type(optimizer), dict(vars(optimizer)), copy.deepcopy(optimizer.state_dict())


def assert_as_it_was(optimizer, before):
    kind, attributes, state = before
    assert type(optimizer) is kind
    assert vars(optimizer) == attributes
    found = optimizer.state_dict()
    assert found["param_groups"] == state["param_groups"] and found["state"].keys() == state["state"].keys()
    for number, entry in state["state"].items():
        assert all(found["state"][number][key].equal(value) for key, value in entry.items())


def test_what_is_wrapped_already_is_refused_and_goes_on():
    optimizer = wrap(optim.Adam([weight_of()]))
    step(optimizer)
    with pytest.raises(InvalidInputError, match="this Adam is wrapped already") as caught:
        wrap(optimizer)
    assert caught.value.code == "already-wrapped"
    step(optimizer)
    assert optimizer.state[optimizer.param_groups[0]["params"][0]]["step"] == 2


@pytest.mark.parametrize("given", [None, nn.Linear(2, 2), object(), "adam"])
def test_what_is_no_optimizer_is_refused(given):
    with pytest.raises(InvalidInputError) as caught:
        wrap(given)
    assert caught.value.code == "no-optimizer"


class OwnStateDict(optim.SGD):
    def state_dict(self):
        return {**super().state_dict(), "more": 1}


class OwnLoad(optim.SGD):
    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)


@pytest.mark.parametrize("kind", [OwnStateDict, OwnLoad])
def test_a_form_of_state_of_its_own_is_refused_and_nothing_is_changed(kind):
    optimizer = kind([weight_of()], momentum=0.9)
    step(optimizer)
    before = snapshot(optimizer)
    with pytest.raises(InvalidInputError, match=kind.__name__) as caught:
        wrap(optimizer)
    assert caught.value.code == "own-state"
    assert_as_it_was(optimizer, before)


def test_a_step_that_somebody_replaced_is_refused_and_nothing_is_changed():
    optimizer = optim.Adam([weight_of()])
    calls = []
    optimizer.step = lambda closure=None: calls.append(closure)
    step(optimizer)
    before = snapshot(optimizer)
    with pytest.raises(InvalidInputError) as caught:
        wrap(optimizer)
    assert caught.value.code == "step-replaced"
    assert_as_it_was(optimizer, before)
    step(optimizer)
    assert len(calls) == 2


class Asks(Policy):
    """A policy that turns out to be wrong when it is asked."""

    def __init__(self, answer):
        self.answer = answer

    def get_codecs(self, param, state, step):
        return self.answer(param)


def no_codec_for_the_second(params, answer):
    return Asks(lambda param: {"exp_avg": FP16Codec()} if param is params[0] else answer())


def raising():
    raise ZeroDivisionError


@pytest.mark.parametrize("answer", [raising, lambda: {"exp_avg": "int8"}, lambda: {"exp_avg": FP16Codec}])
def test_a_policy_that_fails_leaves_an_optimizer_with_state_as_it_was(answer):
    params = [weight_of(), weight_of(seed=1)]
    optimizer = optim.Adam(params)
    step(optimizer)
    before = snapshot(optimizer)
    with pytest.raises((ZeroDivisionError, InvalidInputError)):
        wrap(optimizer, no_codec_for_the_second(params, answer))
    assert_as_it_was(optimizer, before)


def test_names_that_a_policy_asks_for_and_nobody_knows_are_refused_and_nothing_is_changed():
    optimizer = optim.Adam([weight_of()])
    step(optimizer)
    before = snapshot(optimizer)
    with pytest.raises(InvalidInputError) as caught:
        wrap(optimizer, SelectivePolicy([Rule(None, name="*.bias")]))
    assert caught.value.code == "names-unknown"
    assert_as_it_was(optimizer, before)


@pytest.mark.parametrize("name", ["chunk_size", "chunk_size_on_cuda", "initial_chunk_size"])
@pytest.mark.parametrize("size", [0, -1, 1.5, True, "8"])
def test_a_chunk_size_that_is_none_is_refused(name, size):
    optimizer = optim.Adam([weight_of()])
    with pytest.raises(InvalidInputError, match=name):
        wrap(optimizer, **{name: size})
    assert type(optimizer) is optim.Adam
    wrap(optimizer, **{name: 8})


@pytest.mark.parametrize(
    ("name", "value"),
    [("profile", "yes"), ("measure_error", 1), ("pin_memory", "cpu"), ("model", 3), ("model", {"main": "model"})],
)
def test_an_option_of_another_type_is_refused(name, value):
    optimizer = optim.Adam([weight_of()])
    with pytest.raises(InvalidInputError, match=name) as caught:
        wrap(optimizer, **{name: value})
    assert caught.value.code == "bad-option"
    assert type(optimizer) is optim.Adam


@pytest.mark.parametrize("policy", [WarmupPolicy, "int8", 8])
def test_what_is_no_policy_is_refused(policy):
    with pytest.raises(InvalidInputError, match="Policy"):
        wrap(optim.Adam([weight_of()]), policy)


@pytest.mark.parametrize("options", LOOPS)
def test_state_from_before_is_kept_and_steps_are_counted_on(options):
    params = [weight_of(), weight_of((5,), 1)]
    optimizer = optim.Adam(params, **options)
    for seed in range(3):
        step(optimizer, seed)
    before = {param: {key: value.clone() for key, value in optimizer.state[param].items()} for param in params}
    wrap(optimizer)
    for key, bound in (("exp_avg", 0.008), ("exp_avg_sq", 0.02)):
        large, small = before[params[0]][key], before[params[1]][key]
        found = optimizer.state[params[0]][key]
        assert 0 < (found - large).abs().max() <= bound * large.abs().max()
        assert optimizer.state[params[1]][key].equal(small)
    step(optimizer, 3)
    assert [optimizer.state[param]["step"].item() for param in params] == [4, 4]


def test_state_that_belongs_to_no_parameter_goes_through_wrap():
    optimizer = optim.Adam([weight_of()])
    step(optimizer)
    optimizer.state["note"] = {"k": 1}
    wrap(optimizer)
    step(optimizer)
    assert optimizer.state_dict()["state"]["note"] == {"k": 1}


def test_a_wrapped_optimizer_prints_its_groups():
    optimizer = wrap(optim.AdamW([weight_of()], lr=0.125, weight_decay=0.25))
    step(optimizer)
    text = repr(optimizer)
    assert "AdamW" in text and "lr: 0.125" in text and "weight_decay: 0.25" in text
    assert "1 parameters" in repr(optimizer.state) and f"{optimizer.store.get_memory_usage():,}" in repr(
        optimizer.state
    )


def test_profile_says_how_long_a_step_took_and_without_it_nothing_does():
    optimizer = wrap(optim.Adam([weight_of()]), profile=True)
    step(optimizer)
    timings = optimizer.last_step_timings
    assert set(timings) == {"native", "generic", "step"} and timings["step"] >= timings["native"] > 0
    other = wrap(optim.Adam([weight_of()]))
    step(other)
    assert other.last_step_timings == {}


# Schedulers.

SCHEDULERS = {
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 2, 0.5),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 10),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=12),
    "sequential": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3), lr_scheduler.ExponentialLR(optimizer, 0.9)],
        [3],
    ),
    "plateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5),
}


def scheduled(make, options, when, name):
    torch.manual_seed(0)
    weight = weight_of()
    optimizer = make([weight], lr=0.01, **options)
    if when == "after":
        wrap(optimizer, IN_FULL)
    scheduler = SCHEDULERS[name](optimizer)
    if when == "before":
        wrap(optimizer, IN_FULL)
    rates = []
    for seed in range(8):
        step(optimizer, seed)
        scheduler.step(*([1.0] if name == "plateau" else []))
        rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0].get("betas")))
    return rates, weight


@pytest.mark.parametrize("options", LOOPS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_made_before_or_after_wrap_moves_the_learning_rate_of_the_steps(name, when, options):
    with warnings.catch_warnings():
        # SequentialLR calls deprecated forms of its own; torch's warning about the order of calls names `step()`.
        warnings.filterwarnings("error", message=".*optimizer.step.*")
        warnings.filterwarnings("ignore", message=".*epoch parameter.*")
        expected, plain = scheduled(optim.Adam, options, "never", name)
        found, weight = scheduled(optim.Adam, options, when, name)
    assert found == expected and len(set(found)) > 1
    torch.testing.assert_close(weight, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_scheduler_that_is_stepped_first_still_warns(when):
    optimizer = optim.SGD([weight_of()], momentum=0.9)
    if when == "after":
        wrap(optimizer)
    scheduler = lr_scheduler.StepLR(optimizer, 1)
    wrap(optimizer) if when == "before" else None
    with pytest.warns(UserWarning, match=r"before `optimizer.step"):
        scheduler.step()


def test_a_scheduler_made_before_steps_were_done_and_then_wrapped_does_not_warn():
    optimizer = optim.SGD([weight_of()], lr=1.0, momentum=0.9)
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    step(optimizer)
    wrap(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


# Hooks and closures.


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", [optim.Adam, optim.Adagrad, optim.LBFGS, type("Mine", (optim.Adam,), {})])
def test_hooks_fire_once_a_step_with_the_optimizer(kind, when):
    params = [weight_of(), weight_of(seed=1), weight_of((3,), 2)]
    optimizer = kind(params)
    if when == "after":
        wrap(optimizer)
    calls = []
    optimizer.register_step_pre_hook(lambda given, args, kwargs: calls.append(("pre", given)))
    optimizer.register_step_post_hook(lambda given, args, kwargs: calls.append(("post", given)))
    if when == "before":
        wrap(optimizer)

    def closure():
        optimizer.zero_grad()
        loss = sum(param.square().sum() for param in params)
        loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.step(closure)
    assert [name for name, _ in calls] == ["pre", "post"] * 2
    assert all(given is optimizer for _, given in calls)


class CallsSuper(optim.Adam):
    """As many write it: torch's own step in a step of its own."""

    def step(self, closure=None):
        return super().step(closure)


def test_a_subclass_that_calls_its_parents_step_fires_hooks_no_oftener_than_unwrapped():
    def calls_of(wrapped):
        optimizer = CallsSuper([weight_of(), weight_of(seed=1), weight_of((3,), 2)])
        calls = []
        optimizer.register_step_post_hook(lambda *_: calls.append(1))
        if wrapped:
            wrap(optimizer)
        step(optimizer)
        return len(calls)

    assert 1 <= calls_of(True) <= calls_of(False)


def test_a_pre_hook_that_changes_the_closure_is_heard():
    weight = weight_of()
    optimizer = wrap(optim.Adam([weight]))
    optimizer.register_step_pre_hook(lambda given, args, kwargs: ((args[0], lambda: 42.0), {}))
    assert optimizer.step(None) == 42.0


@pytest.mark.parametrize("kind", [optim.AdamW, optim.RMSprop])
def test_a_closure_is_called_once_with_gradients_enabled_and_its_loss_is_returned(kind):
    params = [weight_of(), weight_of(seed=1)]
    optimizer = wrap(kind(params))
    seen = []

    def closure():
        seen.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = sum(param.square().sum() for param in params)
        loss.backward()
        return loss

    before = [param.detach().clone() for param in params]
    with torch.no_grad():
        loss = optimizer.step(closure)
    assert seen == [True]
    assert loss.item() == sum(value.square().sum() for value in before).item()
    assert not any(param.equal(value) for param, value in zip(params, before, strict=True))
    assert step(optimizer) is None


# Scaling of losses.


def scaled(kind, options, *, when, unscale, factors, dtype=torch.float32, policy=IN_FULL):
    torch.manual_seed(0)
    model = nn.Linear(70, 60).to(dtype)
    optimizer = kind(model.parameters(), lr=0.01, **options)
    if when == "before scaler":
        wrap(optimizer, policy)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    if when == "after scaler":
        wrap(optimizer, policy)
    inputs = torch.randn(8, 70, generator=torch.Generator().manual_seed(1)).to(dtype)
    for number, factor in enumerate(factors):
        if when == "after a step" and number == 1:
            wrap(optimizer, policy)
        optimizer.zero_grad()
        scaler.scale(model(inputs).square().mean() * factor).backward()
        if unscale:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
    return optimizer, model, scaler


INNERS = [
    (optim.AdamW, {"foreach": False}),
    (optim.AdamW, {"fused": True}),
    (optim.SGD, {"momentum": 0.9, "foreach": True}),
    (optim.RMSprop, {}),
]


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("when", ["before scaler", "after scaler", "after a step"])
@pytest.mark.parametrize(("kind", "options"), INNERS)
def test_a_scaler_made_before_or_after_wrap_scales_as_ever(kind, options, when, unscale):
    factors = [1.0, float("inf"), 2.0, 1.0, float("nan"), 1.0]
    expected = scaled(kind, options, when="never", unscale=unscale, factors=factors)
    found = scaled(kind, options, when=when, unscale=unscale, factors=factors)
    assert found[2].get_scale() == expected[2].get_scale() != 2.0**10
    for mine, plain in zip(found[1].parameters(), expected[1].parameters(), strict=True):
        assert bool(mine.isfinite().all())
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize(("kind", "options"), INNERS)
@pytest.mark.parametrize("done", [0, 2])
def test_an_infinite_step_changes_neither_weights_nor_state_nor_counters(kind, options, unscale, done):
    def at(steps, more):
        given = scaled(
            kind, options, when="before scaler", unscale=unscale, factors=[1.0] * steps + more, policy=EightBitPolicy(0)
        )
        return given[0], [param.detach().clone() for param in given[1].parameters()]

    optimizer, weights = at(done, [])
    other, same = at(done, [float("inf"), float("-inf")])
    assert all(one.equal(two) for one, two in zip(weights, same, strict=True))
    if done:
        assert held(other) == held(optimizer)
    else:
        assert other.state_dict()["state"] == {} and other.store.get_memory_usage() == 0
    assert [counter.value for counter in other.store.steps.values()] in ([], [done, done])


@pytest.mark.parametrize(("kind", "options"), INNERS[:3])
def test_the_first_step_after_infinite_ones_is_a_first_step(kind, options):
    options = {**options, **({"dampening": 0.5} if kind is optim.SGD else {})}

    def weights(factors):
        given = scaled(kind, options, when="before scaler", unscale=False, factors=factors)
        return list(given[1].parameters())

    for one, two in zip(weights([float("inf"), 1.0]), weights([1.0]), strict=True):
        # Scales are powers of two: gradients are the same.
        assert one.equal(two)


def test_a_first_step_that_was_skipped_is_still_the_first_after_a_load():
    options = {"momentum": 0.9, "dampening": 0.5}
    optimizer, model, _ = scaled(optim.SGD, options, when="before scaler", unscale=False, factors=[float("inf")])
    optimizer.load_state_dict(optimizer.state_dict(format="native"))
    step(optimizer)
    for param in model.parameters():
        assert optimizer.state[param]["momentum_buffer"].equal(param.grad)


def test_only_a_step_by_the_kernels_alone_unscales_for_itself():
    assert wrap(optim.AdamW([weight_of()]))._step_supports_amp_scaling is True
    for refused in (
        optim.AdamW([weight_of()], amsgrad=True, fused=True),
        optim.SGD([weight_of()], fused=True),
        optim.Adagrad([weight_of()], fused=True),
        optim.LBFGS([weight_of()]),
        type("Mine", (optim.AdamW,), {})([weight_of()], fused=True),
    ):
        wrap(refused)
        refused.param_groups[0]["params"][0].grad = torch.ones(64, 64)
        assert refused._step_supports_amp_scaling is False


def test_scaled_bfloat16_gradients_train_as_float32_ones_do():
    found = scaled(optim.AdamW, {}, when="after scaler", unscale=False, factors=[1.0] * 4, dtype=torch.bfloat16)
    expected = scaled(optim.AdamW, {}, when="never", unscale=False, factors=[1.0] * 4)
    for one, two in zip(found[1].parameters(), expected[1].parameters(), strict=True):
        # A gradient near zero may have another sign, and its weight then goes another way.
        assert (one.float() - two).abs().mean() < 0.001


def test_clipped_gradients_are_what_is_stepped_with():
    def after(wrapped):
        weight = weight_of()
        optimizer = optim.SGD([weight], lr=1.0, momentum=0.9)
        if wrapped:
            wrap(optimizer, IN_FULL)
        before = weight.detach().clone()
        weight.grad = torch.full_like(weight, 1e6)
        nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        return (weight - before).norm().item()

    assert after(True) == pytest.approx(after(False)) == pytest.approx(1.0, rel=1e-4)


# Groups and parameters.


def groups_of(kind):
    own = [{"lr": 0.05}, {"weight_decay": 0.3}, {"maximize": True}, {"lr": torch.tensor(0.02)}]
    if kind is not optim.SGD:
        own += [{"betas": (0.5, 0.6)}, {"eps": 0.1}]
    else:
        own += [{"momentum": 0.5}, {"nesterov": True}, {"dampening": 0.3}, {"momentum": 0.0}]
    return [{"params": [weight_of(seed=number)], **one} for number, one in enumerate(own)]


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW, optim.SGD])
def test_each_group_is_stepped_with_its_own_settings(kind):
    def trained(wrapped):
        options = {"momentum": 0.9} if kind is optim.SGD else {}
        optimizer = kind(groups_of(kind), lr=0.01, foreach=False, **options)
        if wrapped:
            wrap(optimizer, IN_FULL)
        for seed in range(4):
            step(optimizer, seed)
        return [group["params"][0] for group in optimizer.param_groups]

    for number, (one, two) in enumerate(zip(trained(True), trained(False), strict=True)):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6, msg=f"group {number}")


@pytest.mark.parametrize("kind", [optim.AdamW, optim.Adagrad])
def test_an_added_group_is_stepped_from_then_on(kind):
    first, second = weight_of(), weight_of(seed=1)
    optimizer = wrap(kind([first], lr=0.01))
    step(optimizer)
    optimizer.add_param_group({"params": [second], "lr": 0.5})
    before = second.detach().clone()
    step(optimizer)
    assert (second - before).abs().max() > 0.3
    assert optimizer.state[second]["step"] == 1 and optimizer.state[first]["step"] == 2


def test_a_learning_rate_that_is_a_tensor_is_read_at_each_step():
    rate = torch.tensor(0.0)
    weight = weight_of()
    optimizer = wrap(optim.AdamW([weight], lr=rate, weight_decay=0.0))
    before = weight.detach().clone()
    step(optimizer)
    assert weight.equal(before)
    rate.fill_(0.5)
    step(optimizer)
    assert (weight - before).abs().mean() > 0.1
    assert optimizer.param_groups[0]["lr"] is rate


@pytest.mark.parametrize("kind", [optim.AdamW, optim.Adagrad])
def test_parameters_that_are_frozen_or_have_no_gradient_are_left_alone(kind):
    params = [weight_of(seed=number) for number in range(3)]
    params[1].requires_grad_(False)
    optimizer = wrap(kind(params, lr=0.1))
    before = [param.detach().clone() for param in params]
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert [param.equal(value) for param, value in zip(params, before, strict=True)] == [False, True, True]
    # Adagrad makes the state of all its parameters when it is made.
    assert not optimizer.state.get(params[1]) if kind is optim.AdamW else optimizer.state[params[1]]["step"] == 0
    params[2].grad = torch.ones_like(params[2])
    params[0].grad = None
    optimizer.step()
    assert optimizer.state[params[0]]["step"] == 1 and optimizer.state[params[2]]["step"] == 1


def test_a_step_without_gradients_does_nothing():
    optimizer = wrap(optim.AdamW([weight_of()]))
    optimizer.step()
    assert optimizer.store.entries == {} and optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize("to_none", [True, False])
def test_gradients_are_zeroed_and_a_zero_gradient_is_stepped_with(to_none):
    weight = weight_of()
    optimizer = wrap(optim.AdamW([weight]))
    step(optimizer)
    optimizer.zero_grad(set_to_none=to_none)
    assert weight.grad is None if to_none else not weight.grad.any()
    optimizer.step()
    assert optimizer.state[weight]["step"] == (1 if to_none else 2)


@pytest.mark.parametrize("kind", [optim.AdamW, optim.SGD, optim.Adagrad])
@pytest.mark.parametrize("shape", [(0,), (0, 64), (64, 0), ()])
def test_parameters_without_elements_or_dimensions_are_stepped_among_the_others(kind, shape):
    params = [weight_of(), weight_of(shape)]
    optimizer = wrap(kind(params, lr=0.1, **({"momentum": 0.9} if kind is optim.SGD else {})), EightBitPolicy(0))
    before = [param.detach().clone() for param in params]
    for seed in range(3):
        step(optimizer, seed)
    assert not params[0].equal(before[0]) and params[1].shape == shape
    assert not params[1].numel() or params[1] != before[1]
    optimizer.state_dict()


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, dtype) for kind in (optim.AdamW, optim.SGD) for dtype in (torch.bfloat16, torch.float16)),
        (optim.SGD, torch.float64),
    ],
)
def test_a_model_that_gets_another_dtype_after_steps_keeps_its_state(kind, dtype):
    model = nn.Linear(64, 64, bias=False)
    optimizer = wrap(kind(model.parameters(), lr=0.001, **({"momentum": 0.9} if kind is optim.SGD else {})))
    step(optimizer)
    (key, before), *_ = [item for item in optimizer.state[model.weight].items() if item[0] != "step"]
    model.to(dtype)
    step(optimizer, 1)
    found = optimizer.state[model.weight][key]
    assert model.weight.dtype == dtype and bool(model.weight.isfinite().all())
    added = model.weight.grad.float() * {"momentum_buffer": 1.0, "exp_avg": 0.1}[key]
    expected = 0.9 * before + added
    # Coded twice, and the gradient is in half precision.
    assert (found.float() - expected).abs().max() <= 0.02 * expected.abs().max()


def test_a_parameter_that_is_moved_to_another_memory_format_keeps_its_state():
    conv = nn.Conv2d(16, 32, 3, bias=False)
    optimizer = wrap(optim.Adam(conv.parameters(), lr=0.0))
    step(optimizer)
    before = optimizer.state[conv.weight]["exp_avg"]
    conv.to(memory_format=torch.channels_last)
    conv.weight.grad = torch.zeros_like(conv.weight)
    optimizer.step()
    after = optimizer.state[conv.weight]["exp_avg"]
    assert conv.weight.stride() != before.stride()
    assert (after - 0.9 * before).abs().max() <= 0.02 * before.abs().max()
    assert optimizer.state[conv.weight]["step"] == 2


def test_a_parameter_that_gets_another_shape_is_refused_until_its_state_is_dropped():
    weight = weight_of()
    optimizer = wrap(optim.Adam([weight]))
    step(optimizer)
    weight.grad = None
    weight.data = torch.zeros(32, 64)
    with pytest.raises(InvalidInputError, match=r"exp_avg has the shape \[64, 64\]") as caught:
        step(optimizer)
    assert caught.value.code == "shape-changed" and not weight.any()
    del optimizer.state[weight]
    step(optimizer)
    assert optimizer.state[weight]["exp_avg"].shape == (32, 64) and weight.any()


def test_a_parameter_whose_memory_is_replaced_is_stepped_where_it_is_now():
    weight = weight_of()
    optimizer = wrap(optim.AdamW([weight]))
    step(optimizer)
    old = weight.detach()
    kept = old.clone()
    weight.data = kept.clone()
    step(optimizer)
    assert old.equal(kept) and not weight.equal(kept)


@pytest.mark.parametrize("kind", [optim.AdamW, optim.NAdam])
def test_an_optimizer_that_nobody_has_is_freed_at_once(kind):
    gc.disable()
    try:
        weight = weight_of()
        optimizer = gradient.wrap(kind([weight]))
        step(optimizer)
        state = weakref.ref(optimizer.store.entries[weight]["exp_avg"].codes)
        del optimizer
        assert state() is None
    finally:
        gc.enable()


def test_another_optimizer_made_of_the_class_of_a_wrapped_one_is_wrapped():
    optimizer = gradient.wrap(optim.AdamW([weight_of()]))
    other = type(optimizer)([weight_of()], lr=0.5)
    assert type(other) is type(optimizer) and other is not optimizer
    assert other.param_groups[0]["lr"] == 0.5
    step(other)
    assert other.store.get_memory_usage() < 3 * 64 * 64 and not optimizer.state
