"""Any optimizer's own code, one parameter at a time: as unwrapped, or refused with a reason."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn, optim

from gradient import coded
from gradient.coded import Coded
from gradient.errors import InvalidInputError
from gradient.optim import Codec, ConfigurablePolicy, EightBitPolicy, FP16Codec, Policy, generic, kept, wrap
from gradient.optim.kept import Packed

IN_FULL = EightBitPolicy(min_elements=10**9)
ALL_CODED = EightBitPolicy(0)
OPTIONS = {
    "ASGD": [{"lr": 0.01}],
    "Adadelta": [{"lr": 1.0}],
    "Adafactor": [{"lr": 0.05}],
    "Adagrad": [{"lr": 0.05}, {"lr": 0.05, "initial_accumulator_value": 0.1}],
    "Adam": [{"lr": 0.01}, {"lr": 0.01, "amsgrad": True}],
    "AdamW": [{"lr": 0.01}, {"lr": 0.01, "amsgrad": True}],
    "Adamax": [{"lr": 0.01}],
    "LBFGS": [{"lr": 0.1, "max_iter": 4}, {"line_search_fn": "strong_wolfe", "history_size": 3}],
    "Muon": [{"lr": 0.01}],
    "NAdam": [{"lr": 0.01}, {"lr": 0.01, "decoupled_weight_decay": True, "weight_decay": 0.1}],
    "RAdam": [{"lr": 0.01}],
    "RMSprop": [{"lr": 0.01}, {"lr": 0.001, "momentum": 0.5, "centered": True}],
    "Rprop": [{"lr": 0.01}],
    "SGD": [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9, "nesterov": True}],
    "SparseAdam": [{"lr": 0.05}],
}
CASES = [(name, number) for name, options in OPTIONS.items() for number in range(len(options))]


def test_every_optimizer_of_this_torch_is_tested():
    kinds = {name for name in optim.__all__ if isinstance(getattr(optim, name), type)} - {"Optimizer"}
    assert kinds == set(OPTIONS)


def model_for(name):
    torch.manual_seed(0)
    if name == "SparseAdam":
        return nn.Embedding(60, 80, sparse=True)
    bias = name != "Muon"
    return nn.Sequential(nn.Linear(80, 70, bias=bias), nn.Tanh(), nn.Linear(70, 60, bias=bias))


def train(make, name="Adam", policy=None, steps=12):
    """Losses and weights of a small model whose target can be learned."""
    model = model_for(name)
    optimizer = make(model.parameters())
    if policy is not None:
        wrap(optimizer, policy)
    losses = []
    for number in range(steps):
        torch.manual_seed(number % 3)
        inputs = torch.randint(0, 60, (30,)) if name == "SparseAdam" else torch.randn(16, 80)

        def closure(inputs=inputs):
            optimizer.zero_grad()
            loss = (model(inputs) - 0.3).square().mean()
            loss.backward()
            return loss

        losses.append(float(optimizer.step(closure)))
    return losses, model, optimizer


@pytest.mark.parametrize("how", [{}, {"foreach": True}])
@pytest.mark.parametrize(("name", "number"), CASES)
def test_in_full_every_optimizer_trains_as_it_does_unwrapped(name, number, how):
    options = {**OPTIONS[name][number], **how}

    def make(params):
        try:
            return getattr(optim, name)(params, **options)
        except TypeError:
            pytest.skip("this torch has no foreach for it")

    expected, plain, _ = train(make, name)
    found, model, optimizer = train(make, name, IN_FULL)
    assert found == pytest.approx(expected, rel=1e-4)
    for one, two in zip(model.parameters(), plain.parameters(), strict=True):
        # Rprop and Adafactor decide by signs and norms, which rounding turns.
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    state = {key: value for param in model.parameters() for key, value in optimizer.state.get(param, {}).items()}
    assert name in ("LBFGS", "SGD") or state


@pytest.mark.parametrize(("name", "number"), CASES)
def test_coded_every_optimizer_still_trains(name, number):
    def make(params):
        return getattr(optim, name)(params, **OPTIONS[name][number])

    expected, _, _ = train(make, name)
    found, _, optimizer = train(make, name, ALL_CODED)
    assert expected[-1] < 0.97 * expected[0]
    # Within a tenth of what was gained.
    assert abs(found[-1] - expected[-1]) < 0.1 * (expected[0] - expected[-1])
    kinds = {key: value.kind for entry in optimizer.store.entries.values() if isinstance(entry, dict)
             for key, value in entry.items() if isinstance(value, Coded)}  # fmt: skip
    coded_here = {
        "Adadelta": {"square_avg": "fourth-root", "acc_delta": "fourth-root"},
        "Adamax": {"exp_avg": "signed-sqrt"},
        "Muon": {"momentum_buffer": "signed-sqrt"},
        **{key: {} for key in ("ASGD", "Adafactor", "Adagrad", "LBFGS", "Rprop")},
    }
    moments = {"exp_avg": "signed-sqrt", "exp_avg_sq": "fourth-root"}
    if name == "RMSprop":
        assert kinds == [{"square_avg": "fourth-root"}, {"momentum_buffer": "signed-sqrt"}][number]
    elif name == "SGD":
        assert kinds == [{}, {"momentum_buffer": "signed-sqrt"}][number]
    else:
        assert kinds == coded_here.get(name, moments)


class Counts(optim.Optimizer):
    """Counts its steps in the group and on itself, as many do."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr, "step": 0})
        self.steps = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.steps += 1
        for group in self.param_groups:
            group["step"] += 1
            for param in group["params"]:
                if param.grad is not None:
                    average = self.state[param].setdefault("exp_avg", torch.zeros_like(param))
                    average.lerp_(param.grad, 0.1)
                    # As a bias is corrected.
                    param.sub_(average / (1 - 0.9 ** group["step"]), alpha=group["lr"])


