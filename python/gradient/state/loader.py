"""`gradient.resumable`: a data loader whose position is state, and whose data do not depend on who loads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from gradient.errors import InvalidInputError, StateMismatchError
from gradient.state.order import Order
from gradient.state.seeded import VERSION, SeededItems, WorkerStart, digest


def resumable(loader: DataLoader[Any], *, seed: int = 0) -> ResumableLoader:
    """Wrap a data loader over a map-style dataset, so that a run goes on from the very batch where it stopped.

    Batches, collate function, samplers, workers and prefetching stay as they are. What changes:

    - The position belongs to the loader and not to an iterator: `for batch in loader` goes on behind the last batch
      that was handed out, also after a `break`; after a whole epoch the next one begins. `end_epoch()` gives up the
      rest of an epoch.
    - Python, NumPy and torch (on the CPU) are seeded for each item from `seed`, the epoch and the item's index, so the
      same items come from any number of workers. The script's own generators do not notice.
    - Samplers without a generator draw from one made of `seed` and the epoch, not from the global ones.

    Args:
        loader: The loader; its own settings are not changed, and it is not iterated itself.
        seed: Not negative. Another seed gives other items, and another order where the samplers have no generator.

    Returns:
        The loader with a position, for `GradientEngine.attach(..., dataloader=...)`.

    Raises:
        InvalidInputError: It is no plain `DataLoader` over a map-style dataset (`loader-unsupported`), one of its
            samplers keeps a position (`stateful-sampler`), or the seed is no good (`bad-seed`).
    """
    return ResumableLoader(loader, seed=seed)


class ResumableLoader:
    """What `resumable` gives; other attributes are the wrapped loader's.

    Attributes:
        loader: The wrapped loader.
        seed: What the items are seeded from.
    """

    def __init__(self, loader: DataLoader[Any], *, seed: int = 0) -> None:
        _check(loader, seed)
        self.loader = loader
        self.seed = seed
        self._order = Order(loader, seed=seed)
        self._generator = torch.Generator()
        self._inner = self._over(loader)
        self._epoch = 0
        self._batches = 0
        self._began: dict[str, Any] | None = None
        self._running: Iterator[Any] | None = None
        self._live: _Batches | None = None

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to, from 0; a whole epoch ends when the loop over it does."""
        return self._epoch

    @property
    def batches(self) -> int:
        """Batches of this epoch that were handed out; those that workers have fetched ahead do not count."""
        return self._batches

    def __len__(self) -> int:
        """Batches in a whole epoch, as the wrapped loader says."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        """Give the batches that are left of this epoch. An older iterator can not be used any more."""
        self._live, self._running = _Batches(self), None
        return self._live

    def end_epoch(self) -> None:
        """Give up the rest of this epoch: a running loop ends, the next one begins the next epoch."""
        if self._began is not None:
            # Workers may have made the samplers draw ahead, how far depends on their number.
            self._order.set_state(self._began)
            if self._batches:
                self._order.wind(self._epoch, self._batches)
        if self._live is not None:
            self._live.over = True
        self._next_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Give the position: the epoch, the samplers' generators as it began, the batches handed out."""
        return {
            "version": VERSION,
            "seed": self.seed,
            "epoch": self._epoch,
            "batches": self._batches,
            "order": self._order.state() if self._began is None else self._began,
            "loader": self._facts(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position; the next batch comes from there, in a loop that is running too.

        Indices of batches that were handed out are skipped; their items are not loaded.

        Raises:
            StateMismatchError: Seed, batch size, length, `drop_last` or samplers are others; nothing was changed.
        """
        changed = self.differences(state)
        if changed:
            raise StateMismatchError(
                f"the position does not fit this loader: {'; '.join(changed)}",
                hint="make the loader as it was, or restore without it: engine.resume(ref, only=...)",
                changed=changed,
            )
        self._epoch, self._batches = state["epoch"], state["batches"]
        self._began = state["order"] if self._batches else None
        self._running = None
        if self._began is None:
            self._order.set_state(state["order"])

    def differences(self, state: Any) -> list[str]:
        """Say what of a position does not fit this loader; its generators may be stored ones, which are not read."""
        if not isinstance(state, dict) or state.get("version") != VERSION:
            return [f"no position of gradient.resumable, version {VERSION}, is in the commit"]
        ours, theirs = {"seed": self.seed, **self._facts()}, {"seed": state["seed"], **state["loader"]}
        found = [
            f"{name} {theirs.get(name)!r} in the commit, {value!r} here"
            for name, value in ours.items()
            if theirs.get(name) != value
        ]
        here, there = _kinds(self._order.state()), _kinds(state["order"])
        return found + [
            f"{path}: {there.get(path, 'nothing')} in the commit, {here.get(path, 'nothing')} here"
            for path in sorted({*here, *there})
            if here.get(path) != there.get(path)
        ]

    def generators(self) -> list[Any]:
        """Give the generators that its samplers draw from: no other loader may have one of them."""
        return list(self._order.generators().values())

    def __getattr__(self, name: str) -> Any:
        # Reached only for what is not here; while an object is being made, `loader` itself is not.
        if name.startswith("__") or name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __repr__(self) -> str:
        return f"ResumableLoader(epoch={self._epoch}, batches={self._batches}, seed={self.seed})"

    def take(self, batches: _Batches) -> Any:
        """Give the next batch to the iterator that is in use.

        Raises:
            InvalidInputError: A newer iterator took over (`iterator-replaced`).
        """
        if batches is not self._live:
            raise InvalidInputError(
                "a newer iterator of this loader took over: a resumable loader has one position",
                code="iterator-replaced",
                hint="wrap a loader for each loop that runs at the same time",
            )
        running = self._running
        if running is None:
            running = self._open()
        # What fails is not skipped: another try asks for the same batch.
        self._running = None
        try:
            batch = next(running)
        except StopIteration:
            batches.over = True
            self._next_epoch()
            raise
        self._running = running
        self._batches += 1
        return batch

    def _open(self) -> Iterator[Any]:
        if self._began is None:
            self._began = self._order.state()
        else:
            self._order.set_state(self._began)
        self._order.epoch, self._order.skip = self._epoch, self._batches
        # What torch seeds its workers from; every item has a seed of its own.
        self._generator.manual_seed(int.from_bytes(digest("workers", self.seed, self._epoch)[:7], "little"))
        return iter(self._inner)

    def _next_epoch(self) -> None:
        self._epoch, self._batches = self._epoch + 1, 0
        self._began = self._running = self._live = None

    def _facts(self) -> dict[str, Any]:
        try:
            length: int | None = len(self.loader.dataset)  # type: ignore[arg-type]  # Asked for here.
        except (TypeError, NotImplementedError):
            length = None
        return {"length": None if length is None else int(length), **self._order.facts()}

    def _over(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        items = SeededItems(loader.dataset, loader.collate_fn, seed=self.seed, batched=self._order.batched)
        settings: dict[str, Any] = {
            name: getattr(loader, name)
            for name in ("num_workers", "pin_memory", "timeout", "multiprocessing_context", "persistent_workers")
        }
        if loader.num_workers:
            settings["prefetch_factor"] = loader.prefetch_factor
        if loader.worker_init_fn is not None:
            settings["worker_init_fn"] = WorkerStart(loader.worker_init_fn)
        made: Any = DataLoader
        inner: DataLoader[Any] = made(
            items, batch_sampler=self._order, collate_fn=_as_it_is, generator=self._generator, **settings
        )
        return inner


class _Batches:
    """One iterator; the loader knows the position."""

    def __init__(self, owner: ResumableLoader) -> None:
        self._owner = owner
        self.over = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.over:
            raise StopIteration
        return self._owner.take(self)


def _as_it_is(batch: Any) -> Any:
    return batch


def _check(loader: object, seed: object) -> None:
    if not isinstance(seed, int) or seed < 0:
        raise InvalidInputError(f"a seed is an integer and not negative, and no {seed!r}", code="bad-seed")
    reason = hint = None
    if isinstance(loader, ResumableLoader):
        reason = "it is resumable already"
    elif not isinstance(loader, DataLoader):
        reason = "it is no torch.utils.data.DataLoader"
        hint = "attach(dataloader=...) takes anything with state_dict and load_state_dict as it is"
    elif hasattr(loader, "state_dict"):
        reason = "it has a state_dict itself"
        hint = "give it to attach(dataloader=...) as it is"
    elif type(loader).__iter__ is not DataLoader.__iter__:
        reason = "its class iterates in a way of its own"
        hint = "give its class state_dict and load_state_dict, and the loader to attach(dataloader=...)"
    elif isinstance(loader.dataset, IterableDataset):
        reason = "its dataset is iterable: it has no indices, so nothing can be skipped without loading it"
        hint = "use a map-style dataset, or a loader with state_dict, as torchdata's StatefulDataLoader"
    elif loader.num_workers and not getattr(loader, "in_order", True):
        reason = "with in_order=False the order of its batches is chance"
        hint = "leave in_order=True"
    if reason is not None:
        raise InvalidInputError(f"{type(loader).__name__}: {reason}", code="loader-unsupported", hint=hint)


def _kinds(order: dict[str, Any]) -> dict[str, str]:
    return {
        path: f"a {state.get('kind')} generator" if isinstance(state, dict) else "an epoch"
        for path, state in order.items()
    }
