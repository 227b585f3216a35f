"""Tensors of a commit, read without torch: a description at once, the data when it is asked for.

What NumPy has no dtype for comes as unsigned integers of the same width, or as the type that `ml_dtypes` has for it
where that can be imported; `to_float32` understands all of them without it.
"""

from __future__ import annotations

import importlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from gradient._small_floats import SMALL_FLOATS, table
from gradient._types import SECTIONS
from gradient.errors import CorruptionError, GradientError, InternalError, InvalidInputError, NotFoundError
from gradient.memory import check_declared, short_of_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gradient import _core

_PLAIN = {
    "bool": "|b1",
    "uint8": "|u1",
    "int8": "|i1",
    "uint16": "<u2",
    "int16": "<i2",
    "uint32": "<u4",
    "int32": "<i4",
    "uint64": "<u8",
    "int64": "<i8",
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
    "complex64": "<c8",
    "complex128": "<c16",
}
"""torch's dtypes that NumPy has too."""

_FOREIGN = {
    "bfloat16": ("<u2", "bfloat16"),
    "float8_e4m3fn": ("|u1", "float8_e4m3fn"),
    "float8_e5m2": ("|u1", "float8_e5m2"),
    "float8_e4m3fnuz": ("|u1", "float8_e4m3fnuz"),
    "float8_e5m2fnuz": ("|u1", "float8_e5m2fnuz"),
    "float8_e8m0fnu": ("|u1", "float8_e8m0fnu"),
    # Two numbers to a byte: nothing in ml_dtypes is laid out like it.
    "float4_e2m1fn_x2": ("|u1", None),
    "complex32": ("<u4", None),
    "bcomplex32": ("<u4", None),
    "bits16": ("<u2", None),
    **dict.fromkeys(("bits8", "bits1x8", "bits2x4", "bits4x2"), ("|u1", None)),
    **{f"{sign}int{bits}": ("|u1", None) for sign in ("", "u") for bits in range(1, 8)},
}
"""torch's other dtypes: unsigned integers of their width, and the name that `ml_dtypes` has for them."""


