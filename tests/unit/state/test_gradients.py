"""Gradients that belong to the state are never left out silently; those that a step has used are no such case."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn, optim

from gradient.errors import InvalidInputError
from gradient.state import TrainState


class Run:
    def __init__(self, **options):
        self.model = nn.Linear(3, 2)
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)
        self.state = TrainState(**options)
        self.state.add_models({"main": self.model})
        self.state.add_optimizers({"main": self.optimizer})

    def backward(self):
        self.model(torch.randn(4, 3)).square().sum().backward()


def refused(run):
    with pytest.raises(InvalidInputError) as caught:
        run.state.capture()
    assert caught.value.code == "gradients-in-flight"
    return str(caught.value)


def test_gradients_before_the_first_step_are_refused_by_name():
    run = Run()
    run.backward()
    assert "weight, bias" in refused(run)


def test_gradients_that_a_step_has_used_are_left_over():
    run = Run()
    run.backward()
    run.optimizer.step()
    gc.collect()
    run.state.capture()


def test_gradients_accumulated_on_top_of_used_ones_are_refused():
    run = Run()
    run.backward()
    run.optimizer.step()
    run.backward()
    refused(run)


def test_new_gradients_after_used_ones_are_refused():
    run = Run()
    for _ in range(5):
        run.optimizer.zero_grad()
        run.backward()
        run.optimizer.step()
        run.state.capture()
        run.optimizer.zero_grad()
        gc.collect()
        run.backward()
        refused(run)


def test_gradients_set_to_zero_instead_of_none_are_refused():
    run = Run()
    run.backward()
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=False)
    refused(run)


def test_a_step_of_one_optimizer_does_not_use_the_gradients_of_another():
    run = Run()
    other = nn.Linear(3, 2)
    second = optim.SGD(other.parameters(), lr=0.1)
    run.state.add_models({"other": other})
    run.state.add_optimizers({"other": second})
    run.backward()
    second.step()
    refused(run)
    run.optimizer.step()
    run.state.capture()


def test_never_asks_for_no_gradients():
    run = Run(grads="never")
    run.backward()
    run.state.capture()


def test_always_is_refused_until_gradients_can_be_stored():
    with pytest.raises(InvalidInputError, match="can not be committed yet"):
        TrainState(grads="always")


def test_gradients_of_parameters_without_an_optimizer_are_said_once():
    run = Run()
    extra = nn.Linear(1, 1)
    run.state.add_models({"extra": extra})
    extra(torch.ones(1)).backward()
    assert any("2 parameters have gradients" in note for note in run.state.capture().notes)
    assert not any("have gradients" in note for note in run.state.capture().notes)


def test_gradients_without_any_optimizer_are_refused():
    run = Run()
    run.backward()
    for grads in ("auto", "never"):
        state = TrainState(grads=grads)
        state.add_models({"main": run.model})
        if grads == "never":
            state.capture()
            continue
        with pytest.raises(InvalidInputError, match="2 parameters have gradients") as caught:
            state.capture()
        assert caught.value.code == "gradients-in-flight"
        assert 'grads="never"' in caught.value.hint
    run.optimizer.zero_grad()
    state.capture()


def test_a_restore_sets_every_gradient_to_none(carry, put_back):
    run = Run()
    carried = carry(run.state.capture())
    run.backward()
    put_back(run.state, carried)
    assert run.model.weight.grad is None
    run.state.capture()
    run.backward()
    refused(run)


def test_another_state_knows_what_the_last_step_used():
    run = Run()
    run.backward()
    run.optimizer.step()
    run.state.close()
    again = TrainState()
    again.add_models({"main": run.model})
    again.add_optimizers({"main": run.optimizer})
    again.capture()


def test_a_closed_state_watches_no_more():
    run = Run()
    run.state.close()
    assert not run.optimizer._optimizer_step_post_hooks
