"""A restore in two halves: compare everything and touch nothing, then write everything.

While parts compare themselves with a commit they fill a plan: differences, tensors to be read (jobs), and what is to
be done afterwards, sorted by phase. Any difference raises one error and the plan is dropped. The jobs are read by the
caller, in parallel; `finish` does the rest.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gradient._types import SECTIONS
from gradient.errors import InvalidInputError, StateMismatchError
from gradient.memory import SMALL, available_bytes, check_declared, short_of_memory
from gradient.state import arrays, tensors
from gradient.state.paths import shown
from gradient.state.targets import Target, clashes
from gradient.state.unflatten import Unflattener

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from gradient._core import StoredTensor
    from gradient._types import Hyperparameters

    Job = tuple[StoredTensor, memoryview]

SHOWN_MAX = 20
"""Differences that the error's text lists; its attributes hold all of them."""


class Phase(enum.IntEnum):
    """When something is done after the tensors were read; the random numbers come last."""

    STATE = 0
    GRADIENTS = 1
    SCHEDULER = 2
    GROUPS = 3
    SCALER = 4
    DATA = 5
    SETTER = 6
    RNG = 7
    DONE = 8


class RestorePlan:
    """What a restore will do, known before it touches anything.

    Attributes:
        jobs: Stored tensors and the memory that each is read into: live tensors where that is possible.
        pending: Components that the commit holds and nobody has claimed yet, as (section, name).
        skipped: What this restore leaves out because it was asked to.
        messages: What it will override or can not do, one sentence each, for the log.
        missing: What the script has and the commit lacks.
        unexpected: What the commit has and the script lacks.
        changed: What both have and does not fit.
        partial: Something live may have been written, and not all of it.
    """

    def __init__(
        self,
        *,
        strict: bool = True,
        hyperparameters: Hyperparameters = "commit",
        max_restore_bytes: int | None = None,
    ) -> None:
        self.strict = strict
        self.hyperparameters = hyperparameters
        self.jobs: list[Job] = []
        self.pending: list[tuple[str, str]] = []
        self.skipped: list[str] = []
        self.messages: list[str] = []
        self.missing: list[str] = []
        self.unexpected: list[str] = []
        self.changed: list[str] = []
        self.partial = False
        self._max_restore_bytes = max_restore_bytes
        self._made_bytes = 0
        self._targets: dict[int, list[Target]] = {}
        self._written: list[Tensor] = []
        self._fills: list[Callable[[], object]] = []
        self._steps: list[tuple[Phase, Callable[[], object]]] = []

    def write(self, stored: StoredTensor, tensor: Tensor, where: str) -> None:
        """Plan to write a stored tensor into a live one, in place; note a difference if that can not be done."""
        misfit = _misfit(stored, tensor)
        if misfit is not None:
            self.changed.append(f"{where}: {misfit}")
            return
        target = Target(tensor, stored, where)
        others = self._targets.setdefault(target.storage, [])
        for other in others:
            if other.identity == target.identity:
                if other.stored.digest != stored.digest:
                    self.changed.append(
                        f"{where}: is the same memory as {other.where} here, another value in the commit"
                    )
                return
        others.append(target)
        self._read_into(stored, tensor)

    def write_if_fits(self, stored: StoredTensor, tensor: Tensor, where: str) -> bool:
        """Plan what `write` plans if the tensor takes it as it is and nothing else is written to its memory."""
        if _misfit(stored, tensor) is not None:
            return False
        target = Target(tensor, stored, where)
        others = self._targets.setdefault(target.storage, [])
        if any(target.meets(other) for other in others):
            return False
        others.append(target)
        self._read_into(stored, tensor)
        return True

    def planned(self, tensor: Tensor) -> StoredTensor | None:
        """Give what will be written into a live tensor; None if it stays as it is, as far as is planned yet."""
        wanted = tensors.identity(tensor)
        others = self._targets.get(tensor.untyped_storage()._cdata, ())
        return next((other.stored for other in others if other.identity == wanted), None)

    def takes(self, stored: StoredTensor, tensor: Tensor) -> bool:
        """Tell whether a stored tensor could be written into this one."""
        return _misfit(stored, tensor) is None

    def make(self, stored: StoredTensor, where: str) -> Any:
        """Make a tensor, or an array, that the stored one will be read into.

        Raises:
            InvalidInputError: With it the restore would make more than `max_restore_bytes`.
        """
        self._check_room(stored, where)
        if not stored.numpy:
            made = tensors.empty(stored)
            self._read_into(stored, made, live=False)
            return made
        array = arrays.empty(stored)
        if stored.nbytes and arrays.takes_bytes(array):
            self.jobs.append((stored, arrays.raw(array).data))
        elif stored.nbytes:
            staged = np.empty(stored.shape, array.dtype.newbyteorder("<"))
            self.jobs.append((stored, arrays.raw(staged).data))
            self._fills.append(lambda: np.copyto(array, staged))
        return array

    def make_on(
        self,
        stored: StoredTensor,
        device: torch.device,
        where: str,
        *,
        dtype: torch.dtype | None = None,
        like: Tensor | None = None,
    ) -> Tensor:
        """Make a tensor for the stored one on a device.

        Args:
            stored: The tensor of the commit.
            device: Where the new one goes.
            where: Its name, for errors.
            dtype: Another dtype, to which the values are converted.
            like: A tensor whose strides are taken if shape and memory order are the stored one's. They say more than
                an order does: of a dimension of length one, for example.

        Raises:
            InvalidInputError: With it the restore would make more than `max_restore_bytes`.
        """
        self._check_room(stored, where)
        made = tensors.empty(stored, device=device)
        if like is not None and like.layout is torch.strided and like.shape == made.shape:
            twin = torch.empty_like(like, dtype=made.dtype, device=device, requires_grad=False)
            made = twin if tensors.order_of(twin) == stored.order else made
        if dtype is None or dtype == made.dtype:
            self._read_into(stored, made, live=False)
            return made
        staged = tensors.empty(stored)
        self._read_into(stored, staged, live=False)
        converted = made.to(dtype)
        self._fills.append(lambda: converted.copy_(staged))
        return converted

    def values(self, section: str, name: str) -> Unflattener:
        """Give what rebuilds the values of a component with new tensors."""
        return Unflattener(
            section, name, lambda stored, path: self.make(stored, shown(section, name, path)), self.once_read
        )

    def once_read(self, step: Callable[[], object]) -> None:
        """Plan something to be done right after the tensors were read, after what was planned so before."""
        self._fills.append(step)

    def then(self, phase: Phase, step: Callable[[], object]) -> None:
        """Plan something to be done after the tensors were read."""
        self._steps.append((phase, step))

    def repeat(self, late: RestorePlan) -> None:
        """Set all random numbers again after late state was applied, that state's own included."""
        self._steps += [(phase, step) for phase, step in late._steps if phase is Phase.RNG]
        for phase, step in self._steps:
            if phase is Phase.RNG:
                step()

    def compare_names(self, where: str, here: Iterable[str], commit: Iterable[str]) -> list[str]:
        """Note names that only one side has; give those that both have, in the order of `here`."""
        ours, theirs = list(here), list(commit)
        known = set(theirs)
        self.missing += [f"{where}/{name}" for name in ours if name not in known]
        known = set(ours)
        self.unexpected += [f"{where}/{name}" for name in theirs if name not in known]
        known.intersection_update(theirs)
        return [name for name in ours if name in known]

    def check(self) -> None:
        """Raise if anything does not fit.

        With `strict=False` what only one side has is skipped, and noted in `skipped`; what does not fit still raises.

        Raises:
            StateMismatchError: All differences in one; nothing has been touched.
        """
        for targets in self._targets.values():
            self.changed += clashes(targets)
        if not self.strict:
            self.skipped += [*self.missing, *self.unexpected]
            if not self.changed:
                return
            self.missing, self.unexpected = [], []
        if self.missing or self.unexpected or self.changed:
            raise StateMismatchError(
                _summary(self.missing, self.unexpected, self.changed),
                hint="use the script that made the commit, or take a part: resume(ref, only=..., strict=False)",
                missing=self.missing,
                unexpected=self.unexpected,
                changed=self.changed,
            )

    def finish(self) -> None:
        """Do what is left once the jobs were read: scatter, bump versions, set all that is no tensor, RNG last.

        Of the plan itself only what `repeat` needs is left.
        """
        self.partial = True
        with short_of_memory("what was read can not be put in its place"):
            for fill in self._fills:
                fill()
        if self._written:
            # Written behind autograd's back: without this a backward pass over old values would go unnoticed.
            torch.autograd.graph.increment_version(self._written)
        for _, step in sorted(self._steps, key=lambda item: item[0]):
            step()
        self.partial = False
        # Whoever keeps the plan needs the random numbers again; copies of the tensors would only take memory.
        self.jobs, self._fills, self._written, self._targets = [], [], [], {}
        self._steps = [(phase, step) for phase, step in self._steps if phase is Phase.RNG]

    def _check_room(self, stored: StoredTensor, where: str) -> None:
        self._made_bytes += stored.nbytes
        if self._max_restore_bytes is None and self._made_bytes >= SMALL:
            # Once: what is made from now on is counted.
            self._max_restore_bytes = available_bytes()
        check_declared(
            self._made_bytes,
            self._max_restore_bytes,
            what=f"{where}, a tensor of {stored.nbytes} bytes, with what is restored before it",
            way_out="attach with GradientConfig(max_restore_bytes=...)",
        )

    def _read_into(self, stored: StoredTensor, tensor: Tensor, *, live: bool = True) -> None:
        if stored.nbytes == 0:
            return
        if tensor.device.type == "cpu" and tensor.is_contiguous():
            self.jobs.append((stored, tensors.raw(tensor).data))
            if live:
                self._written.append(tensor)
            return
        staged = torch.empty(tensor.shape, dtype=tensor.dtype)
        self.jobs.append((stored, tensors.raw(staged).data))
        self._fills.append(lambda: tensors.copy_bits(tensor, staged))


