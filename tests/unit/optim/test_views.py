"""`optimizer.state` of a wrapped optimizer: a dict to whoever asks, and what is assigned is kept coded."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn, optim

from gradient.coded import Coded
from gradient.optim import BF16Codec, ConfigurablePolicy, FP16Codec, wrap


@pytest.fixture
def weight():
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(64, 64))


@pytest.fixture
def bias():
    return nn.Parameter(torch.zeros(64))


@pytest.fixture
def optimizer(weight, bias):
    made = wrap(optim.AdamW([weight, bias]))
    weight.grad, bias.grad = torch.randn(64, 64), torch.ones(64)
    made.step()
    return made


def test_it_looks_like_the_state_of_an_unwrapped_one(optimizer, weight, bias):
    state = optimizer.state
    assert isinstance(state, dict) and isinstance(state[weight], dict)
    assert list(state) == [weight, bias] == list(reversed(list(reversed(state)))) and len(state) == 2
    assert weight in state and nn.Parameter(torch.ones(1)) not in state
    own = state[weight]
    assert list(own) == list(own.keys()) == ["step", "exp_avg", "exp_avg_sq"] and len(own) == 3
    assert "exp_avg" in own and "max_exp_avg_sq" not in own and bool(own)
    assert {key: value.shape for key, value in own.items()} == {
        "step": torch.Size([]),
        "exp_avg": torch.Size([64, 64]),
        "exp_avg_sq": torch.Size([64, 64]),
    }
    assert own["exp_avg"].dtype == torch.float32 and float(own["step"]) == 1
    assert own.get("nothing") is None and own.get("nothing", 5) == 5
    assert [type(value) for value in own.values()] == [torch.Tensor] * 3
    assert "exp_avg" in repr(own) and "2 parameters" in repr(state)
    with pytest.raises(KeyError):
        own["nothing"]


def test_a_parameter_that_is_asked_for_first_has_an_empty_state_as_with_torch(optimizer):
    other = nn.Parameter(torch.ones(3))
    assert optimizer.state.get(other) is None and other not in optimizer.state
    assert optimizer.state[other] == {} and other in optimizer.state
    optimizer.state[other]["mine"] = 5
    assert optimizer.state[other] == {"mine": 5}


def test_what_is_read_of_codes_is_a_copy_and_what_is_in_full_is_the_tensor_itself(optimizer, weight, bias):
    own = optimizer.state[weight]
    before = own["exp_avg"]
    own["exp_avg"].zero_()
    assert own["exp_avg"].equal(before)
    optimizer.state[bias]["exp_avg"].fill_(2.0)
    assert optimizer.state[bias]["exp_avg"].eq(2.0).all()


@pytest.mark.parametrize("way", ["key", "update", "setdefault", "or", "whole"])
def test_what_is_assigned_is_coded_as_the_policy_says(optimizer, weight, way):
    values = torch.full((64, 64), 0.25)
    own = optimizer.state[weight]
    if way == "key":
        own["exp_avg"] = values
    elif way == "update":
        own.update(exp_avg=values)
    elif way == "setdefault":
        del own["exp_avg"]
        assert "exp_avg" not in own and len(own) == 2
        assert own.setdefault("exp_avg", values).equal(values)
    elif way == "or":
        own |= {"exp_avg": values}
    else:
        optimizer.state[weight] = {"step": torch.tensor(4.0), "exp_avg": values, "exp_avg_sq": values}
        assert int(own["step"]) == 4
    assert isinstance(optimizer.store.entries[weight]["exp_avg"], Coded)
    assert own["exp_avg"].equal(values)
    before = weight.detach().clone()
    weight.grad = torch.zeros(64, 64)
    optimizer.param_groups[0].update(weight_decay=0.0, lr=1.0)
    optimizer.step()
    # The kernels go on from it.
    assert bool((weight < before).all()) and float(own["step"]) == (5 if way == "whole" else 2)


def test_the_number_of_steps_can_be_assigned(optimizer, weight):
    optimizer.state[weight]["step"] = torch.tensor(10.0)
    weight.grad = torch.ones(64, 64)
    optimizer.step()
    assert float(optimizer.state[weight]["step"]) == 11 and optimizer.state[weight]["step"].dtype == torch.float32


@pytest.mark.parametrize("way", ["del", "pop", "popitem", "clear one", "clear all"])
def test_state_that_is_dropped_begins_anew(optimizer, weight, bias, way):
    if way == "del":
        del optimizer.state[weight]
    elif way == "pop":
        expected = optimizer.state[weight]["exp_avg"]
        taken = optimizer.state.pop(weight)
        assert list(taken) == ["step", "exp_avg", "exp_avg_sq"] and taken["exp_avg"].equal(expected)
        assert optimizer.state.pop(weight, None) is None
        with pytest.raises(KeyError):
            optimizer.state.pop(weight)
    elif way == "popitem":
        optimizer.state[weight] = optimizer.state.pop(weight)
        param, taken = optimizer.state.popitem()
        assert param is weight and len(taken) == 3
    elif way == "clear one":
        optimizer.state[weight].clear()
    else:
        optimizer.state.clear()
        assert len(optimizer.state) == 0
    assert not optimizer.state.get(weight)
    with pytest.raises(KeyError):
        del optimizer.state[nn.Parameter(torch.ones(1))]
    weight.grad, bias.grad = torch.ones(64, 64), torch.ones(64)
    optimizer.step()
    assert float(optimizer.state[weight]["step"]) == 1
    assert float(optimizer.state[bias]["step"]) == (1 if way == "clear all" else 2)


def test_copies_are_plain_and_in_full(optimizer, weight):
    own = optimizer.state[weight]
    expected = {key: value.clone() for key, value in own.items()}
    copies = [own.copy(), copy.copy(own), copy.deepcopy(own), pickle.loads(pickle.dumps(own)), own | {}, {} | own,
              {**own}, dict(own)]  # fmt: skip
    weight.grad = torch.ones(64, 64)
    optimizer.step()
    for found in copies:
        assert isinstance(found, dict) and type(found) is not type(own)
        assert list(found) == list(expected)
        assert all(found[key].equal(value) for key, value in expected.items())
    assert type(optimizer.state.copy()) is dict


def test_a_deep_copy_of_all_state_has_codes_of_its_own(optimizer, weight):
    own, made = copy.deepcopy((weight, optimizer.state))
    assert made is not optimizer.state and made[own]["exp_avg"].equal(optimizer.state[weight]["exp_avg"])
    weight.grad = torch.ones(64, 64)
    optimizer.step()
    assert not made[own]["exp_avg"].equal(optimizer.state[weight]["exp_avg"])


def test_memory_is_codes_and_scales_and_what_is_in_full(optimizer, weight, bias):
    store = optimizer.store
    each, own = 64 * 64, 64
    expected = 2 * (each + each // 64 * 4) + 2 * own * 4 + 2 * 8
    assert store.get_memory_usage() == expected and type(store.get_memory_usage()) is int
    stats = store.stats()
    assert set(stats) == {"exp_avg", "exp_avg_sq"}
    assert (stats["exp_avg"].num_tensors, stats["exp_avg"].num_coded) == (2, 1)
    assert stats["exp_avg"].bytes_before == 4 * (each + own)
    assert stats["exp_avg"].bytes_after == each + each // 64 * 4 + 4 * own
    assert stats["exp_avg"].error is None
    unused = nn.Parameter(torch.ones(3))
    assert optimizer.state[unused] == {} and store.get_memory_usage() == expected


def test_memory_of_half_precision_is_two_bytes_an_element():
    weight = nn.Parameter(torch.randn(64, 64))
    optimizer = wrap(optim.RMSprop([weight]), ConfigurablePolicy({}, BF16Codec()))
    weight.grad = torch.ones(64, 64)
    optimizer.step()
    assert optimizer.store.get_memory_usage() == 2 * 64 * 64 + weight.element_size()
    assert optimizer.store.stats()["square_avg"].bytes_after == 2 * 64 * 64


def test_the_store_gives_and_takes_states_as_torch_optstate_has_it(optimizer, weight, bias):
    store = optimizer.store
    states = store.materialize_batch([weight, bias], ["cpu", "cpu"])
    assert states[0]["exp_avg"].equal(store.materialize(weight)["exp_avg"])
    states[0]["exp_avg"] *= 2
    store.commit_batch([weight, bias], states, [{"exp_avg": FP16Codec()}, {}])
    assert store.entries[weight]["exp_avg"].kind == "float16"
    assert optimizer.state[weight]["exp_avg"].equal(states[0]["exp_avg"].half().float())
    weight.grad = bias.grad = None
    weight.grad = torch.ones(64, 64)
    optimizer.step()
    assert float(optimizer.state[weight]["step"]) == 2
