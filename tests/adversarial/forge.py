"""Makes files of a repository byte by byte, right or wrong, from `docs/format/` alone: what no writer of ours writes.

Checksums are always right unless a caller spoils them afterwards: a stranger can make them too.
"""

from __future__ import annotations

import pathlib
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import blake3
import zstandard

CHUNK_BYTES = 1 << 20
FIRST_ID = bytes(32)
_CONTEXT = "gradient-store 2026-11 format 1 "


def identify(kind: str, data: bytes) -> bytes:
    """The id of an object of that kind."""
    if kind == "chunk":
        return blake3.blake3(data).digest()
    return blake3.blake3(data, derive_key_context=_CONTEXT + kind).digest()


# CBOR


@dataclass(frozen=True)
class Raw:
    """Bytes that stand where a value should."""

    data: bytes


@dataclass(frozen=True)
class Tag:
    """A value behind a tag."""

    number: int
    value: Any


def head(major: int, argument: int) -> bytes:
    """A head in its shortest form."""
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * size):
            return bytes([major << 5 | info]) + argument.to_bytes(size, "big")
    raise ValueError(argument)


def cbor(value: Any) -> bytes:
    """Canonical bytes; mappings are sorted by their keys' encodings."""
    if isinstance(value, Raw):
        return value.data
    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return head(3, len(data)) + data
    if isinstance(value, Tag):
        return head(6, value.number) + cbor(value.value)
    if isinstance(value, Mapping):
        rows = sorted((cbor(key), cbor(item)) for key, item in value.items())
        return head(5, len(rows)) + b"".join(key + item for key, item in rows)
    return head(4, len(value)) + b"".join(cbor(item) for item in value)


def tensor(
    dtype: str, shape: Sequence[int], data: bytes | Sequence[bytes], order: Any = None, *, numpy: bool = False
) -> Tag:
    """A tensor: its bytes, or the ids of its chunks."""
    return Tag(60007 if numpy else 60006, [dtype, list(shape), order, data])


# Small files


def envelope(magic: bytes, payload: bytes, *, version: int = 1, length: int | None = None) -> bytes:
    """The frame of small files."""
    body = magic + struct.pack("<IQ", version, len(payload) if length is None else length) + payload
    return body + blake3.blake3(body).digest()


def operation(n: int, previous: bytes | None, refs: Any, **other: Any) -> bytes:
    """The payload of an operation."""
    record = {
        "by": {"host": "h", "pid": 1, "user": "u", "version": "1"},
        "condemned": [],
        "head": ["branch", "main"],
        "kind": "commit",
        "n": n,
        "previous": previous,
        "refs": refs,
        "subject": None,
        "time": 0,
        "why": "",
    }
    return cbor({**record, **other})


def folded(payloads: Iterable[bytes], *, level: int = 3) -> bytes:
    """A file of folded operations."""
    content = b"".join(struct.pack("<Q", len(payload)) + payload for payload in payloads)
    return envelope(b"GROF", zstandard.ZstdCompressor(level=level).compress(content))


def format_file(**other: Any) -> bytes:
    """The file `format`."""
    record = {"version": 1, "repo": bytes(16), "mandatory": [], "optional": [], "created": 0}
    return envelope(b"GRFM", cbor({**record, **other}))


def commit(tree: bytes, environment: bytes, **other: Any) -> bytes:
    """The canonical bytes of a commit."""
    record = {
        "branch": "main",
        "environment": environment,
        "error": None,
        "kind": "anchor",
        "message": "",
        "metrics": {},
        "mode": "exact",
        "parents": [],
        "step": 1,
        "time": 0,
        "tree": tree,
    }
    return cbor({**record, **other})


# Packs


def bomb(content: int, *, claimed: int | None = None) -> bytes:
    """A zstd frame of zeros, a few bytes for each 128 KiB; what it says that it holds may be another number."""
    said = content if claimed is None else claimed
    frame = bytearray(struct.pack("<IB", 0xFD2FB528, 0b1110_0000) + struct.pack("<Q", said))
    left = content
    while True:
        size = min(left, 128 << 10)
        left -= size
        frame += struct.pack("<I", size << 3 | 1 << 1 | (left == 0))[:3] + b"\0"
        if left == 0:
            return bytes(frame)


