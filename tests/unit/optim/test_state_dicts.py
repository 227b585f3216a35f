"""`state_dict` and `load_state_dict` of a wrapped optimizer, in both formats; copies and pickles of it."""

from __future__ import annotations

import copy
import io
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from gradient import InvalidInputError, wrap
from gradient.coded import Coded
from gradient.optim import (
    BF16Codec,
    ConfigurablePolicy,
    FourthRootCodec,
    FP32Codec,
    Lion,
    Rule,
    SelectivePolicy,
    SignedSqrtCodec,
    WarmupPolicy,
    kept,
)

Make = Callable[[Any], Any]


class Decayed(torch.optim.AdamW):
    """A subclass, which takes the generic path."""


MADE: dict[str, tuple[Make, Any]] = {
    "adamw-nearest": (lambda params: torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.95)), None),
    "adamw-by-lot": (lambda params: torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.999)), None),
    "sgd": (lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9), None),
    "lion": (lambda params: Lion(params, lr=1e-3), None),
    "rmsprop": (lambda params: torch.optim.RMSprop(params, lr=1e-3), None),
    "nadam": (lambda params: torch.optim.NAdam(params, lr=1e-3), None),
    "subclass": (lambda params: Decayed(params, lr=1e-2), None),
    "adamw-in-warm-up": (lambda params: torch.optim.AdamW(params, lr=1e-2), WarmupPolicy(5)),
    "adamw-after-warm-up": (
        lambda params: torch.optim.AdamW(params, lr=1e-2),
        WarmupPolicy(2, variance_codec=FourthRootCodec()),
    ),
    "sgd-in-warm-up": (lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9), WarmupPolicy(5)),
    "lion-in-warm-up": (lambda params: Lion(params, lr=1e-3), WarmupPolicy(5)),
    "rmsprop-in-bfloat16": (
        lambda params: torch.optim.RMSprop(params, lr=1e-3),
        ConfigurablePolicy({"square_avg": BF16Codec()}),
    ),
}
"""Optimizers and their policies; all are saved after three steps and trained for four more."""

EVERY = pytest.mark.parametrize("name", MADE)


