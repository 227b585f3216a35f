"""Gradient scalers: scale, growth tracker and settings, of a disabled one too."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gradient._types import Stateful
from gradient.errors import InvalidInputError
from gradient.state.part import Capture, Mapping, Part
from gradient.state.paths import refused
from gradient.state.plan import Phase

if TYPE_CHECKING:
    from gradient.state.names import ModelNames
    from gradient.state.plan import RestorePlan


class ScalerPart(Part):
    """One `torch.amp.GradScaler`, or what behaves like one.

    Args:
        name: The component's name.
        scaler: Anything with `state_dict` and `load_state_dict`.

    Raises:
        InvalidInputError: It has no such methods.
    """

    section = "scaler"

    def __init__(self, name: str, scaler: Stateful) -> None:
        super().__init__(name)
        if not isinstance(scaler, Stateful):
            raise InvalidInputError(f"{self.where} is {type(scaler).__name__}, without state_dict and load_state_dict")
        self.scaler = scaler

    def capture(self, capture: Capture) -> Mapping:
        """See `Part.capture`."""
        # What unscale_ and step have found is in no state_dict until update has used it.
        if getattr(self.scaler, "_per_optimizer_states", None):
            raise refused(
                self.where,
                "a commit between unscale_ or step and update would lose whether a gradient was infinite",
                code="scaler-in-flight",
                hint="commit after scaler.update()",
            )
        return {"value": capture.flattener(self.section, self.name).value(self.scaler.state_dict(), ("value",))}

    def compare(self, mapping: Mapping, plan: RestorePlan, names: ModelNames) -> None:
        """See `Part.compare`."""
        stored = mapping["value"]
        here = self.scaler.state_dict()
        if isinstance(stored, dict) and isinstance(here, dict):
            if bool(stored) != bool(here):
                states = {True: "enabled", False: "disabled"}
                plan.changed.append(f"{self.where}: {states[bool(stored)]} in the commit, {states[bool(here)]} here")
            else:
                plan.compare_names(self.where, here, stored)
        value = plan.values(self.section, self.name).value(stored, ("value",))
        plan.then(Phase.SCALER, partial(self._load, value))

    def _load(self, value: object) -> None:
        pending = getattr(self.scaler, "_per_optimizer_states", None)
        if pending:
            # Findings about gradients that the restore has dropped.
            pending.clear()
        self.scaler.load_state_dict(value)
