"""What a script sees as `optimizer.state`: mappings that decode a tensor when it is read.

Both are dicts to whoever asks, with nothing in the dict itself; every way in and out is here or in `MutableMapping`.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

from gradient.coded import Coded
from gradient.optim.kept import Counter, Packed, full
from gradient.optim.store import StateStore

if TYPE_CHECKING:
    _View = dict[Any, Any]
else:

    class _View(MutableMapping, dict):
        __slots__ = ()


class ParameterState(_View):
    """The state of one parameter.

    What is read of a coded tensor is a copy: to change it, assign it. What is assigned is coded as the policy says.

    Args:
        store: Where the state is kept.
        param: The parameter.
    """

    __slots__ = ("_param", "_store")

    def __new__(cls, store: Any = (), param: Any = None, **values: Any) -> Any:
        """Make a plain dict of anything else that a dict is made of, as do those who rebuild what they were given."""
        return super().__new__(cls) if isinstance(store, StateStore) else dict(store, **values)

    def __init__(self, store: StateStore, param: Tensor) -> None:
        dict.__init__(self)
        self._store = store
        self._param = param

    def __getitem__(self, key: Any) -> Any:
        return full(self._entry()[key], self._param.device)

    def __setitem__(self, key: Any, value: Any) -> None:
        entry = self._store.entries.setdefault(self._param, {})
        if isinstance(entry.get(key), Counter):
            entry[key] = Counter.of(value)
            # The kernels hold the counter that was.
            self._store.slots.pop(self._param, None)
            return
        state = {**entry, key: value}
        choose = self._store.choose
        codecs = choose(self._param, Facts(state)) if choose is not None else {}
        self._store.commit(self._param, state, {key: codecs[key]} if key in codecs else {})

    def __delitem__(self, key: Any) -> None:
        del self._entry()[key]
        self._store.slots.pop(self._param, None)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._entry()))

    def __len__(self) -> int:
        return len(self._entry())

    def __contains__(self, key: object) -> bool:
        return key in self._entry()

    def facts(self) -> Iterator[tuple[Any, torch.Size, torch.dtype]]:
        """Give key, shape and dtype of each tensor; nothing is decoded."""
        return Facts(self._entry()).facts()

    def copy(self) -> dict[Any, Any]:
        """Give all of it in full, as a dict."""
        return dict(self.items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | dict(other)

    def __ror__(self, other: Any) -> Any:
        return dict(other) | self.copy()

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc,override,unused-ignore]
        self.update(other)
        return self

    def __repr__(self) -> str:
        return repr(self.copy())

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(self._entry())[::-1])

    def __copy__(self) -> dict[Any, Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return copy.deepcopy(self.copy(), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Whoever pickles it gets a dict; of the kinds of dict that torch.load(weights_only=True) takes, the nearest.
        return (OrderedDict, (), None, None, iter(self.items()))

    def _entry(self) -> dict[Any, Any]:
        entry: dict[Any, Any] = self._store.entries.get(self._param, {})
        return entry


# Whoever maps over the tensors of a state dict finds those of a parameter, and makes a dict of what comes of them.
register_pytree_node(
    ParameterState,
    lambda state: ([*state.values()], [*state]),
    lambda values, keys: dict(zip(keys, values, strict=True)),
)


class Facts(Mapping):  # type: ignore[type-arg]
    """State that is decoded when it is read, and tells shapes and dtypes without.

    Args:
        entry: The state as it is kept.
    """

    def __init__(self, entry: Mapping[Any, Any]) -> None:
        self._entry = entry

    def __getitem__(self, key: Any) -> Any:
        return full(self._entry[key], None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entry)

    def __len__(self) -> int:
        return len(self._entry)

    def __contains__(self, key: object) -> bool:
        return key in self._entry

    def facts(self) -> Iterator[tuple[Any, torch.Size, torch.dtype]]:
        """Give key, shape and dtype of each tensor."""
        for key, value in self._entry.items():
            if isinstance(value, Tensor | Coded | Packed):
                yield key, value.shape, value.dtype


class OptimizerState(_View):
    """The state of all parameters; as torch's, it has an empty one for a parameter that is asked for first.

    Args:
        store: Where it is kept.
    """

    __slots__ = ("store",)

    def __init__(self, store: StateStore) -> None:
        dict.__init__(self)
        self.store = store

    def __getitem__(self, param: Any) -> Any:
        entry = self.store.entries.setdefault(param, {})
        # What belongs to no parameter is kept as it is.
        return ParameterState(self.store, param) if isinstance(param, Tensor) else entry

    def get(self, param: Any, default: Any = None) -> Any:
        """Give the state of a parameter; the default if it has none."""
        return self[param] if param in self.store.entries else default

    def __setitem__(self, param: Any, state: Any) -> None:
        if not isinstance(param, Tensor):
            self.store.entries[param] = state
            return
        state = state.copy()
        choose = self.store.choose
        self.store.commit(param, state, choose(param, Facts(state)) if choose is not None else {})

    def __delitem__(self, param: Any) -> None:
        if param not in self.store.entries:
            raise KeyError(param)
        self.store.drop(param)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.store.entries))

    def __len__(self) -> int:
        return len(self.store.entries)

    def __contains__(self, param: object) -> bool:
        return param in self.store.entries

    def pop(self, param: Any, *default: Any) -> Any:
        """Take the state of a parameter out, in full."""
        if param not in self.store.entries:
            if default:
                return default[0]
            raise KeyError(param)
        state = self[param]
        state = state.copy() if isinstance(state, ParameterState) else state
        self.store.drop(param)
        return state

    def popitem(self) -> tuple[Any, Any]:
        """Take out the state that came last, in full."""
        if not self.store.entries:
            raise KeyError("no parameter has state")
        param = next(reversed(self.store.entries))
        return param, self.pop(param)

    def clear(self) -> None:
        """Forget all state."""
        self.store.clear()

    def copy(self) -> dict[Any, Any]:
        """Give the states by parameter, as a dict."""
        return dict(self.items())

    def __repr__(self) -> str:
        return f"{self.store!r}"

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(self.store.entries)[::-1])

    def __copy__(self) -> OptimizerState:
        return OptimizerState(copy.copy(self.store))

    def __deepcopy__(self, memo: dict[int, Any]) -> OptimizerState:
        return OptimizerState(copy.deepcopy(self.store, memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (OptimizerState, (self.store,))
