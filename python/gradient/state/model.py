"""Models: parameters and buffers, persistent or not, what is tied, and what `get_extra_state` gives."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from gradient._core import StoredTensor
from gradient.errors import InvalidInputError
from gradient.state import tensors
from gradient.state.composites import identity, is_jagged
from gradient.state.inplace import InPlace
from gradient.state.part import Capture, Mapping, Part
from gradient.state.paths import Path, refused
from gradient.state.plan import Phase

if TYPE_CHECKING:
    from gradient._types import ModelState
    from gradient.state.names import ModelNames, ModuleTensors
    from gradient.state.plan import RestorePlan

EXTRA_KEY = "_extra_state"
"""What torch calls the extra state of a module in its `state_dict`."""


class ModelPart(Part):
    """One model, by its canonical names.

    Args:
        name: The component's name.
        model: The module, wrapped or not.
        model_state: With "trainable" a restore does not write parameters that need no gradient: it compares them,
            bit for bit, and a difference is a mismatch.

    Raises:
        InvalidInputError: It is no `torch.nn.Module`.
    """

    section = "model"

    def __init__(self, name: str, model: nn.Module, *, model_state: ModelState = "all") -> None:
        super().__init__(name)
        if not isinstance(model, nn.Module):
            raise InvalidInputError(f"{self.where} is {type(model).__name__} and no torch.nn.Module")
        self.model = model
        self._keeps_frozen = model_state == "trainable"

    def capture(self, capture: Capture) -> Mapping:
        """See `Part.capture`."""
        walked = capture.names.models[self.name]
        self._check_saved(walked)
        flat = capture.flattener(self.section, self.name)
        held = {name: flat.tensor(tensor, ("tensors", name)) for name, tensor in walked.tensors.items()}
        # On its own: what a module gives may be its parameters again, and comes back to it as new tensors.
        flat = capture.flattener(self.section, self.name)
        extra = {name: flat.value(module.get_extra_state(), ("extra", name)) for name, module in _with_extra(walked)}
        return {"tensors": held, "extra": extra}

    def compare(self, mapping: Mapping, plan: RestorePlan, names: ModelNames) -> None:
        """See `Part.compare`."""
        walked = names.models[self.name]
        stored = mapping["tensors"]
        both = plan.compare_names(self.where, walked.tensors, stored)
        writer = InPlace(plan, self.section, self.name, mapping)
        # In the commit's order: an alias comes after what it means.
        known = set(both)
        resolved = {name: writer.resolve(("tensors", name)) for name in stored if name in known}
        misfits = self._compare_ties(walked, resolved, plan)
        frozen = set()
        if self._keeps_frozen:
            frozen = {name for name in walked.parameters if not walked.tensors[name].requires_grad}
        reordered = 0
        for name, (path, node) in resolved.items():
            if name in misfits:
                continue
            tensor, where = walked.tensors[name], f"{self.where}/{name}"
            if name in frozen:
                if tensors.unsupported(tensor, known=is_jagged(tensor)) is not None or not writer.same(path, tensor):
                    plan.changed.append(
                        f"{where}: frozen, and not what the commit was trained on (model_state='trainable')"
                    )
                continue
            writer.write(path, tensor, where)
            if tensors.is_plain(tensor) and type(node) is StoredTensor and tensors.fits(node, tensor):
                reordered += tensors.order_of(tensor) != node.order
        if reordered:
            plan.messages.append(
                f"{self.where}: {reordered} tensors have another memory format than in the commit; the script's stays"
            )
        self._compare_extra(mapping["extra"], walked, plan)

    def _check_saved(self, walked: ModuleTensors) -> None:
        """Refuse modules that save more than tensors and extra state: torch's quantized ones keep their weights so."""
        for name, module in walked.modules.items():
            if type(module)._save_to_state_dict is nn.Module._save_to_state_dict:
                continue
            saved: dict[str, Any] = {}
            module._save_to_state_dict(saved, "", True)
            known = [*module._parameters.values(), *module._buffers.values()]
            lost = [
                key
                for key, value in saved.items()
                if key != EXTRA_KEY and value is not None and not any(_is_same(value, tensor) for tensor in known)
            ]
            if lost:
                raise refused(
                    f"{self.where}/{name}",
                    f"{type(module).__name__} saves {', '.join(lost)}, which are no parameters or buffers: a commit "
                    "would lose them",
                    hint="give its class get_extra_state and set_extra_state, or attach only what is trained",
                )

    def _compare_ties(
        self, walked: ModuleTensors, resolved: dict[str, tuple[Path, object]], plan: RestorePlan
    ) -> set[str]:
        misfits: set[str] = set()
        here: dict[object, str] = {}
        there: dict[Path, str] = {}
        for name, (target, _) in resolved.items():
            tensor = walked.tensors[name]
            if tensors.unsupported(tensor, known=is_jagged(tensor)) is not None:
                continue
            first_here = here.setdefault(identity(tensor), name)
            first_there = there.setdefault(target, name)
            if first_here == first_there:
                continue
            misfits.add(name)
            if first_there == name:
                plan.changed.append(f"{self.where}/{name}: tied to {first_here} here, not in the commit")
            else:
                plan.changed.append(f"{self.where}/{name}: tied to {first_there} in the commit, not here")
        return misfits

    def _compare_extra(self, stored: dict[str, Any], walked: ModuleTensors, plan: RestorePlan) -> None:
        here = dict(_with_extra(walked))
        values = plan.values(self.section, self.name)
        extra = f"{self.where}/extra state of"
        both = set(plan.compare_names(extra, here, stored))
        for name, node in stored.items():
            value = values.value(node, ("extra", name))
            if name in both:
                plan.then(Phase.STATE, partial(here[name].set_extra_state, value))


def _is_same(value: object, tensor: Tensor | None) -> bool:
    if value is tensor or not isinstance(value, Tensor) or tensor is None:
        return value is tensor
    # A state dict may hold a detached view of it.
    return tensors.is_plain(value) and tensors.is_plain(tensor) and tensors.identity(value) == tensors.identity(tensor)


def _with_extra(walked: ModuleTensors) -> list[tuple[str, nn.Module]]:
    plain = nn.Module.get_extra_state
    return [(name, module) for name, module in walked.modules.items() if type(module).get_extra_state is not plain]
