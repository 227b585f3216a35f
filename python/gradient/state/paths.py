"""How a place in the training state is named in errors, and the error for what can not be stored."""

from __future__ import annotations

from gradient.errors import InvalidInputError

Path = tuple[object, ...]
"""Keys from the component's mapping down: text, other mapping keys, positions in lists and tuples."""

NESTING_MAX = 120
"""Deepest path; the format's own limit for a value is 128 (`docs/format/README.md`)."""

PLAIN_PARTS = "keep plain parts there (numbers, text, bytes, lists, dicts, NumPy arrays, tensors), or leave it out"


def shown(section: str, name: str, path: Path) -> str:
    """Name a place: `optim/main/state/fc.weight/exp_avg`."""
    return "/".join([section, name, *(key if isinstance(key, str) else repr(key) for key in path)])


def refused(
    where: str, reason: str, *, code: str = "not-storable", hint: str | None = PLAIN_PARTS
) -> InvalidInputError:
    """Make the error for something that a commit can not hold."""
    return InvalidInputError(f"{where}: {reason}", code=code, hint=hint)
