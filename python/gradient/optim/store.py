"""`StateStore`: the state of an optimizer as it is kept between steps, and how a tensor gets there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from gradient.coded import FLOATS, Coded
from gradient.errors import InvalidInputError
from gradient.optim.codecs import BuiltinCodec, Codec, FourthRootCodec, SignedSqrtCodec
from gradient.optim.kept import Counter, Packed, full, nbytes, say_once
from gradient.optim.policies import MOMENTA, VARIANCES

_NO_VARIANCES = {
    "signed-sqrt": "is for first ones",
    "float16": "makes small ones zero, which an update divides by",
}
"""Kinds that second moments are not kept as, and why."""
_FOURTH_ROOTS = (FourthRootCodec(), FourthRootCodec(offload_to_cpu=True))
_SIGNED_ROOTS = (SignedSqrtCodec(), SignedSqrtCodec(offload_to_cpu=True))


@dataclass
class KeyStats:
    """What one key of the state takes, over all parameters.

    Attributes:
        num_tensors: Tensors by that key.
        num_coded: Those that are coded.
        bytes_before: Bytes in full, in the dtype that torch keeps it in.
        bytes_after: Bytes as they are kept.
        error: Relative error (2-norm) of the last time that each was coded, all tensors together; None if that was
            not measured.
    """

    num_tensors: int = 0
    num_coded: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    error: float | None = None


@dataclass
class StateStore:
    """State by parameter and key.

    Args:
        pin_memory: Keep codes that lie in the memory of the CPU in pages that a GPU reads directly.

    Attributes:
        entries: State as it is kept: `Coded`, `Packed`, `Counter`, or any value as it is.
        steps: Numbers of steps of parameters whose state has none.
        slots: What the kernels hold of the state; whoever changes an entry drops its slot.
        choose: Says which codecs a parameter's state has.
    """

    pin_memory: bool = False
    entries: dict[Any, Any] = field(default_factory=dict)
    steps: dict[Tensor, Counter] = field(default_factory=dict)
    slots: dict[Tensor, Any] = field(default_factory=dict)
    choose: Callable[[Tensor, Mapping[Any, Any]], Mapping[Any, Codec]] | None = None
    _measured: dict[Any, dict[Tensor, tuple[float, float]]] = field(default_factory=dict)
    _next_seed: int | None = None
    _known: set[tuple[type, torch.dtype]] = field(default_factory=set)
    """Users' codecs that were seen to do what a codec does, and the dtypes with which they did."""

    def get_memory_usage(self) -> int:
        """Give the bytes that the state takes: codes, scales, what is kept in full, and 8 for each number."""
        return sum(nbytes(value) for entry in self._by_parameter() for value in entry.values())

    def stats(self) -> dict[Any, KeyStats]:
        """Give by key how many tensors there are, and their bytes before and after; counters are none of them."""
        stats: dict[Any, KeyStats] = {}
        for entry in self._by_parameter():
            for key, value in entry.items():
                if not isinstance(value, Tensor | Coded | Packed) or (key == "step" and not value.shape):
                    continue
                found = stats.setdefault(key, KeyStats())
                found.num_tensors += 1
                found.num_coded += not isinstance(value, Tensor)
                found.bytes_before += value.shape.numel() * value.dtype.itemsize
                found.bytes_after += value.nbytes
        for key, measured in self._measured.items():
            if key in stats:
                error, norm = (sum(part) for part in zip(*measured.values(), strict=True))
                stats[key].error = (error / norm) ** 0.5 if norm else 0.0
        return stats

    def materialize(self, param_id: Tensor, target_device: torch.device | str | None = None) -> dict[Any, Any]:
        """Give the state of a parameter in full.

        Args:
            param_id: The parameter.
            target_device: Where its tensors go; default: where the parameter is.
        """
        device = param_id.device if target_device is None else target_device
        return {key: full(value, device) for key, value in self.entries.get(param_id, {}).items()}

    def commit(
        self,
        param_id: Tensor,
        state: Mapping[Any, Any],
        codecs: Mapping[Any, Codec],
        stats: None = None,
        *,
        beta2: float | None = None,
        measure: bool = False,
    ) -> None:
        """Take the state of a parameter.

        Args:
            param_id: The parameter.
            state: Its state, in full or as it is kept; a tensor that is not coded is kept itself.
            codecs: Codecs by key; what has none is kept as it is.
            stats: Nothing: what torch-optstate collects there, `stats()` and `last_step_timings` say.
            beta2: How much second moments keep of themselves a step; None if unknown.
            measure: Measure the errors.
        """
        before = self.entries.get(param_id, {})
        entry: dict[Any, Any] = {}
        for key, kept in state.items():
            codec = codecs.get(key)
            value = kept if codec is None else full(kept, param_id.device)
            if codec is None or not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() == 0:
                entry[key] = value
                continue
            if type(value) not in (Tensor, Parameter) or value.is_meta:
                say_once(f"state that is a {type(value).__name__} on {value.device.type} is kept in full precision")
                entry[key] = value
                continue
            entry[key] = self.encode(value, codec_for(key, codec), before.get(key), beta2=beta2)
            if measure and entry[key] is not value:
                self.measure(param_id, key, value, entry[key])
        self.entries[param_id] = entry
        self.slots.pop(param_id, None)

    def materialize_batch(
        self, param_ids: Sequence[Tensor], target_devices: Sequence[torch.device | str], stats: None = None
    ) -> list[dict[Any, Any]]:
        """Give the states of several parameters in full, each on its device."""
        pairs = zip(param_ids, target_devices, strict=True)
        return [self.materialize(param, device) for param, device in pairs]

    def commit_batch(
        self,
        param_ids: Sequence[Tensor],
        states: Sequence[Mapping[Any, Any]],
        codecs_list: Sequence[Mapping[Any, Codec]],
        stats: None = None,
    ) -> None:
        """Take the states of several parameters."""
        for param, state, codecs in zip(param_ids, states, codecs_list, strict=True):
            self.commit(param, state, codecs)

    def encode(self, value: Tensor, codec: Codec, before: Any = None, *, beta2: float | None = None) -> Any:
        """Code a tensor, as a codec says.

        Args:
            value: The tensor.
            codec: The codec.
            before: How its place was kept before; its seed and its memory are taken.
            beta2: See `commit`.

        Returns:
            `Coded` or `Packed`; the tensor itself if it is as the codec wants it.
        """
        if not isinstance(codec, BuiltinCodec):
            packed = codec.encode(value)
            if (type(codec), value.dtype) not in self._known:
                check_own(codec, packed, value)
                self._known.add((type(codec), value.dtype))
            return Packed(codec, _pinned(packed) if self.pin_memory else packed, value.shape, value.dtype)
        if codec.kind == FLOATS.get(value.dtype) and not codec.offload_to_cpu:
            return value
        seed, draws = 0, None
        if codec.kind == "fourth-root":
            is_known = isinstance(before, Coded) and before.kind == codec.kind
            seed = before.seed if is_known else self.new_seed()
            if codec.is_stochastic(beta2):
                draws = before.draws + 1 if is_known else 0
        if not self.pin_memory:
            return codec.encode_as(value, seed=seed, draws=draws, into=before)
        coded = codec.encode_as(value, seed=seed, draws=draws)
        scales = None if coded.scales is None else _pinned(coded.scales)
        return Coded(coded.kind, _pinned(coded.codes), scales, coded.dtype, coded.seed, coded.draws)

    def measure(self, param: Tensor, key: Any, value: Tensor, kept: Any) -> None:
        """Measure what coding has done to a tensor."""
        exact = value.double()
        error = full(kept, value.device).double() - exact
        self._measured.setdefault(key, {})[param] = float(error.square().sum()), float(exact.square().sum())

    def _by_parameter(self) -> Iterator[dict[Any, Any]]:
        return (entry for param, entry in self.entries.items() if isinstance(param, Tensor))

    def drop(self, param: Tensor) -> None:
        """Forget the state of a parameter."""
        parts: tuple[dict[Tensor, Any], ...] = (self.entries, self.steps, self.slots, *self._measured.values())
        for part in parts:
            part.pop(param, None)
        self._next_seed = None

    def clear(self) -> None:
        """Forget all state."""
        for part in (self.entries, self.steps, self.slots, self._measured):
            part.clear()
        self._next_seed = None

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Undo what was taken and forgotten, if an exception leaves the block."""
        parts: tuple[dict[Any, Any], ...] = (self.entries, self.steps, self.slots, self._measured)
        before = [dict(part) for part in parts[:3]], {key: dict(value) for key, value in self._measured.items()}
        try:
            yield
        except BaseException:
            for part, content in zip(parts, (*before[0], before[1]), strict=True):
                part.clear()
                part.update(content)
            self._next_seed = None
            raise

    def counter(self, param: Tensor) -> Counter:
        """Give the number of steps of a parameter whose state has none, to be counted up."""
        return self.steps.setdefault(param, Counter(0))

    def new_seed(self) -> int:
        """Give the seed of a tensor's stochastic rounding: one more than any has, as after a resume."""
        if self._next_seed is None:
            kept = (value for entry in self._by_parameter() for value in entry.values() if isinstance(value, Coded))
            self._next_seed = max((value.seed + 1 for value in kept if value.kind == "fourth-root"), default=0)
        self._next_seed += 1
        return self._next_seed - 1

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "slots": {}, "choose": None, "_measured": {}, "_next_seed": None, "_known": set()}

    def __repr__(self) -> str:
        return f"StateStore({len(self.entries)} parameters, {self.get_memory_usage():,} bytes)"