class StoredTensor:
    """A tensor of a commit: described at once, read when asked, verified always.

    Two of them are equal in content exactly when their `digest` is.
    """

    __slots__ = ("_core", "_name")

    def __init__(self, core: _core.StoredTensor, name: str = "") -> None:
        self._core = core
        self._name = name

    @property
    def core(self) -> _core.StoredTensor:
        """The compiled one behind it."""
        return self._core

    @property
    def dtype(self) -> str:
        """The dtype's name: torch's without `torch.`, or NumPy's `dtype.str` for what was an array."""
        return self._core.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self._core.shape

    @property
    def order(self) -> tuple[int, ...] | None:
        """The dimensions from the largest to the smallest stride that it had in memory; None is row-major order."""
        return self._core.order

    @property
    def is_array(self) -> bool:
        """Whether it was a NumPy array and no torch tensor."""
        return self._core.numpy

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self._core.nbytes

    @property
    def digest(self) -> str:
        """A hash of dtype, shape, order and content, known without reading the data."""
        return self._core.digest

    def bytes(self, *, max_restore_bytes: int | None = None) -> bytes:
        """Read its elements: row-major order, little-endian.

        Args:
            max_restore_bytes: Most bytes to read; None is the memory that is available.

        Raises:
            CorruptionError: A chunk's bytes are not what they were.
            InvalidInputError: It declares more bytes than that (`restore-too-large`); none was read.
            StorageError: There is not enough memory (`out-of-memory`).
        """
        what = f"{self._name or 'a tensor'} ({self.dtype} {list(self.shape)})"
        check_declared(self.nbytes, max_restore_bytes, what=what, way_out=f"pass max_restore_bytes={self.nbytes}")
        with short_of_memory(f"{what} can not be read"):
            return self._core.bytes()

    def numpy(self, *, max_restore_bytes: int | None = None) -> NDArray[Any]:
        """Read it into a new array; see the module for dtypes that NumPy lacks.

        Args:
            max_restore_bytes: As for `bytes`.

        Raises:
            CorruptionError: A chunk's bytes are not what they were.
            InvalidInputError: As for `bytes`.
        """
        import numpy as np

        wanted: Any
        if self.is_array:
            wanted = np.dtype(self.dtype)
            stored = wanted.newbyteorder("<")
        elif self.dtype in _PLAIN:
            wanted = stored = np.dtype(_PLAIN[self.dtype])
        else:
            unsigned, name = self._foreign()
            stored = np.dtype(unsigned)
            wanted = stored if name is None else _ml_dtype(name) or stored
        values = self._shaped(np.frombuffer(self.bytes(max_restore_bytes=max_restore_bytes), dtype=stored))
        copied: NDArray[Any] = values.astype(wanted) if wanted.kind == stored.kind else values.view(wanted).copy()
        return copied

    def to_float32(self, *, max_restore_bytes: int | None = None) -> NDArray[np.float32]:
        """Read it as 32-bit floats: exactly where they can hold it, else rounded to the nearest.

        Two 4-bit floats share a byte, low half first: the last dimension doubles.

        Args:
            max_restore_bytes: As for `bytes`.

        Raises:
            InvalidInputError: It is complex, or no number at all; or as for `bytes`.
            CorruptionError: A chunk's bytes are not what they were.
        """
        import numpy as np

        if self.is_array or self.dtype in _PLAIN:
            values = self.numpy(max_restore_bytes=max_restore_bytes)
            if values.dtype.kind not in "biuf":
                raise InvalidInputError(f"{self.dtype} can not become float32", code="not-real")
            return values.astype(np.float32)
        unsigned, _ = self._foreign()
        codes = self._shaped(np.frombuffer(self.bytes(max_restore_bytes=max_restore_bytes), dtype=unsigned))
        if self.dtype == "bfloat16":
            widened: NDArray[np.float32] = (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
            return widened
        if self.dtype == "float4_e2m1fn_x2":
            codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*self.shape[:-1], -1)
        if self.dtype in SMALL_FLOATS:
            meant: NDArray[np.float32] = table(self.dtype)[codes]
            return meant
        raise InvalidInputError(f"{self.dtype} can not become float32", code="not-real")

    def __repr__(self) -> str:
        return f"StoredTensor({self.dtype}, {list(self.shape)})"

    def _shaped(self, values: NDArray[Any]) -> NDArray[Any]:
        try:
            return values.reshape(self.shape)
        except ValueError:
            message = f"{self._name or 'a tensor'}: NumPy has no arrays of shape {list(self.shape)}"
            raise InvalidInputError(message, code="no-such-shape", hint="bytes() reads it") from None

    def _foreign(self) -> tuple[str, str | None]:
        try:
            return _FOREIGN[self.dtype]
        except KeyError:
            raise InternalError(f"dtype {self.dtype!r} has no layout here", code="unknown-dtype") from None


# States


class NotInStateError(NotFoundError, KeyError):
    """A commit's state has no such section or component. It is a `KeyError`: states are mappings."""

    default_code = "not-in-state"

    @classmethod
    def of(cls, message: str, name: object, names: Iterable[str]) -> Self:
        """Make one that suggests the nearest of the names that there are, else lists them."""
        from difflib import get_close_matches

        names = list(names)
        near = get_close_matches(name, names, n=3, cutoff=0.5) if isinstance(name, str) else []
        return cls(message, hint=f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(names)}")


class State(Mapping[str, Mapping[str, Any]]):
    """The state of a commit, by section and component; a component is read when it is first asked for."""

    def __init__(self, repository: _core.Repository, commit_id: str) -> None:
        names = repository.components(commit_id)
        order = {section: position for position, section in enumerate(SECTIONS)}
        self._sections = {
            section: _Components(repository, commit_id, section, tuple(names[section]))
            for section in sorted(names, key=lambda section: order.get(section, len(order)))
        }

    def __getitem__(self, section: str) -> Mapping[str, Any]:
        if section not in self._sections:
            raise NotInStateError.of(f"the commit's state has no section {section!r}", section, self._sections)
        return self._sections[section]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sections)

    def __len__(self) -> int:
        return len(self._sections)

    def __repr__(self) -> str:
        return f"State({ {section: list(names) for section, names in self._sections.items()} })"


