"""Bugs that resumed runs of other projects had, as far as no other test is named after them (docs/promises.md)."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from gradient import resumable
from gradient.state import TrainState


def state_of(model, **parts):
    state = TrainState()
    state.add_models({"main": model})
    for name, part in parts.items():
        if isinstance(part, torch.optim.Optimizer):
            state.add_optimizers({name: part})
        elif isinstance(part, nn.Module):
            state.add_object(name, part)
        else:
            state.add_dataloader(name, part)
    return state


def drawn():
    return random.random(), torch.rand(3).tolist()


@pytest.mark.parametrize("touched", ["length", "iterator", "begun", "finished"])
def test_a_loader_that_was_looked_at_before_the_restore_still_goes_on_where_it_was(touched):
    # lightning#20550: whoever asked how many batches there will be lost the loader's position.
    def made(**settings):
        return resumable(DataLoader(torch.arange(12), 2, shuffle=True, **settings), seed=5)

    whole = [batch.tolist() for batch in made()]
    first = made()
    batches = iter(first)
    for _ in range(3):
        next(batches)
    loader = made()
    if touched == "length":
        assert len(loader) == 6
    elif touched == "iterator":
        iter(loader)
    elif touched == "begun":
        next(iter(loader))
    else:
        list(loader)
    loader.load_state_dict(first.state_dict())
    assert len(loader) == 6
    assert [batch.tolist() for batch in loader] == whole[3:]


def test_generators_go_on_after_a_commit_between_two_epochs(carry, put_back):
    # transformers#17032: with a save at each epoch's end the generators were not restored.
    model, loader = nn.Linear(1, 1), resumable(DataLoader(torch.arange(4), 2, shuffle=True))
    list(loader)
    drawn()
    carried = carry(state_of(model, main=loader).capture())
    expected = drawn(), [batch.tolist() for batch in loader]
    other = resumable(DataLoader(torch.arange(4), 2, shuffle=True))
    drawn()
    put_back(state_of(nn.Linear(1, 1), main=other), carried)
    assert (drawn(), [batch.tolist() for batch in other]) == expected


def test_average_and_weights_come_back_each_as_itself_with_the_average_s_counter(carry, put_back):
    # lightly-train#892, ace#819, YOLOX#1318, schnetpack#785: the average took the weights' place, or counted anew.
    def made():
        model = nn.Linear(3, 2)
        rule = torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
        return model, torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=rule)

    model, average = made()
    for _ in range(3):
        with torch.no_grad():
            model.weight.add_(1)
        average.update_parameters(model)
    carried = carry(state_of(model, ema=average).capture())
    other, resumed = made()
    put_back(state_of(other, ema=resumed), carried)
    assert resumed.n_averaged == average.n_averaged == 3
    assert other.weight.equal(model.weight)
    assert resumed.module.weight.equal(average.module.weight)
    assert not other.weight.equal(resumed.module.weight)
    average.update_parameters(model)
    resumed.update_parameters(other)
    assert resumed.module.weight.equal(average.module.weight)


def test_moments_follow_their_parameters_and_not_their_order(carry, put_back):
    # pytorch PR#105958: torch itself gives an optimizer's state back by position.
    def made(order):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        parameters = dict(model.named_parameters())
        return model, torch.optim.Adam([parameters[name] for name in order], lr=0.1)

    def train(model, optimizer, step):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    model, optimizer = made(names)
    train(model, optimizer, 1)
    carried = carry(state_of(model, main=optimizer).capture())
    other, resumed = made(names[::-1])
    put_back(state_of(other, main=resumed), carried)
    for pair in ((model, optimizer), (other, resumed)):
        train(*pair, 2)
    for name, parameter in other.named_parameters():
        twin = model.get_parameter(name)
        assert parameter.equal(twin)
        assert resumed.state[parameter]["exp_avg_sq"].equal(optimizer.state[twin]["exp_avg_sq"])
