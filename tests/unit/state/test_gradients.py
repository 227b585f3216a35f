"""Gradients that belong to the state come back bit for bit; those that a step has used are no such case."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from torch import nn, optim

from gradient._core import Alias
from gradient.errors import CorruptionError, InvalidInputError, StateMismatchError
from gradient.state import TrainState
from gradient.state.flatten import Flattener
from gradient.state.tensors import raw


class Run:
    def __init__(self, **options):
        self.model = nn.Linear(3, 2)
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)
        self.state = TrainState(**options)
        self.state.add_models({"main": self.model})
        self.state.add_optimizers({"main": self.optimizer})

    def backward(self):
        self.model(torch.randn(4, 3)).square().sum().backward()


def held(run):
    """Names of the gradients that a commit would hold now, by model."""
    grads = run.state.capture().sections.get("grads", {})
    return {model: sorted(mapping["tensors"]) for model, mapping in grads.items()}


BOTH = {"main": ["bias", "weight"]}


def test_gradients_before_the_first_step_are_held():
    run = Run()
    assert held(run) == {}
    run.backward()
    assert held(run) == BOTH


def test_gradients_that_a_step_has_used_are_left_over():
    run = Run()
    run.backward()
    run.optimizer.step()
    gc.collect()
    assert held(run) == {}


def test_gradients_accumulated_on_top_of_used_ones_are_held():
    run = Run()
    run.backward()
    run.optimizer.step()
    run.backward()
    assert held(run) == BOTH


def test_new_gradients_after_used_ones_are_held():
    run = Run()
    for _ in range(5):
        run.optimizer.zero_grad()
        run.backward()
        run.optimizer.step()
        assert held(run) == {}
        run.optimizer.zero_grad()
        gc.collect()
        run.backward()
        assert held(run) == BOTH


def test_gradients_set_to_zero_instead_of_none_are_held():
    run = Run()
    run.backward()
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=False)
    assert held(run) == BOTH


def test_a_step_of_one_optimizer_does_not_use_the_gradients_of_another():
    run = Run()
    other = nn.Linear(3, 2)
    second = optim.SGD(other.parameters(), lr=0.1)
    run.state.add_models({"other": other})
    run.state.add_optimizers({"other": second})
    run.backward()
    second.step()
    assert held(run) == BOTH
    run.optimizer.step()
    assert held(run) == {}


def test_never_holds_none_and_always_all():
    run = Run(grads="never")
    run.backward()
    assert held(run) == {}
    run = Run(grads="always")
    run.backward()
    run.optimizer.step()
    assert held(run) == BOTH


def test_gradients_that_no_optimizer_can_answer_for_are_held():
    run = Run()
    extra = nn.Linear(1, 1)
    run.state.add_models({"extra": extra})
    extra(torch.ones(1)).backward()
    run.backward()
    run.optimizer.step()
    assert held(run) == {"extra": ["bias", "weight"]}
    state = TrainState()
    state.add_models({"main": run.model})
    assert list(state.capture().sections["grads"]["main"]["tensors"]) == ["weight", "bias"]


def test_a_gradient_that_one_of_two_optimizers_has_not_used_is_held():
    for first in (True, False):
        run = Run()
        second = optim.SGD(run.model.parameters(), lr=0.1)
        run.state.add_optimizers({"a" if first else "z": second})
        run.backward()
        run.optimizer.step()
        assert held(run) == BOTH


@pytest.mark.parametrize("grads", ["auto", "always"])
def test_a_gradient_in_flight_of_a_parameter_without_model_is_refused_by_name(grads):
    run = Run(grads=grads)
    loose = nn.Parameter(torch.ones(2))
    run.optimizer.add_param_group({"params": [loose]})
    run.state.capture()
    loose.sum().backward()
    with pytest.raises(InvalidInputError, match="main/1/0") as caught:
        run.state.capture()
    assert caught.value.code == "gradients-in-flight"
    assert "attach the model" in caught.value.hint


def test_gradients_come_back_bit_for_bit_and_are_accumulated_upon(carry, put_back):
    run, other = Run(), Run()
    run.backward()
    run.model.weight.grad[0, 0] = torch.tensor(0x7FC12345, dtype=torch.int32).view(torch.float32)
    run.model.weight.grad[0, 1] = -0.0
    carried = carry(run.state.capture())
    put_back(other.state, carried)
    assert other.model.weight.grad is not run.model.weight.grad
    for mine, theirs in zip(run.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine.grad.view(torch.int32), theirs.grad.view(torch.int32))
    assert held(other) == BOTH
    assert carry(other.state.capture()).root == carried.root
    for each in (run, other):
        torch.manual_seed(1)
        each.backward()
        each.optimizer.step()
    assert torch.equal(run.model.bias, other.model.bias)
    assert held(other) == {}


def test_only_the_parameters_with_a_gradient_have_one_after_a_restore(carry, put_back):
    run = Run()
    run.model.bias.sum().backward()
    assert held(run) == {"main": ["bias"]}
    carried = carry(run.state.capture())
    run.backward()
    put_back(run.state, carried)
    assert run.model.weight.grad is None
    assert torch.equal(run.model.bias.grad, torch.ones(2))


def test_a_tied_parameter_has_one_gradient(carry, put_back):
    model = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    model["b"].weight = model["a"].weight
    state = TrainState()
    state.add_models({"main": model})
    model["b"](torch.ones(2)).sum().backward()
    captured = state.capture()
    assert list(captured.sections["grads"]["main"]["tensors"]) == ["a.weight"]
    carried = carry(captured)
    model["a"].weight.grad = None
    put_back(state, carried)
    assert torch.equal(model["b"].weight.grad, torch.ones(2, 2))


def test_two_parameters_that_share_a_gradient_share_it_again(carry, put_back):
    model = nn.ParameterList([torch.zeros(3), torch.zeros(3)])
    state = TrainState()
    state.add_models({"main": model})
    model[0].grad = model[1].grad = torch.tensor([1.0, 2.0, 3.0])
    carried = carry(state.capture())
    model[0].grad = model[1].grad = None
    put_back(state, carried)
    assert model[0].grad is model[1].grad
    assert model[0].grad.tolist() == [1, 2, 3]


def test_a_gradient_of_another_shape_is_a_mismatch_and_nothing_is_touched(carry, put_back):
    run, other = Run(), Run()
    run.backward()
    carried = carry(run.state.capture())
    mapping = carried.component("grads", "main")
    mapping["tensors"]["bias"], mapping["tensors"]["nobody"] = mapping["tensors"]["weight"], mapping["tensors"]["bias"]
    before = other.model.weight.clone()

    def component(section, name):
        return mapping if section == "grads" else carried.component(section, name)

    with pytest.raises(StateMismatchError, match=r"grads/main/bias: float32 \[2, 3\] in the commit") as caught:
        other.state.plan(component, carried.available)
    assert caught.value.unexpected == ["grads/main/nobody"]
    assert other.model.weight.grad is None
    assert torch.equal(other.model.weight, before)


def test_a_restore_sets_every_gradient_to_none(carry, put_back):
    run = Run()
    carried = carry(run.state.capture())
    run.backward()
    put_back(run.state, carried)
    assert run.model.weight.grad is None
    assert held(run) == {}
    run.backward()
    assert held(run) == BOTH


def test_another_state_knows_what_the_last_step_used():
    run = Run()
    run.backward()
    run.optimizer.step()
    run.state.close()
    again = TrainState()
    again.add_models({"main": run.model})
    again.add_optimizers({"main": run.optimizer})
    assert "grads" not in again.capture().sections


def test_a_closed_state_watches_no_more():
    run = Run()
    run.state.close()
    assert not run.optimizer._optimizer_step_post_hooks


def everything(run):
    """Every bit that a restore may touch, and which objects hold them."""
    tensors_ = [*run.model.parameters(), *(parameter.grad for parameter in run.model.parameters())]
    tensors_ += [value for held in run.optimizer.state.values() for value in held.values()]
    groups = [{**group, "params": list(map(id, group["params"]))} for group in run.optimizer.param_groups]
    return [(id(tensor), tensor._version, bytes(raw(tensor))) for tensor in tensors_], repr(groups)


def full_run():
    run = Run()
    run.optimizer.param_groups[0]["momentum"] = 0.9
    run.backward()
    run.optimizer.step()
    run.backward()
    return run


def quantized():
    return torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "gradient",
    [
        pytest.param(lambda: torch.ones(2, 3).double().to_sparse(), id="dtype"),
        pytest.param(lambda: torch.ones(3, 2).to_sparse(), id="shape"),
        pytest.param(lambda: torch.ones(2, 3).to_sparse_csr(), id="layout"),
        pytest.param(lambda: torch.ones(2, 3).to_mkldnn(), id="oneDNN"),
        pytest.param(quantized, id="quantized"),
        pytest.param(lambda: torch.ones(2, 3, dtype=torch.complex64).conj(), id="conjugated"),
        pytest.param(lambda: torch._neg_view(torch.ones(2, 3).double()), id="dtype of a negated one"),
        pytest.param(lambda: torch._efficientzerotensor((2, 4)), id="zeros of another shape"),
        pytest.param(lambda: torch.nested.nested_tensor([torch.ones(2, 3)] * 2), id="nested"),
        pytest.param(lambda: torch.nested.nested_tensor([torch.ones(2, 3)] * 2, layout=torch.jagged), id="jagged"),
        pytest.param(lambda: np.ones((2, 3), np.float32), id="array"),
    ],
)
def test_a_gradient_that_torch_does_not_take_is_a_mismatch_before_anything_is_touched(gradient, carry):
    captured = full_run().state.capture()
    node = Flattener("grads", "main").value(gradient(), ("tensors", "weight"))
    captured.sections["grads"]["main"]["tensors"]["weight"] = node
    carried = carry(captured)
    run = full_run()
    before = everything(run)
    with pytest.raises(StateMismatchError, match=r"grads/main/weight: .* in the commit, float32 .* here"):
        run.state.plan(carried.component, carried.available)
    assert everything(run) == before


def test_a_shared_gradient_of_another_shape_is_a_mismatch_before_anything_is_touched(carry):
    captured = full_run().state.capture()
    captured.sections["grads"]["main"]["tensors"]["bias"] = Alias(("tensors", "weight"))
    carried = carry(captured)
    run = full_run()
    before = everything(run)
    with pytest.raises(StateMismatchError, match=r"grads/main/bias: float32 \[2, 3\] in the commit") as caught:
        run.state.plan(carried.component, carried.available)
    assert len(caught.value.changed) == 1
    assert everything(run) == before


def test_a_gradient_that_is_no_tensor_is_damage_before_anything_is_touched(carry):
    captured = full_run().state.capture()
    captured.sections["grads"]["main"]["tensors"]["weight"] = 3
    carried = carry(captured)
    run = full_run()
    before = everything(run)
    with pytest.raises(CorruptionError, match="grads/main/weight is no tensor"):
        run.state.plan(carried.component, carried.available)
    assert everything(run) == before


def test_a_gradient_shared_with_a_parameter_that_is_not_here_comes_back(carry, put_back):
    class Two(nn.Module):
        def __init__(self, *names):
            super().__init__()
            for name in names:
                setattr(self, name, nn.Parameter(torch.zeros(3)))

    def state_of(model):
        state = TrainState()
        state.add_models({"main": model})
        return state

    both, one = Two("a", "b"), Two("b")
    both.a.grad = both.b.grad = torch.tensor([1.0, 2.0, 3.0])
    put_back(state_of(one), carry(state_of(both).capture()), strict=False)
    assert one.b.grad.tolist() == [1, 2, 3]


class Ragged(nn.Module):
    def __init__(self, offsets=(0, 2, 6), **options):
        super().__init__()
        values = torch.randn(6, 3, **options)
        self.it = nn.Parameter(torch.nested.nested_tensor_from_jagged(values, torch.tensor(offsets)))
        self.state = TrainState()
        self.state.add_models({"main": self})

    def backward(self):
        (self.it * self.it).sum().backward()
        return self


def test_the_gradient_of_a_jagged_parameter_comes_back_and_can_be_added_to_it(carry, put_back):
    run, other = Ragged().backward(), Ragged(offsets=(0, 5, 6))
    put_back(other.state, carry(run.state.capture()))
    assert torch.equal(other.it.grad._values, run.it.grad._values)
    assert torch.equal(other.it.grad.offsets(), run.it.grad.offsets())
    # Torch adds only what it knows to have the same rows.
    assert torch.equal((other.it + other.it.grad)._values, (run.it + run.it.grad)._values)


@pytest.mark.parametrize(
    ("other", "only"),
    [
        pytest.param(lambda: Ragged(offsets=(0, 3, 6)), "grads", id="offsets"),
        pytest.param(lambda: Ragged(offsets=(0, 3, 5, 6)), "grads", id="rows"),
        pytest.param(lambda: Ragged(dtype=torch.float64), "grads", id="dtype"),
    ],
)
def test_the_gradient_of_a_jagged_parameter_with_other_rows_is_a_mismatch(other, only, carry):
    carried = carry(Ragged().backward().state.capture())
    run = other().backward()
    before = run.it.grad
    with pytest.raises(StateMismatchError, match="grads/main/it: rows of other lengths"):
        run.state.plan(carried.component, carried.available, only=[only])
    assert run.it.grad is before


@pytest.mark.filterwarnings("ignore")
def test_a_gradient_that_only_autograd_can_set_is_refused_by_name():
    model = nn.Module()
    model.it = nn.Parameter(torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)]))
    state = TrainState()
    state.add_models({"main": model})
    state.capture()
    torch.nested.to_padded_tensor(model.it * 2, 0.0).sum().backward()
    with pytest.raises(InvalidInputError, match="grads/main/it: torch sets no gradient that is nested") as caught:
        state.capture()
    assert "optimizer.step()" in caught.value.hint
