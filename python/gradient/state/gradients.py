"""Gradients: those that changed since their optimizer's last step belong to the state.

A step post-hook notes each gradient (the tensor and its version). One that is still the noted one was used by that
step and is left over; any other was made or changed since, and a resumed run would miss it. So would one of a
parameter that no attached optimizer has: nobody can tell whether it was used.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable
from collections.abc import Mapping as NamedObjects
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from gradient._core import StoredTensor
from gradient.errors import CorruptionError, InvalidInputError
from gradient.state.composites import is_jagged, rows_of, with_rows_of
from gradient.state.inplace import InPlace
from gradient.state.part import Capture, Mapping, Part
from gradient.state.paths import Path, refused, shown
from gradient.state.plan import Phase
from gradient.state.tensors import DTYPES, described, is_plain, same_bits, stored_described
from gradient.state.unflatten import Unflattener, to_torch

if TYPE_CHECKING:
    from gradient._types import Grads, Stateful
    from gradient.state.names import ModelNames
    from gradient.state.plan import RestorePlan

    Noted = tuple[weakref.ref[Tensor], int]


_noted: weakref.WeakKeyDictionary[Optimizer, dict[int, Noted]] = weakref.WeakKeyDictionary()
"""What the last step of each optimizer used. It outlives a watch: whoever attaches again goes on from it."""


class GradientWatch:
    """Watches the steps of optimizers; `close` takes every hook away again."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def watch(self, optimizer: Optimizer) -> None:
        """Note the gradients that each step of this optimizer has used."""
        hook = optimizer.register_step_post_hook(lambda stepped, *_: self.note(stepped))
        self._undo.append(hook.remove)

    def watch_scaler(self, scaler: Stateful) -> None:
        """Note gradients after `scaler.step`, too: an infinite one makes it skip the step, and is used up too."""
        step = getattr(scaler, "step", None)
        if not callable(step) or not hasattr(scaler, "__dict__"):
            return

        def noted(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            result = step(optimizer, *args, **kwargs)
            self.note(optimizer)
            return result

        scaler.step = noted  # type: ignore[attr-defined]
        self._undo.append(lambda: vars(scaler).get("step") is noted and vars(scaler).pop("step"))

    def note(self, optimizer: Optimizer) -> None:
        """Take the present gradients of an optimizer's parameters for used."""
        noted: dict[int, Noted] = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                gradient: Tensor | None = parameter.grad
                if gradient is not None:
                    noted[id(parameter)] = (weakref.ref(gradient), gradient._version)
        _noted[optimizer] = noted

    def wanted(self, grads: Grads, optimizers: NamedObjects[str, Optimizer], names: ModelNames) -> set[int]:
        """Give the ids of the parameters whose gradients a commit holds.

        Raises:
            InvalidInputError: One is in flight, and its parameter is in no attached model (`gradients-in-flight`).
        """
        if grads == "never":
            return set()
        found = {id(parameter) for parameter in names.every_parameter() if parameter.grad is not None}
        stepped: set[int] = set()
        flying: set[int] = set()
        for name, optimizer in optimizers.items():
            named = names.groups(name, optimizer.param_groups)[0]
            changed = self.in_flight(optimizer, named, noted=grads == "auto")
            loose = [called for called, parameter in changed.items() if not names.holds(parameter)]
            if loose:
                raise _refused(name, loose)
            stepped.update(id(parameter) for group in optimizer.param_groups for parameter in group["params"])
            flying.update(id(parameter) for parameter in changed.values())
        return flying | (found - stepped)

    def drop(self, optimizers: NamedObjects[str, Optimizer], names: ModelNames) -> None:
        """Set every gradient to None."""
        for parameter in names.every_parameter():
            parameter.grad = None
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def in_flight(
        self, optimizer: Optimizer, named: Iterable[Iterable[str]], *, noted: bool = True
    ) -> dict[str, Tensor]:
        """Give the parameters whose gradients changed since the optimizer's last step, by name; else all gradients."""
        known = _noted.get(optimizer, {}) if noted else {}
        found: dict[str, Tensor] = {}
        for group, names in zip(optimizer.param_groups, named, strict=True):
            for parameter, name in zip(group["params"], names, strict=True):
                gradient: Tensor | None = parameter.grad
                if gradient is None:
                    continue
                reference, version = known.get(id(parameter), (None, -1))
                if reference is None or reference() is not gradient or gradient._version != version:
                    found[name] = parameter
        return found

    def close(self) -> None:
        """Remove every hook."""
        while self._undo:
            self._undo.pop()()


class GradientPart(Part):
    """The gradients of one model's parameters, `grads/<model>`: a tied parameter's under its first name.

    Args:
        name: The model's name.
        wanted: Ids of the parameters whose gradients a capture takes.
    """

    section = "grads"

    def __init__(self, name: str, wanted: Collection[int] = ()) -> None:
        super().__init__(name)
        self._wanted = wanted

    def capture(self, capture: Capture) -> Mapping:
        """See `Part.capture`; there may be nothing to hold."""
        flat = capture.flattener(self.section, self.name)
        held: dict[str, object] = {}
        walked = capture.names.models[self.name]
        for name in walked.parameters:
            parameter = walked.tensors[name]
            if id(parameter) in self._wanted and capture.names.owner(parameter) == (self.name, name):
                gradient = parameter.grad
                if gradient is not None and not is_plain(gradient) and not can_have(parameter, gradient):
                    # Autograd can set what a restore can not.
                    raise refused(
                        f"{self.where}/{name}",
                        f"torch sets no gradient that is {described(gradient)}",
                        hint='commit right after optimizer.step(), or attach with grads="never"',
                    )
                held[name] = flat.value(gradient, ("tensors", name))
        return {"tensors": held}

    def compare(self, mapping: Mapping, plan: RestorePlan, names: ModelNames) -> None:
        """See `Part.compare`."""
        walked = names.models[self.name]
        known = set(walked.parameters)

        def make(stored: StoredTensor, path: Path) -> Any:
            # One of a parameter that is not here is made if another shares it.
            like = walked.tensors.get(str(path[1]))
            where = shown(self.section, self.name, path[1:])
            if like is None or stored.numpy:
                return plan.make(stored, where)
            return plan.make_on(stored, like.device, where, like=like)

        values = Unflattener(self.section, self.name, make, plan.once_read, mapping)
        reader = InPlace(plan, self.section, self.name, mapping)
        for name, node in mapping["tensors"].items():
            if name not in known:
                plan.unexpected.append(f"{self.where}/{name}")
                continue
            parameter, path = walked.tensors[name], ("tensors", name)
            if isinstance(node, StoredTensor) and not _takes(parameter, node):
                plan.changed.append(
                    f"{self.where}/{name}: {stored_described(node)} in the commit, {described(parameter)} here"
                )
                continue
            gradient = values.value(node, path)
            if not isinstance(gradient, Tensor):
                raise CorruptionError(f"{self.where}/{name} is no tensor", code="bad-value")
            if is_jagged(gradient) and is_jagged(parameter):
                if not _same_rows(parameter, gradient, path, reader, plan):
                    plan.changed.append(f"{self.where}/{name}: rows of other lengths than its parameter's")
                    continue
                plan.then(Phase.GRADIENTS, partial(_set_jagged, parameter, gradient))
                continue
            if not can_have(parameter, gradient):
                plan.changed.append(
                    f"{self.where}/{name}: {described(gradient)} in the commit, {described(parameter)} here"
                )
                continue
            plan.then(Phase.GRADIENTS, partial(setattr, parameter, "grad", gradient))


def can_have(parameter: Tensor, gradient: Tensor) -> bool:
    """Tell whether torch lets a parameter have this gradient, without giving it that: shape, dtype, layout, device."""
    probe = parameter.detach()
    try:
        if hasattr(parameter, "grad_dtype"):
            probe.grad_dtype = parameter.grad_dtype
        probe.grad = gradient
    except (RuntimeError, TypeError):
        return False
    return True


def _same_rows(parameter: Any, gradient: Any, path: Path, reader: InPlace, plan: RestorePlan) -> bool:
    """Tell whether a jagged gradient has the rows that its parameter will have when it is given to it."""
    here = rows_of(parameter)
    if (
        gradient.dtype != parameter.dtype
        or gradient._ragged_idx != parameter._ragged_idx
        or gradient._values.shape != parameter._values.shape
        or here.keys() != rows_of(gradient).keys()
    ):
        return False
    for key, part in here.items():
        _, stored = reader.resolve((*path, key))
        planned = plan.planned(part)
        then = part if planned is None else to_torch(planned)
        if not isinstance(stored, StoredTensor) or not same_bits(to_torch(stored), then):
            return False
    return True


def _set_jagged(parameter: Tensor, gradient: Tensor) -> None:
    parameter.grad = with_rows_of(gradient, parameter)


def _refused(optimizer: str, names: list[str]) -> InvalidInputError:
    return InvalidInputError(
        f"optim/{optimizer}: the gradients of {len(names)} parameters changed since its last step, and no attached "
        f"model has these ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})",
        code="gradients-in-flight",
        hint="attach the model that has them, or commit right after optimizer.step(); "
        'with grads="never" gradients are left out and a resumed run starts without them',
    )


def _takes(parameter: Tensor, stored: StoredTensor) -> bool:
    """Tell whether a parameter can have a stored tensor as its gradient."""
    # Newer torch lets a parameter say which dtype its gradient has; None is any.
    dtype = getattr(parameter, "grad_dtype", parameter.dtype)
    return tuple(parameter.shape) == tuple(stored.shape) and (dtype is None or DTYPES.get(dtype) == stored.dtype)
