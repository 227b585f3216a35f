"""Optimizers of classes that override `load_state_dict`: theirs is used, with names where torch has indices.

Such a class keeps something that only its own pair of methods knows how to give and take (8-bit codes, sharded
state), so state is read through its `state_dict` too.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from gradient.state.groups import match_groups, overrides, stored_keys
from gradient.state.optimizer import OptimizerPart
from gradient.state.part import Capture, Mapping
from gradient.state.paths import refused
from gradient.state.plan import Phase

if TYPE_CHECKING:
    from gradient.state.groups import GroupPair
    from gradient.state.names import ModelNames
    from gradient.state.plan import RestorePlan


def overrides_load(optimizer: object) -> bool:
    """Tell whether the optimizer's class has a `load_state_dict` of its own."""
    return isinstance(optimizer, Optimizer) and type(optimizer).load_state_dict is not Optimizer.load_state_dict


class OverridingOptimizerPart(OptimizerPart):
    """An optimizer whose class overrides `load_state_dict`."""

    def capture(self, capture: Capture) -> Mapping:
        """See `Part.capture`."""
        named, loose = capture.names.groups(self.name, self.optimizer.param_groups)
        if loose:
            hint = "attach the module that holds it as a further model"
            raise refused(self.where, f"parameter {loose[0]} is in no attached model", hint=hint)
        packed = self.optimizer.state_dict()
        hint = "register(name, optimizer) keeps whatever its state_dict gives"
        if packed.keys() != {"state", "param_groups"} or len(packed["param_groups"]) != len(named):
            raise refused(
                self.where, f"{type(self.optimizer).__name__}.state_dict() is not laid out as torch's", hint=hint
            )
        names = _index_names(packed["param_groups"], named)
        flat = capture.flattener(self.section, self.name)
        groups = []
        for number, (group, own) in enumerate(zip(packed["param_groups"], named, strict=True)):
            path = ("groups", number)
            groups.append(
                {key: own if key == "params" else flat.value(group[key], (*path, key)) for key in stored_keys(group)}
            )
        state = {}
        for index, held in packed["state"].items():
            if index not in names:
                raise refused(
                    f"{self.where}/state", f"state for {index!r} can not be stored: it is no parameter", hint=hint
                )
            state[names[index]] = flat.value(held, ("state", names[index]))
        return {"groups": groups, "state": state}

    def compare(self, mapping: Mapping, plan: RestorePlan, names: ModelNames) -> None:
        """See `Part.compare`."""
        named, _ = names.groups(self.name, self.optimizer.param_groups)
        pairs = match_groups(self.where, mapping["groups"], self.optimizer.param_groups, named, plan)
        builder = plan.values(self.section, self.name)
        rebuilt = [
            {key: builder.value(node, ("groups", pair.stored_index, key)) for key, node in pair.stored.items()}
            for pair in pairs
        ]
        state = {name: builder.value(node, ("state", name)) for name, node in mapping["state"].items()}
        overrides(pairs, plan)
        plan.then(Phase.STATE, partial(self._load, named, pairs, rebuilt, state, plan.hyperparameters))

    def _load(
        self,
        named: list[list[str]],
        pairs: list[GroupPair],
        rebuilt: list[dict[str, Any]],
        state: dict[str, Any],
        hyperparameters: str,
    ) -> None:
        packed = self.optimizer.state_dict()["param_groups"]
        names = _index_names(packed, named)
        groups = [copy.copy(group) for group in packed]
        for pair, values in zip(pairs, rebuilt, strict=True):
            for key, value in values.items():
                if key != "params" and (hyperparameters == "commit" or key not in pair.group):
                    groups[pair.index][key] = value
        by_index = {index: state[name] for index, name in names.items() if name in state}
        self.optimizer.load_state_dict({"state": by_index, "param_groups": groups})


def _index_names(packed: list[dict[str, Any]], named: list[list[str]]) -> dict[Any, str]:
    return {
        index: name
        for group, names in zip(packed, named, strict=True)
        for index, name in zip(group["params"], names, strict=True)
    }
