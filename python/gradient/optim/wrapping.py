"""`wrap`: an optimizer becomes one whose state is kept compressed, and stays the same object."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from gradient.errors import InvalidInputError
from gradient.optim.kept import say_once
from gradient.optim.policies import EightBitPolicy, Policy
from gradient.optim.store import StateStore
from gradient.optim.wrapper import OptimizerWrapper, Settings, adopt, wrapped_class


def wrap(
    optimizer: Optimizer,
    policy: Policy | None = None,
    chunk_size: int | None = None,
    chunk_size_on_cuda: int | None = None,
    initial_chunk_size: int | None = None,
    pin_memory: bool | None = None,
    profile: bool = False,
    *,
    model: Any = None,
    measure_error: bool = False,
) -> Any:
    """Keep the state of an optimizer compressed from now on.

    The optimizer itself changes and is returned: schedulers, hooks, scalers and engines that were made with it before
    go on working, as do those that are made later. State that it has is coded at once.

    Adam, AdamW, SGD with momentum and `gradient.optim.Lion` are stepped by fused kernels where parameters are float32,
    bfloat16 or float16, on the CPU. All others, and whatever the kernels do not do (amsgrad, sparse gradients, other
    devices, subclasses), are stepped by their own code, one parameter at a time.

    Args:
        optimizer: Any optimizer of torch, or one that keeps state by parameter as they do.
        policy: Which codecs the state has; default: `EightBitPolicy()`.
        chunk_size: Accepted for torch-optstate's sake, as are the next two: never more than one parameter's state is
            in full precision.
        chunk_size_on_cuda: See `chunk_size`.
        initial_chunk_size: See `chunk_size`.
        pin_memory: Keep codes that are offloaded to the memory of the CPU in pages that a GPU reads directly; default:
            if a parameter is on one.
        profile: Measure each step: `optimizer.last_step_timings`.
        model: The model, or several by name, for policies that choose by name or by type of module.
        measure_error: Measure what coding does to each tensor: `optimizer.store.stats()`. Steps take several times as
            long.

    Returns:
        The optimizer.

    Raises:
        InvalidInputError: It is no optimizer; it is wrapped already (`already-wrapped`); its class has a form of state
            of its own (`own-state`); somebody has replaced its step (`step-replaced`); or the policy asks for what is
            not known. Nothing was changed.

    Guarantees:
        Where state is kept in eight bits it takes 1.0625 bytes an element of each moment. Steps give the same bits on
        every processor, for any number of threads, and after any save and load of what is kept.
    """
    _check(optimizer, policy)
    for name, size in (
        ("chunk_size", chunk_size),
        ("chunk_size_on_cuda", chunk_size_on_cuda),
        ("initial_chunk_size", initial_chunk_size),
    ):
        if size is not None and (type(size) is not int or size < 1):
            raise InvalidInputError(f"{name} is a whole number from 1 and no {size!r}", code="bad-option")
    for name, flag in (("pin_memory", pin_memory), ("profile", profile), ("measure_error", measure_error)):
        if flag is not None and not isinstance(flag, bool):
            raise InvalidInputError(f"{name} is True or False and no {flag!r}", code="bad-option")
    models = model.values() if isinstance(model, Mapping) else [model]
    if model is not None and not all(isinstance(one, Module) for one in models):
        raise InvalidInputError(
            f"model is a torch.nn.Module, or several by name, and no {type(model).__name__}", code="bad-option"
        )
    if pin_memory is None:
        pin_memory = any(param.is_cuda for group in optimizer.param_groups for param in group["params"])
    settings = Settings(EightBitPolicy() if policy is None else policy, model, pin_memory, profile, measure_error)
    kind = type(optimizer)
    before: dict[str, Any] = dict(vars(optimizer))
    state: dict[Any, Any] = optimizer.state
    optimizer.__class__ = wrapped_class(kind)
    try:
        # torch's own hooks around the step of the new class.
        optimizer._patch_step_function()
        _repeat_schedulers_patch(optimizer)
        adopt(optimizer, settings, StateStore(pin_memory=settings.pin_memory))  # type: ignore[arg-type]
        is_lossy = optimizer.set_held_states(  # type: ignore[attr-defined]
            {param: held for param, held in state.items() if isinstance(param, Tensor)}, {}
        )
        optimizer.state.update({key: held for key, held in state.items() if not isinstance(key, Tensor)})
    except BaseException:
        optimizer.__class__ = kind
        vars(optimizer).clear()
        vars(optimizer).update(before)
        raise
    if is_lossy:
        say_once("the optimizer had state in full precision, which was coded as the policy says")
    return optimizer


def auto_wrap(
    optimizer: Optimizer,
    policy: Policy | None = None,
    chunk_size: int | None = None,
    chunk_size_on_cuda: int | None = None,
    initial_chunk_size: int | None = None,
    pin_memory: bool | None = None,
    profile: bool = False,
) -> Any:
    """Do what `wrap` does, which chooses for itself what torch-optstate has a second function for."""
    return wrap(optimizer, policy, chunk_size, chunk_size_on_cuda, initial_chunk_size, pin_memory, profile)


def _repeat_schedulers_patch(optimizer: Optimizer) -> None:
    """Patch the step as a scheduler does, if one had: its patch calls the step of the class that was.

    Raises:
        InvalidInputError: Somebody else has replaced the step of this optimizer.
    """
    patched = vars(optimizer).pop("step", None)
    if patched is None:
        return
    if not hasattr(patched, "_wrapped_by_lr_sched"):
        vars(optimizer)["step"] = patched
        raise InvalidInputError(
            f"the step of this {type(optimizer).__name__} was replaced by somebody else's",
            code="step-replaced",
            hint="wrap the optimizer before whatever replaces optimizer.step",
        )
    reference = weakref.ref(optimizer)
    step: Any = type(optimizer).step

    @functools.wraps(step)
    def tracked(*args: Any, **kwargs: Any) -> Any:
        live: Any = reference()
        live._opt_called = True
        return step.__get__(live, type(live))(*args, **kwargs)

    tracked._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
    vars(optimizer)["step"] = tracked


def _check(optimizer: object, policy: object) -> None:
    if not isinstance(optimizer, Optimizer):
        raise InvalidInputError(f"a {type(optimizer).__name__} is no torch.optim.Optimizer", code="no-optimizer")
    kind = type(optimizer)
    if isinstance(optimizer, OptimizerWrapper):
        raise InvalidInputError(
            f"this {optimizer.inner_class.__name__} is wrapped already",
            code="already-wrapped",
            hint="for another policy make the optimizer anew, and load its state_dict()",
        )
    for method in ("state_dict", "load_state_dict"):
        if getattr(kind, method) is not getattr(Optimizer, method):
            raise InvalidInputError(
                f"{kind.__name__} has a {method} of its own, so its state is not kept as torch's optimizers keep it",
                code="own-state",
                hint="wrap the optimizer that it wraps, if it does",
            )
    if policy is not None and not isinstance(policy, Policy):
        raise InvalidInputError(
            f"{policy!r} is no gradient.optim.Policy", code="bad-option", hint="give an instance, as WarmupPolicy(100)"
        )
