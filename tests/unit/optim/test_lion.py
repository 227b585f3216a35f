"""Lion: by its formula, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradient.errors import InvalidInputError
from gradient.optim import Lion


@pytest.mark.parametrize("maximize", [False, True])
def test_steps_are_those_of_the_paper(maximize):
    torch.manual_seed(0)
    start = torch.randn(5, 7, dtype=torch.float64)
    weight = nn.Parameter(start.clone())
    optimizer = Lion([weight], lr=0.01, betas=(0.8, 0.95), weight_decay=0.1, maximize=maximize)
    expected, momentum = start.clone(), torch.zeros_like(start)
    for _ in range(20):
        gradient = torch.randn_like(start)
        weight.grad = gradient.clone()
        optimizer.step()
        up = -gradient if maximize else gradient
        expected = expected - 0.01 * ((0.8 * momentum + 0.2 * up).sign() + 0.1 * expected)
        momentum = 0.95 * momentum + 0.05 * up
        assert weight.grad.equal(gradient)
    torch.testing.assert_close(weight.detach(), expected)
    torch.testing.assert_close(optimizer.state[weight]["exp_avg"], momentum)


def test_a_closure_is_called_with_gradients_and_its_loss_returned():
    weight = nn.Parameter(torch.ones(3))
    optimizer = Lion([weight], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure)) == 3
    assert weight.tolist() == [0.5] * 3


def test_what_has_no_gradient_is_left_alone_and_a_zero_one_moves_nothing_at_first():
    one, two = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = Lion([one, two])
    two.grad = torch.zeros(3)
    optimizer.step()
    assert one.eq(1).all() and two.eq(1).all() and one not in optimizer.state


@pytest.mark.parametrize("options", [{"lr": -1.0}, {"betas": (0.9, 1.0)}, {"betas": (-0.1, 0.9)}, {"weight_decay": -1}])
def test_numbers_that_are_out_of_range_are_refused_by_name(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        Lion([nn.Parameter(torch.ones(3))], **options)


def test_sparse_and_complex_gradients_are_refused():
    table = nn.Embedding(4, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(InvalidInputError, match="sparse"):
        Lion(table.parameters()).step()
    weight = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    weight.grad = torch.ones_like(weight)
    with pytest.raises(InvalidInputError, match="complex"):
        Lion([weight]).step()