def restore(plan: RestorePlan, read_into: Callable[[Sequence[Job]], object]) -> None:
    """Carry a plan out: read its jobs, then finish it.

    Args:
        plan: What `TrainState.plan` gave; it is used once.
        read_into: Reads (stored tensor, writable bytes) pairs; `_core.Repository.read_into`.

    Raises:
        CorruptionError: A chunk is damaged; with `partial=True` others had already been written.
        StorageError: There is not enough memory (`out-of-memory`).
        Exception: Whatever a setter or a `load_state_dict` of the script raised, with a note of what was written.

    Guarantees:
        `plan.partial` is True after a failure that left the live state neither old nor new.
    """
    try:
        plan.partial = bool(plan.jobs)
        read_into(plan.jobs)
    except BaseException as error:
        plan.partial = plan.partial and getattr(error, "partial", True)
        if plan.partial:
            error.add_note("gradient: the restore failed while it read tensors; some of them are the commit's now")
        raise
    try:
        plan.finish()
    except BaseException as error:
        error.add_note("gradient: the restore failed after all tensors were written; what is no tensor is partly set")
        raise


def chosen(known: Collection[tuple[str, str]], only: Collection[str] | None) -> set[tuple[str, str]]:
    """Give the components that `only` names: sections ("model") or components ("model/main"); None names all.

    Raises:
        InvalidInputError: It names a component that neither the script nor the commit has.
    """
    if only is None:
        return set(known)
    names = {only} if isinstance(only, str) else set(only)
    unknown = names - set(SECTIONS) - {"/".join(key) for key in known}
    if unknown:
        raise InvalidInputError(
            f"only= names {', '.join(sorted(unknown))}, which is no part of this state",
            hint=f"sections are {', '.join(SECTIONS)}; a component is named as model/main",
        )
    return {key for key in known if key[0] in names or "/".join(key) in names}


