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


def buffer(tensor):
    module = nn.Module()
    module.register_buffer("it", tensor)
    return module


def quantized(length):
    return torch.quantize_per_tensor(torch.ones(length), 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("stored", "live", "message"),
    [
        (
            lambda: torch.ones(3).cfloat().conj(),
            lambda: torch.ones(4).cfloat().conj(),
            r"complex64 \[3\] in the commit",
        ),
        (lambda: torch.eye(3).to_sparse(), lambda: torch.eye(4).to_sparse(), r"float32 \[3, 3\] in the commit"),
        (lambda: quantized(3), lambda: quantized(4), r"qint8 \[3\] in the commit"),
        (lambda: torch.ones(3), lambda: torch.eye(3).to_sparse(), "plain in the commit, sparse_coo"),
        (lambda: torch.ones(3), lambda: torch.ones(1).expand(3), "an expanded tensor can not be written"),
    ],
)
def test_a_registered_buffer_of_any_kind_that_does_not_fit_is_found_before_anything_is_touched(
    stored, live, message, carry, put_back
):
    def make(tensor):
        model, state = nn.Linear(2, 2), TrainState()
        state.add_models({"main": model})
        state.add_object("it", buffer(tensor))
        return model, state

    (_, state), (model, resumed) = make(stored()), make(live())
    old = model.weight.detach().clone()
    with pytest.raises(StateMismatchError, match=f"extra/it/it: {message}"):
        put_back(resumed, carry(state.capture()))
    assert model.weight.equal(old)


def test_the_extra_state_of_a_registered_module_may_have_another_shape(carry, put_back):
    class Counting(nn.Linear):
        def get_extra_state(self):
            return self.seen

        def set_extra_state(self, state):
            self.seen = state

    def make(count):
        module, state = Counting(2, 2), TrainState()
        module.seen = torch.arange(count)
        state.add_object("it", module)
        return module, state

    (_, state), (module, resumed) = make(3), make(7)
    put_back(resumed, carry(state.capture()))
    assert module.seen.tolist() == [0, 1, 2]


def test_a_registered_module_whose_sparse_buffers_share_their_values_comes_back(carry, put_back):
    def make(scale):
        module, state = nn.Module(), TrainState()
        indices, values = torch.tensor([[0, 2]]), torch.ones(2) * scale
        module.register_buffer("values", values)
        module.register_buffer("it", torch.sparse_coo_tensor(indices, values, (3,), is_coalesced=True))
        state.add_object("it", module)
        return module, state

    (_, state), (module, resumed) = make(2), make(1)
    put_back(resumed, carry(state.capture()))
    assert module.it.to_dense().tolist() == [2, 0, 2]


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
