"""State dicts of wrapped optimizers: torch's own form, and codes as they are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from gradient import coded
from gradient.coded import BLOCKWISE, WIDTHS, Coded
from gradient.errors import InvalidInputError
from gradient.optim.kept import full, say_once
from gradient.optim.policies import MOMENTA, VARIANCES
from gradient.optim.views import OptimizerState

if TYPE_CHECKING:
    from gradient.optim.wrapper import OptimizerWrapper

Format: TypeAlias = Literal["torch", "native"]

STEPS = "gradient_steps"
"""Key of a native state dict: numbers of steps of parameters whose state has none."""
_MARK = "gradient_coded"
"""Key that says that a mapping is a tensor that is coded, and in which version of this form."""
_VERSION = 1


@dataclass(frozen=True)
class Box:
    """A parameter's state, which torch hands through a load as it is.

    Attributes:
        value: The state.
        steps: Its number of steps, where the state has none.
        is_native: It is from a native state dict.
    """

    value: Any
    steps: Any
    is_native: bool


def give(optimizer: OptimizerWrapper, give_torch: Callable[[], dict[str, Any]], form: Format) -> dict[str, Any]:
    """Give the state dict; see `OptimizerWrapper.state_dict`."""
    if form == "torch":
        return give_torch()
    if form != "native":
        raise InvalidInputError(f'format is "torch" or "native" and no {form!r}', code="bad-option")
    given = give_torch()
    params = [param for group in optimizer.param_groups for param in group["params"]]
    numbers = [number for group in given["param_groups"] for number in group["params"]]
    by_number = dict(zip(numbers, params, strict=True))
    entries, steps = optimizer.store.entries, optimizer.store.steps
    given["state"] = {
        number: {key: _given(value, by_number[number]) for key, value in entries[by_number[number]].items()}
        if number in by_number
        else value
        for number, value in given["state"].items()
    }
    given[STEPS] = {number: steps[param].value for number, param in by_number.items() if param in steps}
    return given


def take(
    optimizer: OptimizerWrapper, take_torch: Callable[[dict[str, Any]], None], state_dict: Mapping[str, Any]
) -> None:
    """Take a state dict; see `OptimizerWrapper.load_state_dict`."""

    def boxed(_: Any, given: dict[str, Any]) -> dict[str, Any]:
        # The last of the hooks: whatever others have made of the state dict is here.
        steps = given.get(STEPS, {})
        state = {number: Box(value, steps.get(number), STEPS in given) for number, value in given["state"].items()}
        return {**given, "state": state}

    handle = optimizer.register_load_state_dict_pre_hook(boxed)
    try:
        take_torch(dict(state_dict))
    finally:
        handle.remove()


def unboxed(
    optimizer: OptimizerWrapper, state: Mapping[Any, Any], groups: Sequence[Mapping[str, Any]]
) -> OptimizerState:
    """Take the states that torch has handed through; all of them, or nothing is changed.

    Args:
        optimizer: The optimizer.
        state: States by parameter.
        groups: The groups that it will have.
    """
    taken = {key: _taken(box, key) for key, box in state.items()}
    numbers = {param: number for number, param in enumerate(param for group in groups for param in group["params"])}
    for param, one in taken.items() if optimizer.is_known else ():
        for key in MOMENTA | VARIANCES if isinstance(param, Tensor) and isinstance(one, Mapping) else ():
            moment = one.get(key)
            if isinstance(moment, Tensor | Coded) and moment.shape != param.shape:
                raise InvalidInputError(
                    f"{key} of parameter {numbers.get(param)} can not be loaded: it has the shape "
                    f"{list(moment.shape)}, and the parameter {list(param.shape)}",
                    code="bad-state",
                    hint="the state dict is that of another model, or of its parameters in another order",
                )
    steps = {key: _whole(box.steps, "the number of steps") for key, box in state.items() if box.steps is not None}
    store = optimizer.store
    with store.all_or_nothing():
        store.clear()
        states = {key: one for key, one in taken.items() if isinstance(key, Tensor)}
        is_lossy = optimizer.set_held_states(states, steps, groups)
        store.entries |= {key: value for key, value in taken.items() if not isinstance(key, Tensor)}
        for param, box in state.items():
            # What is coded by now needs no memory of its own.
            kept, given = store.entries.get(param, {}), box.value
            for key in kept if isinstance(param, Tensor) else ():
                if isinstance(kept[key], Tensor) and kept[key] is given.get(key):
                    kept[key] = kept[key].clone()
    if is_lossy:
        say_once("the state that was loaded is in full precision, and was coded as the policy says")
    return OptimizerState(store)


def _given(value: Any, param: Tensor) -> Any:
    if not isinstance(value, Coded):
        return full(value, param.device)
    parts = {"codes": value.codes} if value.scales is None else {"codes": value.codes, "scales": value.scales}
    facts = {"kind": value.kind, "dtype": str(value.dtype).removeprefix("torch."), "seed": value.seed}
    return {_MARK: _VERSION, **facts, "draws": value.draws, **parts}


def _taken(box: Box, param: Any) -> Any:
    """Give a parameter's state with dtypes as torch loads them, coded where it was given so."""
    if not isinstance(box.value, Mapping):
        return box.value
    return {key: _one(part, key, param, box.is_native) for key, part in box.value.items()}


