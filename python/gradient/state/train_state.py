"""`TrainState`: all parts of one training run together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from gradient._core import check_name
from gradient._types import SECTIONS, CompressedOptimizer, Stateful
from gradient.errors import AlreadyExistsError, CorruptionError, GradientError, InvalidInputError
from gradient.memory import short_of_memory
from gradient.state import environment, rng
from gradient.state.dataloader import DataPart
from gradient.state.external import ExternalPart, ObjectPart
from gradient.state.gradients import GradientPart, GradientWatch
from gradient.state.model import ModelPart
from gradient.state.names import ModelNames
from gradient.state.optimizer import OptimizerPart
from gradient.state.optimizer_override import OverridingOptimizerPart, overrides_load
from gradient.state.part import Capture, Part
from gradient.state.plan import Phase, RestorePlan, chosen, restore
from gradient.state.scaler import ScalerPart
from gradient.state.scheduler import SchedulerPart

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from gradient._types import Grads, Hyperparameters, ModelState
    from gradient.state.plan import Job

_LATE = frozenset({"rng", "data", "extra"})
"""Sections that a script may claim after a restore; what else nobody claimed is a mismatch."""


@dataclass(frozen=True)
class Captured:
    """One capture: what a commit is made from.

    Attributes:
        sections: Section to component to mapping, for `_core.Repository.commit`. Its tensors are views of live
            memory: commit before the script goes on.
        environment: Versions, devices and flags; the commit's, not the state's.
        notes: Sentences for the user; each is given once in the life of a `TrainState`.
        tensor_bytes: Bytes of all tensors; one that several names hold counts once for each component.
    """

    sections: dict[str, dict[str, dict[Any, Any]]]
    environment: dict[str, object]
    notes: list[str]
    tensor_bytes: int


class TrainState:
    """What a training run is made of, and how each part is captured and put back.

    Args:
        grads: "auto" captures the gradients that changed since their optimizer's last step; "always" captures all,
            "never" none. A restore brings back what the commit has, and sets every other gradient to None.
        model_state: "all" restores every parameter; "trainable" compares those that need no gradient instead of
            writing them.
        max_restore_bytes: Most bytes of tensors that a restore makes; None is the memory that is available.

    Raises:
        InvalidInputError: An option is unknown.
    """

    def __init__(
        self, *, grads: Grads = "auto", model_state: ModelState = "all", max_restore_bytes: int | None = None
    ) -> None:
        if grads not in ("auto", "always", "never"):
            raise InvalidInputError(f"grads={grads!r} is unknown", hint='use "auto", "always" or "never"')
        if model_state not in ("all", "trainable"):
            raise InvalidInputError(f"model_state={model_state!r} is unknown", hint='use "all" or "trainable"')
        self._grads: Grads = grads
        self._model_state: ModelState = model_state
        self._max_restore_bytes = max_restore_bytes
        self._parts: dict[tuple[str, str], Part] = {}
        self._kept: dict[str, rng.KeptStream] = {}
        self._watch = GradientWatch()
        self._said: set[str] = set()

    def add_models(self, models: Mapping[str, nn.Module]) -> None:
        """Claim models by name; a single one is called "main"."""
        for name, model in models.items():
            self._add(ModelPart(name, model, model_state=self._model_state))

    def add_optimizers(self, optimizers: Mapping[str, Optimizer]) -> None:
        """Claim optimizers by name, and note what their groups say now as the script's hyper-parameters."""
        for name, optimizer in optimizers.items():
            is_own = overrides_load(optimizer) and not isinstance(optimizer, CompressedOptimizer)
            kind = OverridingOptimizerPart if is_own else OptimizerPart
            self._add(kind(name, optimizer))
            self._watch.watch(optimizer)

    def add_schedulers(self, schedulers: Mapping[str, Any]) -> None:
        """Claim learning rate schedulers by name."""
        for name, scheduler in schedulers.items():
            self._add(SchedulerPart(name, scheduler))

    def add_scaler(self, name: str, scaler: Stateful) -> None:
        """Claim a gradient scaler."""
        self._add(ScalerPart(name, scaler))
        self._watch.watch_scaler(scaler)

    def add_dataloader(self, name: str, loader: object) -> None:
        """Claim a data loader by its `state_dict` and `load_state_dict`.

        Raises:
            InvalidInputError: It has none (`dataloader-unsupported`), or another loader draws its order from the same
                generator (`generator-shared`), which could not be put back for both.
        """
        part = DataPart(name, loader)
        for other in self._parts.values():
            if isinstance(other, DataPart) and any(
                one is two for one in part.generators() for two in other.generators()
            ):
                raise InvalidInputError(
                    f"{part.where} and {other.where} draw from the same generator",
                    code="generator-shared",
                    hint="give each loader a generator of its own, or none",
                )
        self._add(part)

    def add_generator(self, name: str, generator: rng.Generator) -> None:
        """Claim a generator that the script draws from itself; a second one by that name takes its place."""
        if rng.is_builtin(name):
            raise InvalidInputError(f"rng/{name} is captured already; a registered generator needs another name")
        self._add(rng.RegisteredStream(name, generator), again=True)

    def add_external(self, name: str, getter: Callable[[], Any], setter: Callable[[Any], object]) -> None:
        """Claim a value of the script's by two functions; whatever had the name before has it no longer."""
        self._add(ExternalPart(name, getter, setter), again=True)

    def add_object(self, name: str, obj: Stateful) -> None:
        """Claim an object by its `state_dict` and `load_state_dict`; else as `add_external`."""
        self._add(ObjectPart(name, obj), again=True)

    def take_back(self, section: str, name: str, before: object) -> None:
        """Give up a claim; what had the name before, as `owner` gave it, has it again."""
        if isinstance(before, Part):
            self._parts[(section, name)] = before
        else:
            self._parts.pop((section, name), None)

    def owner(self) -> Mapping[tuple[str, str], Part]:
        """Give what is claimed: (section, component) to the part that answers for it."""
        return dict(self._parts)

    def environment(self) -> dict[str, object]:
        """Describe the environment with what is environment about the models: see `environment.describe`."""
        return environment.describe(self._names())

    def capture(self) -> Captured:
        """Read the whole state.

        Tensors that lie in row-major order on the CPU are not copied: the result looks at their memory.

        Raises:
            InvalidInputError: Something can not be stored, and the message has its path; or the gradient of a
                parameter that no attached model has is in flight (code `gradients-in-flight`).
            StorageError: There is not enough memory for a copy of what has to be copied (`out-of-memory`).
        """
        with torch.no_grad(), short_of_memory("the state can not be captured"):
            names = self._names()
            capture = Capture(names)
            sections: dict[str, dict[str, dict[Any, Any]]] = {}
            wanted = self._watch.wanted(self._grads, self._optimizers(), names)
            for (section, name), part in self._gradients(wanted).items():
                mapping = part.capture(capture)
                if mapping["tensors"]:
                    sections.setdefault(section, {})[name] = mapping
            # Random numbers come last: a getter may draw some.
            parts = [*self._parts.values(), *self._streams().values()]
            for part in sorted(parts, key=lambda part: part.section == "rng"):
                sections.setdefault(part.section, {})[part.name] = part.capture(capture)
        notes = [note for note in capture.notes if note not in self._said]
        self._said.update(notes)
        tensor_bytes = sum(flattener.tensor_bytes for flattener in capture.flatteners)
        return Captured(sections, environment.describe(names), notes, tensor_bytes)

    def plan(
        self,
        components: Callable[[str, str], dict[Any, Any]],
        available: Mapping[str, Sequence[str]],
        *,
        only: Collection[str] | None = None,
        strict: bool = True,
        hyperparameters: Hyperparameters = "commit",
        skip: Collection[tuple[str, str]] = (),
    ) -> RestorePlan:
        """Compare a commit with the live state and plan its restore; touches nothing.

        Args:
            components: Gives the mapping of (section, component) of the commit.
            available: The commit's sections and the components in each.
            only: Sections ("model") or components ("model/main") to restore; all others are skipped, and named.
            strict: False skips what only one side has instead of raising.
            hyperparameters: Whose values the optimizers' groups have afterwards.
            skip: Components that are neither restored nor pending: the script has dropped them.

        Raises:
            StateMismatchError: All differences in one error.
            InvalidInputError: `only` or `hyperparameters` name something unknown.
        """
        if hyperparameters not in ("commit", "script"):
            raise InvalidInputError(f"hyperparameters={hyperparameters!r} is unknown", hint='use "commit" or "script"')
        plan = RestorePlan(strict=strict, hyperparameters=hyperparameters, max_restore_bytes=self._max_restore_bytes)
        names = self._names()
        held = [(section, name) for section in SECTIONS for name in sorted(available.get(section, ()))]
        plan.unexpected += [f"section {section}" for section in sorted(set(available) - set(SECTIONS))]
        parts: dict[tuple[str, str], Part] = {**self._parts, **self._gradients()}
        parts.update({("rng", name): stream for name, stream in self._streams().items()})
        wanted = chosen({*held, *parts}, only)
        if any(section in ("model", "optim", "grads") for section, _ in wanted):
            # Before the commit's own gradients are set.
            plan.then(Phase.GRADIENTS, partial(self._watch.drop, self._optimizers(), names))
        kept: dict[str, rng.KeptStream] = {}
        for key in held:
            section, name = key
            if key in skip:
                continue
            if key not in wanted:
                plan.skipped.append(f"{section}/{name}")
                continue
            part = parts.get(key)
            if section == "rng" and name.startswith(rng.CUDA) and not isinstance(part, rng.CudaStream):
                part = kept[name] = rng.KeptStream(name)
            if part is not None:
                compare(part, components(section, name), plan, names)
            elif section in _LATE:
                plan.pending.append(key)
            else:
                plan.unexpected.append(f"{section}/{name}")
        # A commit without gradients means that they were None, or used up.
        lacking = [key for key in parts if key in wanted and key not in held and key not in skip and key[0] != "grads"]
        self._note_lacking(lacking, plan)
        plan.check()
        if only is None:
            plan.then(Phase.DONE, self._kept.clear)
        plan.then(Phase.DONE, partial(self._kept.update, kept))
        return plan

    def apply_late(
        self,
        plan: RestorePlan,
        section: str,
        name: str,
        mapping: dict[Any, Any],
        read_into: Callable[[Sequence[Job]], object],
    ) -> None:
        """Restore one component that was registered after its commit was; then set all random numbers again.

        Args:
            plan: The plan of the commit's restore; the component is pending there, and no longer is afterwards.
            section: The component's section.
            name: Its name; it has been added before.
            mapping: What the commit holds for it.
            read_into: See `restore`.

        Raises:
            StateMismatchError: It does not fit; nothing was touched.
            InvalidInputError: Nobody has added it.

        Guarantees:
            After any other failure `plan.partial` tells whether the live state is neither old nor new.
        """
        part = self._parts.get((section, name))
        if part is None:
            raise InvalidInputError(f"{section}/{name} has not been registered")
        late = RestorePlan(max_restore_bytes=self._max_restore_bytes)
        compare(part, mapping, late, self._names())
        late.check()
        try:
            restore(late, read_into)
        finally:
            plan.partial = late.partial
        plan.repeat(late)
        plan.pending = [key for key in plan.pending if key != (section, name)]

    def reset_optimizers(self) -> None:
        """Empty every optimizer's state and give its groups the values they had when it was added."""
        for part in self._parts.values():
            if isinstance(part, OptimizerPart):
                part.reset()

    def reset_schedulers(self) -> None:
        """Give every scheduler the state it had when it was added."""
        for part in self._parts.values():
            if isinstance(part, SchedulerPart):
                part.reset()

    def reset_seed(self, seed: int) -> None:
        """Seed Python, NumPy and torch."""
        rng.seed(seed)

    def close(self) -> None:
        """Take away every hook that was set on an optimizer or a scaler."""
        self._watch.close()

    def _add(self, part: Part, *, again: bool = False) -> None:
        check_name(part.name, "component")
        key = (part.section, part.name)
        if key in self._parts and not again:
            # To let the second win would leave the first out of every commit, and nobody would know.
            raise AlreadyExistsError(
                f"{part.where} is registered already", code="taken", hint="choose another name for one of the two"
            )
        self._parts[key] = part

    def _names(self) -> ModelNames:
        return ModelNames({part.name: part.model for part in self._parts.values() if isinstance(part, ModelPart)})

    def _gradients(self, wanted: Collection[int] = ()) -> dict[tuple[str, str], Part]:
        models = [part.name for part in self._parts.values() if isinstance(part, ModelPart)]
        return {("grads", name): GradientPart(name, wanted) for name in models}

    def _streams(self) -> dict[str, rng.Stream]:
        return {**self._kept, **rng.builtin_streams()}

    def _optimizers(self) -> dict[str, Optimizer]:
        return {part.name: part.optimizer for part in self._parts.values() if isinstance(part, OptimizerPart)}

    def _note_lacking(self, lacking: list[tuple[str, str]], plan: RestorePlan) -> None:
        for section, name in lacking:
            if section == "rng" and name.startswith(rng.CUDA):
                plan.messages.append(f"{section}/{name}: not in the commit; it goes on as the script has seeded it")
            else:
                plan.missing.append(f"{section}/{name}")


def compare(part: Part, mapping: dict[Any, Any], plan: RestorePlan, names: ModelNames) -> None:
    """Let a part compare itself with what a commit holds for it, which may be anything that a tree can hold.

    Raises:
        CorruptionError: It is not what a part of that kind writes.
        StorageError: There is not enough memory for it (`out-of-memory`).
    """
    try:
        with short_of_memory(f"{part.section}/{part.name} can not be restored"):
            part.compare(mapping, plan, names)
    except GradientError:
        raise
    # No RuntimeError: that is how a device, or an object of the script, says that it failed.
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise CorruptionError(
            f"{part.section}/{part.name} of the commit can not be understood ({type(error).__name__}: {error})",
            code="malformed-state",
            hint="it was not written by this program, or by a newer one: take the other parts with only=(...)",
        ) from error