def params_of(count=3, shape=(64, 64)):
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for _ in range(count)]


def step(optimizer, seed=0):
    torch.manual_seed(seed)
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.randn(param.shape)
    optimizer.step()


@pytest.mark.parametrize("policy", [IN_FULL, ALL_CODED])
def test_a_count_in_the_group_or_of_the_optimizer_goes_up_once_a_step(policy):
    optimizer = Counts(params_of())
    plain = Counts(params_of())
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(5))]})
    plain.add_param_group({"params": [nn.Parameter(torch.zeros(5))]})
    wrap(optimizer, policy)
    for seed in range(4):
        step(optimizer, seed)
        step(plain, seed)
        assert [group["step"] for group in optimizer.param_groups] == [seed + 1] * 2
        assert optimizer.steps == seed + 1
    for one, two in zip(optimizer.param_groups, plain.param_groups, strict=True):
        for found, expected in zip(one["params"], two["params"], strict=True):
            assert (found - expected).abs().max() < (1e-6 if policy is IN_FULL else 0.02)


class CountsFromTheFirst(Counts):
    """Has no number of steps before its first one."""

    def __init__(self, params):
        super().__init__(params)
        del self.steps

    @torch.no_grad()
    def step(self, closure=None):
        self.seen = getattr(self, "seen", 0) + 1
        self.param_groups[0]["seen"] = self.param_groups[0].get("seen", 0) + 1
        self.steps = self.seen - 1
        super().step(closure)


def test_a_count_that_begins_with_the_first_step_goes_up_once_a_step():
    optimizer = wrap(CountsFromTheFirst(params_of()), ALL_CODED)
    for seed in range(3):
        step(optimizer, seed)
        assert (optimizer.seen, optimizer.steps, optimizer.param_groups[0]["seen"]) == (seed + 1,) * 3


