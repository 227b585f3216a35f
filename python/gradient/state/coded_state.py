"""State of a wrapped optimizer, coded as it lies in memory: into a commit and out of it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from gradient import coded
from gradient._core import Named, StoredTensor
from gradient._types import CompressedOptimizer
from gradient.coded import BLOCKWISE, WIDTHS, Coded
from gradient.errors import CorruptionError
from gradient.state import tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from gradient.state.flatten import Flattener
    from gradient.state.paths import Path
    from gradient.state.unflatten import Unflattener

NAME = "coded"
"""The name of such a value in a commit."""


def held(optimizer: Optimizer, parameter: Tensor) -> dict[Any, Any]:
    """Give the state of a parameter as it is kept."""
    if isinstance(optimizer, CompressedOptimizer):
        return optimizer.held_state(parameter)
    state: dict[Any, Any] = optimizer.state[parameter]
    return state


def node(flat: Flattener, value: Any, path: Path) -> object:
    """Flatten a value of the state of an optimizer."""
    if not isinstance(value, Coded):
        return flat.value(value, path)
    parts = {"codes": flat.tensor(value.codes, (*path, "codes"))}
    if value.scales is not None:
        parts["scales"] = flat.tensor(value.scales, (*path, "scales"))
    dtype = tensors.DTYPES[value.dtype]
    return Named(NAME, parts, {"kind": value.kind, "dtype": dtype, "seed": value.seed, "draws": value.draws})


def is_coded(node: Any) -> bool:
    """Tell whether a node of a commit is such a value."""
    return isinstance(node, Named) and node.name == NAME


def misfit(node: Named) -> str | None:
    """Say why a node can not be decoded; None if it can."""
    extra, parts = node.extra, node.value
    if not isinstance(extra, dict) or not isinstance(parts, dict):
        return "it is no mapping"
    kind, numbers = extra.get("kind"), [extra.get("seed"), extra.get("draws")]
    codes: Any = parts.get("codes")
    scales: Any = parts.get("scales")
    if kind not in BLOCKWISE and kind not in WIDTHS:
        return f"its kind {kind!r} is one that this version does not know"
    if any(type(number) is not int or number < 0 for number in numbers):
        return "it has no seed of its stochastic rounding"
    dtype = tensors.NAMES_TO_DTYPES.get(str(extra.get("dtype")))
    if dtype is None or not dtype.is_floating_point:
        return f"it decodes to {extra.get('dtype')!r}"
    wanted = BLOCKWISE.get(kind) or WIDTHS[kind]
    if not _is(codes, tensors.DTYPES[wanted]):
        return "its codes are another dtype, or no tensor"
    if kind in WIDTHS:
        return None if parts.keys() == {"codes"} else "it has scales"
    if parts.keys() != {"codes", "scales"} or not _is(scales, "float32"):
        return "it has no scales"
    num_blocks = coded.num_blocks(tensors.empty(codes, device="meta"))
    return None if tuple(scales.shape) == (num_blocks,) else f"it has not {num_blocks} scales"


def build(builder: Unflattener, node: Named, path: Path) -> Coded:
    """Rebuild a value that has no misfit; its codes and scales are filled later."""
    stored: Any = node.value
    extra: Any = node.extra
    parts = {key: builder.value(part, (*path, key)) for key, part in stored.items()}
    dtype = tensors.dtype_of(extra["dtype"])
    return Coded(extra["kind"], parts["codes"], parts.get("scales"), dtype, extra["seed"], extra["draws"])


def decoded(named: Any, read: Callable[[Any], Tensor]) -> Tensor:
    """Decode a value that a commit gave, with what reads its parts.

    Raises:
        CorruptionError: It can not be decoded.
    """
    parts = named.value if isinstance(named.value, dict) else {}
    plain = Named(NAME, {key: getattr(part, "core", part) for key, part in parts.items()}, named.extra)
    reason = misfit(plain)
    if reason is not None:
        raise CorruptionError(f"a coded tensor can not be decoded: {reason}", code="bad-value")
    scales = read(parts["scales"]) if "scales" in parts else None
    return Coded(named.extra["kind"], read(parts["codes"]), scales, tensors.dtype_of(named.extra["dtype"])).decode()


def _is(part: Any, dtype: str) -> bool:
    # Codes are never shared: an alias would have two tensors of state change together.
    return isinstance(part, StoredTensor) and not part.numpy and part.dtype == dtype
