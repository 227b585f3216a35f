"""Steps by the optimizer's own code, one parameter at a time: decoded, stepped, coded again.

The optimizer sees one group with the parameters of the moment and nothing else: one that is large, or small ones that
are no more together. What it changes of its own (a count of steps in the group, say) is put back before each part, and
has to come out the same from all of them.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradient import coded
from gradient.coded import Coded
from gradient.errors import InvalidInputError
from gradient.optim.kept import Counter, Packed, full
from gradient.optim.lion import Lion
from gradient.optim.native import beta2_of
from gradient.optim.policies import chosen_codecs
from gradient.optim.store import StateStore
from gradient.optim.views import Facts

if TYPE_CHECKING:
    from gradient.optim.policies import Policy

_SCALARS = (bool, int, float, complex, str, type(None), tuple)
_CONTAINERS = (list, dict, set)
_TOGETHER = 1 << 18
"""Elements of parameters that are stepped together, if no parameter has more."""
_NO_FIELDS = frozenset({"defaults", "param_groups", "state", "params", "param_names"})
"""What is the optimizer's or a part's own in any case."""


class GenericSteps:
    """The generic path of one optimizer.

    Args:
        step: Its own step, without hooks.
        store: Where its state is.
        policy: Which codecs that has.
        is_trusted: The class is known to step each parameter by itself.
        measure: Measure the errors of what is coded.
    """

    def __init__(
        self,
        step: Callable[[Optimizer], Any],
        store: StateStore,
        policy: Policy,
        *,
        is_trusted: bool,
        measure: bool = False,
    ) -> None:
        self.store = store
        self.policy = policy
        self.measure = measure
        self._step = step
        self._is_known = is_trusted
        self._is_trusted = is_trusted

    def step(self, optimizer: Optimizer, work: list[tuple[dict[str, Any], list[Tensor]]]) -> None:
        """Do a step.

        Args:
            optimizer: The optimizer; its groups and state are swapped while its own code runs.
            work: Groups and those of their parameters that are stepped here.

        Raises:
            InvalidInputError: The optimizer keeps something for all parameters together (`not-per-parameter`).

        Guarantees:
            If the first step raises that a class of somebody else does, everything is as it was.
        """
        parts = [(group, part) for group, params in work for part in self._parts(params)]
        fields, live = vars(optimizer), dict(vars(optimizer))
        own = self._plain(live)
        agreed: dict[str, Any] | None = None
        groups: dict[int, dict[str, Any]] = {}
        undo: list[tuple[Tensor, Tensor, dict[Any, Any] | None, Counter | None]] = []
        try:
            for group, params in parts:
                if not self._is_trusted:
                    undo += [(param, param.detach().clone(), *self._copy(param)) for param in params]
                # Copies, and nothing that is new: what a part makes or appends to is not there for the next.
                for key in self._plain(fields).keys() - own.keys():
                    del fields[key]
                fields.update(self._plain(own))
                after = self._part(optimizer, group, params)
                changed = self._plain(fields)
                agreed = changed if agreed is None else agreed
                _compare(optimizer, agreed, changed, "the optimizer's")
                _compare(optimizer, groups.setdefault(id(group), after), after, "a group's")
        except BaseException:
            for key in self._plain(fields).keys() - own.keys():
                del fields[key]
            fields.update({key: live[key] for key in own})
            for param, values, entry, count in reversed(undo):
                param.detach().copy_(values)
                self.store.drop(param)
                self.store.entries |= {} if entry is None else {param: entry}
                self.store.steps |= {} if count is None else {param: count}
            raise
        self._is_trusted = True
        fields.update({key: live[key] for key in own})
        _write(fields, agreed or {})
        for group, _ in work:
            _write(group, groups.get(id(group), {}))

    def _parts(self, params: list[Tensor]) -> list[list[Tensor]]:
        """Cut parameters into those whose state is in full, all together, and the others, as many as fit at a time."""
        entries, steps = self.store.entries, self.store.steps
        in_full = [
            param
            for param in params
            if (entries.get(param) or param in steps)
            and not any(isinstance(value, Coded | Packed) for value in entries.get(param, {}).values())
        ]
        together = set(map(id, in_full))
        parts = [in_full] if in_full else []
        room, most = 0, max((param.numel() for param in params), default=0)
        most = max(most, _TOGETHER) if self._is_trusted else 0
        for param in params:
            if id(param) in together:
                continue
            if parts and parts[-1] is not in_full and param.numel() <= room:
                parts[-1].append(param)
            else:
                parts.append([param])
                room = most
            room -= param.numel()
        return parts

    def _copy(self, param: Tensor) -> tuple[dict[Any, Any] | None, Counter | None]:
        """Copy a parameter's state, which a step changes where it is, and its number of steps."""
        entry, counter = self.store.entries.get(param), self.store.steps.get(param)
        count = None if counter is None else Counter(counter.value)
        return None if entry is None else {key: _copied(value) for key, value in entry.items()}, count

    def _part(self, optimizer: Optimizer, group: dict[str, Any], params: list[Tensor]) -> dict[str, Any]:
        """Run the optimizer on some parameters of a group, and keep their state; returns the group's values."""
        entries = self.store.entries
        part = {**group, **self._plain(group), "params": params}
        if "param_names" in group:
            names = {id(param): name for param, name in zip(group["params"], group["param_names"], strict=True)}
            part["param_names"] = [names[id(param)] for param in params]
        fields = vars(optimizer)
        # Hooks are those of the whole step; a step that calls its parent's would fire them for each part.
        swapped = ("param_groups", "state", "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
        before = {key: fields[key] for key in swapped if key in fields}
        state: dict[Tensor, dict[Any, Any]] = defaultdict(dict)
        for param in params:
            if entries.get(param):
                state[param] = {key: full(value, param.device) for key, value in entries[param].items()}
        fields.update({key: OrderedDict() for key in before} | {"param_groups": [part], "state": state})
        try:
            self._step(optimizer)
        finally:
            fields.update(before)
        for param in params:
            self._keep(optimizer, group, param, state.pop(param, {}))
        for key in state:
            raise _refusal(optimizer, f"its state {key!r} belongs to no parameter")
        return self._plain(part)

    def _keep(self, optimizer: Optimizer, group: Mapping[str, Any], param: Tensor, state: Mapping[Any, Any]) -> None:
        if "step" in state:
            number = int(state["step"])
        else:
            counter: Counter = self.store.counter(param)
            counter.value += 1
            number = counter.value
        codecs = chosen_codecs(self.policy, param, Facts(state), number)
        if group.get("differentiable"):
            # Whoever differentiates through a step has its graph in the state.
            codecs = {}
        for key, value in state.items():
            before, factor = self.store.entries.get(param, {}).get(key), kept_part(optimizer, group, key)
            if factor is not None and isinstance(before, Coded) and before.kind == "signed-sqrt":
                coded.settle(value, before, factor)
        self.store.commit(param, state, codecs, beta2=beta2_of(group), measure=self.measure)

    def _plain(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Give copies of what fields or groups have of plain values.

        Of a class that is not known that includes lists and tensors, which it may change where they are.
        """
        return {
            key: value if isinstance(value, _SCALARS) else copy.deepcopy(value)
            for key, value in fields.items()
            if key not in _NO_FIELDS and _is_plain(value, deep=not self._is_known)
        }


def kept_part(optimizer: Optimizer, group: Mapping[str, Any], key: Any) -> float | None:
    """Give how much of itself a first moment keeps a step; None if the group does not say."""
    if key == "momentum_buffer" and "momentum" in group:
        return float(group["momentum"])
    betas = group.get("betas")
    if key != "exp_avg" or betas is None:
        return None
    return float(betas[1 if isinstance(optimizer, Lion) else 0])


def _is_plain(value: Any, *, deep: bool) -> bool:
    if deep and type(value) in _CONTAINERS:
        return all(_is_plain(item, deep=True) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, _SCALARS) or (deep and type(value) is Tensor and not value.requires_grad)


def _copied(value: Any) -> Any:
    if isinstance(value, Coded):
        scales = None if value.scales is None else value.scales.clone()
        return Coded(value.kind, value.codes.clone(), scales, value.dtype, value.seed, value.draws)
    return value.clone() if isinstance(value, Tensor) else copy.copy(value) if isinstance(value, Counter) else value


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.shape == two.shape and one.dtype == two.dtype and bool(torch.isclose(one, two, 0, 0, True).all())
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(_same, one, two))
    # Numbers that are none are the same number here.
    return repr(one) == repr(two)


def _compare(optimizer: Optimizer, expected: Mapping[str, Any], found: Mapping[str, Any], whose: str) -> None:
    for key in expected.keys() | found.keys():
        if not _same(expected.get(key), found.get(key)):
            raise _refusal(
                optimizer,
                f"{whose} {key} depends on all parameters together "
                f"({expected.get(key)!r} and {found.get(key)!r} from two of them)",
            )


def _write(live: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Give fields the values that they have after a step; a tensor stays the tensor that it is."""
    for key, value in values.items():
        now = live.get(key)
        if key in live and _same(now, value):
            continue
        if isinstance(now, Tensor) and isinstance(value, Tensor) and now.shape == value.shape:
            now.copy_(value)
        else:
            live[key] = value


def _refusal(optimizer: Optimizer, why: str) -> InvalidInputError:
    kind = getattr(optimizer, "inner_class", type(optimizer)).__name__
    return InvalidInputError(
        f"{kind} can not be wrapped: {why}",
        code="not-per-parameter",
        hint="use the optimizer as it is; its state stays in full precision",
    )
