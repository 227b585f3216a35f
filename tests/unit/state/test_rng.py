"""Random numbers after a restore are those that would have been drawn."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from gradient.errors import InvalidInputError, StateMismatchError
from gradient.state import TrainState, rng


def draw():
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(3).tolist(),
        torch.randn(5).tolist(),
    ]


def test_every_global_generator_goes_on_where_it_was(carry, put_back):
    # An odd number of normal draws leaves half a pair behind in Python's and NumPy's generators, and torch has its own.
    random.gauss(0, 1)
    np.random.randn()
    torch.randn(1)
    carried = carry(TrainState().capture())
    expected = draw()
    assert draw() != expected
    put_back(TrainState(), carried)
    assert draw() == expected


def test_the_sections_are_those_of_the_format():
    assert list(TrainState().capture().sections["rng"]) == ["python", "numpy", "torch.cpu"]


GENERATORS = {
    "torch": lambda seed: torch.Generator().manual_seed(seed),
    "PCG64": np.random.default_rng,
    "MT19937": lambda seed: np.random.Generator(np.random.MT19937(seed)),
    "Philox": lambda seed: np.random.Generator(np.random.Philox(seed)),
    "SFC64": lambda seed: np.random.Generator(np.random.SFC64(seed)),
    "RandomState": np.random.RandomState,
    "Random": random.Random,
}


def numbers(generator):
    if isinstance(generator, torch.Generator):
        return torch.rand(4, generator=generator).tolist()
    if isinstance(generator, random.Random):
        return [generator.gauss(0, 1) for _ in range(3)]
    return (
        [generator.normal() for _ in range(3)] + generator.integers(0, 9, 3).tolist()
        if hasattr(generator, "integers")
        else generator.rand(3).tolist()
    )


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_registered_generator_goes_on_where_it_was(kind, carry, put_back):
    generator, other = GENERATORS[kind](1), GENERATORS[kind](2)
    numbers(generator)
    state, resumed = TrainState(), TrainState()
    state.add_generator("mine", generator)
    resumed.add_generator("mine", other)
    carried = carry(state.capture())
    expected = numbers(generator)
    put_back(resumed, carried)
    assert numbers(other) == expected


@pytest.mark.parametrize("kind", ["torch", "PCG64", "RandomState", "Random", "Philox"])
def test_a_generator_of_another_kind_is_a_mismatch(kind, carry, put_back):
    state, resumed = TrainState(), TrainState()
    state.add_generator("mine", GENERATORS["MT19937"](1))
    resumed.add_generator("mine", GENERATORS[kind](1))
    with pytest.raises(StateMismatchError, match="rng/mine"):
        put_back(resumed, carry(state.capture()))


def test_another_global_bit_generator_is_a_mismatch(carry, put_back):
    carried = carry(TrainState().capture())
    old = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(1))
        with pytest.raises(StateMismatchError, match="MT19937 in the commit, PCG64 here"):
            put_back(TrainState(), carried)
    finally:
        np.random.set_bit_generator(old)


@pytest.mark.parametrize("name", ["python", "numpy", "torch.cpu", "torch.cuda.0"])
def test_a_registered_generator_can_not_take_a_global_one_s_name(name):
    with pytest.raises(InvalidInputError, match="captured already"):
        TrainState().add_generator(name, random.Random(1))


@pytest.mark.parametrize("generator", [random.SystemRandom(), random, 3, np.random.PCG64(1)])
def test_what_has_no_state_or_is_no_generator_is_refused(generator):
    with pytest.raises(InvalidInputError, match="rng/mine"):
        TrainState().add_generator("mine", generator)


def test_a_second_generator_of_one_name_takes_the_place_of_the_first(carry):
    state = TrainState()
    state.add_generator("mine", random.Random(1))
    state.add_generator("mine", random.Random(2))
    carried = carry(state.capture())
    other = TrainState()
    other.add_generator("mine", random.Random(2))
    assert repr(carried.component("rng", "mine")) == repr(carry(other.capture()).component("rng", "mine"))


def test_the_random_numbers_of_a_device_that_is_not_here_are_kept(carry, put_back):
    captured = TrainState().capture()
    state = torch.arange(16, dtype=torch.uint8)
    captured.sections["rng"]["torch.cuda.3"] = rng.KeptStream("torch.cuda.3", state).capture(_capture())
    resumed = TrainState()
    plan = put_back(resumed, carry(captured))
    assert any("torch.cuda.3" in message for message in plan.messages)
    again = carry(resumed.capture())
    assert bytes(again.component("rng", "torch.cuda.3")["value"].bytes()) == bytes(range(16))
    put_back(resumed, carry(TrainState().capture()))
    assert "torch.cuda.3" not in resumed.capture().sections["rng"]


def test_a_getter_that_draws_is_followed_by_what_comes_after_its_draw(carry, put_back):
    state = TrainState()
    state.add_external("noise", random.random, lambda value: None)
    carried = carry(state.capture())
    expected = draw()
    put_back(state, carried)
    assert draw() == expected


def test_a_setter_that_draws_does_not_move_the_random_numbers(carry, put_back):
    state = TrainState()
    state.add_external("noise", lambda: 1, lambda value: draw())
    carried = carry(state.capture())
    expected = draw()
    put_back(state, carried)
    assert draw() == expected


def test_one_seed_seeds_all_three():
    state = TrainState()
    state.reset_seed(2**40 + 5)
    first = draw()
    state.reset_seed(2**40 + 5)
    assert draw() == first
    state.reset_seed(6)
    assert draw() != first


@pytest.mark.parametrize("seed", [-1, 1.5, None])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(InvalidInputError, match="a seed"):
        TrainState().reset_seed(seed)


def _capture():
    from gradient.state.names import ModelNames
    from gradient.state.part import Capture

    return Capture(ModelNames({}))
