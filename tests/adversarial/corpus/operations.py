"""S3, S5, S8: operations that refer where they should not, names that are something else, and folds that are bombs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from ..forge import Repository, bomb, envelope, folded, identify, operation
from .case import NAMES, Case, Spoil, tip

NOWHERE = bytes([7]) * 32
LAST = (1 << 64) - 1


def published(name: str, refs: Any = None, *, more_mib: int = 0, **other: Any) -> Case:
    """One more operation; main stays where it is if nothing is said of refs."""

    def spoil(repo: Repository) -> None:
        repo.publish(["whole", {"main": ["branch", tip(repo)]}] if refs is None else refs, **other)

    return Case(name, spoil, more_mib)


def names() -> Iterator[Case]:
    """Refs that are names of something else."""
    for name, text in NAMES.items():

        def branch(repo: Repository, text: str = text) -> None:
            repo.publish(["whole", {text: ["branch", tip(repo)]}])

        yield Case(f"S3 a branch called {name}", branch)
        yield published(f"S3 HEAD on {name}", head=["branch", text], why=text)


def tables() -> Iterator[Case]:
    """Tables of refs that refer to others, or are large."""

    def changes(repo: Repository, back: int) -> None:
        repo.publish(["changes", max(repo.newest()[0] + 1 - back, 0), {"main": None}])

    def chain(repo: Repository) -> None:
        for _ in range(80):
            repo.publish(["changes", repo.newest()[0], {}])

    def large(repo: Repository) -> None:
        repo.publish(["whole", {f"b{i:06}": ["branch", NOWHERE] for i in range(100_000)}])
        since = repo.newest()[0]
        for i in range(63):
            repo.publish(["changes", since, {f"b{i:06}": None}])

    for back in (0, 1, 64, 65, -1, -(1 << 40)):
        yield Case(f"S5 changes against the table {back} before", lambda repo, back=back: changes(repo, back))
    yield Case("S5 a chain of changes against changes", chain)
    yield Case("S5 small changes of a large table", large)
    refs = {f"b{i:06}": ["tag", NOWHERE] for i in range(200_000)}
    yield published("S5 a table of 200,000 refs", ["whole", refs], more_mib=256)
    yield published("S5 a tip that is nowhere", ["whole", {"main": ["branch", NOWHERE]}])
    yield published("S5 HEAD on a commit that is nowhere", ["whole", {}], head=["commit", NOWHERE])
    yield published("S5 no refs", ["whole", {}])


def many() -> Iterator[Case]:
    """More operations than anybody has made."""

    def unreadable(repo: Repository) -> None:
        n, _ = repo.newest()
        for more in range(1, 3_001):
            (repo.folder / f"ops/{n + more:020}").write_bytes(b"")

    def readable(repo: Repository) -> None:
        n, previous = repo.newest()
        for more in range(1, 5_001):
            payload = operation(n + more, previous, ["whole", {"main": ["branch", NOWHERE]}])
            previous = identify("operation", payload)
            (repo.folder / f"ops/{n + more:020}").write_bytes(envelope(b"GROP", payload))

    def last_of_all(repo: Repository) -> None:
        payload = operation(LAST, NOWHERE, ["whole", {"main": ["branch", tip(repo)]}])
        repo.write(f"ops/{LAST:020}", envelope(b"GROP", payload))

    yield Case("S5 three thousand empty operations", unreadable)
    yield Case("S5 five thousand operations", readable)
    yield Case("S5 the last number of all", last_of_all)
    yield Case("S5 a number beyond all", lambda repo: repo.write(f"ops/{10**20 - 1}", b""))


def others() -> Iterator[Case]:
    """What else an operation says."""
    yield published("S5 a reason of 60 MiB", ["whole", {}], why="a" * (60 << 20))
    yield published("S5 a reason of 40 MiB of words and codes", ["whole", {}], why="a \x1b\n" * (10 << 20))
    packs = [i.to_bytes(16, "big") for i in range(900_000)]
    yield published("S5 900,000 condemned packs", ["whole", {}], condemned=packs)

    def condemn(repo: Repository) -> None:
        condemned = sorted(bytes.fromhex(file.stem) for file in repo.files("packs"))
        repo.publish(["whole", {"main": ["branch", tip(repo)]}], condemned=condemned)

    yield Case("S8 every pack condemned", condemn)
    for subject in (0, 1, 10**9, LAST):
        yield published(f"S5 an undo of operation {subject}", kind="undo", subject=subject)
        yield published(f"S5 a redo of operation {subject}", ["whole", {}], kind="redo", subject=subject)
    for time in (-(1 << 63), (1 << 63) - 1, LAST):
        yield published(f"S5 an operation at {time}", time=time)


def folds() -> Iterator[Case]:
    """Folded operations: bombs, windows, too few, too many."""
    small = operation(1, None, ["whole", {}], kind="init")
    window = struct.pack("<IBB", 0xFD2FB528, 0b1000_0000, 31 << 3) + struct.pack("<I", 200 << 20)
    beyond = zstandard.ZstdCompressor().compress(struct.pack("<Q", 1 << 62) + small)
    frames = {
        "a fold of zeros, 1 GiB": lambda: bomb(1 << 30),
        "a fold of zeros, 255 MiB": lambda: bomb(255 << 20),
        "a fold that says 100 bytes and holds 4 GiB": lambda: bomb(4 << 30, claimed=100),
        "a fold that says 200 MiB and holds nothing": lambda: bomb(0, claimed=200 << 20),
        "a length beyond the fold": lambda: beyond,
        "two frames": lambda: bomb(1 << 20) + bomb(1 << 20),
        "no frame": lambda: b"\x28\xb5\x2f\xfd",
        "a window of 2 TiB": lambda: window + struct.pack("<I", 1)[:3],
    }
    for name, frame in frames.items():
        yield Case(f"S5 {name}", only_fold(1, lambda frame=frame: envelope(b"GROF", frame())))  # type: ignore[misc]
    yield Case("S5 a fold with long reasons", only_fold(50, lambda: folded(chained(50, why="a" * (4 << 20)))))
    yield Case("S5 a fold of 20,000 operations", only_fold(20_000, lambda: folded(chained(20_000))))
    yield Case("S5 a fold of all operations there can be", only_fold(LAST, lambda: folded([small])))
    yield Case("S5 a fold of none", only_fold(0, lambda: folded([])))
    yield Case("S5 a fold without one", only_fold(2, lambda: folded([small])))


def only_fold(m: int, data: Callable[[], bytes]) -> Spoil:
    """The operations 1 to m in a file, and none beside it."""

    def spoil(repo: Repository) -> None:
        for file in repo.files("ops"):
            file.unlink()
        repo.write(f"ops/folded-{m:020}", data())

    return spoil


def chained(num: int, **other: Any) -> list[bytes]:
    """Payloads of so many operations."""
    payloads: list[bytes] = []
    previous = None
    for n in range(1, num + 1):
        payload = operation(n, previous, ["changes", 1, {}] if 1 < n < 66 else ["whole", {}], **other)
        previous = identify("operation", payload)
        payloads.append(payload)
    return payloads
