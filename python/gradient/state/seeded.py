"""Items and batches that are loaded under seeds of their own: which process loads them, and when, does not matter.

A seed is the start of a BLAKE2b hash over what the item is: `(seed, epoch, index, how often drawn before)`. It is part
of what a commit means; another derivation needs another `VERSION`.
"""

from __future__ import annotations

import contextlib
import hashlib
import operator
import random
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Subset, get_worker_info

from gradient.errors import InvalidInputError

VERSION = 1
"""Version of the seeds and of the state that `ResumableLoader.state_dict` gives."""


class BatchKey(NamedTuple):
    """What is to be loaded.

    Attributes:
        epoch: The epoch, from 0.
        number: The batch in it, from 0.
        indices: The indices of its items as the sampler gave them; one index where there are no batches.
        repeats: How often each index was drawn before in this epoch; None if no sampler here draws one twice.
    """

    epoch: int
    number: int
    indices: Any
    repeats: Sequence[int] | None


def digest(*facts: object) -> bytes:
    """Give 32 bytes for a seed; facts are integers, texts, bytes and tuples of these."""
    return hashlib.blake2b(repr(facts).encode(), digest_size=32, person=b"gradient data").digest()


def seed_globals(*facts: object) -> None:
    """Seed the global generators of Python, NumPy and torch (on the CPU) from facts."""
    made = digest(*facts)
    random.seed(_number(made[:8]))
    np.random.seed(_number(made[8:12]))
    # Not torch.manual_seed, which seeds the devices too.
    torch.default_generator.manual_seed(_number(made[16:24]))


def plain_index(index: Any) -> Any:
    """Give an index in the form that seeds are made from.

    Raises:
        InvalidInputError: It is no integer, text or bytes, and no sequence of these.
    """
    if type(index) in (int, str, bytes):
        return index
    if isinstance(index, tuple | list):
        return tuple(plain_index(part) for part in index)
    try:
        return operator.index(index)
    except TypeError:
        raise InvalidInputError(
            f"the sampler gave the index {index!r}: seeds are made of integers, texts, bytes and tuples of these",
            code="bad-index",
        ) from None


class Globals:
    """Other global generators than the script's, while a `with` block runs.

    Each block goes on where the last one stopped; the script's states come back after each.

    Args:
        facts: What the generators are seeded from before the first block.
        torch_only: Nothing in the blocks draws from Python's or NumPy's (to keep NumPy's takes 0.3 ms).
    """

    def __init__(self, *facts: object, torch_only: bool = False) -> None:
        self._facts = facts
        self._torch_only = torch_only
        self._inside: tuple[Any, ...] | None = None
        self._outside: tuple[Any, ...] = ()

    def __enter__(self) -> None:
        self._outside = _read(torch_only=self._torch_only)
        if self._inside is not None:
            _write(self._inside)
        elif self._torch_only:
            torch.default_generator.manual_seed(_number(digest(*self._facts)[16:24]))
        else:
            seed_globals(*self._facts)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside = _read(torch_only=self._torch_only)
        _write(self._outside)


class SeededItems:
    """A dataset of whole batches: loads and collates what a `BatchKey` names, under seeds of its own.

    Args:
        dataset: The map-style dataset.
        collate: Makes a batch of items.
        seed: The loader's seed.
        batched: Keys name several items; else one, which is not put into a list.
    """

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], *, seed: int, batched: bool) -> None:
        self.dataset = dataset
        self._collate = collate
        self._seed = seed
        self._batched = batched

    def __getitems__(self, key: BatchKey) -> Any:
        with _script_generators_kept():
            items = self._items(key)
            seed_globals("collate", self._seed, key.epoch, key.number)
            return self._collate(items)

    def _items(self, key: BatchKey) -> Any:
        if not self._batched:
            return self._item(key.epoch, key.indices, key.repeats[0] if key.repeats else 0)
        if loads_batches(self.dataset):
            seed_globals("batch", self._seed, key.epoch, key.number)
            return self.dataset.__getitems__(key.indices)
        repeats = key.repeats or [0] * len(key.indices)
        return [self._item(key.epoch, index, repeat) for index, repeat in zip(key.indices, repeats, strict=True)]

    def _item(self, epoch: int, index: Any, repeat: int) -> Any:
        seed_globals("item", self._seed, epoch, plain_index(index), repeat)
        return self.dataset[index]


def loads_batches(dataset: Any) -> bool:
    """Tell whether a dataset loads several items at once; a plain `Subset` does if what it is a part of does."""
    while type(dataset) is Subset:
        dataset = dataset.dataset
    return callable(getattr(dataset, "__getitems__", None))


class WorkerStart:
    """A `worker_init_fn` that finds the script's own dataset in `get_worker_info().dataset`."""

    def __init__(self, start: Callable[[int], object]) -> None:
        self._start = start

    def __call__(self, worker_id: int) -> None:
        """Start a worker as the script wants it."""
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, SeededItems):
            # Workers get no other say in it: the object is frozen.
            object.__setattr__(info, "dataset", info.dataset.dataset)
        self._start(worker_id)


@contextlib.contextmanager
def _script_generators_kept() -> Iterator[None]:
    if get_worker_info() is not None:
        # Nobody else draws from a worker's generators.
        yield
        return
    kept = _read(torch_only=False)
    try:
        yield
    finally:
        _write(kept)


def _read(*, torch_only: bool) -> tuple[Any, ...]:
    state = torch.default_generator.get_state()
    return (state,) if torch_only else (state, random.getstate(), np.random.get_state(legacy=False))


def _write(states: tuple[Any, ...]) -> None:
    torch.default_generator.set_state(states[0])
    if len(states) > 1:
        random.setstate(states[1])
        np.random.set_state(states[2])


def _number(made: bytes) -> int:
    return int.from_bytes(made, "little")
