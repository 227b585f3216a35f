"""Gradients in flight: which have changed since their optimizer's last step, and so belong to the state.

A step post-hook notes each gradient (the tensor and its version). One that is still the noted one was used by that
step and is left over; any other was made or changed since, and a resumed run would miss it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from gradient.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gradient._types import Stateful
    from gradient.state.names import ModelNames

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

    def check(self, optimizers: Mapping[str, Optimizer], names: ModelNames) -> list[str]:
        """Refuse gradients in flight; give a note if there are others that no optimizer uses.

        Raises:
            InvalidInputError: A gradient changed since its optimizer's last step, or there is one and no optimizer that
                could tell (code `gradients-in-flight`).
        """
        stepped: set[int] = set()
        for name, optimizer in optimizers.items():
            found = self.in_flight(optimizer, names.groups(name, optimizer.param_groups)[0])
            if found:
                raise _refused(
                    f"optim/{name}: the gradients of {len(found)} parameters changed since its last step "
                    f"({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})",
                    "commit right after optimizer.step(), or after zero_grad(set_to_none=True)",
                )
            stepped.update(id(parameter) for group in optimizer.param_groups for parameter in group["params"])
        others = sum(held.grad is not None and id(held) not in stepped for held in names.every_parameter())
        if others and not optimizers:
            raise _refused(
                f"{others} parameters have gradients, and there is no attached optimizer that could have used them",
                "attach the optimizer, or commit after zero_grad(set_to_none=True)",
            )
        if not others:
            return []
        return [f"{others} parameters have gradients but no attached optimizer; these gradients are not kept"]

    def drop(self, optimizers: Mapping[str, Optimizer], names: ModelNames) -> None:
        """Set every gradient to None: no commit holds one."""
        for parameter in names.every_parameter():
            parameter.grad = None
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def in_flight(self, optimizer: Optimizer, named: Iterable[Iterable[str]]) -> list[str]:
        """Name the parameters whose gradients changed since the optimizer's last step."""
        noted = _noted.get(optimizer, {})
        found: list[str] = []
        for group, names in zip(optimizer.param_groups, named, strict=True):
            for parameter, name in zip(group["params"], names, strict=True):
                gradient: Tensor | None = parameter.grad
                if gradient is None:
                    continue
                reference, version = noted.get(id(parameter), (None, -1))
                if reference is None or reference() is not gradient or gradient._version != version:
                    found.append(name)
        return found

    def close(self) -> None:
        """Remove every hook."""
        while self._undo:
            self._undo.pop()()


def _refused(what: str, hint: str) -> InvalidInputError:
    return InvalidInputError(
        f"{what}; gradients can not be committed yet",
        code="gradients-in-flight",
        hint=f'{hint}; with grads="never" they are left out and a resumed run starts without them',
    )