def codec_for(key: Any, codec: Codec) -> Codec:
    """Give the codec that a key really has, and say where that is not the one asked for.

    A second moment is a fourth root where it would be lost; a first one never is, as it would lose its sign.

    Raises:
        InvalidInputError: It is no codec.
    """
    if not isinstance(codec, Codec):
        raise InvalidInputError(
            f"the policy's codec of {key} is {codec!r} and no gradient.optim.Codec",
            code="bad-option",
            hint="give an instance, as FP16Codec()",
        )
    if key in VARIANCES and isinstance(codec, BuiltinCodec) and codec.kind in _NO_VARIANCES:
        why = _NO_VARIANCES[codec.kind]
        say_once(f"{key} is a second moment, and {type(codec).__name__} {why}: it is coded as FourthRootCodec does")
        return _FOURTH_ROOTS[codec.offload_to_cpu]
    if key in MOMENTA and isinstance(codec, BuiltinCodec) and codec.kind == "fourth-root":
        say_once(
            f"{key} is a first moment, and {type(codec).__name__} is for second ones, which have no sign: it is coded "
            "as SignedSqrtCodec does"
        )
        return _SIGNED_ROOTS[codec.offload_to_cpu]
    return codec


def check_own(codec: Codec, packed: Any, value: Tensor) -> None:
    """Accept a user's codec that gives back what a codec has to.

    Raises:
        InvalidInputError: It does not (`bad-codec`); what it raised is the cause.
    """
    name = type(codec).__name__
    back: Any
    size: Any
    try:
        back, size = codec.decode(packed, device=value.device), codec.bytes(packed)
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        raise InvalidInputError(
            f"{name} can not be used: {type(error).__name__}: {error}",
            code="bad-codec",
            hint="a codec has encode(tensor), decode(packed, device=None) and bytes(packed)",
        ) from error
    problem = None
    if not isinstance(back, Tensor) or (back.shape, back.dtype, back.device) != (
        value.shape,
        value.dtype,
        value.device,
    ):
        found = f"{back.dtype} {list(back.shape)} on {back.device}" if isinstance(back, Tensor) else repr(back)
        problem = f"decode gave {found} for {value.dtype} {list(value.shape)} on {value.device}"
    elif isinstance(size, bool) or not isinstance(size, Integral) or int(size) < 0:
        problem = f"bytes gave {size!r}, which is no number of bytes"
    if problem is not None:
        raise InvalidInputError(
            f"{name} can not be used: {problem}",
            code="bad-codec",
            hint="decode gives a tensor of the shape and dtype that encode was given, on the device it is asked for",
        )


def _pinned(packed: Any) -> Any:
    if isinstance(packed, Tensor):
        return packed.pin_memory() if packed.device.type == "cpu" else packed
    if type(packed) is tuple:
        return tuple(_pinned(part) for part in packed)
    return packed