@dataclass
class Entry:
    """A chunk as it is stored."""

    id: bytes
    raw_len: int
    payload: bytes
    stages: list[tuple[int, bytes]] = field(default_factory=list)
    bases: list[bytes] = field(default_factory=list)
    crc: int | None = None

    @classmethod
    def of(cls, raw: bytes, **other: Any) -> Entry:
        """A raw entry that is right, but for what is given."""
        return cls(**{"id": identify("chunk", raw), "raw_len": len(raw), "payload": raw, **other})

    def encode(self) -> tuple[bytes, int, int]:
        """Its bytes, the length of its header, its CRC."""
        pipeline = b"".join(bytes([codec, len(params)]) + params for codec, params in self.stages)
        length = 48 + 32 * len(self.bases) + len(pipeline)
        counts = struct.pack("<HBBII", length, len(self.bases), len(self.stages), self.raw_len, len(self.payload))
        rest = counts + self.id + b"".join(self.bases) + pipeline
        crc = zlib.crc32(rest + self.payload) if self.crc is None else self.crc
        return struct.pack("<I", crc) + rest + self.payload, length, crc


@dataclass
class Pack:
    """A pack in the making. Objects of a block lie one behind the other."""

    id: bytes = bytes(range(16))
    entries: list[Entry] = field(default_factory=list)
    blocks: list[list[tuple[str, bytes]]] = field(default_factory=list)
    frames: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    rows: dict[bytes, dict[str, int]] = field(default_factory=dict)
    more_rows: list[bytes] = field(default_factory=list)
    footer: dict[str, int] = field(default_factory=dict)
    version: int = 1

    def add(self, kind: str, data: bytes) -> bytes:
        """Add a tree or commit in a block of its own, unless it is there; returns its id."""
        if [(kind, data)] not in self.blocks:
            self.blocks.append([(kind, data)])
        return identify(kind, data)

    def encode(self) -> bytes:
        """The file."""
        out = bytearray(b"GRPK" + struct.pack("<I", self.version) + self.id + bytes(8))
        rows: list[tuple[int, bytes, bytes]] = []
        bases: dict[bytes, list[bytes]] = {}
        for entry in self.entries:
            data, header_len, crc = entry.encode()
            codec = entry.stages[-1][0] if entry.stages else 0
            lengths = (entry.raw_len, len(entry.payload), crc, 0, header_len)
            rows.append((1, entry.id, self._row(1, entry.id, len(out), *lengths, codec, len(entry.bases))))
            bases[entry.id] = entry.bases
            out += data + bytes(-len(data) % 8)
        first_block = len(out)
        table = bytearray()
        commits: list[bytes] = []
        for number, objects in enumerate(self.blocks):
            raw = b"".join(data for _, data in objects)
            frame, raw_len = self.frames.get(number, (None, len(raw)))
            frame = zstandard.ZstdCompressor().compress(raw) if frame is None else frame
            table += struct.pack("<QII", len(out), len(frame), raw_len)
            out += frame
            at = 0
            for kind, data in objects:
                kind_number, object_id = {"tree": 2, "commit": 3}[kind], identify(kind, data)
                row = self._row(kind_number, object_id, at, len(data), 0, 0, number, 0, 0, 0)
                rows.append((kind_number, object_id, row))
                commits += [object_id] if kind == "commit" else []
                at += len(data)
        rows.sort()
        index_at = len(out)
        tail_bases = b"".join(b"".join(bases[one]) for kind, one, _ in rows if kind == 1)
        lens = struct.pack("<Q", 1000) * len(commits)
        out += b"".join(row for _, _, row in rows) + b"".join(self.more_rows) + tail_bases + table + lens
        counts = {
            "first_block": first_block,
            "index": index_at,
            "objects": len(rows) + len(self.more_rows),
            "bases": len(tail_bases) // 32,
            "blocks": len(self.blocks),
            "commits": len(commits),
            "len": len(out) + 128,
            "version": self.version,
            **self.footer,
        }
        tail = bytes(out[first_block:])
        return bytes(out) + footer(self.id, bytes(out[:32]), blake3.blake3(tail).digest(), counts)

    def _row(self, kind: int, object_id: bytes, offset: int, *numbers: int) -> bytes:
        names = ("raw_len", "encoded_len", "crc", "block", "header_len", "codec", "bases")
        row = {"kind": kind, "offset": offset, **dict(zip(names, numbers, strict=True)), **self.rows.get(object_id, {})}
        return object_id + struct.pack(
            "<QIIIIHBBB3x",
            *(row[name] for name in ("offset", "raw_len", "encoded_len", "crc", "block", "header_len")),
            *(row[name] for name in ("kind", "codec", "bases")),
        )


