"""S5, S6: packs whose footers, rows, blocks and entries lie."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator

import zstandard
from blake3 import blake3

from ..forge import Entry, Pack, Repository, Tag, bomb, cbor, commit, footer, identify, tensor
from .case import Case, Spoil


def footers() -> Iterator[Case]:
    """Footers whose numbers lie, and packs that are none."""
    for name in ("first_block", "index", "len"):
        for number in (0, 31, 1 << 40, (1 << 64) - 1):
            yield Case(
                f"S5 {name} of a footer is {number}",
                lambda repo, n=name, v=number: with_pack(repo, Pack(footer={n: v})),
            )
    for name in ("objects", "bases", "blocks", "commits"):
        for number in (1, (1 << 32) - 1):
            yield Case(
                f"S5 {number} {name} in a footer", lambda repo, n=name, v=number: with_pack(repo, Pack(footer={n: v}))
            )
    yield Case(
        "S5 a thousand packs that are none",
        lambda repo: [repo.write(f"packs/{i:032x}.pack", b"GRPK" + bytes(200)) for i in range(1000)],
    )
    yield Case("S5 an empty pack", lambda repo: repo.write(f"packs/{0:032x}.pack", b""))


def holes() -> Iterator[Case]:
    """Packs whose footers and lengths agree, and most of them is a hole of many GiB."""

    def hollow(repo: Repository, *, objects: int = 0, bases: int = 0) -> None:
        pack = Pack()
        start = b"GRPK" + struct.pack("<I", 1) + pack.id + bytes(8)
        length = 32 + 64 * objects + 32 * bases + 128
        counts = {"first_block": 32, "index": 32, "objects": objects, "bases": bases, "blocks": 0, "commits": 0}
        file = repo.write(f"packs/{pack.id.hex()}.pack", start)
        with file.open("r+b") as out:
            out.truncate(length - 128)
            out.seek(0, os.SEEK_END)
            out.write(footer(pack.id, start, blake3(b"").digest(), {**counts, "len": length, "version": 1}))
        repo.drop_caches()

    yield Case("S5 a table of a billion rows, a hole", lambda repo: hollow(repo, objects=1 << 30))
    yield Case("S5 a table of four billion bases, a hole", lambda repo: hollow(repo, bases=(1 << 32) - 1))


def blocks() -> Iterator[Case]:
    """Blocks that hold more than they say, or more than anybody needs."""
    yield Case("S5 a block of 64 MiB of zeros", block(bomb(64 << 20), 64 << 20))
    yield Case("S5 a hundred blocks of 64 MiB of zeros", block(bomb(64 << 20), 64 << 20, 100))
    yield Case("S5 a block that says 100 bytes and holds 4 GiB", block(bomb(4 << 30, claimed=100), 100))
    yield Case("S5 a block of more than may be", block(bomb(1 << 30), (64 << 20) + 1))
    yield Case("S5 a block that is no frame", block(b"zeros", 9))

    def messages(repo: Repository) -> None:
        pack = Pack()
        environment = pack.add("tree", cbor({}))
        root = pack.add("tree", cbor({}))
        parents: list[bytes] = []
        for i in range(60):
            data = commit(root, environment, message="m" * (8 << 20), step=i, parents=parents)
            parents = [identify("commit", data)]
            pack.blocks.append([("commit", data)])
        repo.write_pack(pack)
        repo.publish(["whole", {"main": ["branch", parents[0]]}])

    yield Case("S5 sixty commits with messages of 8 MiB", messages)


def block(frame: bytes, raw_len: int, num: int = 1) -> Spoil:
    """A pack with blocks that are one frame, and a commit whose state would be in the first."""

    def spoil(repo: Repository) -> None:
        pack = Pack()
        for i in range(num):
            pack.blocks.append([("tree", cbor({"x": i}))])
            pack.frames[i] = (frame, raw_len)
        environment = pack.add("tree", cbor({}))
        root = pack.add("tree", cbor({"model": {"main": Tag(60010, identify("tree", cbor({"x": 0})))}}))
        repo.publish_commit(pack, commit(root, environment))

    return spoil


def entries() -> Iterator[Case]:
    """Entries that loop, lie, or have codecs to come."""

    def loop(raw: bytes) -> list[Entry]:
        one, two = identify("chunk", raw), identify("chunk", raw[::-1])
        stages = [(2, b"")]
        return [Entry(one, 2048, b"x", stages, [two]), Entry(two, 2048, b"x", stages, [one])]

    def itself(raw: bytes) -> list[Entry]:
        return [Entry(identify("chunk", raw), 2048, b"x", [(1, b"")], [identify("chunk", raw)] * 8)]

    def long_chain(raw: bytes) -> list[Entry]:
        ids = [identify("chunk", raw), *(bytes([i]) * 32 for i in range(1, 200))]
        return [Entry(ids[i], 2048, b"x", [(2, b"")], [ids[i + 1]] * 8) for i in range(199)]

    def many_bases(raw: bytes) -> list[Entry]:
        zstd = zstandard.ZstdCompressor()
        longer = [bytes([i]) * (1 << 20) for i in range(255)]
        bases = [Entry(identify("chunk", one), 1 << 20, zstd.compress(one), [(1, b"")]) for one in longer]
        return [Entry(identify("chunk", raw), 2048, raw, [(4, b"")], [base.id for base in bases]), *bases]

    yield Case("S5 entries that are bases of each other", entry(loop))
    yield Case("S5 an entry with 255 bases of 1 MiB, a few bytes each", entry(many_bases))
    yield Case("S5 an entry that is its own base, eight times", entry(itself))
    yield Case("S5 a chain of two hundred bases", entry(long_chain))
    yield Case("S5 an unknown codec", entry(lambda raw: [Entry(identify("chunk", raw), 2048, b"x", [(250, b"abc")])]))
    yield Case(
        "S5 a hundred stages", entry(lambda raw: [Entry(identify("chunk", raw), 2048, bomb(2048), [(1, b"")] * 100)])
    )
    yield Case(
        "S5 a chunk that says 2 KiB and holds 4 GiB",
        entry(lambda raw: [Entry(identify("chunk", raw), 2048, bomb(1 << 20, claimed=2048)[:2048], [(1, b"")])]),
    )
    yield Case("S5 a chunk of another id", entry(lambda raw: [Entry(identify("chunk", raw), 2048, raw[::-1])]))
    yield Case("S5 a chunk with a wrong CRC", entry(lambda raw: [Entry.of(raw, crc=0)]))
    yield Case("S5 a chunk shorter than its tensor", entry(lambda raw: [Entry.of(raw[:100])]))
    for field in ("offset", "raw_len", "encoded_len", "header_len", "kind", "block", "bases"):
        for number in (0, 200):
            yield Case(f"S5 {field} of a row is {number}", row(field, number))


def entry(make: Callable[[bytes], list[Entry]]) -> Spoil:
    """A pack with these entries, the first one a parameter's chunk."""

    def spoil(repo: Repository) -> None:
        raw = bytes(range(256)) * 8
        pack = Pack(entries=make(raw))
        tree = cbor({"tensors": {"0.weight": tensor("float32", [16, 32], [pack.entries[0].id])}})
        repo.publish_tree(tree, pack=pack)

    return spoil


def row(name: str, number: int) -> Spoil:
    """A pack with a field of one row changed."""

    def spoil(repo: Repository) -> None:
        raw = bytes(range(256)) * 8
        pack = Pack(entries=[Entry.of(raw)], rows={identify("chunk", raw): {name: number}})
        repo.publish_tree(
            cbor({"tensors": {"0.weight": tensor("float32", [16, 32], [identify("chunk", raw)])}}), pack=pack
        )

    return spoil


def with_pack(repo: Repository, pack: Pack) -> None:
    """Add a pack with a tree in it."""
    pack.add("tree", cbor({}))
    repo.write_pack(pack)