def _one(value: Any, key: Any, param: Any, is_native: bool) -> Any:
    if isinstance(value, Mapping) and _MARK in value:
        if not isinstance(param, Tensor):
            raise InvalidInputError(
                f"{key} of parameter {param} can not be loaded: the optimizer has no such parameter",
                code="bad-state",
                hint="the state dict is that of another model",
            )
        return from_parts(value, key, param)
    if not isinstance(value, Tensor) or not isinstance(param, Tensor):
        return value
    if key == "step":
        return value
    # Torch gives whatever it loads the dtype of the parameter; what comes from here has the dtype that it had.
    is_cast = not is_native and value.is_floating_point() and param.is_floating_point()
    dtype = param.dtype if is_cast else value.dtype
    return value.to(device=param.device, dtype=dtype)


def from_parts(parts: Mapping[str, Any], key: Any, param: Tensor) -> Coded:
    """Make a coded tensor of its parts, which are copied.

    Raises:
        InvalidInputError: They do not fit together, or not this parameter.
    """
    kind, codes, scales = parts.get("kind"), parts.get("codes"), parts.get("scales")
    dtype = getattr(torch, str(parts.get("dtype")), None)
    seed, draws = (_whole(parts.get(name), f"{name} of {key}") for name in ("seed", "draws"))
    wanted = BLOCKWISE.get(str(kind)) or WIDTHS.get(str(kind))
    problem = None
    if parts.get(_MARK) != _VERSION or wanted is None:
        problem = f"{kind!r}, version {parts.get(_MARK)!r}, is a form that this version does not know"
    elif not isinstance(codes, Tensor) or codes.dtype != wanted:
        problem = "its codes have another dtype"
    elif not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        problem = f"it stands for {parts.get('dtype')!r}, which is no floating point dtype"
    elif (scales is not None) != (kind in BLOCKWISE):
        problem = "it has scales, or none, and its kind says otherwise"
    elif codes.shape != param.shape:
        problem = f"it has the shape {list(codes.shape)} and its parameter {list(param.shape)}"
    elif kind in BLOCKWISE and (
        not isinstance(scales, Tensor)
        or scales.dtype != torch.float32
        or coded.row_len(codes) is None
        or scales.shape != (coded.num_blocks(codes),)
    ):
        problem = "its scales are not one for each block"
    if problem is not None or not isinstance(codes, Tensor):
        raise InvalidInputError(f"{key} can not be loaded: {problem}", code="bad-state")
    codes = codes.to(param.device, copy=True)
    scales = None if kind not in BLOCKWISE or scales is None else scales.to(param.device, copy=True).contiguous()
    assert isinstance(dtype, torch.dtype), "it was checked"
    return Coded(str(kind), codes, scales, dtype, seed, draws)


def _whole(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise InvalidInputError(f"{what} can not be {value!r}: it is a whole number from 0", code="bad-state")
    return value
