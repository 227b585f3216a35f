"""A gradient scaler comes back with its scale and its growth tracker, lazily made or not."""

from __future__ import annotations

import pytest
import torch
from torch import nn, optim

from gradient.errors import InvalidInputError, StateMismatchError
from gradient.state import TrainState


class Run:
    def __init__(self, **options):
        torch.manual_seed(3)
        self.model = nn.Linear(3, 1)
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3, **options)
        self.state = TrainState()
        self.state.add_models({"main": self.model})
        self.state.add_optimizers({"main": self.optimizer})
        self.state.add_scaler("main", self.scaler)

    def step(self, *, infinite=False):
        self.optimizer.zero_grad()
        loss = self.model(torch.ones(2, 3)).sum() * (float("inf") if infinite else 1.0)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.state_dict(), self.model.weight.tolist()


def test_a_scaler_goes_on_as_if_it_had_never_stopped(carry, put_back):
    run, other = Run(), Run()
    for _ in range(4):
        run.step()
    put_back(other.state, carry(run.state.capture()))
    assert other.scaler.state_dict() == run.scaler.state_dict()
    assert other.scaler.state_dict()["_growth_tracker"] == 1
    assert [other.step() for _ in range(4)] == [run.step() for _ in range(4)]


def test_a_scaler_that_is_in_use_goes_back(carry, put_back):
    run = Run()
    run.step()
    carried, expected = carry(run.state.capture()), run.scaler.state_dict()
    run.step(infinite=True)
    run.step()
    put_back(run.state, carried)
    assert run.scaler.state_dict() == expected


def test_a_disabled_scaler_comes_back_disabled(carry, put_back):
    put_back(Run(enabled=False).state, carry(Run(enabled=False).state.capture()))


@pytest.mark.parametrize("enabled", [False, True])
def test_an_enabled_scaler_and_a_disabled_one_do_not_fit(enabled, carry, put_back):
    with pytest.raises(StateMismatchError, match="scaler/main"):
        put_back(Run(enabled=enabled).state, carry(Run(enabled=not enabled).state.capture()))


def test_a_commit_between_unscale_and_update_is_refused():
    run = Run()
    run.scaler.scale(run.model(torch.ones(1, 3)).sum()).backward()
    run.scaler.unscale_(run.optimizer)
    run.scaler.step(run.optimizer)
    with pytest.raises(InvalidInputError, match="scaler/main") as caught:
        run.state.capture()
    assert caught.value.code == "scaler-in-flight"
    run.scaler.update()
    run.state.capture()


def test_a_step_that_the_scaler_skipped_leaves_no_gradients_in_flight():
    run = Run()
    run.step()
    run.step(infinite=True)
    assert run.model.weight.grad.isinf().all()
    run.state.capture()


def test_closing_an_older_state_leaves_the_newer_one_s_watch_on_the_scaler():
    run = Run()
    again = TrainState()
    again.add_optimizers({"main": run.optimizer})
    again.add_scaler("main", run.scaler)
    run.state.close()
    run.step()
    run.step(infinite=True)
    again.capture()
    again.close()


def test_closing_gives_the_scaler_its_own_step_back():
    run = Run()
    assert "step" in vars(run.scaler)
    run.state.close()
    assert "step" not in vars(run.scaler)
