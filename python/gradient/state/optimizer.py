"""Optimizers: their state and groups read and written directly, with parameters by name.

Never through `Optimizer.load_state_dict`: it casts state to the parameter's dtype, replaces groups and Tensor learning
rates, and takes `fused` from the commit. Classes that override it know better; those are in `optimizer_override.py`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradient._types import CompressedOptimizer
from gradient.coded import Coded
from gradient.errors import CorruptionError, InvalidInputError
from gradient.state import coded_state
from gradient.state.groups import compare_keys, copied, match_groups, overrides, put_back, stored_keys
from gradient.state.inplace import InPlace
from gradient.state.part import Capture, Mapping, Part
from gradient.state.paths import Path, refused
from gradient.state.plan import Phase
from gradient.state.unflatten import Unflattener

if TYPE_CHECKING:
    from gradient._core import StoredTensor
    from gradient.state.groups import GroupPair
    from gradient.state.names import ModelNames
    from gradient.state.plan import RestorePlan

_HOSTED = frozenset({"step", "mu_product"})
"""Counters that torch's optimizers keep on the CPU unless `capturable` or `fused` asks for the device."""


class OptimizerPart(Part):
    """One optimizer.

    Args:
        name: The component's name.
        optimizer: The optimizer; its hyper-parameters at this moment are the script's, to which `reset` goes back.

    Raises:
        InvalidInputError: It is no `torch.optim.Optimizer`.
    """

    section = "optim"

    def __init__(self, name: str, optimizer: Optimizer) -> None:
        super().__init__(name)
        if not isinstance(optimizer, Optimizer):
            raise InvalidInputError(
                f"{self.where} is {type(optimizer).__name__} and no torch.optim.Optimizer",
                hint="register(name, obj) keeps anything with state_dict and load_state_dict",
            )
        self.optimizer = optimizer
        self._script = [copied(group, group.keys() - {"params"}) for group in optimizer.param_groups]

    def capture(self, capture: Capture) -> Mapping:
        """See `Part.capture`."""
        optimizer = self.optimizer
        named, loose = capture.names.groups(self.name, optimizer.param_groups)
        if loose:
            capture.notes.append(
                f"{self.where}: {len(loose)} parameters are in no attached model; they are kept with the optimizer as "
                f"{', '.join(loose[:3])}{', ...' if len(loose) > 3 else ''}"
            )
        flat = capture.flattener(self.section, self.name)
        groups = []
        for number, (group, names) in enumerate(zip(optimizer.param_groups, named, strict=True)):
            path = ("groups", number)
            groups.append(
                {key: names if key == "params" else flat.value(group[key], (*path, key)) for key in stored_keys(group)}
            )
        by_name = self._by_name(named)
        mapping: Mapping = {"groups": groups}
        if loose:
            mapping["tensors"] = {name: flat.tensor(by_name[name], ("tensors", name)) for name in loose}
        self._check_state_keys(by_name)
        flat.reserve([*capture.names.every_parameter(), *by_name.values()])
        mapping["state"] = {
            name: {
                key: coded_state.node(flat, item, ("state", name, key))
                for key, item in coded_state.held(optimizer, parameter).items()
            }
            for name, parameter in by_name.items()
            if optimizer.state.get(parameter)
        }
        if isinstance(optimizer, CompressedOptimizer):
            steps = optimizer.held_steps()
            counted = {name: steps[parameter] for name, parameter in by_name.items() if parameter in steps}
            mapping |= {"steps": counted} if counted else {}
        return mapping

    def compare(self, mapping: Mapping, plan: RestorePlan, names: ModelNames) -> None:
        """See `Part.compare`."""
        named, loose = names.groups(self.name, self.optimizer.param_groups)
        by_name = self._by_name(named)
        pairs = match_groups(self.where, mapping["groups"], self.optimizer.param_groups, named, plan)
        compare_keys(self.where, pairs, self.optimizer.defaults, plan)
        held = mapping.get("tensors", {})
        writer = InPlace(plan, self.section, self.name, mapping)
        for name in plan.compare_names(f"{self.where}/tensors", loose, held):
            writer.write(("tensors", name), by_name[name], f"{self.where}/tensors/{name}")
        groups_of = {
            name: group for group, names_ in zip(self.optimizer.param_groups, named, strict=True) for name in names_
        }
        place = partial(self._place, plan, by_name, groups_of, pairs)
        builder = Unflattener(self.section, self.name, place, plan.once_read, mapping)
        rebuilt = [
            {key: builder.value(node, ("groups", pair.stored_index, key)) for key, node in pair.stored.items()}
            for pair in pairs
        ]
        state = {
            name: {
                key: self._value(builder, node, ("state", name, key), by_name[name], plan)
                for key, node in values.items()
            }
            for name, values in mapping["state"].items()
            if name in by_name
        }
        self._say_decoded(state, plan)
        steps = mapping.get("steps", {})
        kept = {name for values in mapping["groups"] for name in values["params"]}
        plan.then(Phase.STATE, partial(self._set_state, by_name, state, kept, steps, plan))
        overrides(pairs, plan)
        plan.then(Phase.GROUPS, partial(self._set_groups, pairs, rebuilt, plan.hyperparameters))

    def reset(self) -> None:
        """Forget all state and go back to the script's hyper-parameters, as they were when the optimizer was added."""
        self.optimizer.state.clear()
        for group, script in zip(self.optimizer.param_groups, self._script, strict=False):
            put_back(group, script, group.keys() - {"params"})

    def _place(
        self,
        plan: RestorePlan,
        by_name: dict[str, Tensor],
        groups_of: dict[str, dict[str, Any]],
        pairs: list[GroupPair],
        stored: StoredTensor,
        path: Path,
    ) -> Any:
        """Give the tensor that a stored one goes to: the live one if it fits, else a new one where torch wants it."""
        if path[0] == "groups":
            live = next((pair.group.get(str(path[2])) for pair in pairs if pair.stored_index == path[1]), None)
            writes = plan.hyperparameters == "commit" and len(path) == 3
            device = live.device if isinstance(live, Tensor) else torch.device("cpu")
            dtype, like = None, None
        else:
            name = str(path[1])
            parameter, group = by_name[name], groups_of[name]
            # What is kept coded has no tensor of its own to be written.
            is_wrapped = isinstance(self.optimizer, CompressedOptimizer)
            live = None if is_wrapped else self.optimizer.state.get(parameter, {}).get(path[2])
            writes = len(path) == 3
            device, dtype = _wanted(path[2], stored, parameter, group)
            like = parameter
        where = f"{self.where}/{'/'.join(map(str, path))}"
        if writes and isinstance(live, Tensor) and plan.write_if_fits(stored, live, where):
            return live
        if stored.numpy:
            return plan.make(stored, where)
        return plan.make_on(stored, device, where, dtype=dtype, like=like)

    def _value(self, builder: Unflattener, node: Any, path: Path, parameter: Tensor, plan: RestorePlan) -> Any:
        """Rebuild a value of the state of a parameter."""
        if not coded_state.is_coded(node):
            return builder.value(node, path)
        where = f"{self.where}/{'/'.join(map(str, path))}"
        reason = coded_state.misfit(node)
        if reason is not None:
            raise CorruptionError(f"{where} can not be decoded: {reason}", code="bad-value")
        if tuple(node.value["codes"].shape) != tuple(parameter.shape):
            shape = list(node.value["codes"].shape)
            plan.changed.append(f"{where}: state of the shape {shape} in the commit, {list(parameter.shape)} here")
        return coded_state.build(builder, node, path)

    def _say_decoded(self, state: dict[str, dict[Any, Any]], plan: RestorePlan) -> None:
        has_codes = any(isinstance(value, Coded) for values in state.values() for value in values.values())
        if has_codes and not isinstance(self.optimizer, CompressedOptimizer):
            plan.messages.append(
                f"{self.where}: the commit has the state of a wrapped optimizer, in fewer bits; it is decoded, and "
                "what was lost then stays lost"
            )

    def _set_state(
        self,
        by_name: dict[str, Tensor],
        state: dict[str, dict[Any, Any]],
        kept: set[str],
        steps: dict[str, int],
        plan: RestorePlan,
    ) -> None:
        by_name = {name: parameter for name, parameter in by_name.items() if name in kept}
        if isinstance(self.optimizer, CompressedOptimizer):
            states = {parameter: state.get(name, {}) for name, parameter in by_name.items()}
            counted = {by_name[name]: count for name, count in steps.items() if name in by_name}
            if self.optimizer.set_held_states(states, counted):
                plan.messages.append(
                    f"{self.where}: the commit has state in more bits than the policy of the wrapped optimizer gives "
                    "it; what it had beyond them is lost here"
                )
            return
        for name, parameter in by_name.items():
            values = state.get(name)
            if values:
                live = self.optimizer.state[parameter]
                live.clear()
                live.update(
                    {key: value.decode() if isinstance(value, Coded) else value for key, value in values.items()}
                )
            else:
                self.optimizer.state.pop(parameter, None)

    def _set_groups(self, pairs: list[GroupPair], rebuilt: list[dict[str, Any]], hyperparameters: str) -> None:
        # A tensor that the commit's tensor was read into is taken: no number equals this one.
        filled = {id(value): math.nan for values in rebuilt for value in values.values() if isinstance(value, Tensor)}
        for pair, values in zip(pairs, rebuilt, strict=True):
            for key, value in values.items():
                if key != "params" and (hyperparameters == "commit" or key not in pair.group):
                    pair.group[key] = _as_live(pair.group.get(key), value, filled)

    def _by_name(self, named: list[list[str]]) -> dict[str, Tensor]:
        groups = self.optimizer.param_groups
        pairs = zip((name for names in named for name in names), (p for g in groups for p in g["params"]), strict=True)
        return dict(pairs)

    def _check_state_keys(self, by_name: dict[str, Tensor]) -> None:
        known = {id(parameter) for parameter in by_name.values()}
        state: dict[Any, object] = dict(self.optimizer.state)
        for key, value in state.items():
            if id(key) not in known and not (isinstance(value, dict) and not value):
                what = "a tensor that is in none of its groups" if isinstance(key, Tensor) else repr(key)
                raise refused(f"{self.where}/state", f"state for {what} can not be stored: it is kept by parameter")


def _as_live(live: Any, value: Any, filled: dict[int, float]) -> Any:
    """Write a number into the tensor that the script has in its place: a captured graph reads that one.

    Groups that share the tensor here and have other numbers in the commit part: the later one gets a tensor of its own.
    """
    if not isinstance(live, Tensor) or not isinstance(value, int | float) or live.numel() != 1:
        return value
    if filled.setdefault(id(live), value) != value:
        return torch.full_like(live, value)
    with torch.no_grad():
        return live.fill_(value)


def _wanted(
    key: object, stored: StoredTensor, parameter: Tensor, group: dict[str, Any]
) -> tuple[torch.device, torch.dtype | None]:
    """Say where new state goes, and as what: a step counter as `fused` and `capturable` want it, else as committed."""
    on_device = bool(group.get("capturable") or group.get("fused"))
    if key in _HOSTED and len(stored.shape) == 0:
        if not on_device:
            return torch.device("cpu"), None
        return parameter.device, torch.float32 if key == "step" else None
    return parameter.device, None
