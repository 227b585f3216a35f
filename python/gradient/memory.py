"""How much memory a commit may ask for: what it declares is held to a limit before anything is allocated.

One stored chunk can stand in a million places of a tensor, so what a small repository declares may be far more than any
machine has. Where memory is short all the same, that is no damage, and an error of its own.
"""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gradient.errors import InvalidInputError, StorageError

SMALL = 1 << 20
"""So many bytes are always there."""

_SHORTAGE = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")


@dataclass(frozen=True)
class _Controller:
    """How one version of cgroups tells what memory a group may have and has."""

    folder: str
    limit: str
    used: str
    # Lines of `memory.stat` with what the kernel takes back when memory is asked for, and what of it must be written
    # to a disk first. All count the groups below too.
    taken_back: tuple[str, ...]
    not_yet: tuple[str, ...]


_TWO = _Controller(
    "",
    "memory.max",
    "memory.current",
    ("inactive_file", "active_file", "slab_reclaimable"),
    ("file_dirty", "file_writeback"),
)
_ONE = _Controller(
    "memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
    ("total_dirty", "total_writeback"),
)


def available_bytes(*, root: pathlib.Path = pathlib.Path("/")) -> int:
    """Give the memory that this process may still take: the machine's, or its cgroup's where that is less.

    What a cache of files holds is there to be taken, in a cgroup as on the machine: a data set that was just read may
    fill all that a container has.

    Args:
        root: Where `proc` and `sys` are.
    """
    groups = [
        (controller, group) for controller, path in _own_groups(root) for group in _upwards(controller, path, root)
    ]
    left = (_available_in(controller, group) for controller, group in groups)
    return min([_available_on_machine(root), *(count for count in left if count is not None)])


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


@contextmanager
def short_of_memory(what: str) -> Iterator[None]:
    """Raise an error of ours where memory is short, on whatever device: nothing is wrong with what was to be read.

    Args:
        what: What did not succeed, to begin the message with.

    Raises:
        StorageError: There was not enough memory (`out-of-memory`).
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        told = str(error).partition("\n")[0]
        raise StorageError(
            f"{what}: memory is short ({told or type(error).__name__})",
            code="out-of-memory",
            hint="nothing is damaged: free some memory, then try again",
            errno=errno.ENOMEM,
        ) from error


def is_shortage(error: BaseException) -> bool:
    """Tell whether an error says that there was not enough memory, for torch too, which need not be here."""
    if isinstance(error, MemoryError):
        return True
    # On the CPU torch has no class for it.
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return isinstance(error, RuntimeError) and (named or any(words in str(error) for words in _SHORTAGE))


def _available_on_machine(root: pathlib.Path) -> int:
    try:
        for line in (root / "proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _own_groups(root: pathlib.Path) -> Iterator[tuple[_Controller, str]]:
    """Give the groups that this process is in, as `proc/self/cgroup` names them; the topmost if it names none."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        lines = []
    # The topmost ones too: where /sys shows a container no more than its own group, the name is of no use.
    yield from ((_TWO, ""), (_ONE, ""))
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            yield _TWO, path
        elif "memory" in controllers.split(","):
            yield _ONE, path


def _upwards(controller: _Controller, path: str, root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give the folder of a group and those above it: the limit of each holds."""
    group = pathlib.PurePosixPath(path.lstrip("/"))
    # A process that was moved out of its namespace is in `/../elsewhere`, which nothing shows.
    if ".." not in group.parts:
        top = root / "sys/fs/cgroup" / controller.folder
        yield from (top / part for part in (group, *group.parents))


def _available_in(controller: _Controller, group: pathlib.Path) -> int | None:
    limit, used = _number(group / controller.limit), _number(group / controller.used)
    if limit is None:
        return None
    if used is None:
        return limit
    stat = _stat(group / "memory.stat")
    cached = sum(stat.get(key, 0) for key in controller.taken_back) - sum(
        stat.get(key, 0) for key in controller.not_yet
    )
    return max(limit - used + min(max(cached, 0), used), 0)


def _stat(file: pathlib.Path) -> dict[str, int]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        return {key: int(count) for key, count in (line.split() for line in lines)}
    except (OSError, ValueError):  # Without it nothing counts as cached.
        return {}


def _number(file: pathlib.Path) -> int | None:
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # Not there, or "max".
        return None


def _shown(count: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count} {unit}"
        count >>= 10
    return f"{count} TiB"
