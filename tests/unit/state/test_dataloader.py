"""A loader's position is part of the state; one that has none is refused and not silently left out."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from gradient import resumable
from gradient.errors import InvalidInputError, StateMismatchError
from gradient.state import TrainState


class Stateful:
    """A loader of the script's own: makes its iterator when it is asked for a state, as StatefulDataLoader does."""

    def __init__(self):
        self.position = 0
        self.iterator = None

    def state_dict(self):
        if self.iterator is None:
            self.iterator = iter(torch.randperm(4).tolist())
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position, self.iterator = state["position"], None


class StatefulTorch(Stateful, DataLoader):
    def __init__(self):
        DataLoader.__init__(self, list(range(4)))
        Stateful.__init__(self)


def with_loader(loader, name="main"):
    state = TrainState()
    state.add_dataloader(name, loader)
    return state


def test_a_bare_loader_is_refused_and_the_hint_says_resumable():
    loader = DataLoader([1, 2, 3])
    with pytest.raises(InvalidInputError, match="data/main: a DataLoader has no position") as caught:
        TrainState().add_dataloader("main", loader)
    assert caught.value.code == "dataloader-unsupported"
    assert "gradient.resumable(loader)" in caught.value.hint


def test_what_is_no_loader_at_all_is_refused():
    with pytest.raises(InvalidInputError, match="a list has no position") as caught:
        TrainState().add_dataloader("main", [1, 2])
    assert "resumable" not in caught.value.hint


def test_anything_with_a_state_comes_back(carry, put_back):
    loader, other = Stateful(), Stateful()
    loader.position = 3
    carried = carry(with_loader(loader).capture())
    assert carried.available["data"] == ["main"]
    put_back(with_loader(other), carried)
    assert other.position == 3


def test_an_iterator_that_is_made_late_does_not_move_the_restored_generator(carry, put_back):
    # Megatron-Bridge#5257: the generator was restored, then the loader's iterator was made and drew from it.
    loader = StatefulTorch()
    captured = with_loader(loader).capture()
    expected = torch.get_rng_state()
    carried = carry(captured)
    other = StatefulTorch()
    torch.manual_seed(99)
    put_back(with_loader(other), carried)
    other.state_dict()
    assert torch.equal(torch.get_rng_state(), expected)


def test_a_resumable_loader_comes_back(carry, put_back):
    loader, other = (resumable(DataLoader(list(range(20)), batch_size=2, shuffle=True)) for _ in range(2))
    taken = iter(loader)
    for _ in range(3):
        next(taken)
    carried = carry(with_loader(loader, "train").capture())
    put_back(with_loader(other, "train"), carried)
    assert carry(with_loader(other, "train").capture()).root == carried.root
    assert [batch.tolist() for batch in other] == [batch.tolist() for batch in taken]


def test_a_loader_with_other_settings_is_a_mismatch_before_anything_is_touched(carry, put_back):
    loader = resumable(DataLoader(list(range(20)), batch_size=2))
    next(iter(loader))
    carried = carry(with_loader(loader).capture())
    other = resumable(DataLoader(list(range(21)), batch_size=4, drop_last=True), seed=1)
    with pytest.raises(StateMismatchError, match="nothing was touched\n  data/main: seed 0") as caught:
        put_back(with_loader(other), carried)
    assert [line.rpartition(": ")[2] for line in caught.value.changed] == [
        "seed 0 in the commit, 1 here",
        "length 20 in the commit, 21 here",
        "batch_size 2 in the commit, 4 here",
        "drop_last False in the commit, True here",
        "batches_in_epoch 10 in the commit, 5 here",
    ]
    assert other.batches == 0


def test_two_loaders_that_draw_from_one_generator_are_refused():
    generator = torch.Generator()
    first, second = (resumable(DataLoader([1, 2], shuffle=True, generator=generator)) for _ in range(2))
    state = with_loader(first, "train")
    with pytest.raises(InvalidInputError, match="data/more and data/train draw from the same generator"):
        state.add_dataloader("more", second)
    # One that is not shuffled draws nothing.
    state.add_dataloader("validation", resumable(DataLoader([1, 2], generator=generator)))