def footer(pack: bytes, header: bytes, tail_hash: bytes, counts: Mapping[str, int]) -> bytes:
    """The footer of a pack."""
    names = ("first_block", "index", "objects", "bases", "blocks", "commits")
    start = struct.pack("<QQIIII", *(counts[name] for name in names)) + pack
    start += struct.pack("<Q", counts["len"]) + b"GRPE" + struct.pack("<I", counts["version"]) + tail_hash
    return start + blake3.blake3(header + start).digest()


def merged_index(packs: Sequence[tuple[bytes, int]], rows: Sequence[bytes], **said: int) -> bytes:
    """The file `cache/index`; rows are whole, rising."""
    fan, counted = bytearray(), 0
    for prefix in range(1 << 16):
        while counted < len(rows) and int.from_bytes(rows[counted][:2], "big") <= prefix:
            counted += 1
        fan += struct.pack("<I", counted)
    counts = {"num_packs": len(packs), "num_rows": len(rows), "version": 1, **said}
    body = b"GRIX" + struct.pack("<III", counts["version"], counts["num_packs"], counts["num_rows"])
    body += b"".join(pack + struct.pack("<Q", length) for pack, length in packs) + bytes(fan) + b"".join(rows)
    return body + blake3.blake3(body).digest()


def commit_rows(packs: Sequence[bytes], commits: Sequence[tuple[bytes, bytes]], **said: int) -> bytes:
    """The file `cache/commits`."""
    payload = struct.pack("<I", said.get("num_packs", len(packs))) + b"".join(packs)
    payload += struct.pack("<I", said.get("num_commits", len(commits)))
    for object_id, data in commits:
        payload += object_id + struct.pack("<QI", 1000, len(data)) + data
    return envelope(b"GRCC", payload)


# A repository


@dataclass
class Repository:
    """A repository folder that is being made or spoilt."""

    path: pathlib.Path
    tip: bytes = b""

    @property
    def folder(self) -> pathlib.Path:
        """Its `.gradient-repo`."""
        return self.path / ".gradient-repo"

    def files(self, name: str) -> list[pathlib.Path]:
        """The files of a folder, by name."""
        return sorted((self.folder / name).iterdir())

    def newest(self) -> tuple[int, bytes]:
        """Number and id of the newest operation."""
        file = self.files("ops")[-1]
        return int(file.name), identify("operation", file.read_bytes()[16:-32])

    def write(self, name: str, data: bytes) -> pathlib.Path:
        """Write a file in place of what is there."""
        file = self.folder / name
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        return file

    def publish(self, refs: Any, **other: Any) -> None:
        """Write the next operation."""
        n, previous = self.newest()
        payload = operation(n + 1, previous, refs, **other)
        self.write(f"ops/{n + 1:020}", envelope(b"GROP", payload))

    def write_pack(self, pack: Pack) -> None:
        """Write a pack under its name; caches go."""
        self.write(f"packs/{pack.id.hex()}.pack", pack.encode())
        self.drop_caches()

    def drop_caches(self) -> None:
        """Remove the caches."""
        for file in self.files("cache"):
            file.unlink()

    def publish_tree(self, component: bytes, *, pack: Pack | None = None, section: str = "model", **other: Any) -> None:
        """Put a component's tree, in a commit of its own, at the tip of main."""
        pack = pack or Pack()
        environment = pack.add("tree", cbor({}))
        subtree = pack.add("tree", component)
        root = pack.add("tree", cbor({section: {"main": Tag(60010, subtree)}}))
        self.publish_commit(pack, commit(root, environment, **other))

    def publish_commit(self, pack: Pack, data: bytes) -> None:
        """Put a commit at the tip of main."""
        tip = pack.add("commit", data)
        self.write_pack(pack)
        self.publish(["whole", {"main": ["branch", tip]}])