def new_model(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """One tensor that is coded by rows, one that lies otherwise than its shape says, and some that are small."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(8, 64, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 70), nn.Tanh(), nn.Linear(70, 3))
    return model.to(memory_format=torch.channels_last).to(dtype)


class Trainer:
    """A model and its optimizer, and data that is a function of the step."""

    def __init__(self, name: str = "adamw-nearest", *, wrapped: bool = True, seed: int = 0, **options: Any) -> None:
        make, policy = MADE[name]
        self.model = new_model(seed, **options)
        self.optimizer = make(self.model.parameters())
        if wrapped:
            wrap(self.optimizer, copy.deepcopy(policy))
        self.at = 0

    @property
    def params(self) -> list[Tensor]:
        return [param for group in self.optimizer.param_groups for param in group["params"]]

    def train(self, steps: int) -> Trainer:
        for _ in range(steps):
            self.at += 1
            train_once(self.model, self.optimizer, self.at)
        return self

    def weights(self) -> list[bytes]:
        return [bits(param) for param in self.params]


def train_once(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    dtype = next(model.parameters()).dtype
    inputs = torch.randn(4, 8, 3, 3, generator=generator).to(dtype)
    optimizer.zero_grad()
    (model(inputs) ** 2).mean().backward()
    optimizer.step()


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def plain(value: Any) -> Any:
    """A value in which tensors are dtype, shape, strides and bytes."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.stride(), bits(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def through_a_file(value: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def held(trainer: Trainer) -> list[Any]:
    """All that is kept, as bytes."""
    store = trainer.optimizer.store
    found = []
    for param in trainer.params:
        entry = {}
        for key, value in store.entries.get(param, {}).items():
            if isinstance(value, Coded):
                entry[key] = value.kind, plain(value.codes), plain(value.scales), value.seed, value.draws
            else:
                entry[key] = plain(kept.full(value, "cpu"))
        found.append((entry, store.steps[param].value if param in store.steps else None))
    return found


def groups(optimizer: torch.optim.Optimizer) -> Any:
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_said", set())


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Shapes of what is decoded from now on."""
    counted: list[Any] = []
    decode = Coded.decode

    def counting(self: Coded, device: Any = None) -> Tensor:
        counted.append(tuple(self.shape))
        return decode(self, device)

    monkeypatch.setattr(Coded, "decode", counting)
    return counted


# The format of torch


@EVERY
def test_torch_format_has_the_keys_shapes_dtypes_and_order_of_an_unwrapped_optimizer(name: str) -> None:
    def facts(state_dict: dict[str, Any]) -> Any:
        state = {
            number: [
                (key, tuple(value.shape), value.dtype, value.stride()) if isinstance(value, Tensor) else (key, value)
                for key, value in entry.items()
            ]
            for number, entry in state_dict["state"].items()
        }
        return list(state_dict), list(state.items()), state_dict["param_groups"]

    wrapped, unwrapped = Trainer(name).train(3), Trainer(name, wrapped=False).train(3)
    assert facts(wrapped.optimizer.state_dict()) == facts(unwrapped.optimizer.state_dict())


def test_torch_format_of_bfloat16_parameters_is_bfloat16_as_unwrapped() -> None:
    for name in ("adamw-nearest", "adamw-in-warm-up", "sgd", "lion", "nadam"):
        wrapped = Trainer(name, dtype=torch.bfloat16).train(1).optimizer.state_dict()["state"]
        unwrapped = Trainer(name, dtype=torch.bfloat16, wrapped=False).train(1).optimizer.state_dict()["state"]
        for number, entry in unwrapped.items():
            assert {key: value.dtype for key, value in wrapped[number].items()} == {
                key: value.dtype for key, value in entry.items()
            }, name


@EVERY
def test_torch_format_loads_into_an_unwrapped_optimizer_which_trains_on(name: str) -> None:
    trainer = Trainer(name).train(3)
    given = through_a_file(trainer.optimizer.state_dict())
    other = Trainer(name, wrapped=False)
    other.model.load_state_dict(trainer.model.state_dict())
    other.optimizer.load_state_dict(given)
    for mine, theirs in zip(trainer.params, other.params, strict=True):
        assert plain(dict(trainer.optimizer.state[mine])) == plain(dict(other.optimizer.state[theirs]))
    other.at = 3
    before = other.weights()
    other.train(2)
    trainer.train(2)
    assert all(one != two for one, two in zip(before, other.weights(), strict=True))
    for mine, theirs in zip(trainer.params, other.params, strict=True):
        assert torch.allclose(mine, theirs, atol=5e-3)


def test_a_state_dict_that_nobody_reads_decodes_nothing_and_one_key_decodes_one_tensor(decodes: list[Any]) -> None:
    trainer = Trainer().train(2)
    decodes.clear()
    given = trainer.optimizer.state_dict()
    assert len(given["state"]) == 6
    assert list(given["state"][0]) == ["step", "exp_avg", "exp_avg_sq"]
    assert "exp_avg" in given["state"][0]
    assert decodes == []
    assert given["state"][0]["exp_avg"].shape == (64, 8, 3, 3)
    assert decodes == [(64, 8, 3, 3)]
    trainer.optimizer.state_dict(format="native")
    assert decodes == [(64, 8, 3, 3)]


def test_what_is_read_is_a_copy_of_its_own() -> None:
    trainer = Trainer().train(2)
    trainer.optimizer.state_dict()["state"][0]["exp_avg"].fill_(7)
    trainer.optimizer.state[trainer.params[0]]["exp_avg"].fill_(7)
    assert float(trainer.optimizer.state[trainer.params[0]]["exp_avg"].abs().max()) < 7


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="format"):
        Trainer().optimizer.state_dict(format="int8")


# Through files


@EVERY
@pytest.mark.parametrize("form", ["torch", "native"])
def test_both_formats_come_back_from_a_file_that_holds_weights_only(name: str, form: str) -> None:
    given = Trainer(name).train(3).optimizer.state_dict(format=form)
    assert plain(through_a_file(given)) == plain(
        {
            key: {n: dict(entry) for n, entry in value.items()} if key == "state" else value
            for key, value in given.items()
        }
    )


def test_the_native_file_is_a_third_of_that_of_torch() -> None:
    trainer = Trainer().train(1)
    sizes = {}
    for form in ("torch", "native"):
        buffer = io.BytesIO()
        torch.save(trainer.optimizer.state_dict(format=form), buffer)
        sizes[form] = len(buffer.getvalue())
    assert sizes["native"] < 0.42 * sizes["torch"]


# Native: the same bits


@EVERY
def test_native_save_load_save_gives_the_same_bytes(name: str) -> None:
    trainer = Trainer(name).train(3)
    first = through_a_file(trainer.optimizer.state_dict(format="native"))
    other = Trainer(name, seed=1)
    other.optimizer.load_state_dict(first)
    assert plain(other.optimizer.state_dict(format="native")) == plain(first)
    assert held(other) == held(trainer)


@EVERY
def test_a_run_goes_on_from_a_native_state_dict_with_the_same_bits(name: str) -> None:
    trainer = Trainer(name).train(3)
    other = Trainer(name, seed=1).train(1)
    other.model.load_state_dict(trainer.model.state_dict())
    other.optimizer.load_state_dict(through_a_file(trainer.optimizer.state_dict(format="native")))
    other.at = 3
    assert other.train(4).weights() == trainer.train(4).weights()
    assert held(other) == held(trainer)


@pytest.mark.parametrize("name", ["adamw-by-lot", "adamw-in-warm-up", "nadam", "sgd", "rmsprop"])
def test_a_run_of_bfloat16_parameters_goes_on_with_the_same_bits(name: str) -> None:
    trainer = Trainer(name, dtype=torch.bfloat16).train(3)
    other = Trainer(name, seed=1, dtype=torch.bfloat16)
    other.model.load_state_dict(trainer.model.state_dict())
    other.optimizer.load_state_dict(through_a_file(trainer.optimizer.state_dict(format="native")))
    assert held(other) == held(trainer)
    other.at = 3
    assert other.train(4).weights() == trainer.train(4).weights()


@pytest.mark.parametrize("name", ["sgd-in-warm-up", "lion-in-warm-up"])
def test_a_state_without_a_count_of_steps_ends_its_warm_up_when_it_would_have(name: str) -> None:
    trainer = Trainer(name).train(3)
    given = through_a_file(trainer.optimizer.state_dict(format="native"))
    assert given["gradient_steps"] == dict.fromkeys(range(6), 3)
    other = Trainer(name)
    other.optimizer.load_state_dict(given)
    key = "momentum_buffer" if name.startswith("sgd") else "exp_avg"
    kinds = []
    for step in (4, 5):
        train_once(other.model, other.optimizer, step)
        kinds.append(getattr(other.optimizer.store.entries[other.params[0]][key], "kind", "in full"))
    assert kinds == ["in full", "signed-sqrt"]


def test_a_parameter_that_is_trained_first_after_a_load_draws_as_if_there_had_been_none() -> None:
    trainer = Trainer("adamw-by-lot")
    late = trainer.params[2]
    late.requires_grad_(False)
    trainer.train(2)
    given, weights = trainer.optimizer.state_dict(format="native"), copy.deepcopy(trainer.model.state_dict())
    given = copy.deepcopy(given)
    late.requires_grad_(True)
    expected = trainer.train(3).weights()
    trainer.model.load_state_dict(weights)
    trainer.optimizer.load_state_dict(given)
    trainer.at = 2
    assert trainer.train(3).weights() == expected


def test_what_was_loaded_shares_no_memory_with_the_state_dict() -> None:
    trainer = Trainer().train(2)
    given = trainer.optimizer.state_dict(format="native")
    kept_bytes = plain(given)
    other = Trainer()
    other.optimizer.load_state_dict(given)
    other.train(1)
    assert plain(given) == kept_bytes


# What is in full is coded


def loss_said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "coded as the policy says" in record.getMessage()]


@pytest.mark.parametrize("name", ["adamw-nearest", "sgd", "rmsprop", "lion"])
def test_torch_format_is_coded_as_the_policy_says_and_that_is_said_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = Trainer(name, wrapped=False).train(3).optimizer.state_dict()
    other = Trainer(name)
    with caplog.at_level(logging.WARNING, "gradient"):
        other.optimizer.load_state_dict(given)
        assert len(loss_said(caplog)) == 1
        other.optimizer.load_state_dict(given)
        assert len(loss_said(caplog)) == 1
    coded = [key for key, value in other.optimizer.store.entries[other.params[0]].items() if isinstance(value, Coded)]
    assert coded == [key for key in given["state"][0] if key != "step"]
    small = other.optimizer.store.entries[other.params[1]]
    assert not any(isinstance(value, Coded) for value in small.values())
    for key in coded:
        full = given["state"][0][key]
        error = (other.optimizer.state[other.params[0]][key] - full).norm() / full.norm()
        assert 0 < error < 0.02
    other.train(1)


def test_torch_format_of_a_wrapped_optimizer_comes_back_to_the_same_codes() -> None:
    trainer = Trainer("adamw-nearest").train(3)
    other = Trainer("adamw-nearest")
    other.optimizer.load_state_dict(through_a_file(trainer.optimizer.state_dict()))
    for mine, theirs in zip(held(trainer), held(other), strict=True):
        assert mine[0].keys() == theirs[0].keys()
        for key in mine[0]:
            assert mine[0][key][:3] == theirs[0][key][:3]


@pytest.mark.parametrize("name", ["adamw-in-warm-up", "rmsprop-in-bfloat16", "adamw-nearest"])
def test_what_loses_nothing_is_not_called_a_loss(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """In full into a warm-up; codes into the same codes; bfloat16 of bfloat16 parameters."""
    dtype = torch.bfloat16 if name == "rmsprop-in-bfloat16" else torch.float32
    wrapped = name == "adamw-nearest"
    trainer = Trainer(name, wrapped=wrapped, dtype=dtype).train(3)
    other = Trainer(name, dtype=dtype)
    with caplog.at_level(logging.WARNING, "gradient"):
        other.optimizer.load_state_dict(trainer.optimizer.state_dict(**({"format": "native"} if wrapped else {})))
    assert loss_said(caplog) == []


def test_codes_that_become_full_precision_are_not_called_a_loss(caplog: pytest.LogCaptureFixture) -> None:
    trainer = Trainer("sgd").train(3)
    model = new_model()
    optimizer = wrap(
        torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9), ConfigurablePolicy({"momentum_buffer": FP32Codec()})
    )
    with caplog.at_level(logging.WARNING, "gradient"):
        optimizer.load_state_dict(trainer.optimizer.state_dict(format="native"))
    assert loss_said(caplog) == []
    assert torch.equal(
        optimizer.state[model[0].weight]["momentum_buffer"],
        trainer.optimizer.state[trainer.params[0]]["momentum_buffer"],
    )
    train_once(model, optimizer, 1)


def test_codes_of_another_kind_than_the_policy_asks_for_are_coded_anew_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = Trainer("adamw-in-warm-up")
    wrapped = Trainer("adamw-nearest").train(2)
    policy = ConfigurablePolicy({"exp_avg": BF16Codec()})
    other = wrap(torch.optim.AdamW(trainer.model.parameters()), policy)
    with caplog.at_level(logging.WARNING, "gradient"):
        other.load_state_dict(wrapped.optimizer.state_dict(format="native"))
    assert len(loss_said(caplog)) == 1
    assert other.store.entries[trainer.params[0]]["exp_avg"].kind == "bfloat16"


# Schedulers and hooks


@pytest.mark.parametrize("form", ["torch", "native"])
@pytest.mark.parametrize("before", [True, False])
def test_schedulers_keep_working_after_a_load(form: str, before: bool) -> None:
    trainer = Trainer(wrapped=False)
    if not before:
        wrap(trainer.optimizer)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(trainer.optimizer, 0.5)
    if before:
        wrap(trainer.optimizer)
    trainer.train(1)
    scheduler.step()
    trainer.optimizer.load_state_dict(copy.deepcopy(trainer.optimizer.state_dict(format=form)))
    rates = []
    for step in (2, 3):
        train_once(trainer.model, trainer.optimizer, step)
        scheduler.step()
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == [1e-2 / 4, 1e-2 / 8]
    assert scheduler.optimizer is trainer.optimizer


@pytest.mark.parametrize("form", ["torch", "native"])
def test_hooks_of_a_load_run_once_in_order_and_see_the_whole_state_dict(form: str) -> None:
    trainer = Trainer().train(2)
    given = trainer.optimizer.state_dict(format=form)
    seen: list[Any] = []

    def before(optimizer: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        seen.append(("before", optimizer, plain({n: dict(entry) for n, entry in state_dict["state"].items()})))
        changed = copy.deepcopy(state_dict["param_groups"])
        changed[0]["lr"] = 0.125
        return {**state_dict, "param_groups": changed}

    def after(optimizer: Any) -> None:
        seen.append(("after", optimizer, optimizer.param_groups[0]["lr"], len(optimizer.state)))

    other = Trainer()
    other.optimizer.register_load_state_dict_pre_hook(before)
    other.optimizer.register_load_state_dict_post_hook(after)
    other.optimizer.load_state_dict(given)
    assert [one[0] for one in seen] == ["before", "after"]
    assert seen[0][1] is other.optimizer
    assert seen[0][2] == plain({n: dict(entry) for n, entry in given["state"].items()})
    assert seen[1][1:] == (other.optimizer, 0.125, 6)
    # No hook of our own is left.
    assert len(other.optimizer._optimizer_load_state_dict_pre_hooks) == 1


def test_a_hook_before_a_load_may_change_the_state() -> None:
    trainer = Trainer().train(2)

    def empty(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        return {**state_dict, "state": {}}

    other = Trainer().train(1)
    other.optimizer.register_load_state_dict_pre_hook(empty)
    other.optimizer.load_state_dict(trainer.optimizer.state_dict())
    assert len(other.optimizer.state) == 0


@pytest.mark.parametrize("form", ["torch", "native"])
def test_hooks_of_a_state_dict_run_once_each(form: str) -> None:
    trainer = Trainer().train(1)
    seen = []
    trainer.optimizer.register_state_dict_pre_hook(lambda optimizer: seen.append("before"))

    def after(optimizer: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        seen.append("after")
        return {**state_dict, "more": len(state_dict["state"])}

    trainer.optimizer.register_state_dict_post_hook(after)
    given = trainer.optimizer.state_dict(format=form)
    assert seen == ["before", "after"]
    assert given["more"] == 6


# Damage


def damaged(change: Callable[[dict[str, Any]], None], key: str = "exp_avg") -> dict[str, Any]:
    given = copy.deepcopy(Trainer("adamw-by-lot").train(2).optimizer.state_dict(format="native"))
    # The last one that is coded, so that others were read before it.
    change(given["state"][2][key])
    return given


DAMAGE: dict[str, Callable[[dict[str, Any]], None]] = {
    "codes-of-another-dtype": lambda part: part.update(codes=part["codes"].to(torch.int16)),
    "codes-that-are-unsigned": lambda part: part.update(codes=part["codes"].view(torch.uint8)),
    "codes-of-another-shape": lambda part: part.update(codes=part["codes"][:-1].clone()),
    "codes-transposed": lambda part: part.update(codes=part["codes"].T.contiguous()),
    "codes-that-are-a-list": lambda part: part.update(codes=[1, 2]),
    "codes-with-gaps": lambda part: part.update(codes=torch.zeros(70, 128, dtype=torch.int8)[:, ::2]),
    "scales-of-another-dtype": lambda part: part.update(scales=part["scales"].double()),
    "scale-too-few": lambda part: part.update(scales=part["scales"][:-1].clone()),
    "scale-too-many": lambda part: part.update(scales=torch.cat([part["scales"], part["scales"][:1]])),
    "scales-in-two-dimensions": lambda part: part.update(scales=part["scales"][None]),
    "kind-unknown": lambda part: part.update(kind="nf4"),
    "kind-no-text": lambda part: part.update(kind=7),
    "kind-of-others": lambda part: part.update(kind="fourth-root"),
    "kind-without-scales": lambda part: part.update(kind="float32"),
    "version-unknown": lambda part: part.update(gradient_coded=2),
    "dtype-unknown": lambda part: part.update(dtype="float31"),
    "dtype-of-whole-numbers": lambda part: part.update(dtype="int8"),
    "dtype-no-dtype": lambda part: part.update(dtype="nn"),
    "seed-negative": lambda part: part.update(seed=-1),
    "seed-no-number": lambda part: part.update(seed="many"),
    "seed-with-a-fraction": lambda part: part.update(seed=1.5),
    "seed-beyond-64-bits": lambda part: part.update(seed=1 << 64),
    "draws-negative": lambda part: part.update(draws=-1),
    **{f"without-{key}": lambda part, key=key: part.pop(key)
       for key in ("kind", "codes", "scales", "dtype", "seed", "draws")},
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_native_state_dict_is_refused_and_nothing_is_changed(how: str) -> None:
    given = damaged(DAMAGE[how])
    given["param_groups"][0]["lr"] = 0.5
    trainer = Trainer("adamw-by-lot", seed=2).train(1)
    before = held(trainer), groups(trainer.optimizer)
    with pytest.raises(InvalidInputError):
        trainer.optimizer.load_state_dict(given)
    assert (held(trainer), groups(trainer.optimizer)) == before
    twin = Trainer("adamw-by-lot", seed=2).train(1)
    assert trainer.train(2).weights() == twin.train(2).weights()


@pytest.mark.parametrize("form", ["torch", "native"])
def test_a_moment_of_another_shape_is_refused_with_the_parameter_and_nothing_is_changed(form: str) -> None:
    given = copy.deepcopy(Trainer("adamw-by-lot").train(2).optimizer.state_dict(format=form))
    # Of as many parameters, in another order: of another model.
    given["state"] = dict(enumerate(reversed(given["state"].values())))
    trainer = Trainer("adamw-by-lot", seed=2).train(1)
    before = held(trainer), groups(trainer.optimizer)
    with pytest.raises(InvalidInputError, match="exp_avg") as caught:
        trainer.optimizer.load_state_dict(given)
    assert caught.value.code == "bad-state" and "shape" in str(caught.value)
    assert form == "native" or "parameter 0" in str(caught.value)
    assert (held(trainer), groups(trainer.optimizer)) == before


def test_codes_of_a_parameter_that_is_not_there_are_refused() -> None:
    given = copy.deepcopy(Trainer("adamw-by-lot").train(2).optimizer.state_dict(format="native"))
    given["state"][99] = given["state"][2]
    trainer = Trainer("adamw-by-lot", seed=2).train(1)
    before = held(trainer)
    with pytest.raises(InvalidInputError, match="99"):
        trainer.optimizer.load_state_dict(given)
    assert held(trainer) == before


@pytest.mark.parametrize("steps", [-1, "two", 1.5])
def test_a_damaged_count_of_steps_is_refused_and_nothing_is_changed(steps: Any) -> None:
    given = copy.deepcopy(Trainer("sgd-in-warm-up").train(2).optimizer.state_dict(format="native"))
    given["gradient_steps"][3] = steps
    trainer = Trainer("sgd-in-warm-up", seed=2).train(1)
    before = held(trainer)
    with pytest.raises(InvalidInputError):
        trainer.optimizer.load_state_dict(given)
    assert held(trainer) == before


def test_a_second_moment_below_zero_is_refused_and_nothing_is_changed() -> None:
    given = copy.deepcopy(Trainer(wrapped=False).train(2).optimizer.state_dict())
    given["state"][2]["exp_avg_sq"][0, 0] = -1
    trainer = Trainer(seed=2).train(1)
    before = held(trainer), groups(trainer.optimizer)
    with pytest.raises(InvalidInputError):
        trainer.optimizer.load_state_dict(given)
    assert (held(trainer), groups(trainer.optimizer)) == before


@pytest.mark.parametrize("form", ["torch", "native"])
@pytest.mark.parametrize("how", ["fewer-groups", "more-groups", "fewer-parameters"])
def test_groups_that_do_not_fit_are_a_value_error_and_nothing_is_changed(form: str, how: str) -> None:
    given = copy.deepcopy(Trainer().train(2).optimizer.state_dict(format=form))
    if how == "fewer-groups":
        given["param_groups"] = []
    elif how == "more-groups":
        given["param_groups"].append(given["param_groups"][0])
    else:
        given["param_groups"][0]["params"].pop()
    trainer = Trainer(seed=2).train(1)
    before = held(trainer), groups(trainer.optimizer)
    with pytest.raises(ValueError, match="group"):
        trainer.optimizer.load_state_dict(given)
    assert (held(trainer), groups(trainer.optimizer)) == before
    trainer.optimizer.load_state_dict(Trainer().train(1).optimizer.state_dict(format=form))


# Copies and pickles


def duplicated(trainer: Trainer, how: str) -> Trainer:
    """A copy of the whole of it, model and optimizer together."""
    pair = trainer.model, trainer.optimizer
    other = object.__new__(Trainer)
    other.model, other.optimizer = copy.deepcopy(pair) if how == "copy" else pickle.loads(pickle.dumps(pair))
    other.at = trainer.at
    return other


@pytest.mark.parametrize("how", ["copy", "pickle"])
@EVERY
def test_copies_train_on_with_the_same_bits_and_leave_the_original_alone(name: str, how: str) -> None:
    trainer = Trainer(name).train(3)
    before = trainer.weights(), held(trainer)
    other = duplicated(trainer, how)
    assert type(other.optimizer) is type(trainer.optimizer)
    assert isinstance(other.optimizer, type(trainer.optimizer).__mro__[2])
    assert all(one is two for one, two in zip(other.params, other.model.parameters(), strict=True))
    assert held(other) == before[1]
    other.train(3)
    assert (trainer.weights(), held(trainer)) == before
    assert trainer.train(3).weights() == other.weights()
    assert held(trainer) == held(other)


@pytest.mark.parametrize("how", ["copy", "pickle"])
def test_a_copy_has_a_state_of_its_own_to_load_into_and_to_empty(how: str) -> None:
    trainer = Trainer().train(2)
    before = held(trainer)
    other = duplicated(trainer, how)
    other.optimizer.load_state_dict(Trainer(seed=3).train(1).optimizer.state_dict())
    other.optimizer.state.clear()
    other.optimizer.param_groups[0]["lr"] = 7.0
    assert held(trainer) == before
    assert trainer.optimizer.param_groups[0]["lr"] == 1e-2


@pytest.mark.parametrize("how", ["copy", "pickle"])
def test_a_copy_keeps_a_policy_that_chooses_by_name(how: str) -> None:
    model = new_model()
    rules = [Rule(None, name="3.*")]
    optimizer = wrap(torch.optim.AdamW(model.parameters()), SelectivePolicy(rules), model=model)
    train_once(model, optimizer, 1)
    other = duplicated_pair(model, optimizer, how)
    for own, its in ((model, optimizer), other):
        train_once(own, its, 2)
        kinds = [getattr(its.store.entries[p]["exp_avg"], "kind", None) for p in (own[0].weight, own[3].weight)]
        assert kinds == ["signed-sqrt", None]


def duplicated_pair(model: nn.Module, optimizer: Any, how: str) -> tuple[Any, Any]:
    pair = (model, optimizer)
    found: tuple[Any, Any] = copy.deepcopy(pair) if how == "copy" else pickle.loads(pickle.dumps(pair))
    return found


def test_a_deep_copy_of_a_state_dict_is_plain_and_stays_as_it_was() -> None:
    trainer = Trainer().train(2)
    given = copy.deepcopy(trainer.optimizer.state_dict())
    assert type(given["state"][0]) is dict
    before = plain(given)
    trainer.train(1)
    assert plain(given) == before
    assert plain(dict(trainer.optimizer.state_dict()["state"][0])) != before["state"][0]


def test_the_signed_square_root_is_what_an_eight_bit_first_moment_is_saved_as() -> None:
    part = Trainer().train(1).optimizer.state_dict(format="native")["state"][2]["exp_avg"]
    assert (part["kind"], part["dtype"]) == (SignedSqrtCodec.kind, "float32")
    assert part["scales"].shape == (70,)


def test_whoever_rebuilds_the_mappings_of_a_state_dict_gets_plain_dicts() -> None:
    trainer = Trainer().train(1)
    given = trainer.optimizer.state_dict()
    found = given["state"][0]
    made = type(found)(dict(found.items()))
    assert type(made) is dict and list(made) == list(found)
    assert type(type(found)([("a", 1)])) is dict and type(found)(a=1) == {"a": 1}
    seen: list[Tensor] = []
    mapped = tree_map_only(Tensor, lambda tensor: (seen.append(tensor), tensor.clone())[1], given)
    assert len(seen) == 18
    other = Trainer(seed=1)
    other.optimizer.load_state_dict(mapped)
    assert plain(dict(other.optimizer.state[other.params[1]])) == plain(
        dict(trainer.optimizer.state[trainer.params[1]])
    )


def test_state_in_full_is_rounded_as_the_groups_that_come_with_it_say() -> None:
    given = Trainer("adamw-nearest", wrapped=False).train(2).optimizer.state_dict()
    held_by = []
    for name in ("adamw-nearest", "adamw-by-lot"):
        other = Trainer(name)
        other.optimizer.load_state_dict(copy.deepcopy(given))
        assert other.optimizer.param_groups[0]["betas"] == (0.9, 0.95)
        held_by.append(held(other))
    assert held_by[0] == held_by[1]
