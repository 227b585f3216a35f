"""Canonical names: what a parameter is called, whatever its module is wrapped in.

Wrappers (torch.compile, DDP, DataParallel, FSDP, activation checkpointing) are skipped by type, never by the text of
a name: a user's own attribute `module` stays, and AveragedModel, which has state of its own, is no wrapper.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from gradient.errors import InvalidInputError

_WRAPPERS = (
    ("torch._dynamo.eval_frame", "OptimizedModule", "_orig_mod"),
    ("torch.nn.parallel.distributed", "DistributedDataParallel", "module"),
    ("torch.nn.parallel.data_parallel", "DataParallel", "module"),
    ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel", "_fsdp_wrapped_module"),
    (
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper",
        "ActivationWrapper",
        "_checkpoint_wrapped_module",
    ),
)
"""Module, class, attribute of the wrapped module. A class whose module was never imported has no instances."""


def _loaded_wrappers() -> tuple[tuple[type, ...], dict[type, str]]:
    found: dict[type, str] = {}
    for module, name, attribute in _WRAPPERS:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None:
            found[kind] = attribute
    return tuple(found), found


@dataclass
class ModuleTensors:
    """The modules and tensors of one model under their canonical names.

    Attributes:
        tensors: Parameters and buffers, persistent or not, in the order of the modules; tied ones under each name.
        modules: Modules by name, the model itself under "".
        parameters: Names in `tensors` that are parameters.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    parameters: list[str] = field(default_factory=list)


def module_tensors(model: nn.Module) -> ModuleTensors:
    """Walk a model and name what it holds.

    Raises:
        InvalidInputError: A module contains itself.
    """
    found = ModuleTensors()
    kinds, attributes = _loaded_wrappers()
    inside: set[int] = set()

    def walk(module: nn.Module, prefix: str) -> None:
        while isinstance(module, kinds):
            kind = next(kind for kind in kinds if isinstance(module, kind))
            module = getattr(module, attributes[kind])
        if id(module) in inside:
            raise InvalidInputError(f"module {prefix[:-1]} contains itself", code="not-storable")
        inside.add(id(module))
        found.modules[prefix[:-1]] = module
        for name, parameter in module._parameters.items():
            if parameter is not None:
                found.tensors[prefix + name] = parameter
                found.parameters.append(prefix + name)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                found.tensors[prefix + name] = buffer
        for name, child in module._modules.items():
            if child is not None:
                walk(child, f"{prefix}{name}.")
        inside.discard(id(module))

    walk(model, "")
    return found


class ModelNames:
    """The attached models, walked once, and the names of parameters by identity.

    Args:
        models: The models by component name; of a parameter that two of them share, the first one's name counts.
    """

    def __init__(self, models: Mapping[str, nn.Module]) -> None:
        self.models = {name: module_tensors(model) for name, model in models.items()}
        self._owners: dict[int, tuple[str, str]] = {}
        for model, walked in self.models.items():
            for name in walked.parameters:
                self._owners.setdefault(id(walked.tensors[name]), (model, name))

    def holds(self, parameter: Tensor) -> bool:
        """Tell whether an attached model has this parameter."""
        return id(parameter) in self._owners

    def owner(self, parameter: Tensor) -> tuple[str, str] | None:
        """Give the model and the name that a parameter is known by; None if no attached model has it."""
        return self._owners.get(id(parameter))

    def groups(self, optimizer_name: str, groups: Sequence[Mapping[str, Any]]) -> tuple[list[list[str]], list[str]]:
        """Name the parameters of an optimizer's groups.

        A parameter of an attached model has its name there, with `<model>/` before it if two models of this optimizer
        would give the same; another one has its entry in `param_names`, or else `<optimizer>/<group>/<index>`.

        Returns:
            Names for each group in order; and those that no attached model gave.
        """
        prefixed = self._collide(groups)
        taken: set[str] = set()
        named: list[list[str]] = []
        for group in groups:
            names = [self._by_identity(parameter, prefixed) for parameter in group["params"]]
            taken.update(name for name in names if name)
            named.append(names)
        loose: list[str] = []
        for number, (group, names) in enumerate(zip(groups, named, strict=True)):
            given = group.get("param_names") or []
            for index, name in enumerate(names):
                if name:
                    continue
                own = given[index] if index < len(given) else None
                if own is None or own in taken:
                    own = f"{optimizer_name}/{number}/{index}"
                taken.add(own)
                names[index] = own
                loose.append(own)
        return named, loose

    def every_parameter(self) -> Iterator[Tensor]:
        """Give each parameter of the models once."""
        seen: set[int] = set()
        for walked in self.models.values():
            for name in walked.parameters:
                parameter = walked.tensors[name]
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter

    def _by_identity(self, parameter: Tensor, prefixed: bool) -> str:
        owner = self._owners.get(id(parameter))
        if owner is None:
            return ""
        return "/".join(owner) if prefixed else owner[1]

    def _collide(self, groups: Sequence[Mapping[str, Any]]) -> bool:
        if len(self.models) < 2:
            return False
        owners = [self._owners.get(id(parameter)) for group in groups for parameter in group["params"]]
        names = [owner[1] for owner in owners if owner]
        return len(set(names)) < len(names)
