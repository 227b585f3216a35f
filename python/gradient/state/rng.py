"""Random number generators: Python's, NumPy's, torch's on every device in use, and those that a script registers."""

from __future__ import annotations

import random
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradient._core import StoredTensor
from gradient.errors import InvalidInputError
from gradient.state.part import Capture, Mapping, Part
from gradient.state.plan import Phase

if TYPE_CHECKING:
    from gradient.state.names import ModelNames
    from gradient.state.plan import RestorePlan

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
CUDA = "torch.cuda."


class Stream(Part):
    """One generator, `rng/<name>`; its state is set last of all, and again when late state was applied."""

    section = "rng"

    @abstractmethod
    def get(self) -> Any:
        """Give the state as plain values, arrays and tensors."""

    @abstractmethod
    def set(self, state: Any) -> None:
        """Take a state back."""

    def capture(self, capture: Capture) -> Mapping:
        """See `Part.capture`."""
        return {"value": capture.flattener(self.section, self.name).value(self.get(), ("value",))}

    def compare(self, mapping: Mapping, plan: RestorePlan, names: ModelNames) -> None:
        """See `Part.compare`."""
        here, there = _kind(self.get()), _kind(mapping["value"])
        if here != there:
            plan.changed.append(f"{self.where}: {there} in the commit, {here} here")
        value = plan.values(self.section, self.name).value(mapping["value"], ("value",))
        plan.then(Phase.RNG, partial(self.set, value))


class PythonStream(Stream):
    """The generator of the module `random`."""

    def get(self) -> Any:
        """See `Stream.get`."""
        return random.getstate()

    def set(self, state: Any) -> None:
        """See `Stream.set`."""
        random.setstate(state)


class NumpyStream(Stream):
    """The global generator of `numpy.random`, which the functions there draw from."""

    def get(self) -> Any:
        """See `Stream.get`."""
        return np.random.get_state(legacy=False)

    def set(self, state: Any) -> None:
        """See `Stream.set`."""
        np.random.set_state(state)


class TorchStream(Stream):
    """Torch's default generator on the CPU."""

    def get(self) -> Any:
        """See `Stream.get`."""
        return torch.get_rng_state()

    def set(self, state: Any) -> None:
        """See `Stream.set`."""
        torch.set_rng_state(state)


class CudaStream(Stream):
    """Torch's default generator on one CUDA device."""

    def __init__(self, index: int) -> None:
        super().__init__(f"{CUDA}{index}")
        self._index = index

    def get(self) -> Any:
        """See `Stream.get`."""
        return torch.cuda.get_rng_state(self._index)

    def set(self, state: Any) -> None:
        """See `Stream.set`."""
        torch.cuda.set_rng_state(state, self._index)


class KeptStream(Stream):
    """The state of a CUDA device that is not here: goes into the next commits as it came out of the last."""

    def __init__(self, name: str, state: Any = None) -> None:
        super().__init__(name)
        self._state = state

    def get(self) -> Any:
        """See `Stream.get`."""
        return self._state

    def set(self, state: Any) -> None:
        """See `Stream.set`."""
        self._state = state

    def compare(self, mapping: Mapping, plan: RestorePlan, names: ModelNames) -> None:
        """See `Part.compare`."""
        plan.messages.append(f"{self.where}: the device is not in use here; its random numbers are kept and not set")
        value = plan.values(self.section, self.name).value(mapping["value"], ("value",))
        plan.then(Phase.RNG, partial(self.set, value))


class RegisteredStream(Stream):
    """A generator that the script registered.

    Raises:
        InvalidInputError: It is none of `torch.Generator`, `numpy.random.Generator`, `numpy.random.RandomState` and
            `random.Random`, or one without state.
    """

    def __init__(self, name: str, generator: object) -> None:
        super().__init__(name)
        if not isinstance(generator, Generator) or isinstance(generator, random.SystemRandom):
            raise InvalidInputError(
                f"{self.where} is {type(generator).__name__}",
                hint="register_generator takes a torch.Generator, numpy.random.Generator, numpy.random.RandomState or "
                "random.Random; register_state(name, getter=, setter=) anything else",
            )
        self.generator = generator

    def get(self) -> Any:
        """See `Stream.get`."""
        generator = self.generator
        if isinstance(generator, torch.Generator):
            return {"kind": "torch", "state": generator.get_state()}
        if isinstance(generator, np.random.Generator):
            return {"kind": "numpy", "state": generator.bit_generator.state}
        if isinstance(generator, np.random.RandomState):
            return {"kind": "numpy-legacy", "state": generator.get_state(legacy=False)}
        return {"kind": "python", "state": generator.getstate()}

    def set(self, state: Any) -> None:
        """See `Stream.set`."""
        generator, value = self.generator, state["state"]
        if isinstance(generator, torch.Generator | np.random.RandomState):
            generator.set_state(value)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = value
        else:
            generator.setstate(value)

    def same(self, other: object) -> bool:
        """See `Part.same`."""
        return isinstance(other, RegisteredStream) and other.generator is self.generator


def builtin_streams() -> dict[str, Stream]:
    """Give the generators that every commit holds: CUDA's only when this process has initialised CUDA."""
    streams: dict[str, Stream] = {
        "python": PythonStream("python"),
        "numpy": NumpyStream("numpy"),
        "torch.cpu": TorchStream("torch.cpu"),
    }
    initialized: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if initialized:
        streams.update({f"{CUDA}{index}": CudaStream(index) for index in range(torch.cuda.device_count())})
    return streams


def is_builtin(name: str) -> bool:
    """Tell whether a name is one that no registered generator can have."""
    return name in ("python", "numpy", "torch.cpu") or name.startswith(CUDA)


def seed(number: object) -> None:
    """Seed Python, NumPy and torch, CUDA included, with one number.

    Args:
        number: Not negative; NumPy takes its lower 32 bits, torch its lower 64.

    Raises:
        InvalidInputError: It is negative or no integer.
    """
    if not isinstance(number, int) or number < 0:
        raise InvalidInputError(f"a seed is an integer and not negative, and no {number!r}")
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number % 2**64)


def _kind(state: Any) -> str:
    """Say what kind of generator a state belongs to, as far as it shows before it is set."""
    if isinstance(state, torch.Tensor):
        return f"a state of {state.numel()} bytes"
    if isinstance(state, StoredTensor):
        return f"a state of {state.nbytes} bytes"
    if isinstance(state, dict):
        if "kind" in state:
            return f"{state['kind']} generator with {_kind(state.get('state'))}"
        return f"{state.get('bit_generator')}"
    if isinstance(state, tuple) and state:
        return f"version {state[0]} of Python's generator"
    return f"a {type(state).__name__}"
