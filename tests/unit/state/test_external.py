"""What a script registers comes back through its own setter, or is refused with its path."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradient.errors import InvalidInputError, StateMismatchError
from gradient.state import TrainState


class Meter:
    def __init__(self):
        self.seen = {"tokens": 2**70, "best": float("-inf")}

    def state_dict(self):
        return self.seen

    def load_state_dict(self, state):
        self.seen = state


def test_a_getter_s_value_reaches_the_setter(carry, put_back):
    state, got = TrainState(), []
    value = {"a": (1, 2.5), "t": torch.arange(300), "s": {3}}
    state.add_external("env", lambda: value, got.append)
    put_back(state, carry(state.capture()))
    assert got[0]["a"] == (1, 2.5)
    assert got[0]["s"] == {3}
    assert got[0]["t"].equal(value["t"])
    assert got[0]["t"] is not value["t"]


def test_an_object_comes_back(carry, put_back):
    meter, other = Meter(), Meter()
    meter.seen["tokens"] += 1
    state, resumed = TrainState(), TrainState()
    state.add_object("meter", meter)
    resumed.add_object("meter", other)
    put_back(resumed, carry(state.capture()))
    assert other.seen == meter.seen


def test_a_lambda_in_the_state_is_refused_with_its_path():
    state = TrainState()
    state.add_external("env", lambda: {"deep": [lambda: 1]}, print)
    with pytest.raises(InvalidInputError, match=r"extra/env/value/deep/0: the function"):
        state.capture()


def test_an_averaged_model_comes_back(carry, put_back):
    def make():
        averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(3, 3))
        state = TrainState()
        state.add_object("ema", averaged)
        return averaged, state

    (averaged, state), (other, resumed) = make(), make()
    averaged.update_parameters(nn.Linear(3, 3))
    put_back(resumed, carry(state.capture()))
    assert other.n_averaged.item() == 1
    assert other.module.weight.equal(averaged.module.weight)


def test_a_registered_module_that_does_not_fit_is_found_before_anything_is_touched(carry, put_back):
    state, resumed = TrainState(), TrainState()
    state.add_object("ema", nn.Linear(3, 3))
    other = nn.Linear(3, 4, bias=False)
    old = other.weight.detach().clone()
    resumed.add_object("ema", other)
    with pytest.raises(StateMismatchError) as caught:
        put_back(resumed, carry(state.capture()))
    assert caught.value.unexpected == ["extra/ema/bias"]
    assert caught.value.changed == ["extra/ema/weight: float32 [3, 3] in the commit, float32 [4, 3] here"]
    assert other.weight.equal(old)


@pytest.mark.parametrize(("getter", "setter"), [(None, print), (print, 3)])
def test_what_can_not_be_called_is_refused(getter, setter):
    with pytest.raises(InvalidInputError, match="extra/env"):
        TrainState().add_external("env", getter, setter)


def test_an_object_without_state_is_refused_with_a_hint():
    with pytest.raises(InvalidInputError, match="extra/env") as caught:
        TrainState().add_object("env", object())
    assert "register_state" in caught.value.hint


@pytest.mark.parametrize("name", ["", "a@b"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(InvalidInputError):
        TrainState().add_object(name, Meter())