class _Components(Mapping[str, Any]):
    """The components of one section."""

    def __init__(self, repository: _core.Repository, commit_id: str, section: str, names: tuple[str, ...]) -> None:
        self._repository = repository
        self._commit_id = commit_id
        self._section = section
        self._names = names
        self._read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            message = f"the commit's state has no component {name!r} in section {self._section!r}"
            raise NotInStateError.of(message, name, self._names)
        if name not in self._read:
            component = self._repository.component(self._commit_id, self._section, name)
            where = f"{self._section}/{name}"
            try:
                self._read[name] = readable(component, where)
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
                if isinstance(error, GradientError):
                    raise
                raise CorruptionError(
                    f"{where} of the commit can not be understood ({type(error).__name__}: {error})",
                    code="malformed-state",
                    hint="it was not written by this program, or by a newer one",
                ) from error
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def readable(component: Mapping[Any, Any], where: str = "") -> dict[Any, Any]:
    """Turn a component as `_core` gives it into plain values with `StoredTensor` leaves.

    An alias becomes the very `StoredTensor` that it stands for. Of the closed table, containers and NumPy scalars
    become what they were; what only torch has (sparse, quantized, ...) stays a `Named` with readable parts.
    """
    from gradient import _core

    made: dict[int, StoredTensor] = {}
    named: dict[int, Any] = {}

    def convert(value: Any, at: str) -> Any:
        if isinstance(value, _core.Alias):
            return convert(_follow(component, value.path), at)
        if isinstance(value, _core.StoredTensor):
            return made.setdefault(id(value), StoredTensor(value, at))
        if isinstance(value, _core.Named):
            if id(value) not in named:
                named[id(value)] = _named(value, lambda item: convert(item, at))
            return named[id(value)]
        if isinstance(value, Mapping):
            return {key: convert(item, f"{at}/{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [convert(item, f"{at}/{index}") for index, item in enumerate(value)]
        if isinstance(value, tuple):
            return tuple(convert(item, f"{at}/{index}") for index, item in enumerate(value))
        return value

    return {key: convert(item, f"{where}/{key}") for key, item in component.items()}


def stored_tensors(value: Any) -> Iterator[_core.StoredTensor]:
    """Every tensor in a component as `_core` gives it; one that is an alias of another is not given again."""
    from gradient import _core

    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, _core.StoredTensor):
            yield item
        elif isinstance(item, _core.Named):
            waiting += [item.value, item.extra]
        elif isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item


def _named(value: _core.Named, convert: Callable[[Any], Any]) -> Any:
    from gradient import _core

    inner = convert(value.value)
    if value.name == "ordered-dict":
        return OrderedDict(inner)
    if value.name == "counter":
        return Counter(inner)
    if value.name == "default-dict":
        return defaultdict(_FACTORIES.get(str(value.extra)), inner)
    if value.name == "deque":
        length = value.extra
        return deque(inner, maxlen=length if isinstance(length, int) else None)
    if value.name == "numpy-scalar":
        import numpy as np

        dtype = np.dtype(str(value.extra))
        return np.frombuffer(inner, dtype=dtype.newbyteorder("<")).astype(dtype)[0]
    return _core.Named(value.name, inner, convert(value.extra))


def _follow(component: Any, path: tuple[object, ...]) -> Any:
    from gradient import _core

    at: Any = component
    for key in path:
        inner: Any = at.value if isinstance(at, _core.Named) else at
        at = inner[key]
    if isinstance(at, _core.Alias):
        raise CorruptionError(f"an alias means {path!r}, where another alias is", code="bad-alias")
    return at


_FACTORIES: dict[str, Callable[[], Any]] = {
    factory.__name__: factory for factory in (bool, int, float, complex, str, bytes, list, tuple, set, dict)
}


def _ml_dtype(name: str) -> Any:
    """The dtype that `ml_dtypes` has under this name; None if it has none or is not installed."""
    import numpy as np

    try:
        ml_dtypes = importlib.import_module("ml_dtypes")
    except ImportError:
        return None
    kind = getattr(ml_dtypes, name, None)
    return None if kind is None else np.dtype(kind)
