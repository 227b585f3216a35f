"""What a script registers itself: a getter and a setter, or an object with `state_dict` and `load_state_dict`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from gradient._core import Alias, Named
from gradient._types import Stateful
from gradient.errors import InvalidInputError
from gradient.state import composites, tensors
from gradient.state.model import EXTRA_KEY
from gradient.state.part import Capture, Mapping, Part
from gradient.state.plan import Phase

if TYPE_CHECKING:
    from gradient.state.names import ModelNames
    from gradient.state.plan import RestorePlan


class ExternalPart(Part):
    """One registered value, `extra/<name>`.

    Args:
        name: The component's name.
        getter: Gives the value; called at each commit.
        setter: Takes it back; called at each restore, with tensors that are new.

    Raises:
        InvalidInputError: One of them can not be called.
    """

    section = "extra"

    def __init__(self, name: str, getter: Any, setter: Any) -> None:
        super().__init__(name)
        if not callable(getter) or not callable(setter):
            raise InvalidInputError(f"{self.where}: getter and setter must be functions")
        self._getter = getter
        self._setter = setter

    def capture(self, capture: Capture) -> Mapping:
        """See `Part.capture`."""
        return {"value": capture.flattener(self.section, self.name).value(self._getter(), ("value",))}

    def compare(self, mapping: Mapping, plan: RestorePlan, names: ModelNames) -> None:
        """See `Part.compare`."""
        value = plan.values(self.section, self.name).value(mapping["value"], ("value",))
        plan.then(Phase.SETTER, partial(self._setter, value))

    def same(self, other: object) -> bool:
        """See `Part.same`; methods are equal if they are those of one object."""
        return isinstance(other, ExternalPart) and (self._getter, self._setter) == (other._getter, other._setter)


class ObjectPart(ExternalPart):
    """One registered object.

    Args:
        name: The component's name.
        obj: Anything with `state_dict` and `load_state_dict`.

    Raises:
        InvalidInputError: It has no such methods.
    """

    def __init__(self, name: str, obj: Stateful) -> None:
        if not isinstance(obj, Stateful):
            raise InvalidInputError(
                f"extra/{name} is {type(obj).__name__}, without state_dict and load_state_dict",
                hint="register_state(name, getter=, setter=) takes two functions instead",
            )
        super().__init__(name, obj.state_dict, obj.load_state_dict)
        self._obj = obj

    def compare(self, mapping: Mapping, plan: RestorePlan, names: ModelNames) -> None:
        """See `Part.compare`."""
        if isinstance(self._obj, nn.Module):
            self._compare_module(self._obj, mapping["value"], plan)
        super().compare(mapping, plan, names)

    def _compare_module(self, module: nn.Module, node: Any, plan: RestorePlan) -> None:
        """Compare names and shapes now: `Module.load_state_dict` would only find them when others were written."""
        stored = getattr(node, "value", node)
        if not isinstance(stored, dict):
            return
        here = module.state_dict()
        for name in plan.compare_names(self.where, here, stored):
            if name.rpartition(".")[2] == EXTRA_KEY:
                # What it is and how long is the module's business.
                continue
            ours, theirs = here[name], stored[name]
            if isinstance(theirs, Alias):
                theirs = stored.get(theirs.path[-1])
            what = composites.facts(theirs)
            if not isinstance(ours, Tensor) or what is None:
                continue
            kind = composites.kind_of(ours)
            named = theirs.name if isinstance(theirs, Named) and theirs.name in composites.NAMES else None
            if named not in (kind.names if kind is not None else (None,)):
                sides = f"{named or 'plain'} in the commit, {tensors.described(ours)} here"
            elif what != composites.facts_of(ours):
                sides = f"{what.dtype} {list(what.shape)} in the commit, {tensors.described(ours)} here"
            elif kind is None and tensors.overlaps_itself(ours):
                sides = "an expanded tensor can not be written; make it with .clone()"
            else:
                continue
            plan.changed.append(f"{self.where}/{name}: {sides}")
