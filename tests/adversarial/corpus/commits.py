"""S3, S5, S11: commits with too much, from nowhere, or of a kind to come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..forge import Pack, Repository, cbor, commit, identify
from .case import NAMES, Case

LINE = 20_000


def made(name: str, make: Callable[[Pack, bytes, bytes], bytes]) -> Case:
    """A commit at the tip of main; `make` gets a pack, a root and an environment, both empty."""

    def spoil(repo: Repository) -> None:
        pack = Pack()
        tree = pack.add("tree", cbor({}))
        repo.publish_commit(pack, make(pack, tree, tree))

    return Case(name, spoil)


def ancestors() -> Iterator[Case]:
    """Parents, trees and environments."""
    yield made(f"S5 a line of {LINE:,} commits", long_line)
    yield made("S5 a parent that is nowhere", lambda _, r, e: commit(r, e, parents=[bytes([7]) * 32]))
    yield made("S5 a parent that is a tree", lambda _, r, e: commit(r, e, parents=[r]))
    many = [i.to_bytes(32, "big") for i in range(100_000)]
    yield made("S5 a hundred thousand parents", lambda _, r, e: commit(r, e, parents=many))
    yield made("S5 a tree that is nowhere", lambda _, r, e: commit(bytes(32), e))
    yield made("S5 an environment that is nowhere", lambda _, r, e: commit(r, bytes(32)))


def fields() -> Iterator[Case]:
    """What else a commit says."""
    metrics = {f"m{i}": 1.0 for i in range(100_000)}
    yield made("S5 a hundred thousand metrics", lambda _, r, e: commit(r, e, metrics=metrics))
    wide = {"n" * (8 << 20): 1.0, **{f"m{i}": 1.0 for i in range(20_000)}}
    yield made("S5 one metric with a name of 8 MiB among many", lambda _, r, e: commit(r, e, metrics=wide))
    texts = {"lines": "\n", "words": "a ", "codes": "\x1b", "letters": "\u00e4"}
    for kind, text in texts.items():
        mib = 12 if kind == "codes" else 24
        message = text * ((mib << 20) // len(text.encode()))
        case = made(f"S5 a message of {mib} MiB of {kind}", lambda _, r, e, m=message: commit(r, e, message=m))  # type: ignore[misc]
        # Escaped for JSON, a letter of two bytes takes six.
        yield replace(case, more_mib=3 * mib if kind == "letters" else 0)

    def branches(repo: Repository) -> None:
        pack = Pack()
        tree = pack.add("tree", cbor({}))
        tip = pack.add("commit", commit(tree, tree, message="a " * (1 << 20)))
        repo.write_pack(pack)
        repo.publish(["whole", {"main": ["branch", tip], **{f"b{i:03}": ["branch", tip] for i in range(300)}}])

    yield Case("S5 three hundred branches at a message of 2 MiB", branches)
    codes = {NAMES["escape"]: float("nan"), NAMES["return"]: -1}
    yield made("S3 metrics with a terminal's codes", lambda _, r, e: commit(r, e, metrics=codes))
    yield made("S11 an unknown mode", lambda _, r, e: commit(r, e, mode="warp", error={"x": 1.0}))
    yield made("S11 an unknown kind", lambda _, r, e: commit(r, e, kind="warp"))
    last = {"step": (1 << 63) - 1, "time": -(1 << 63)}
    yield made("S5 the last step at the first moment", lambda _, r, e: commit(r, e, **last))
    yield made("S5 a step beyond all", lambda _, r, e: commit(r, e, step=1 << 63))


def long_line(pack: Pack, root: bytes, environment: bytes) -> bytes:
    """One behind the other, in two blocks."""
    parents: list[bytes] = []
    block: list[tuple[str, bytes]] = []
    for step in range(LINE):
        data = commit(root, environment, parents=parents, step=step)
        parents = [identify("commit", data)]
        block.append(("commit", data))
    pack.blocks += [block[: LINE // 2], block[LINE // 2 :]]
    return commit(root, environment, parents=parents, step=LINE)
