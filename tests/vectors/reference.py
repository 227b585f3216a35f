"""A second reader of the repository format, written from `docs/format/` alone. It imports nothing of ours.

    python tests/vectors/reference.py <folder that holds .gradient-repo> [REF]

prints every tensor of a commit with the SHA-256 of its bytes. Slow and strict: whatever the pages forbid is refused. It
needs `blake3` and `zstandard`, and is one file so that it can be taken elsewhere.
"""

from __future__ import annotations

import hashlib
import itertools
import pathlib
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import blake3
import zstandard

CHUNK_BYTES = 1 << 20
FOLDED_MAX = 256 << 20
CHAIN_LEN_MAX = 64
CONTEXT = "gradient-store 2026-11 format 1 "
ONE_BYTE = """
    bool uint8 int8 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2
    int1 int2 int3 int4 int5 int6 int7 uint1 uint2 uint3 uint4 uint5 uint6 uint7 bits8 bits1x8 bits2x4 bits4x2
"""
WIDTHS = {
    **dict.fromkeys(ONE_BYTE.split(), 1),
    **dict.fromkeys(["uint16", "int16", "float16", "bfloat16", "bits16"], 2),
    **dict.fromkeys(["uint32", "int32", "float32", "complex32", "bcomplex32"], 4),
    **dict.fromkeys(["uint64", "int64", "float64", "complex64"], 8),
    "complex128": 16,
}
COMMIT_KEYS = {
    *("branch", "environment", "error", "kind", "message", "metrics", "mode", "parents", "step", "time", "tree"),
}


class Refused(Exception):  # noqa: N818 - it is what a reader does.
    """Bytes that the pages forbid."""


def need(condition: object, what: str) -> None:
    """Refuse unless the condition holds."""
    if not condition:
        raise Refused(what)


# Canonical CBOR (objects.md)


@dataclass(frozen=True)
class Tagged:
    """A value behind a tag that this reader leaves as it is."""

    tag: int
    value: Any


@dataclass
class Mapping:
    """A mapping: its items in the order of insertion."""

    items: list[tuple[Any, Any]] = field(default_factory=list)

    def __getitem__(self, key: Any) -> Any:
        for known, value in self.items:
            if type(known) is type(key) and known == key:
                return value
        raise Refused(f"the key {key!r} is missing")

    def keys(self) -> list[Any]:
        """Keys in the order of insertion."""
        return [key for key, _ in self.items]