def _misfit(stored: StoredTensor, tensor: Tensor) -> str | None:
    """Say why a stored tensor can not be written into a live one; None if it can."""
    if not tensors.is_plain(tensor):
        reason = tensors.unsupported(tensor)
        if reason is not None:
            return reason
        special = tensors.special(tensor)
        if special is not None:
            return f"{tensors.stored_described(stored)} in the commit, {special} here"
    if stored.numpy or not tensors.fits(stored, tensor):
        return f"{tensors.stored_described(stored)} in the commit, {tensors.described(tensor)} here"
    if tensor.is_inference():
        return "an inference tensor can not be written; make it outside inference_mode"
    if tensors.overlaps_itself(tensor):
        return "an expanded tensor can not be written; make it with .clone()"
    return None


def _summary(missing: list[str], unexpected: list[str], changed: list[str]) -> str:
    lines = [f"the commit has no {name}" for name in missing]
    lines += [f"only the commit has {name}" for name in unexpected]
    lines += changed
    many = "s" if len(lines) > 1 else ""
    head = f"the commit does not fit the script: {len(lines)} difference{many}; nothing was touched"
    more = [f"... and {len(lines) - SHOWN_MAX} more"] if len(lines) > SHOWN_MAX else []
    return "\n  ".join([head, *lines[:SHOWN_MAX], *more])
