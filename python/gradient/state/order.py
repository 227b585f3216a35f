"""The order of an epoch: what a loader's samplers give, and the generators that they draw from."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from gradient.errors import InvalidInputError, StateMismatchError
from gradient.state.rng import RegisteredStream
from gradient.state.seeded import BatchKey, Globals, plain_index

_OWN = (BatchSampler, RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_NESTED_MAX = 16


class Order:
    """The keys of an epoch's batches; `iter` gives them from the position that was set.

    A sampler that draws from the global generators gets others, seeded for the epoch; one with generators of its own
    draws from these, and they are part of the state.

    Args:
        loader: The script's loader.
        seed: The seed for samplers without a generator.

    Raises:
        InvalidInputError: A sampler keeps a position of its own.
    """

    def __init__(self, loader: DataLoader[Any], *, seed: int) -> None:
        self.batched = loader.batch_sampler is not None
        self._sampler: Any = loader.batch_sampler if self.batched else loader.sampler
        self._seed = seed
        self._found = _walk(self._sampler)
        for path, sampler in self._found.items():
            if hasattr(sampler, "state_dict"):
                raise InvalidInputError(
                    f"the {path} is {type(sampler).__name__}, which keeps a position of its own",
                    code="stateful-sampler",
                    hint="give the loader a sampler without state_dict: gradient.resumable keeps the position",
                )
        self._own = all(type(sampler) in _OWN for sampler in self._found.values())
        self._repeats = not self._own or any(_draws_twice(sampler) for sampler in self._found.values())
        self.epoch = 0
        self.skip = 0

    def generators(self) -> dict[str, Any]:
        """Give every generator that belongs to a sampler, by where it is; one that several have is given once."""
        found: dict[str, Any] = {}
        for path, sampler in self._found.items():
            for name, value in sorted(getattr(sampler, "__dict__", {}).items()):
                if isinstance(value, _GENERATORS) and all(value is not other for other in found.values()):
                    found[f"{path}.{name}"] = value
        return found

    def state(self) -> dict[str, Any]:
        """Give the state of these generators, and the epoch of samplers that are told it (`set_epoch`)."""
        state = {path: RegisteredStream(path, generator).get() for path, generator in self.generators().items()}
        told = {path: int(sampler.epoch) for path, sampler in self._found.items() if _is_told(sampler)}
        return {**state, **{f"{path}.epoch": epoch for path, epoch in told.items()}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take such a state back."""
        for path, generator in self.generators().items():
            RegisteredStream(path, generator).set(state[path])
        for path, sampler in self._found.items():
            if _is_told(sampler):
                sampler.set_epoch(state[f"{path}.epoch"])

    def facts(self) -> dict[str, Any]:
        """Say what decides how an epoch is cut into batches: the same for whoever resumes."""
        sampler = self._sampler
        batch_size = getattr(sampler, "batch_size", None) if self.batched else None
        return {
            "sampler": " of ".join(type(found).__name__ for found in self._found.values()),
            "batch_size": batch_size if isinstance(batch_size, int) else None,
            "drop_last": bool(getattr(sampler, "drop_last", False)),
            # Others may give fewer or more in another epoch, or not know.
            "batches_in_epoch": len(sampler) if self._own else None,
        }

    def __iter__(self) -> Iterator[BatchKey]:
        return self._keys(self.epoch, self.skip)

    def wind(self, epoch: int, batches: int) -> None:
        """Leave the samplers' generators as they are when so many batches of an epoch were drawn, and no more."""
        self.epoch, self.skip = epoch, batches
        for number, _ in enumerate(self._indices(epoch), 1):
            if number >= batches:
                break

    def _keys(self, epoch: int, skip: int) -> Iterator[BatchKey]:
        seen: Counter[Any] = Counter()
        number = 0
        for indices in self._indices(epoch):
            repeats = _count(indices if self.batched else [indices], seen) if self._repeats else None
            if number >= skip:
                yield BatchKey(epoch, number, indices, repeats)
            number += 1
        if number < skip:
            raise StateMismatchError(
                f"{skip} batches of epoch {epoch} were used already, and the sampler gives only {number} now",
                code="sampler-too-short",
                changed=[f"batches of epoch {epoch}: at least {skip} in the commit, {number} here"],
            )

    def _indices(self, epoch: int) -> Iterator[Any]:
        others = Globals("order", self._seed, epoch, torch_only=self._own)
        with others:
            drawn = iter(self._sampler)
        while True:
            with others:
                try:
                    indices = next(drawn)
                except StopIteration:
                    return
            yield indices


def _walk(sampler: Any) -> dict[str, Any]:
    """Give a sampler and those inside it, outermost first, by where they are."""
    found: dict[str, Any] = {}

    def walk(inner: Any, path: str) -> None:
        if any(inner is other for other in found.values()) or len(found) >= _NESTED_MAX:
            return
        found[path] = inner
        for name, value in sorted(getattr(inner, "__dict__", {}).items()):
            if isinstance(value, Sampler) or (name in ("sampler", "batch_sampler") and hasattr(value, "__iter__")):
                walk(value, f"{path}.{name}")

    walk(sampler, "sampler")
    return found


def _draws_twice(sampler: Any) -> bool:
    if type(sampler) is RandomSampler:
        return sampler.replacement or sampler.num_samples > len(sampler.data_source)
    return type(sampler) in (WeightedRandomSampler, SubsetRandomSampler)


def _is_told(sampler: Any) -> bool:
    return callable(getattr(sampler, "set_epoch", None)) and isinstance(getattr(sampler, "epoch", None), int)


def _count(indices: Any, seen: Counter[Any]) -> list[int]:
    repeats = []
    for index in indices:
        key = plain_index(index)
        repeats.append(seen[key])
        seen[key] += 1
    return repeats
