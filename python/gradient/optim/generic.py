"""Steps by the optimizer's own code, one parameter at a time: decoded, stepped, coded again.

The optimizer sees one group with the parameters of the moment and nothing else. What it changes of its own numbers (a
count of steps in the group, say) is put back before each part, and has to come out the same from all of them.
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
from gradient.optim.native import beta2_of
from gradient.optim.store import StateStore
from gradient.optim.views import Facts

if TYPE_CHECKING:
    from gradient.optim.policies import Policy

_PLAIN = (bool, int, float, complex, str, type(None), tuple)
_AVERAGES = frozenset({"exp_avg"})
"""First moments that are averages of gradients; the others are sums of them."""
_CONTAINERS = (list, dict, set)
_NO_FIELDS = frozenset({"defaults", "param_groups", "state", "params", "param_names"})
"""What is the optimizer's or a part's own in any case."""


class GenericSteps:
    """The generic path of one optimizer.

    Args:
        optimizer: The optimizer; its groups and state are swapped while its own code runs.
        step: Its own step, without hooks.
        store: Where its state is.
        policy: Which codecs that has.
        trusted: The class is known to step each parameter by itself.
        measure: Measure the errors of what is coded.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        step: Callable[[Optimizer], Any],
        store: StateStore,
        policy: Policy,
        *,
        trusted: bool,
        measure: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self.store = store
        self.policy = policy
        self.measure = measure
        self._step = step
        self._trusted = trusted

    def step(self, work: list[tuple[dict[str, Any], list[Tensor]]]) -> None:
        """Do a step.

        Args:
            work: Groups and those of their parameters that are stepped here.

        Raises:
            InvalidInputError: The optimizer keeps something for all parameters together (`not-per-parameter`); in
                the first step, after which everything is as it was.
        """
        parts = [(group, part) for group, params in work for part in self._parts(params)]
        own = _plain(vars(self.optimizer))
        agreed: dict[str, Any] | None = None
        groups: dict[int, dict[str, Any]] = {}
        undo: list[tuple[Tensor, Tensor, dict[Any, Any] | None, Counter | None]] = []
        try:
            for group, params in parts:
                if not self._trusted:
                    undo += [(param, param.detach().clone(), *self._copy(param)) for param in params]
                # Copies: what a part appends to a list is not there for the next.
                vars(self.optimizer).update(_plain(own))
                after = self._part(group, params)
                fields = _plain(vars(self.optimizer))
                agreed = fields if agreed is None else agreed
                self._compare(agreed, fields, "the optimizer's")
                self._compare(groups.setdefault(id(group), after), after, "a group's")
        except InvalidInputError:
            for key in _plain(vars(self.optimizer)).keys() - own.keys():
                del vars(self.optimizer)[key]
            vars(self.optimizer).update(own)
            for param, values, entry, count in reversed(undo):
                param.detach().copy_(values)
                self.store.drop(param)
                self.store.entries |= {} if entry is None else {param: entry}
                self.store.steps |= {} if count is None else {param: count}
            raise
        self._trusted = True
        for group, _ in work:
            group.update(groups.get(id(group), {}))

    def _parts(self, params: list[Tensor]) -> list[list[Tensor]]:
        """Cut parameters into those whose state is in full, all together, and the others, one by one."""
        entries = self.store.entries
        in_full = [
            param
            for param in params
            if entries.get(param) and not any(isinstance(value, Coded | Packed) for value in entries[param].values())
        ]
        together = set(map(id, in_full))
        return [*([in_full] if in_full else []), *([param] for param in params if id(param) not in together)]

    def _copy(self, param: Tensor) -> tuple[dict[Any, Any] | None, Counter | None]:
        """Copy a parameter's state, which the optimizer changes where it is in full, and its number of steps."""
        entry, counter = self.store.entries.get(param), self.store.steps.get(param)
        count = None if counter is None else Counter(counter.value)
        if entry is None:
            return None, count
        return {key: value.clone() if isinstance(value, Tensor) else value for key, value in entry.items()}, count

    def _part(self, group: dict[str, Any], params: list[Tensor]) -> dict[str, Any]:
        """Run the optimizer on some parameters of a group, and keep their state; returns the group's numbers."""
        optimizer, entries = self.optimizer, self.store.entries
        part = {**group, **_plain(group), "params": params}
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
            self._keep(param, state.pop(param, {}), beta2_of(group))
        for key in state:
            raise self._refusal(f"its state {key!r} belongs to no parameter")
        return _plain(part)

    def _keep(self, param: Tensor, state: Mapping[Any, Any], beta2: float | None) -> None:
        if "step" in state:
            number = int(state["step"])
        else:
            counter: Counter = self.store.counter(param)
            counter.value += 1
            number = counter.value
        codecs = self.policy.get_codecs(param, Facts(state), number)
        for key, value in state.items():
            self._settle(param, key, value)
        self.store.commit(param, state, codecs, beta2=beta2, measure=self.measure)

    def _settle(self, param: Tensor, key: Any, value: Any) -> None:
        """Let a first moment decay whose gradient has died down, as the kernels do."""
        before, grad = self.store.entries.get(param, {}).get(key), param.grad
        if not isinstance(before, Coded) or before.kind != "signed-sqrt":
            return
        if grad is None or grad.layout is not torch.strided or value.shape != grad.shape:
            return
        if value.stride() == before.codes.stride():
            # An average is compared with what comes to it; a sum is many times that, and idle only where nothing comes.
            coded.settle(value, before, grad, 0.125 if key in _AVERAGES else 0.0)

    def _compare(self, expected: Mapping[str, Any], found: Mapping[str, Any], whose: str) -> None:
        for key in expected.keys() | found.keys():
            if repr(expected.get(key)) != repr(found.get(key)):
                raise self._refusal(
                    f"{whose} {key} depends on all parameters together "
                    f"({expected.get(key)!r} and {found.get(key)!r} from two of them)"
                )

    def _refusal(self, why: str) -> InvalidInputError:
        kind = getattr(self.optimizer, "inner_class", type(self.optimizer)).__name__
        return InvalidInputError(
            f"{kind} can not be wrapped: {why}",
            code="not-per-parameter",
            hint="use the optimizer as it is; its state stays in full precision",
        )


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields that are plain values, or lists and dicts of those; copies, which nothing else changes."""
    return {
        key: copy.deepcopy(value) if type(value) in _CONTAINERS else value
        for key, value in fields.items()
        if key not in _NO_FIELDS and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if type(value) in _CONTAINERS:
        return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
    return isinstance(value, _PLAIN)
