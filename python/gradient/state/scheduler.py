"""Learning rate schedulers: what their `state_dict` gives, every value kept exactly.

The function of a LambdaLR is not stored, as torch does not store it: the script brings it again. Any other member
that torch would keep and a commit can not hold refuses the commit, with its path.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gradient._types import Stateful
from gradient.errors import InvalidInputError
from gradient.state.groups import SCHEDULED_KEYS, copied, put_back
from gradient.state.part import Capture, Mapping, Part
from gradient.state.plan import Phase

if TYPE_CHECKING:
    from gradient.state.names import ModelNames
    from gradient.state.plan import RestorePlan

_NESTED = ("_schedulers", "lr_lambdas")
"""Lists in a scheduler's state whose entries are put back by position."""


class SchedulerPart(Part):
    """One scheduler.

    Args:
        name: The component's name.
        scheduler: Anything with `state_dict` and `load_state_dict`; its state at this moment is what `reset` goes
            back to.

    Raises:
        InvalidInputError: It has no such methods.
    """

    section = "scheduler"

    def __init__(self, name: str, scheduler: Stateful) -> None:
        super().__init__(name)
        if not isinstance(scheduler, Stateful):
            raise InvalidInputError(
                f"{self.where} is {type(scheduler).__name__}, without state_dict and load_state_dict"
            )
        self.scheduler = scheduler
        self._script = _copied(scheduler.state_dict())
        self._groups = [copied(group, SCHEDULED_KEYS) for group in self._param_groups()]

    def capture(self, capture: Capture) -> Mapping:
        """See `Part.capture`."""
        return {"value": capture.flattener(self.section, self.name).value(self.scheduler.state_dict(), ("value",))}

    def compare(self, mapping: Mapping, plan: RestorePlan, names: ModelNames) -> None:
        """See `Part.compare`."""
        if isinstance(self.scheduler, LRScheduler):
            _compare(self.where, self.scheduler.state_dict(), mapping["value"], plan)
        value = plan.values(self.section, self.name).value(mapping["value"], ("value",))
        plan.then(Phase.SCHEDULER, partial(self.scheduler.load_state_dict, value))

    def reset(self) -> None:
        """Go back to the state that the scheduler had when it was added, and the learning rates with it.

        Raises:
            InvalidInputError: That state could not be copied.
        """
        if self._script is None:
            raise InvalidInputError(f"{self.where}: its state could not be copied when it was added, and not be reset")
        self.scheduler.load_state_dict(copy.deepcopy(self._script))
        for group, values in zip(self._param_groups(), self._groups, strict=False):
            put_back(group, values, SCHEDULED_KEYS)

    def _param_groups(self) -> list[dict[str, Any]]:
        optimizer = getattr(self.scheduler, "optimizer", None)
        return optimizer.param_groups if isinstance(optimizer, Optimizer) else []


def _compare(where: str, here: Any, stored: Any, plan: RestorePlan) -> None:
    """Compare the members of a torch scheduler: others than the commit's make a scheduler of another class.

    Members with an underscore come and go with torch's own bookkeeping; only the nested lists among them count.
    """
    if not isinstance(here, dict) or not isinstance(stored, dict):
        if (here is None) != (stored is None):
            plan.changed.append(f"{where}: {_kind(stored)} in the commit, {_kind(here)} here")
        return
    plan.compare_names(where, _public(here), _public(stored))
    for key in _NESTED:
        ours, theirs = here.get(key), stored.get(key)
        if not isinstance(ours, list) or not isinstance(theirs, list):
            continue
        if len(ours) != len(theirs):
            plan.changed.append(f"{where}/{key}: {len(theirs)} in the commit, {len(ours)} here")
            continue
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            if key == "_schedulers":
                _compare(f"{where}/{key}/{index}", mine, other, plan)
            elif (mine is None) != (other is None):
                plan.changed.append(f"{where}/{key}/{index}: {_kind(other)} in the commit, {_kind(mine)} here")


def _copied(state: Any) -> Any:
    """Copy a state; None if it can not be copied, which matters only to a later reset."""
    try:
        return copy.deepcopy(state)
    except Exception:
        return None


def _public(state: dict[str, Any]) -> list[str]:
    return [key for key in state if not str(key).startswith("_")]


def _kind(value: object) -> str:
    return "a function, which is not stored" if value is None else "an object with state"