class Reader:
    """Reads one canonical CBOR item; refuses any other encoding of it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, length: int) -> bytes:
        """Take bytes."""
        need(self.at + length <= len(self.data), "the bytes end inside an item")
        self.at += length
        return self.data[self.at - length : self.at]

    def head(self) -> tuple[int, int, int]:
        """Read a head: major type, additional information, argument."""
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info, info
        need(info <= 27, "an indefinite length, or a reserved head")
        size = 1 << (info - 24)
        argument = int.from_bytes(self.take(size), "big")
        # A float is always eight bytes; its head is no shortest one.
        shortest = major == 7 or argument >= (24 if size == 1 else 1 << (4 * size))
        need(shortest, "a head that is longer than it must be")
        return major, info, argument

    def value(self, depth: int = 0) -> Any:
        """Read a value."""
        need(depth <= 256, "nested too deeply")
        major, info, argument = self.head()
        if major == 0:
            return argument
        if major == 1:
            return -1 - argument
        if major == 2:
            return self.take(argument)
        if major == 3:
            return self.take(argument).decode("utf-8")
        if major == 4:
            return [self.value(depth + 1) for _ in range(argument)]
        if major == 5:
            return self.mapping(argument, depth)
        if major == 6:
            return self.tagged(argument, depth)
        if info == 27:
            return struct.unpack(">d", argument.to_bytes(8, "big"))[0]
        need(info in (20, 21, 22), "a simple value that is none of false, true, none")
        return {20: False, 21: True, 22: None}[info]

    def mapping(self, count: int, depth: int) -> Mapping:
        """Read a map whose keys rise."""
        mapping, before = Mapping(), b""
        for _ in range(count):
            start = self.at
            key = self.value(depth + 1)
            encoded = self.data[start : self.at]
            need(not before or before < encoded, "keys that do not rise")
            before = encoded
            mapping.items.append((key, self.value(depth + 1)))
        return mapping

    def tagged(self, tag: int, depth: int) -> Any:
        """Read what follows a tag."""
        value = self.value(depth + 1)
        if tag in (2, 3):
            need(isinstance(value, bytes) and len(value) >= 8 and value[:1] != b"\0", "a big integer that is small")
            magnitude = int.from_bytes(value, "big")
            need(magnitude >= 1 << 64, "a big integer that is small")
            return magnitude if tag == 2 else -1 - magnitude
        if tag == 60001:
            ordered, permutation = value
            size = len(ordered.items)
            need(sorted(permutation) == list(range(size)), "an order that is no permutation")
            need(permutation != list(range(size)), "an order that is the sorted one")
            return Mapping([ordered.items[position] for position in permutation])
        if tag == 60002:
            return tuple(value)
        if tag == 60005:
            return complex(*value)
        need(60003 <= tag <= 60010, f"the unknown tag {tag}")
        return Tagged(tag, value)


def decode(data: bytes) -> Any:
    """Decode exactly one value."""
    reader = Reader(data)
    value = reader.value()
    need(reader.at == len(data), "bytes after the value")
    return value


def object_id(kind: str, data: bytes) -> bytes:
    """Return the id of a tree, commit or operation."""
    return blake3.blake3(data, derive_key_context=CONTEXT + kind).digest()


def unzstd(frame: bytes, most: int) -> bytes:
    """Decode one zstd frame that carries its content size, which is small enough, and has nothing after it."""
    try:
        size = zstandard.frame_content_size(frame)
        need(0 <= size <= most, "a frame without its content size, or of too much")
        decoder = zstandard.ZstdDecompressor().decompressobj()
        raw = decoder.decompress(frame)
    except zstandard.ZstdError as error:
        raise Refused("no zstd frame") from error
    need(decoder.eof and not decoder.unused_data and len(raw) == size, "a frame that is cut, or not alone")
    return raw


# Envelopes and operations (README.md, operations.md)


def envelope(data: bytes, magic: bytes) -> bytes:
    """Return the payload of an envelope."""
    need(data[:4] == magic, f"the magic is not {magic!r}")
    need(len(data) >= 48 and blake3.blake3(data[:-32]).digest() == data[-32:], "the checksum is wrong")
    version, length = struct.unpack_from("<IQ", data, 4)
    need(version == 1, f"format version {version}")
    need(length == len(data) - 48, "the length is wrong")
    return data[16:-32]


@dataclass
class Operations:
    """The newest operation: its number, HEAD and the table of refs."""

    number: int
    head: tuple[str, Any]
    refs: dict[str, tuple[str, bytes]]


def read_operations(repo: pathlib.Path) -> Operations:
    """Read all operations, each against the one before it."""
    folder = repo / "ops"
    floors = sorted(int(file.name[7:]) for file in folder.glob("folded-*"))
    floor = floors[-1] if floors else 0
    payloads: dict[int, bytes] = {}
    if floor:
        raw, at = unzstd(envelope((folder / f"folded-{floor:020}").read_bytes(), b"GROF"), FOLDED_MAX), 0
        for number in range(1, floor + 1):
            (length,) = struct.unpack_from("<Q", raw, at)
            payloads[number] = raw[at + 8 : at + 8 + length]
            at += 8 + length
        need(at == len(raw), "bytes behind the folded operations")
    for file in folder.iterdir():
        if len(file.name) == 20 and file.name.isdigit() and int(file.name) > floor:
            payloads[int(file.name)] = envelope(file.read_bytes(), b"GROP")
    need(sorted(payloads) == list(range(1, len(payloads) + 1)), "an operation is missing")
    tables: dict[int, dict[str, tuple[str, bytes]]] = {}
    previous, table, head = None, {}, ("branch", "main")
    for number, payload in sorted(payloads.items()):
        record = decode(payload)
        need(record["n"] == number and record["previous"] == previous, f"operation {number} does not follow")
        previous = object_id("operation", payload)
        kind, *rest = record["refs"]
        if kind == "whole":
            table = {name: (target[0], target[1]) for name, target in rest[0].items}
            tables[number] = table
        else:
            since, changes = rest
            need(number - since <= 64, "changes since an operation too far back")
            table = dict(tables[since])
            for name, target in changes.items:
                if target is None:
                    del table[name]
                else:
                    table[name] = (target[0], target[1])
        head = (record["head"][0], record["head"][1])
    return Operations(len(payloads), head, table)


# Codecs (pack.md). An element of `width` bytes is a number.

NUMBERS = {1: "B", 2: "H", 4: "I", 8: "Q"}


def elements(raw: bytes, width: int) -> list[int]:
    """Return the elements that bytes are."""
    need(len(raw) % width == 0, "a part of an element")
    return list(struct.unpack(f"<{len(raw) // width}{NUMBERS[width]}", raw))


def of_elements(numbers: list[int], width: int) -> bytes:
    """Return the bytes of elements."""
    return struct.pack(f"<{len(numbers)}{NUMBERS[width]}", *numbers)


def u32(reader: Reader) -> int:
    """Read a number of four bytes."""
    return int.from_bytes(reader.take(4), "little")


def unlz4(block: bytes, length: int) -> bytes:
    """Decode one LZ4 block of exactly so many bytes. Its last sequence is of literals alone."""
    reader, raw = Reader(block), bytearray()

    def count(start: int) -> int:
        total = start
        more = 255 if start == 15 else 0
        while more == 255:
            more = reader.take(1)[0]
            total += more
        need(len(raw) + total <= length, "an LZ4 block of more bytes")
        return total

    while True:
        token = reader.take(1)[0]
        raw += reader.take(count(token >> 4))
        if reader.at == len(block):
            need(len(raw) == length, "an LZ4 block of fewer bytes")
            return bytes(raw)
        offset = int.from_bytes(reader.take(2), "little")
        need(0 < offset <= len(raw), "an offset to nowhere")
        for _ in range(count(token & 15) + 4):
            raw.append(raw[-offset])
        need(len(raw) <= length, "an LZ4 block of more bytes")


def unseptets(data: bytes, length: int) -> bytes:
    """Decode bytes of which bit 0 was left out."""
    need(len(data) == (7 * length + 7) // 8, "septets of another length")
    number = int.from_bytes(data, "little")
    need(number >> 7 * length == 0, "bits behind the last septet")
    raw = bytearray()
    for at in range(0, length, 8):
        seven = int.from_bytes(data[at // 8 * 7 :][:7], "little")
        raw += bytes((seven >> 7 * place & 127) << 1 for place in range(min(8, length - at)))
    return bytes(raw)


def read_rows(reader: Reader, count: int) -> list[tuple[int, int]]:
    """Read the coder and the length of each part."""
    return [(reader.take(1)[0], u32(reader)) for _ in range(count)]


def read_few(part: bytes, length: int) -> bytes:
    """Decode bytes of which most are zero."""
    reader = Reader(part)
    num_gap_bytes = u32(reader)
    need(num_gap_bytes <= length, "more gaps than there can be")
    found: list[bytes] = []
    for of_gaps in (True, False):
        row = read_rows(reader, 1)[0]
        need(row[0] != 5, "few within few")
        found.append(read_part(reader, row, num_gap_bytes if of_gaps else sum(gap < 255 for gap in found[0])))
    need(reader.at == len(part), "bytes after the values")
    return bytes(fill_gaps(found[0], found[1], length))


def fill_gaps(gaps: bytes, values: Sequence[int], length: int) -> list[int]:
    """Put elements behind their gaps, and zeros everywhere else."""
    need(gaps[-1:] != b"\xff", "gaps that end within one")
    numbers, at, after = [0] * length, 0, iter(values)
    for gap in gaps:
        at += gap
        if gap < 255:
            need(at < length, "gaps that run past the end")
            numbers[at] = next(after)
            at += 1
    return numbers


def read_part(reader: Reader, row: tuple[int, int], length: int) -> bytes:
    """Read a part that holds so many bytes."""
    coder, coded_len = row
    coded = reader.take(coded_len)
    if coder == 0:
        need(len(coded) == length, "raw bytes of another number")
        return coded
    if coder == 1:
        raw = unzstd(coded, length)
        need(len(raw) == length, "a frame of another length")
        return raw
    if coder == 2:
        return unlz4(coded, length)
    if coder == 3:
        need(len(coded) == 1, "a constant that is not one byte")
        return coded * length
    if coder == 5:
        return read_few(coded, length)
    need(coder == 4, f"the unknown coder {coder}")
    return unseptets(coded, length)


def read_planes(reader: Reader, parameters: bytes, most: int) -> bytes:
    """Read the payload of planes, which is all that is left."""
    need(len(parameters) >= 2 and parameters[0] in NUMBERS and parameters[1] < 4, "parameters of planes")
    width, rotate, with_means = parameters[0], parameters[1] & 1, parameters[1] & 2
    need(len(parameters) == (10 if with_means else 2), "parameters of planes of another length")
    n = u32(reader)
    need(n * width <= most, "more elements than there can be")
    rows = read_rows(reader, width)
    planes = [b""] * width
    for raw_ones in (True, False):
        for number, row in enumerate(rows):
            if (row[0] == 0) == raw_ones:
                planes[number] = read_part(reader, row, n)
    if with_means:
        columns, offset = struct.unpack_from("<II", parameters, 2)
        need(offset < columns, "an offset that is not in the row")
        num_means = columns + ((offset + n - 1) // columns + 1 if n else 0)
        need(num_means <= n * width + 2, "more means than there can be")
        means = read_part(reader, read_rows(reader, 1)[0], num_means)
        highest = enumerate(planes[-1], offset)
        planes[-1] = bytes((x + means[i % columns] + means[columns + i // columns]) % 256 for i, x in highest)
    need(reader.at == len(reader.data), "bytes after the planes")
    numbers = elements(bytes(itertools.chain.from_iterable(zip(*planes, strict=True))), width)
    if rotate:
        numbers = [x >> 1 | (x & 1) << (8 * width - 1) for x in numbers]
    return of_elements(numbers, width)


def read_sparse(parameters: bytes, payload: bytes, most: int) -> bytes:
    """Decode elements of which most are zero."""
    need(len(parameters) == 1 and parameters[0] in NUMBERS, "parameters of sparse")
    (width,) = parameters
    reader = Reader(payload)
    n, num_gap_bytes = u32(reader), u32(reader)
    need(n * width <= most and num_gap_bytes <= n, "more elements or gaps than there can be")
    gaps = read_part(reader, read_rows(reader, 1)[0], num_gap_bytes)
    found = elements(read_planes(reader, bytes([width, 0]), n * width), width)
    need(sum(gap < 255 for gap in gaps) == len(found), "another number of gaps")
    return of_elements(fill_gaps(gaps, found, n), width)


def undo_xor(parameters: bytes, payload: bytes, base: bytes) -> bytes:
    """Combine with the base."""
    need(not parameters, "parameters of xor")
    return bytes(x ^ b for x, b in zip(payload, base.ljust(len(payload), b"\0"), strict=False))


def undo_difference(parameters: bytes, payload: bytes, base: bytes) -> bytes:
    """Add the base."""
    need(len(parameters) == 2 and parameters[0] in NUMBERS and parameters[1] < 2, "parameters of difference")
    width, floats = parameters
    modulus = 1 << 8 * width
    highest = modulus // 2

    def ordered(x: int) -> int:
        return x ^ (highest - 1) if floats and x >= highest else x

    numbers = []
    bases = elements(base.ljust(len(payload), b"\0")[: len(payload)], width)
    for z, b in zip(elements(payload, width), bases, strict=True):
        d = z // 2 if z % 2 == 0 else -(z + 1) // 2
        # What rises with the number is made of it, and it of that, in the same way.
        numbers.append(ordered((d + ordered(b)) % modulus))
    return of_elements(numbers, width)


class Bits:
    """A stream of bits, the lowest of each byte first."""

    def __init__(self, stream: bytes) -> None:
        """Begin at the first bit."""
        self.stream, self.at = stream, 0

    def take(self, count: int) -> int:
        """Take so many bits."""
        end = self.at + count
        need(end <= 8 * len(self.stream), "more bits than there are")
        some = int.from_bytes(self.stream[self.at // 8 : (end + 7) // 8], "little")
        bits = some >> self.at % 8 & ((1 << count) - 1)
        self.at = end
        return bits


def adaptive(bits: Bits) -> Iterator[int]:
    """Read the numbers of a sequence, for as long as somebody wants one."""
    weight, total, count = 0, 0, 1

    def number() -> int:
        nonlocal total, count
        k = next(k for k in range(49) if 3 * count << k >= 2 * total or k == 48)
        ones = 0
        while ones < 8 and bits.take(1):
            ones += 1
        v = ones << k | bits.take(k) if ones < 8 else bits.take(bits.take(6))
        total += min(v, 16 << k)
        count += 1
        if count == 64:
            total, count = total // 2, count // 2
        return v

    while True:
        j = weight // 8
        if j == 0:
            v = number()
            weight = weight + 3 if v == 0 else max(weight - 3, 0)
            yield v
        elif bits.take(1) == 0:
            weight = min(weight + 4, 128)
            yield from itertools.repeat(0, 1 << j)
        else:
            zeros = bits.take(j)
            weight -= min(weight, 6)
            v = number() + 1
            yield from itertools.repeat(0, zeros)
            yield v


def read_changes(parameters: bytes, payload: bytes, base: bytes, most: int) -> bytes:
    """Change what changed of the base."""
    need(len(parameters) == 3 and parameters[0] in NUMBERS and parameters[1] <= 3, "parameters of changes")
    width, shift, top = parameters
    need(len(payload) >= 4, "no number of elements")
    length = int.from_bytes(payload[:4], "little") * width
    need(length <= most, "more elements than there can be")
    numbers, bits = elements(base.ljust(length, b"\0")[:length], width), Bits(payload[4:])
    modulus = 1 << 8 * width
    highest = modulus // 2

    def ordered(x: int) -> int:
        return x ^ (highest - 1) if x >= highest else x

    exponents = [2 * b % modulus >> 8 * (width - 1) for b in numbers]
    classes = [min(max(top - e, 0) >> shift, 15) for e in exponents]
    for number in range(16):
        places = [place for place, of_element in enumerate(classes) if of_element == number]
        changed, at = [], 0
        for gap in adaptive(bits):
            at += gap
            if at >= len(places):
                break
            changed.append(places[at])
            at += 1
        need(at == len(places), "gaps that are longer than the class")
        are_down = [bits.take(1) for _ in changed]
        for place, is_down, step in zip(changed, are_down, adaptive(bits), strict=False):
            need(step < highest - (not is_down), "a change larger than an element")
            d = -step - 1 if is_down else step + 1
            numbers[place] = ordered((ordered(numbers[place]) + d) % modulus)
    left = 8 * len(bits.stream) - bits.at
    need(left < 8 and bits.take(left) == 0, "something after the changes")
    return of_elements(numbers, width)


def decode_stage(codec: int, parameters: bytes, payload: bytes, most: int) -> bytes:
    """Decode a stage that takes no base."""
    if codec == 1:
        need(not parameters, "parameters of zstd")
        return unzstd(payload, most)
    if codec == 2:
        need(not parameters and len(payload) >= 4, "parameters of lz4, or no length")
        length = int.from_bytes(payload[:4], "little")
        need(length <= most, "an LZ4 block of too much")
        return unlz4(payload[4:], length)
    if codec == 3:
        return read_planes(Reader(payload), parameters, most)
    need(codec == 6, f"the unknown codec {codec}")
    return read_sparse(parameters, payload, most)


def decode_entry(pipeline: list[tuple[int, bytes]], payload: bytes, raw_len: int, bases: list[bytes]) -> bytes:
    """Run a pipeline backwards."""
    deltas = {4: undo_xor, 5: undo_difference}
    num_wanting = sum(codec in deltas or codec == 7 for codec, _ in pipeline)
    need(num_wanting == len(bases) <= 1, "bases that no stage wants, or too few")
    raw = payload
    for place, (codec, parameters) in reversed(list(enumerate(pipeline))):
        most = raw_len if place == 0 else 2 * raw_len + (64 << 10)
        if codec in deltas:
            raw = deltas[codec](parameters, raw, bases[0])
        elif codec == 7:
            raw = read_changes(parameters, raw, bases[0], most)
        else:
            raw = decode_stage(codec, parameters, raw, most)
    need(len(raw) == raw_len, "another length than the entry says")
    return raw


# Packs (pack.md)


@dataclass
class Row:
    """A row of a pack's index."""

    kind: int
    id: bytes
    offset: int
    raw_len: int
    encoded_len: int
    crc: int
    block: int
    header_len: int
    bases: list[bytes]