class OfFewRows(Counts):
    """Keeps a moment in fewer dimensions than its parameter has, as projections do."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                average = self.state[param].setdefault("exp_avg", torch.zeros(8, param.shape[1]))
                average.lerp_(param.grad[:8], 0.1)
                param[:8].sub_(average, alpha=group["lr"])


def test_a_moment_of_another_shape_than_its_parameter_is_loaded_where_the_class_keeps_it_so():
    optimizers = [wrap(OfFewRows(params_of()), ALL_CODED) for _ in range(2)]
    step(optimizers[0])
    for form in ("torch", "native"):
        optimizers[1].load_state_dict(optimizers[0].state_dict(format=form))
        held = next(iter(optimizers[1].store.entries.values()))["exp_avg"]
        assert held.shape == (8, 64)
        step(optimizers[1])


class KeepsNorm(Counts):
    """Keeps the norm of all gradients in its group."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            group["norm_of_all"] = sum(float(param.grad.square().sum()) for param in group["params"])


class KeepsNormItself(Counts):
    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        self.norm_of_all = sum(float(param.grad.sum()) for param in self.param_groups[0]["params"])


class KeepsShared(Counts):
    """Keeps something in its state that is no parameter's."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        self.state["norm_of_all"] = {"value": torch.ones(2)}


class KeepsList(Counts):
    """Keeps a list, which is changed where it is."""

    def __init__(self, params):
        super().__init__(params)
        self.norm_of_all = []

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        self.norm_of_all.append(float(self.param_groups[0]["params"][0].grad.sum()))


class KeepsRates(Counts):
    """Keeps lists that are the same whichever parameter is stepped."""

    def __init__(self, params):
        super().__init__(params)
        self.rates = []
        self.param_groups[0]["rates"] = []

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        self.rates.append(self.param_groups[0]["lr"])
        self.param_groups[0]["rates"].append(self.param_groups[0]["lr"])


def test_lists_that_grow_by_one_a_step_grow_by_one_a_step():
    optimizer = wrap(KeepsRates(params_of()))
    for seed in range(3):
        step(optimizer, seed)
    assert optimizer.rates == optimizer.param_groups[0]["rates"] == [0.1] * 3


UNUSUAL = [KeepsNorm, KeepsNormItself, KeepsShared, KeepsList]


@pytest.mark.parametrize("kind", UNUSUAL)
def test_what_is_kept_for_all_parameters_together_is_refused_by_name_and_the_step_undone(kind):
    params = params_of()
    optimizer = wrap(kind(params))
    before = [param.detach().clone() for param in params]
    with pytest.raises(InvalidInputError, match="norm_of_all") as caught:
        step(optimizer)
    assert caught.value.code == "not-per-parameter" and kind.__name__ in str(caught.value)
    assert all(param.equal(value) for param, value in zip(params, before, strict=True))
    assert optimizer.param_groups[0]["step"] == optimizer.steps == 0
    assert not getattr(optimizer, "norm_of_all", None)
    assert "norm_of_all" not in optimizer.param_groups[0]
    assert not any(optimizer.store.entries.values())


@pytest.mark.parametrize("policy", [IN_FULL, ALL_CODED])
def test_a_refused_first_step_leaves_the_state_that_was_there_at_wrap(policy):
    params = params_of()
    optimizer = KeepsNorm(params)
    step(optimizer)
    wrap(optimizer, policy)
    before = [(param.detach().clone(), optimizer.state[param]["exp_avg"].clone()) for param in params]
    if policy is IN_FULL:
        # What is in full is stepped together, so that nothing is kept that is not everybody's.
        optimizer.add_param_group({"params": params_of(1)})
        optimizer._generic._parts = lambda given: [[param] for param in given]
    with pytest.raises(InvalidInputError, match="norm_of_all"):
        step(optimizer, 1)
    for param, (values, average) in zip(params, before, strict=True):
        assert param.equal(values) and optimizer.state[param]["exp_avg"].equal(average)


def test_a_step_that_raises_leaves_groups_and_state_where_they_were():
    class Raises(Counts):
        def step(self, closure=None):
            super().step()
            raise ZeroDivisionError

    params = params_of()
    optimizer = wrap(Raises(params))
    state = optimizer.state
    with pytest.raises(ZeroDivisionError):
        step(optimizer)
    assert optimizer.state is state and optimizer.param_groups[0]["params"] == params
    assert len(optimizer._optimizer_step_pre_hooks) == 0


def test_never_more_than_one_parameter_is_in_full(monkeypatch):
    monkeypatch.setattr(generic, "_TOGETHER", 64 * 64)
    params = params_of(6)
    optimizer = wrap(optim.RAdam(params))
    step(optimizer)
    made, alive = [], []
    decode = Coded.decode

    def spied(self, device=None):
        values = decode(self, device)
        made.append(weakref.ref(values))
        alive.append(sum(one().numel() for one in made if one() is not None))
        return values

    monkeypatch.setattr(Coded, "decode", spied)
    monkeypatch.setattr(coded, "_PIECE", 512)
    step(optimizer, 1)
    # Two moments of one parameter, six times, and pieces of the first.
    whole = 64 * 64
    assert [count for count in alive if count % whole == 0] == [whole, 2 * whole] * 6
    assert max(alive) == 2 * whole + 2 * 512


def test_parameters_are_decoded_one_after_the_other(monkeypatch):
    monkeypatch.setattr(generic, "_TOGETHER", 0)
    params = params_of(4)
    optimizer = wrap(optim.RAdam(params, foreach=True))
    step(optimizer)
    order = []
    encode, decode = optimizer.store.commit, Coded.decode
    monkeypatch.setattr(Coded, "decode", lambda self, device=None: (order.append("in"), decode(self, device))[1])
    monkeypatch.setattr(
        optimizer.store, "commit", lambda *args, **more: (order.append("out"), encode(*args, **more))[1]
    )
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    # Both moments, and the first one again to be compared with what it was.
    assert order == ["in", "in", "in", "out"] * 4


class Rounded(Codec):
    """A codec of a user; what it gets wrong is given."""

    def __init__(self, decoded=lambda tensor, device: tensor.float().to(device), size=lambda packed: packed.nbytes):
        self.decoded, self.size = decoded, size

    def encode(self, tensor):
        return tensor.half()

    def decode(self, packed, device=None):
        return self.decoded(packed, device)

    def bytes(self, packed):
        return self.size(packed)


class TakesNoDevice(Rounded):
    """As someone may write it who has not read on."""

    def decode(self, packed):
        return packed.float()


WRONG_CODECS = {
    "device": (TakesNoDevice(), "device"),
    "shape": (Rounded(lambda tensor, device: tensor[:1].float()), r"\[1, 64\]"),
    "dtype": (Rounded(lambda tensor, device: tensor), "float16"),
    "tensor": (Rounded(lambda tensor, device: None), "None"),
    "bytes": (Rounded(size=lambda packed: "many"), "many"),
}


@pytest.mark.parametrize("how", WRONG_CODECS)
def test_a_codec_that_is_none_is_named_with_what_it_does(how):
    codec, named = WRONG_CODECS[how]
    optimizer = wrap(optim.AdamW(params_of()), ConfigurablePolicy({"exp_avg": codec}))
    with pytest.raises(InvalidInputError, match=f"{type(codec).__name__} can not be used.*{named}") as caught:
        step(optimizer)
    assert caught.value.code == "bad-codec"
    assert not optimizer.store.get_memory_usage()


def test_a_codec_is_looked_at_with_each_dtype_that_it_gets():
    params = [*params_of(1), nn.Parameter(torch.randn(64, 64).bfloat16())]
    optimizer = wrap(optim.AdamW(params), ConfigurablePolicy({"exp_avg": Rounded()}))
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(InvalidInputError, match=r"Rounded can not be used.*float32.*bfloat16"):
        optimizer.step()


class MakesThemAnew(Policy):
    """Gives another codec, of the same kind, each time; and none for what is to be in full."""

    def get_codecs(self, param, state, step):
        return {"exp_avg": Rounded(), "exp_avg_sq": None}


def test_a_policy_may_make_its_codecs_anew_and_give_none():
    optimizer = wrap(optim.AdamW(params_of()), MakesThemAnew())
    for seed in range(20):
        step(optimizer, seed)
    assert len(optimizer.store._known) == 1
    stats = optimizer.store.stats()
    assert (stats["exp_avg"].num_coded, stats["exp_avg_sq"].num_coded) == (3, 0)
    wrap(optim.AdamW(params_of()), MakesThemAnew()).load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("kind", [optim.AdamW, optim.RAdam])
def test_moments_without_dimensions_count_and_counters_do_not(kind):
    optimizer = wrap(kind([nn.Parameter(torch.ones(()))]))
    step(optimizer)
    assert {key: found.bytes_after for key, found in optimizer.store.stats().items()} == {"exp_avg": 4, "exp_avg_sq": 4}


def test_a_codec_that_gives_back_all_that_it_is_given_is_not_called_a_loss(caplog, monkeypatch):
    monkeypatch.setattr(kept, "_said", set())
    policy = ConfigurablePolicy({"exp_avg": Rounded()})
    first, second, full = (optim.AdamW(params_of()) for _ in range(3))
    step(wrap(first, policy))
    wrap(second, policy)
    with caplog.at_level("WARNING", "gradient"):
        second.load_state_dict(first.state_dict())
        assert not caplog.records
        step(full)
        second.load_state_dict(full.state_dict())
        assert len(caplog.records) == 1


@pytest.mark.parametrize("form", ["torch", "native"])
def test_codes_are_taken_by_a_codec_of_a_user_and_given_back(form):
    coded_one, own = (
        wrap(optim.AdamW(params_of()), ALL_CODED),
        wrap(optim.AdamW(params_of()), ConfigurablePolicy({"exp_avg": Rounded()})),
    )
    step(coded_one)
    own.load_state_dict(coded_one.state_dict(format=form))
    assert isinstance(next(iter(own.store.entries.values()))["exp_avg"], Packed)
    coded_one.load_state_dict(own.state_dict(format=form))
    assert coded_one.store.stats()["exp_avg"].bytes_after == 3 * 64 * 68
    step(own)
    step(coded_one)


class Halved(Codec):
    """A codec of a user: half precision, beside a number."""

    def __init__(self):
        self.count = 0

    def encode(self, tensor):
        self.count += 1
        return tensor.half(), tensor.dtype

    def decode(self, packed, device=None):
        values, dtype = packed
        return values.to(device=device, dtype=dtype, copy=True)

    def bytes(self, packed):
        return packed[0].nbytes


class ByLoudness(Policy):
    """A policy of a user, which reads the state."""

    def __init__(self, codec, limit):
        self.codec, self.limit, self.seen = codec, limit, []

    def get_codecs(self, param, state, step):
        self.seen.append((step, sorted(state)))
        if "exp_avg" not in state:
            return {}
        return {"exp_avg": self.codec} if state["exp_avg"].abs().max() > self.limit else {}


@pytest.mark.parametrize("kind", [optim.AdamW, optim.RAdam])
def test_a_users_own_codec_and_policy_keep_the_state(kind):
    params = params_of(2)
    codec = Halved()
    policy = ByLoudness(codec, 0.01)
    optimizer = wrap(kind(params, lr=0.01), policy)
    plain = kind(params_of(2), lr=0.01, foreach=False)
    for seed in range(4):
        for optimizer_ in (optimizer, plain):
            torch.manual_seed(seed)
            for param, factor in zip(optimizer_.param_groups[0]["params"], (1.0, 1e-4), strict=True):
                param.grad = torch.randn(param.shape) * factor
            optimizer_.step()
    loud, quiet = (optimizer.store.entries[param]["exp_avg"] for param in params)
    assert isinstance(loud, Packed) and loud.nbytes == 64 * 64 * 2 and not isinstance(quiet, Packed)
    assert codec.count == 4
    assert {number for number, _ in policy.seen} == {1, 2, 3, 4}
    assert policy.seen[-1][1] == ["exp_avg", "exp_avg_sq", "step"]
    for one, two in zip(params, plain.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=2e-4)
    assert optimizer.state[params[0]]["exp_avg"].dtype == torch.float32


def test_state_that_is_there_at_wrap_is_packed_by_a_users_own_codec():
    params = params_of(2)
    optimizer = optim.AdamW(params)
    step(optimizer)
    wrap(optimizer, ByLoudness(Halved(), 0.0))
    assert all(isinstance(optimizer.store.entries[param]["exp_avg"], Packed) for param in params)
    step(optimizer)
    assert [optimizer.state[param]["step"] for param in params] == [2, 2]


def test_a_policy_whose_answer_is_no_codec_is_told_which_key():
    params = params_of(1)

    class Wrong(Policy):
        def get_codecs(self, param, state, step):
            return {"exp_avg": FP16Codec}

    optimizer = wrap(optim.RAdam(params), Wrong())
    with pytest.raises(InvalidInputError, match="codec of exp_avg"):
        step(optimizer)


def test_names_of_parameters_go_with_them():
    seen = []

    class Names(Counts):
        def step(self, closure=None):
            seen.extend(zip(self.param_groups[0]["param_names"], self.param_groups[0]["params"], strict=True))
            super().step()

    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    optimizer = wrap(Names(list(model.named_parameters())))
    step(optimizer)
    assert {name: id(param) for name, param in seen} == {name: id(param) for name, param in model.named_parameters()}


def test_lbfgs_is_passed_through_and_says_so_once(caplog, monkeypatch):
    from gradient.optim import kept

    monkeypatch.setattr(kept, "_said", set())
    with caplog.at_level("WARNING", logger="gradient"):
        for _ in range(2):
            wrap(optim.LBFGS(params_of(1)))
    assert len([record for record in caplog.records if "LBFGS" in record.message]) == 1


class Mine(optim.SGD):
    """A subclass, which takes the generic path."""


DECAYED = {
    "amsgrad": lambda params: optim.Adam(params, lr=0.01, weight_decay=0.1, amsgrad=True),
    "NAdam": lambda params: optim.NAdam(params, lr=0.01, weight_decay=0.1),
    "SGD": lambda params: Mine(params, lr=0.1, momentum=0.9, weight_decay=0.1),
}


@pytest.mark.parametrize("kind", DECAYED)
def test_weights_without_gradients_decay_as_unwrapped(kind):
    means = []
    for is_wrapped in (False, True):
        params = params_of(1)
        optimizer = DECAYED[kind](params)
        if is_wrapped:
            wrap(optimizer)
        for _ in range(50):
            params[0].grad = torch.zeros_like(params[0])
            optimizer.step()
        means.append(float(params[0].abs().mean()))
    assert means[1] == pytest.approx(means[0], rel=0.03) and means[0] < 0.7


class Normalized(Counts):
    """Averages gradients of length one, whatever length they have."""

    def __init__(self, params):
        super().__init__(params)
        self.param_groups[0]["betas"] = (0.9, 0.999)

    @torch.no_grad()
    def step(self, closure=None):
        for param in self.param_groups[0]["params"]:
            average = self.state[param].setdefault("exp_avg", torch.zeros_like(param))
            average.mul_(0.9).add_(param.grad / param.grad.norm(), alpha=0.1)
            param.sub_(average, alpha=self.param_groups[0]["lr"])


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_what_is_added_to_a_moment_counts_and_not_the_gradient(scale):
    params, plain = params_of(1), params_of(1)
    start = params[0].detach().clone()
    one, two = wrap(Normalized(params)), Normalized(plain)
    for _ in range(60):
        for optimizer in (one, two):
            optimizer.param_groups[0]["params"][0].grad = scale * start
            optimizer.step()
    moved = [float((param - start).norm()) for param in (params[0], plain[0])]
    assert moved[0] == pytest.approx(moved[1], rel=0.01)


class KeepsTensors(Counts):
    """Counts in tensors, one changed where it is and one made anew."""

    def __init__(self, params):
        super().__init__(params)
        self.number = torch.zeros(())
        self.param_groups[0]["t"] = torch.zeros(())

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        self.number += 1
        self.param_groups[0]["t"] = self.param_groups[0]["t"] + 1


def test_counts_that_are_tensors_go_up_once_a_step_and_stay_the_tensors_that_they_are():
    optimizer = wrap(KeepsTensors(params_of()))
    number = optimizer.number
    for seed in range(4):
        step(optimizer, seed)
    assert optimizer.number is number and float(number) == 4
    assert float(optimizer.param_groups[0]["t"]) == 4


class KeepsNormTensor(Counts):
    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        self.norm_of_all = sum(param.grad.square().sum() for param in self.param_groups[0]["params"])


def test_a_tensor_that_is_kept_for_all_parameters_together_is_refused():
    params = params_of()
    optimizer = wrap(KeepsNormTensor(params))
    before = [param.detach().clone() for param in params]
    with pytest.raises(InvalidInputError, match="norm_of_all"):
        step(optimizer)
    assert all(param.equal(value) for param, value in zip(params, before, strict=True))
    assert not hasattr(optimizer, "norm_of_all")


def test_a_step_that_is_differentiated_through_keeps_its_graph():
    grads = []
    for is_wrapped in (False, True):
        start = torch.full((64, 64), 0.5, requires_grad=True)
        weight = start.clone()
        optimizer = optim.Adam([nn.Parameter(torch.zeros(64, 64))], lr=0.1, differentiable=True)
        optimizer.param_groups[0]["params"] = [weight]
        if is_wrapped:
            wrap(optimizer)
        for _ in range(3):
            weight.grad = start * 2
            optimizer.step()
        (grad,) = torch.autograd.grad(weight.sum(), start)
        grads.append(grad)
    torch.testing.assert_close(grads[1], grads[0])


def test_small_parameters_are_stepped_together(monkeypatch):
    params = params_of(10, (64, 64))
    optimizer = wrap(optim.NAdam(params, foreach=True))
    for param in params:
        param.grad = torch.ones_like(param)
    seen = []
    monkeypatch.setattr(optimizer._generic, "_step", lambda of: seen.append(len(of.param_groups[0]["params"])))
    monkeypatch.setattr(generic, "_TOGETHER", 4 * 64 * 64)
    optimizer.step()
    assert seen == [4, 4, 2]


def test_codes_stay_in_the_memory_that_they_have():
    params = params_of(1)
    optimizer = wrap(optim.NAdam(params))
    step(optimizer)
    held = {key: value.codes.data_ptr() for key, value in optimizer.store.entries[params[0]].items()
            if isinstance(value, Coded)}  # fmt: skip
    step(optimizer, 1)
    after = optimizer.store.entries[params[0]]
    assert len(held) == 2 and {key: after[key].codes.data_ptr() for key in held} == held


class Tagged(torch.Tensor):
    """A tensor that says more than numbers, as a DTensor does."""


def test_state_that_is_no_plain_tensor_is_kept_in_full():
    weight = nn.Parameter(torch.randn(64, 64).as_subclass(Tagged))
    optimizer = wrap(optim.AdamW([weight]))
    weight.grad = torch.ones(64, 64).as_subclass(Tagged)
    for _ in range(2):
        optimizer.step()
    assert isinstance(optimizer.store.entries[weight]["exp_avg"], Tagged)
