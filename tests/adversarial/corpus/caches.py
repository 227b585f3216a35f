"""S5, S6: caches that name what is not there, or lie about what is."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..forge import Repository, commit, commit_rows, merged_index
from .case import Case, tip


def packs_of(repo: Repository) -> list[tuple[bytes, int]]:
    """Ids and lengths of all packs."""
    return [(bytes.fromhex(file.stem), file.stat().st_size) for file in repo.files("packs")]


def indexes() -> Iterator[Case]:
    """Merged indexes."""

    def index_row(
        object_id: bytes, offset: int, raw_len: int, extent: int, pack: int, header_len: int, kind: int, bases: int = 0
    ) -> bytes:
        return object_id + struct.pack("<QIIIHBB", offset, raw_len, extent, pack, header_len, kind, bases)

    def wrong_rows(repo: Repository, **fields: int) -> None:
        rows = {
            "offset": 1 << 62,
            "raw_len": (1 << 32) - 1,
            "extent": (1 << 32) - 1,
            "pack": 0,
            "header_len": 65535,
            **fields,
        }
        known = []
        for number, file in enumerate(repo.files("packs")):
            data = file.read_bytes()
            at, objects = struct.unpack("<Q", data[-120:-112])[0], struct.unpack("<I", data[-112:-108])[0]
            for i in range(objects):
                found = data[at + 64 * i : at + 64 * (i + 1)]
                known.append(
                    index_row(
                        found[:32],
                        *(rows[name] for name in ("offset", "raw_len", "extent")),
                        number,
                        rows["header_len"],
                        found[58],
                    )
                )
        unique = {one[:32]: one for one in known}
        repo.write("cache/index", merged_index(packs_of(repo), [unique[one] for one in sorted(unique)]))

    yield Case("S6 an index whose rows point nowhere", wrong_rows)
    yield Case(
        "S6 an index whose rows point at the header",
        lambda repo: wrong_rows(repo, offset=0, raw_len=1, extent=1, header_len=48),
    )
    yield Case("S6 an index without rows", lambda repo: repo.write("cache/index", merged_index(packs_of(repo), [])))
    yield Case(
        "S6 an index of packs that are not there",
        lambda repo: repo.write("cache/index", merged_index([(bytes([i]) * 16, 5) for i in range(200)], [])),
    )
    for name in ("num_packs", "num_rows"):
        yield Case(
            f"S5 an index says 2^32 - 1 {name}",
            lambda repo, n=name: repo.write("cache/index", merged_index([], [], **{n: (1 << 32) - 1})),
        )

    def sparse_index(repo: Repository) -> None:
        rows = 100_000_000
        file = repo.write("cache/index", b"GRIX" + struct.pack("<III", 1, 0, rows))
        with file.open("r+b") as out:
            out.truncate(16 + 262_144 + 56 * rows + 32)

    yield Case("S5 an index of a hundred million rows, a hole", sparse_index)


def commit_rows_that_lie() -> Iterator[Case]:
    """Rows of commits."""

    def sparse_commits(repo: Repository) -> None:
        length = 3 << 30
        file = repo.write("cache/commits", b"GRCC" + struct.pack("<IQ", 1, length))
        with file.open("r+b") as out:
            out.truncate(48 + length)

    yield Case("S5 commit rows of 3 GiB, a hole", sparse_commits)
    yield Case(
        "S5 commit rows say 2^32 - 1 packs",
        lambda repo: repo.write("cache/commits", commit_rows([], [], num_packs=(1 << 32) - 1)),
    )
    yield Case(
        "S5 commit rows say 2^32 - 1 commits",
        lambda repo: repo.write("cache/commits", commit_rows([], [], num_commits=(1 << 32) - 1)),
    )

    def false_commits(repo: Repository) -> None:
        ids = [pack for pack, _ in packs_of(repo)]
        repo.write("cache/commits", commit_rows(ids, [(tip(repo), commit(bytes(32), bytes(32), message="false"))]))

    yield Case("S6 a commit row with another commit", false_commits)
