"""`OptimizerWrapper`: what a wrapped optimizer does otherwise than before."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from gradient.coded import FLOATS, Coded
from gradient.optim import state_dicts
from gradient.optim.codecs import BuiltinCodec, Codec
from gradient.optim.generic import GenericSteps
from gradient.optim.kept import Counter, Packed, full, say_once
from gradient.optim.native import RULES, NativeSteps, beta2_of
from gradient.optim.policies import ParameterFacts, Policy, chosen_codecs
from gradient.optim.store import StateStore, codec_for
from gradient.optim.views import OptimizerState

if TYPE_CHECKING:
    from gradient.optim.state_dicts import Format

PASSED_THROUGH: tuple[type[Optimizer], ...] = (LBFGS,)
"""Classes whose state is left as it is."""


@dataclass
class Settings:
    """What an optimizer was wrapped with."""

    policy: Policy
    model: Any = None
    pin_memory: bool = False
    profile: bool = False
    measure_error: bool = False


class OptimizerWrapper(Optimizer):
    """A wrapped optimizer: still the same object, and an instance of the class that it had.

    Made by `gradient.wrap`; `OptimizerWrapper(optimizer, ...)` is the same call. What is not named here is the
    optimizer's own.
    """

    inner_class: ClassVar[type[Optimizer]]
    """The class that the optimizer had."""

    # Set by `adopt`.
    _settings: Settings
    _store: StateStore
    _native: NativeSteps | None
    _generic: GenericSteps
    _facts: dict[Tensor, ParameterFacts]

    def __new__(
        cls,
        optimizer: Optimizer | None = None,
        policy: Policy | None = None,
        chunk_size: int | None = None,
        chunk_size_on_cuda: int | None = None,
        initial_chunk_size: int | None = None,
        pin_memory: bool | None = None,
        profile: bool = False,
    ) -> Any:
        """Wrap the optimizer that is given; see `gradient.wrap`."""
        from gradient.optim.wrapping import wrap

        given: Any = optimizer
        return wrap(given, policy, chunk_size, chunk_size_on_cuda, initial_chunk_size, pin_memory, profile)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is left to do."""

    @property
    def store(self) -> StateStore:
        """The state, as it is kept."""
        return self._store

    @property
    def policy(self) -> Policy:
        """Which codecs the state has."""
        return self._settings.policy

    @property
    def is_known(self) -> bool:
        """Whether its class is torch's or ours.

        Moments have the shape of their parameter then, and each parameter is stepped by itself.
        """
        return self.inner_class.__module__.startswith(("torch.optim", "gradient.optim"))

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer itself, for what was written for torch-optstate."""
        return self

    last_step_timings: dict[str, float]
    """Seconds of the last step with `profile=True`: `native`, `generic` and `step`, which is both."""

    @property
    def _step_supports_amp_scaling(self) -> bool:
        # True makes GradScaler leave unscaling to the step.
        return self._native is not None and not any(params for _, params in self._divided()[1])

    @_step_supports_amp_scaling.setter
    def _step_supports_amp_scaling(self, value: bool) -> None:
        """Take what fused optimizers say of themselves; here it depends on who steps."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do a step.

        Args:
            closure: Called first, once, with gradients enabled; its loss is returned.

        Raises:
            InvalidInputError: A parameter has another shape than its state; or the optimizer turns out to keep
                something for all parameters together.

        Guarantees:
            At most one parameter's state is in full precision at a time, on the generic path; with the fused kernels
            none ever is.
        """
        if issubclass(self.inner_class, PASSED_THROUGH):
            return inner_step(self.inner_class)(self, closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and float(found_inf):
            return loss
        native, generic = self._divided()
        start = time.perf_counter()
        # First: the optimizer's own code may refuse.
        if any(params for _, params in generic):
            self._generic.step(self, generic)
        middle = time.perf_counter()
        if native and self._native is not None:
            scale = getattr(self, "grad_scale", None)
            self._native.step(native, 1.0 if scale is None else 1.0 / float(scale))
        if self._settings.profile:
            end = time.perf_counter()
            self.last_step_timings = {"native": end - middle, "generic": middle - start, "step": end - start}
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See `Optimizer.add_param_group`."""
        super().add_param_group(param_group)
        if "_settings" in vars(self):
            self._bind()

    def state_dict(self, *, format: Format = "torch") -> dict[str, Any]:
        """Give the state and the groups.

        Args:
            format: "torch" gives what the optimizer would give unwrapped, in full precision, each tensor decoded when
                it is read; "native" gives codes and scales as they are kept, for `torch.save`, which
                `torch.load(weights_only=True)` reads. Loading them goes on with the same bits.

        Raises:
            InvalidInputError: The format is unknown.
        """
        return state_dicts.give(self, super().state_dict, format)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the state of either format, of this optimizer or of one that is not wrapped.

        Tensors in full are coded as the policy says; that is a loss of precision, which is said once. Codes are taken
        as they are.

        Raises:
            InvalidInputError: Codes are of a kind or a shape that do not fit.
            ValueError: The groups do not fit.
        """
        state_dicts.take(self, super().load_state_dict, state_dict)

    def held_state(self, param: Tensor) -> dict[Any, Any]:
        """Give the state of a parameter as a commit stores it: codes as `gradient.coded.Coded`, all else in full."""
        return {
            key: value if isinstance(value, Coded) else full(value, param.device)
            for key, value in self._store.entries.get(param, {}).items()
        }

    def set_held_states(
        self,
        states: Mapping[Tensor, Mapping[Any, Any]],
        steps: Mapping[Tensor, int],
        groups: Sequence[Mapping[str, Any]] | None = None,
        /,
    ) -> bool:
        """Take the states of parameters as `held_state` gives them; what is in full is coded as the policy says.

        Args:
            states: States by parameter; empty for one that has none.
            steps: How many steps they have had, where the state does not count them.
            groups: Whose settings say how state is rounded; default: the optimizer's.

        Returns:
            Whether something has fewer bits now than it was given with.

        Guarantees:
            If it raises, nothing is changed.
        """
        store, is_lossy = self._store, False
        groups = self.param_groups if groups is None else groups
        beta2 = {param: beta2_of(group) for group in groups for param in group["params"]}
        with store.all_or_nothing():
            for param in states:
                store.drop(param)
            # What is taken as it is first: its numbers are not given away.
            store.entries |= {param: dict(state) for param, state in states.items() if state}
            store.steps |= {param: Counter(count) for param, count in steps.items() if param in states}
            for param, state in states.items():
                codecs = self._choose(param, state) if state else {}
                changed = {key: codec for key, codec in codecs.items() if _is_other(state[key], codec_for(key, codec))}
                is_lossy |= any(_is_loss(state[key], codec_for(key, codec)) for key, codec in changed.items())
                if changed:
                    store.commit(param, state, changed, beta2=beta2.get(param))
                    is_lossy |= any(_lost(state[key], store.entries[param][key], param.device) for key in changed)
        return is_lossy

    def held_steps(self) -> dict[Tensor, int]:
        """Give the numbers of steps of parameters whose state does not count them."""
        return {param: counter.value for param, counter in self._store.steps.items()}

    def __getstate__(self) -> dict[str, Any]:
        # What is known of the parameters goes along, and the model does not.
        settings = Settings(**{**vars(self._settings), "model": None})
        return {**super().__getstate__(), "_settings": settings, "_facts": self._facts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        held = state.get("state")
        if held is not None and not isinstance(held, OptimizerState):
            # From `Optimizer.load_state_dict`.
            state["state"] = state_dicts.unboxed(self, held, state["param_groups"])
        super().__setstate__(state)
        if held is not None and isinstance(held, OptimizerState):
            adopt(self, self._settings, held.store, self._facts)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class was made at run time: whoever unpickles makes it again.
        return (_unpickled, (self.inner_class,), self.__getstate__())

    def __deepcopy__(self, memo: dict[int, Any]) -> OptimizerWrapper:
        import copy

        made: OptimizerWrapper = object.__new__(type(self))
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return made

    def _divided(self) -> tuple[list[tuple[Any, list[Tensor]]], list[tuple[Any, list[Tensor]]]]:
        """Divide the parameters that have gradients: by group, those for the kernels and the others."""
        native: list[tuple[Any, list[Tensor]]] = []
        generic: list[tuple[Any, list[Tensor]]] = []
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if self._native is None or not self._native.rule.takes(group):
                generic.append((group, params))
                continue
            takes = [self._native.takes(param) for param in params]
            if all(takes):
                native.append((group, params))
                continue
            native.append((group, [param for param, own in zip(params, takes, strict=True) if own]))
            generic.append((group, [param for param, own in zip(params, takes, strict=True) if not own]))
        return native, generic

    def _choose(self, param: Tensor, state: Mapping[Any, Any]) -> Mapping[Any, Codec]:
        """Say which codecs a state has that did not come from a step."""
        from gradient.optim.views import Facts

        if issubclass(self.inner_class, PASSED_THROUGH):
            return {}
        facts = state if isinstance(state, Facts) else Facts(state)
        step = state.get("step")
        counter = self._store.steps.get(param)
        if step is not None:
            number = step.value if isinstance(step, Counter) else int(step)
        else:
            number = counter.value if counter is not None else 1
        return chosen_codecs(self.policy, param, facts, max(number, 1))

    def _bind(self) -> None:
        """Tell the policy what is known of the parameters."""
        found: dict[Tensor, ParameterFacts] = {}
        model = self._settings.model
        models = model.values() if isinstance(model, Mapping) else [] if model is None else [model]
        for one in models:
            for prefix, module in one.named_modules():
                for name, param in module.named_parameters(recurse=False):
                    found.setdefault(param, ParameterFacts(f"{prefix}.{name}" if prefix else name, type(module)))
        facts: dict[Tensor, ParameterFacts] = {}
        for group in self.param_groups:
            names = group.get("param_names") or [None] * len(group["params"])
            for param, name in zip(group["params"], names, strict=True):
                facts[param] = found.get(param) or self._facts.get(param) or ParameterFacts(name)
        self.policy.bind(facts)
        self._facts = facts


def adopt(
    optimizer: OptimizerWrapper,
    settings: Settings,
    store: StateStore,
    facts: Mapping[Tensor, ParameterFacts] | None = None,
) -> None:
    """Give an optimizer of a generated class what it needs.

    Args:
        optimizer: The optimizer.
        settings: What it is wrapped with.
        store: Its state.
        facts: What is known of its parameters already.
    """
    rule = RULES.get(optimizer.inner_class)
    # Not by a reference: an optimizer that nobody has any more is freed at once, as torch's are.
    reference = weakref.ref(optimizer)

    def choose(param: Tensor, state: Mapping[Any, Any]) -> Mapping[Any, Codec]:
        live = reference()
        return {} if live is None else live._choose(param, state)

    store.choose = choose
    vars(optimizer).pop("_step_supports_amp_scaling", None)
    optimizer._settings, optimizer._store, optimizer._facts = settings, store, dict(facts or {})
    optimizer.last_step_timings = {}
    measure = settings.measure_error
    optimizer._native = None if rule is None else NativeSteps(store, settings.policy, rule, measure=measure)
    optimizer._generic = GenericSteps(
        inner_step(optimizer.inner_class), store, settings.policy, is_trusted=optimizer.is_known, measure=measure
    )
    vars(optimizer)["state"] = OptimizerState(store)
    optimizer._bind()
    if issubclass(optimizer.inner_class, PASSED_THROUGH):
        say_once(f"{optimizer.inner_class.__name__} keeps its state in full precision: it is no state by parameter")


def _is_other(value: Any, codec: Codec) -> bool:
    """Tell whether a codec keeps a value otherwise than it is."""
    if not isinstance(codec, BuiltinCodec):
        return True
    if isinstance(value, Coded):
        return value.kind != codec.kind
    return not isinstance(value, Tensor) or FLOATS.get(value.dtype) != codec.kind or codec.offload_to_cpu


def _is_loss(value: Any, codec: Codec) -> bool:
    """Tell whether a codec keeps less of a value than there is, as far as that is known before it does."""
    if not isinstance(codec, BuiltinCodec):
        return False
    held = value.kind if isinstance(value, Coded) else FLOATS.get(value.dtype) if isinstance(value, Tensor) else ""
    return codec.kind not in ("float32", held) or (isinstance(value, Tensor) and value.dtype == torch.float64)


def _lost(value: Any, kept: Any, device: torch.device) -> bool:
    """Tell whether a user's codec has kept less of a value than there was."""
    if not isinstance(kept, Packed):
        return False
    return not torch.allclose(kept.decode(device), full(value, device), rtol=0, atol=0, equal_nan=True)


def inner_step(kind: type[Optimizer]) -> Callable[..., Any]:
    """Give the step of a class without torch's hooks, which are those of the whole step."""
    step: Any = kind.step
    inner: Callable[..., Any] = step.__wrapped__ if getattr(step, "hooked", False) else step
    return inner


_classes: weakref.WeakKeyDictionary[type, type[OptimizerWrapper]] = weakref.WeakKeyDictionary()


def wrapped_class(kind: type[Optimizer]) -> type[OptimizerWrapper]:
    """Give the class of wrapped optimizers of a class."""
    made = _classes.get(kind)
    if made is None:
        fields = {"inner_class": kind, "__module__": kind.__module__, "__doc__": kind.__doc__, "__new__": _made_anew}
        _classes[kind] = made = type(f"Wrapped{kind.__name__}", (OptimizerWrapper, kind), fields)
    return made


def _made_anew(cls: type[OptimizerWrapper], *args: Any, **kwargs: Any) -> Any:
    """Make another optimizer of a wrapped one's class, and wrap it."""
    from gradient.optim.wrapping import wrap

    return wrap(cls.inner_class(*args, **kwargs))


def _unpickled(kind: type[Optimizer]) -> Any:
    return object.__new__(wrapped_class(kind))
