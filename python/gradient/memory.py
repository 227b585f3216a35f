"""How much memory a commit may ask for: what it declares is held to a limit before anything is allocated.

One stored chunk can stand in a million places of a tensor, so what a small repository declares may be far more than any
machine has.
"""

from __future__ import annotations

import os
import pathlib

from gradient.errors import InvalidInputError

SMALL = 1 << 20
"""So many bytes are always there."""

_CGROUP = pathlib.Path("/sys/fs/cgroup")
_CGROUP_FILES = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def available_bytes() -> int:
    """Give the memory that this process may still take: the machine's, or its cgroup's where that is less."""
    found = [_available_on_machine()]
    for limit_file, used_file in _CGROUP_FILES:
        limit, used = _number(_CGROUP / limit_file), _number(_CGROUP / used_file)
        if limit is not None:
            found.append(max(limit - (used or 0), 0))
    return min(found)


def check_declared(declared: int, limit: int | None, *, what: str, way_out: str) -> None:
    """Refuse to restore more bytes than a limit.

    Args:
        declared: Bytes that the commit says it is.
        limit: Most bytes; None is the memory that is available now.
        what: What declares them, to begin the message with.
        way_out: How a caller sets another limit.

    Raises:
        InvalidInputError: It is more (`restore-too-large`).
    """
    # Asking the system takes longer than reading what is small.
    if limit is None and declared < SMALL:
        return
    most = available_bytes() if limit is None else limit
    if declared > most:
        raise InvalidInputError(
            f"{what} declares {_shown(declared)}, more than {_shown(most)}: what is available, or max_restore_bytes",
            code="restore-too-large",
            hint=f"if the repository is one that you trust, {way_out}",
        )


def check_limit(value: object) -> None:
    """Accept None or a number of bytes.

    Raises:
        InvalidInputError: It is anything else.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInputError(f"a limit is a number of bytes from 0, or None, not {value!r}", code="bad-option")


def _available_on_machine() -> int:
    try:
        for line in pathlib.Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _number(file: pathlib.Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # Not there, or "max".
        return None


def _shown(count: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count} {unit}"
        count >>= 10
    return f"{count} TiB"