class Pack:
    """One pack, every byte of it checked when it is opened."""

    def __init__(self, path: pathlib.Path) -> None:
        data = self.data = path.read_bytes()
        need(len(data) >= 160 and path.name == data[8:24].hex() + ".pack", "the header names another pack")
        need(data[:8] == b"GRPK\1\0\0\0" and data[24:32] == bytes(8), "no pack header")
        footer = data[-128:]
        self.blocks_at, index, *counts = struct.unpack_from("<QQIIII", footer)
        num_objects, num_bases, num_blocks, num_commits = counts
        need(footer[56:64] == b"GRPE\1\0\0\0" and footer[32:48] == data[8:24], "no pack footer")
        need(struct.unpack_from("<Q", footer, 48)[0] == len(data), "the footer names another length")
        need(blake3.blake3(data[self.blocks_at : -128]).digest() == footer[64:96], "blocks or index are damaged")
        need(blake3.blake3(data[:32] + footer[:96]).digest() == footer[96:], "header or footer is damaged")
        need(index + 64 * num_objects + 32 * num_bases + 16 * num_blocks + 8 * num_commits == len(data) - 128, "gaps")
        bases = [
            data[at : at + 32] for at in range(index + 64 * num_objects, index + 64 * num_objects + 32 * num_bases, 32)
        ]
        self.rows: list[Row] = []
        for number in range(num_objects):
            row = data[index + 64 * number :][:64]
            offset, raw_len, encoded_len, crc, block, header_len, kind, _, base_count = struct.unpack_from(
                "<QIIIIHBBB", row, 32
            )
            need(kind in (1, 2, 3) and row[61:] == bytes(3), "a row of no kind")
            own, bases = bases[:base_count], bases[base_count:]
            self.rows.append(Row(kind, row[:32], offset, raw_len, encoded_len, crc, block, header_len, own))
        need(not bases, "bases of no chunk")
        order = [(row.kind, row.id) for row in self.rows]
        need(all(a < b for a, b in itertools.pairwise(order)), "rows that do not rise")
        at = index + 64 * num_objects + 32 * num_bases
        self.blocks: list[bytes] = []
        for number in range(num_blocks):
            start, length, raw_len = struct.unpack_from("<QII", data, at + 16 * number)
            self.blocks.append(unzstd(data[start : start + length], raw_len))
            need(len(self.blocks[-1]) == raw_len, "a block of another length")

    def entry(self, row: Row) -> tuple[list[tuple[int, bytes]], bytes]:
        """Return the pipeline and the payload of a chunk's entry."""
        entry = self.data[row.offset : row.offset + row.header_len + row.encoded_len]
        crc, header_len, num_bases, num_stages, raw_len, encoded_len = struct.unpack_from("<IHBBII", entry)
        need(zlib.crc32(entry[4:]) == crc == row.crc, "the CRC is wrong")
        named = (header_len, raw_len, encoded_len, entry[16:48])
        need(named == (row.header_len, row.raw_len, row.encoded_len, row.id), "the header says something else")
        at = 48 + 32 * num_bases
        need([entry[48 + 32 * i :][:32] for i in range(num_bases)] == row.bases, "other bases than in the index")
        stages = []
        for _ in range(num_stages):
            codec, length = entry[at], entry[at + 1]
            stages.append((codec, entry[at + 2 : at + 2 + length]))
            at += 2 + length
        need(at == header_len, "a pipeline of another length")
        padding = self.data[
            row.offset + header_len + encoded_len : -(-(row.offset + header_len + encoded_len) // 8) * 8
        ]
        need(not any(padding), "padding that is not zero")
        return stages, entry[header_len:]


class Repository:
    """A repository, read in full."""

    def __init__(self, path: pathlib.Path) -> None:
        root = path / ".gradient-repo"
        record = decode(envelope((root / "format").read_bytes(), b"GRFM"))
        need(record["version"] == 1 and record["mandatory"] == [], "a newer format")
        self.operations = read_operations(root)
        self.found: dict[tuple[int, bytes], tuple[Pack, Row]] = {}
        for file in sorted((root / "packs").iterdir()):
            pack = Pack(file)
            self.found.update({(row.kind, row.id): (pack, row) for row in pack.rows})

    def metadata(self, kind: int, wanted: bytes) -> bytes:
        """Return the canonical bytes of a tree (2) or commit (3)."""
        need((kind, wanted) in self.found, f"{wanted.hex()} is missing")
        pack, row = self.found[kind, wanted]
        raw = pack.blocks[row.block][row.offset : row.offset + row.raw_len]
        need(object_id("tree" if kind == 2 else "commit", raw) == wanted, f"{wanted.hex()} is damaged")
        return raw

    def chunk(self, wanted: bytes, link: int = 1) -> bytes:
        """Return the raw bytes of a chunk, which is this link of a delta chain."""
        need((1, wanted) in self.found, f"chunk {wanted.hex()} is missing")
        need(link <= CHAIN_LEN_MAX, "a delta chain that loops, or is too long")
        pack, row = self.found[1, wanted]
        stages, payload = pack.entry(row)
        need(1 <= row.raw_len <= CHUNK_BYTES and row.encoded_len <= row.raw_len, "a chunk of too many bytes, or none")
        raw = decode_entry(stages, payload, row.raw_len, [self.chunk(base, link + 1) for base in row.bases])
        need(blake3.blake3(raw).digest() == wanted, f"chunk {wanted.hex()} is damaged")
        return raw

    def tensor(self, tensor: Tagged) -> bytes:
        """Return the bytes of a tensor."""
        dtype, shape, _, data = tensor.value
        length = width(dtype)
        for size in shape:
            length *= size
        if isinstance(data, bytes):
            need(len(data) == length <= 255, "an inlined tensor of another length")
            return data
        need(length > 255 and len(data) == -(-length // CHUNK_BYTES), "another number of chunks")
        raw = b"".join(self.chunk(chunk) for chunk in data)
        need(len(raw) == length, "a tensor of another length")
        return raw

    def commit(self, ref: str) -> Mapping:
        """Return the commit of a branch, a tag or a whole id."""
        refs = self.operations.refs
        commit: Mapping = decode(self.metadata(3, refs[ref][1] if ref in refs else bytes.fromhex(ref)))
        need(set(commit.keys()) == COMMIT_KEYS, "a commit with other keys")
        return commit

    def tensors(self, commit: Mapping) -> Iterator[tuple[str, str, bytes]]:
        """Yield every tensor of a commit: path, dtype and shape, bytes."""
        root: Mapping = decode(self.metadata(2, commit["tree"]))
        for section, components in root.items:
            for name, subtree in components.items:
                need(isinstance(subtree, Tagged) and subtree.tag == 60010, "a root tree without subtrees")
                yield from self.walk(f"{section}/{name}", decode(self.metadata(2, subtree.value)))

    def walk(self, path: str, value: Any) -> Iterator[tuple[str, str, bytes]]:
        """Yield the tensors below a value."""
        if isinstance(value, Mapping):
            for key, below in value.items:
                yield from self.walk(f"{path}/{key}", below)
        elif isinstance(value, list | tuple):
            for number, below in enumerate(value):
                yield from self.walk(f"{path}/{number}", below)
        elif isinstance(value, Tagged) and value.tag in (60006, 60007):
            yield path, f"{value.value[0]} {value.value[1]}", self.tensor(value)
        elif isinstance(value, Tagged) and value.tag == 60009:
            name, below, extra = value.value
            yield from self.walk(f"{path}/{name}", below)
            yield from self.walk(f"{path}/{name}!", extra)
        elif isinstance(value, Tagged) and value.tag in (60003, 60004):
            yield from self.walk(path, value.value)


def width(dtype: str) -> int:
    """Return the bytes of an element."""
    if dtype in WIDTHS:
        return WIDTHS[dtype]
    need(len(dtype) >= 3 and dtype[0] in "<>|=" and dtype[1] in "biufcmMSUV", f"the unknown dtype {dtype}")
    digits = dtype[2:].partition("[")[0]
    need(digits.isdigit(), f"the unknown dtype {dtype}")
    return int(digits) * (4 if dtype[1] == "U" else 1)


def main(folder: str, ref: str = "main") -> None:
    """Print the tensors of a commit."""
    repository = Repository(pathlib.Path(folder))
    for path, what, data in repository.tensors(repository.commit(ref)):
        print(path, what, hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
