"""Steps by the fused kernels: parameters and gradients in, moments as they are kept, one call for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from gradient import _core, coded
from gradient.coded import FLOATS, Coded
from gradient.errors import InvalidInputError
from gradient.optim.codecs import BuiltinCodec, Codec, FP32Codec
from gradient.optim.kept import Counter, Packed, full
from gradient.optim.lion import Lion
from gradient.optim.policies import chosen_codecs
from gradient.optim.store import StateStore, codec_for
from gradient.optim.views import Facts

if TYPE_CHECKING:
    from gradient.optim.policies import Policy

_EXACT = frozenset({Tensor, torch.nn.Parameter})


@dataclass(frozen=True)
class Rule:
    """What the kernels know of an optimizer.

    Attributes:
        keys: Its moments; the second is a second moment.
        counts: Its state has a number of steps.
        takes: Says whether the kernels do what a group asks for.
        settings: Gives what a kernel is called with: group, number of the step, factor of the gradient, whether codes
            are rounded stochastically, whether it is the first step.
        step: The kernel.
    """

    keys: tuple[str, ...]
    counts: bool
    takes: Callable[[Mapping[str, Any]], bool]
    settings: Callable[[Mapping[str, Any], int, float, bool, bool], tuple[Any, ...]]
    step: Callable[..., None]


def _adam(decoupled: bool) -> Rule:
    def settings(
        group: Mapping[str, Any], number: int, factor: float, is_stochastic: bool, first: bool
    ) -> tuple[Any, ...]:
        beta1, beta2 = map(float, group["betas"])
        is_decoupled = bool(group.get("decoupled_weight_decay", decoupled))
        decay = float(group["weight_decay"])
        return float(group["lr"]), beta1, beta2, float(group["eps"]), decay, is_decoupled, factor, number, is_stochastic

    def takes(group: Mapping[str, Any]) -> bool:
        return not (group.get("amsgrad") or group.get("differentiable") or group.get("capturable"))

    return Rule(("exp_avg", "exp_avg_sq"), True, takes, settings, _core.step_adamw)


def _sgd(group: Mapping[str, Any], number: int, factor: float, is_stochastic: bool, first: bool) -> tuple[Any, ...]:
    momentum, dampening, decay = (float(group[key]) for key in ("momentum", "dampening", "weight_decay"))
    return float(group["lr"]), momentum, dampening, decay, bool(group["nesterov"]), factor, first


def _lion(group: Mapping[str, Any], number: int, factor: float, is_stochastic: bool, first: bool) -> tuple[Any, ...]:
    beta1, beta2 = map(float, group["betas"])
    return float(group["lr"]), beta1, beta2, float(group["weight_decay"]), factor


RULES: dict[type, Rule] = {
    Adam: _adam(False),
    AdamW: _adam(True),
    SGD: Rule(
        ("momentum_buffer",),
        False,
        lambda group: bool(group["momentum"]) and not group.get("differentiable"),
        _sgd,
        _core.step_sgd,
    ),
    Lion: Rule(("exp_avg",), False, lambda group: True, _lion, _core.step_lion),
}
"""By the exact class: a subclass may compute something else."""


@dataclass(slots=True)
class Slot:
    """One parameter as the kernels take it.

    Attributes:
        moments: Its state, held.
        counter: Its number of steps.
        first: It has had no step.
        codec: The codec of the second moment; None if that is in full or not there.
        in_full: Moments that are tensors in the optimizer's state, and where they are in memory.
        until: The step at which its codecs may change; None if they never do.
        shape: The parameter's shape, as are the others.
    """

    moments: _core.Moments
    counter: Counter
    first: bool
    codec: BuiltinCodec | None
    until: int | None
    shape: torch.Size
    dtype: torch.dtype
    stride: tuple[int, ...]
    contiguous: bool
    in_full: list[tuple[Tensor, int]]

    def fits(self, param: Tensor) -> bool:
        """Tell whether the parameter still is what it was, and the state that others see is where it was."""
        return (
            param.dtype is self.dtype
            and param.shape == self.shape
            and param.stride() == self.stride
            and param.is_cpu
            and all(tensor.data_ptr() == address for tensor, address in self.in_full)
        )

    def view(self, tensor: Tensor) -> Tensor:
        """Give the elements of the parameter or its gradient in the order that the parameter has in memory."""
        if self.contiguous:
            return tensor if tensor.is_contiguous() else tensor.contiguous()
        if tensor.stride() != self.stride:
            tensor = torch.empty_strided(self.shape, self.stride, dtype=tensor.dtype).copy_(tensor)
        return coded.flat(tensor)


class NativeSteps:
    """The native path of one optimizer.

    Args:
        store: Where its state is.
        policy: Which codecs it has.
        rule: What the kernels know of it.
        measure: Measure the errors of what is coded, which takes a second step in full.
    """

    def __init__(self, store: StateStore, policy: Policy, rule: Rule, *, measure: bool = False) -> None:
        self.store = store
        self.policy = policy
        self.rule = rule
        self.measure = measure

    def takes(self, param: Tensor) -> bool:
        """Tell whether the kernels step this parameter; no state is changed.

        Raises:
            InvalidInputError: It has another shape than its state.
        """
        grad = param.grad
        if grad is None or grad.layout is not torch.strided or type(grad) not in _EXACT or grad.dtype != param.dtype:
            return False
        slot = self.store.slots.get(param)
        if slot is not None and slot.fits(param):
            return True
        self.store.slots.pop(param, None)
        return self._codecs(param) is not None

    def step(self, work: list[tuple[Mapping[str, Any], list[Tensor]]], factor: float) -> None:
        """Do a step on parameters that `takes` has said yes to.

        Args:
            work: Groups and their parameters.
            factor: What gradients are multiplied by.
        """
        calls, stepped, slots = [], [], self.store.slots
        for group, params in work:
            sign = -factor if group.get("maximize") else factor
            buckets: dict[tuple[int, bool, bool], list[tuple[Any, Tensor, Tensor]]] = {}
            is_stochastic: dict[int, bool] = {}
            for param in params:
                slot = slots.get(param) or self._prepare(param)
                codec = slot.codec
                if id(codec) not in is_stochastic:
                    is_stochastic[id(codec)] = codec is not None and codec.is_stochastic(beta2_of(group))
                key = (slot.counter.value + 1 if self.rule.counts else 0, is_stochastic[id(codec)], slot.first)
                if param.numel():
                    buckets.setdefault(key, []).append((slot.moments, slot.view(param), slot.view(param.grad)))  # type: ignore[arg-type]
                stepped.append((param, slot, key, group, sign))
            calls += [(self.rule.settings(group, number, sign, stochastic, first), entries)
                      for (number, stochastic, first), entries in buckets.items()]  # fmt: skip
        if not stepped:
            return
        expected = [self._exact(*one) for one in stepped] if self.measure else []
        if calls:
            self.rule.step(calls, **coded.how())
        torch.autograd.graph.increment_version([param for param, *_ in stepped])
        for (param, *_), exact in zip(stepped, expected, strict=False):
            for name, value in exact.items():
                self.store.measure(param, name, value, self.store.entries[param][name])
        for param, slot, _, group, _ in stepped:
            slot.counter.value += 1
            slot.first = False
            if slot.until is not None and slot.counter.value >= slot.until:
                self._recode(param, slot.counter.value, beta2_of(group))

    def _codecs(self, param: Tensor) -> dict[str, BuiltinCodec | None] | None:
        """Say how each moment is kept; None if the kernels do not take the parameter."""
        if not param.is_cpu or param.dtype not in FLOATS or type(param) not in _EXACT or coded.row_len(param) is None:
            return None
        entry = self.store.entries.get(param, {})
        preview = {key: param.new_zeros(()).expand(param.shape) for key in self.rule.keys}
        preview |= {key: value for key, value in entry.items() if value is not None}
        asked = chosen_codecs(self.policy, param, Facts(preview), max(self._counter(param).value, 1))
        codecs: dict[str, BuiltinCodec | None] = {}
        for key in self.rule.keys:
            codec = asked.get(key)
            codec = None if codec is None else codec_for(key, codec)
            value = entry.get(key)
            if (codec is not None and not isinstance(codec, BuiltinCodec)) or isinstance(value, Packed):
                return None
            if value is not None and value.shape != param.shape:
                raise InvalidInputError(
                    f"{key} has the shape {list(value.shape)}, and its parameter {list(param.shape)} now",
                    code="shape-changed",
                    hint="del optimizer.state[parameter] when a parameter gets another shape",
                )
            codecs[key] = codec
        return codecs

    def _counter(self, param: Tensor) -> Counter:
        entry = self.store.entries.get(param, {})
        return Counter.of(entry.get("step", 0)) if self.rule.counts else self.store.steps.get(param, Counter(0))

    def _prepare(self, param: Tensor) -> Slot:
        """Make what the kernels take of a parameter that they take, and the state of one that has none."""
        codecs = self._codecs(param)
        assert codecs is not None, "takes said yes"
        entry = self.store.entries.get(param, {})
        first = entry.get(self.rule.keys[0]) is None
        counter = self._counter(param) if self.rule.counts else self.store.counter(param)
        moments = {key: self._moment(param, entry.get(key), codec) for key, codec in codecs.items()}
        others = {key: value for key, value in entry.items() if key not in moments}
        if self.rule.counts:
            # Where torch has it.
            others = {"step": counter, **{key: value for key, value in others.items() if key != "step"}}
        self.store.entries[param] = {**others, **moments}
        return self._slot(param, counter, moments, codecs, first)

    def _slot(
        self,
        param: Tensor,
        counter: Counter,
        moments: dict[str, Any],
        codecs: Mapping[str, BuiltinCodec | None],
        first: bool,
    ) -> Slot:
        variance = moments.get(self.rule.keys[1]) if len(self.rule.keys) > 1 else None
        seed = variance.seed if isinstance(variance, Coded) else 0
        codec = codecs.get(self.rule.keys[1]) if isinstance(variance, Coded) and variance.scales is not None else None
        length = coded.row_len(param)
        assert length is not None, "only dense parameters come here"
        held = _core.Moments(FLOATS[param.dtype], *map(_memory, moments.values()), row_len=length, seed=seed)
        self.store.slots[param] = slot = Slot(
            held,
            counter,
            first,
            codec,
            self.policy.next_change(counter.value),
            param.shape,
            param.dtype,
            param.stride(),
            param.is_contiguous(),
            [(value, value.data_ptr()) for value in moments.values() if isinstance(value, Tensor)],
        )
        return slot

    def _moment(self, param: Tensor, value: Any, codec: BuiltinCodec | None) -> Any:
        """Give a moment in the form that its codec has, in the parameter's shape and order."""
        kind = "float32" if codec is None else codec.kind
        if value is None:
            return self._zeros(param, kind)
        lies = value.codes if isinstance(value, Coded) else value
        held = value.kind if isinstance(value, Coded) else FLOATS.get(value.dtype)
        fits = lies.stride() == param.stride() and lies.is_cpu
        if fits and held == kind:
            # What it decodes to is what torch would have beside this parameter.
            same = not isinstance(value, Coded) or value.dtype == param.dtype
            return value if same else Coded(value.kind, lies, value.scales, param.dtype, value.seed, value.draws)
        plain = torch.empty_like(param, dtype=torch.float32, requires_grad=False).copy_(full(value, "cpu"))
        if kind == "float32":
            return plain if param.dtype == torch.float32 else Coded(kind, plain, None, param.dtype)
        seed = value.seed if isinstance(value, Coded) else self.store.new_seed() if kind == "fourth-root" else 0
        made = coded.encode(plain, kind, seed=seed)
        return Coded(kind, made.codes, made.scales, param.dtype, seed)

    def _zeros(self, param: Tensor, kind: str) -> Any:
        if kind == FLOATS[param.dtype]:
            return torch.zeros_like(param, requires_grad=False)
        return coded.zeros(param, kind, seed=self.store.new_seed() if kind == "fourth-root" else 0)

    def _recode(self, param: Tensor, step: int, beta2: float | None) -> None:
        """Ask the policy again, and code what it wants otherwise."""
        entry, store = self.store.entries[param], self.store
        codecs = chosen_codecs(self.policy, param, Facts(entry), step)
        changed: dict[Any, Codec] = {}
        for key in self.rule.keys:
            codec = codecs.get(key)
            kind = None if codec is None else getattr(codec_for(key, codec), "kind", None)
            value = entry[key]
            held = value.kind if isinstance(value, Coded) else FLOATS.get(value.dtype)
            if codec is not None and kind != held:
                changed[key] = codec
            elif codec is None and isinstance(value, Coded) and value.kind != "float32":
                changed[key] = FP32Codec()
        if changed:
            store.commit(param, entry, changed, beta2=beta2, measure=self.measure)
        if param in store.slots:
            store.slots[param].until = self.policy.next_change(step)

    def _exact(
        self, param: Tensor, slot: Slot, key: tuple[int, bool, bool], group: Mapping[str, Any], sign: float
    ) -> dict[str, Tensor]:
        """Do the step in full on a copy; give the moments."""
        entry = self.store.entries[param]
        moments = {name: full(entry[name], "cpu").float().clone() for name in self.rule.keys}
        if not param.numel():
            return {}
        length = coded.row_len(param)
        assert length is not None, "only dense parameters come here"
        assert param.grad is not None, "only parameters with gradients come here"
        held = _core.Moments(FLOATS[param.dtype], *map(_memory, moments.values()), row_len=length)
        number, _, first = key
        settings = self.rule.settings(group, number, sign, False, first)
        copy = slot.view(param).detach().clone()
        self.rule.step([(settings, [(held, copy, slot.view(param.grad))])], **coded.how())
        return {name: value for name, value in moments.items() if isinstance(entry[name], Coded)}


def _memory(value: Any) -> Any:
    """Give a moment as the kernels hold it."""
    if isinstance(value, Coded) and value.scales is not None:
        return _bytes(value.codes), _bytes(value.scales)
    tensor = value.codes if isinstance(value, Coded) else value
    return _bytes(tensor), FLOATS[tensor.dtype]


def _bytes(tensor: Tensor) -> Any:
    return coded.flat(tensor).view(torch.uint8)


def beta2_of(group: Mapping[str, Any]) -> float | None:
    """Give how much of itself a second moment keeps a step; None if the group does not say."""
    betas = group.get("betas")
    if betas is not None:
        return float(betas[1])
    value = group.get("alpha", group.get("rho"))
    return None if value is None else float(value)
