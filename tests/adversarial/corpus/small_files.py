"""S2, S5, S11: `format`, leases, `config.json`, reports: newer, lying about their length, or no records at all."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from blake3 import blake3

from ..forge import Pack, Raw, Repository, envelope, format_file, head, merged_index
from .case import FILES, NAMES, Case, newest


def versions() -> Iterator[Case]:
    """S11: newer formats and unknown features."""
    for number in (0, 2, (1 << 32) - 1):
        yield Case(
            f"S11 version {number} of format",
            lambda repo, v=number: repo.write("format", resealed(repo, "format", 4, v)),
        )
        yield Case(
            f"S11 version {number} of an operation", lambda repo, v=number: spoil_number(repo, newest(repo), 4, v)
        )
        yield Case(f"S11 version {number} of a pack", lambda repo, v=number: repo.write_pack(Pack(version=v)))
        yield Case(
            f"S11 version {number} of the index",
            lambda repo, v=number: repo.write("cache/index", merged_index([], [], version=v)),
        )
    yield Case("S11 version 9 in the record", lambda repo: repo.write("format", format_file(version=9)))
    yield Case("S11 a mandatory feature", lambda repo: repo.write("format", format_file(mandatory=["warp"])))
    yield Case("S11 an optional feature", lambda repo: repo.write("format", format_file(optional=["warp"])))
    hostile = [NAMES["escape"], NAMES["return"]]
    yield Case(
        "S11 a feature with a terminal's codes", lambda repo: repo.write("format", format_file(mandatory=hostile))
    )


def resealed(repo: Repository, name: str, at: int, number: int) -> bytes:
    """A small file with a number of four bytes in it changed, its checksum right."""
    body = bytearray((repo.folder / name).read_bytes()[:-32])
    body[at : at + 4] = struct.pack("<I", number)
    return bytes(body) + blake3(bytes(body)).digest()


def spoil_number(repo: Repository, name: str, at: int, number: int) -> None:
    """Change a number of four bytes in a small file."""
    repo.write(name, resealed(repo, name, at, number))


def lying() -> Iterator[Case]:
    """Payloads of small files that are no records, or say that they are longer than they are."""
    deep = b"\x81" * 100_000 + b"\xf6"
    payloads = {
        "empty": b"",
        "a list of 2^63": head(4, 1 << 63),
        "a mapping of 2^32": head(5, 1 << 32),
        "a text of 2^63 bytes": head(3, (1 << 64) - 1),
        "lists in lists": deep,
        "tags in tags": b"\xc2" * 100_000 + b"\x40",
        "an endless list": b"\x9f" + b"\xf6" * 100,
        "a million empty lists": head(4, 1_000_000) + b"\x80" * 1_000_000,
        "two million nones": head(4, 2_000_000) + b"\xf6" * 2_000_000,
        "a mapping of one key twice": b"\xa2\x61a\xf6\x61a\xf6",
        "a large integer": Raw(head(6, 2) + head(2, 1 << 20) + b"\xff" * (1 << 20)).data,
    }
    magics = {"format": b"GRFM", "newest operation": b"GROP", "lease": b"GRLS", "commit rows": b"GRCC"}
    for file, magic in magics.items():
        for name, payload in payloads.items():
            find = FILES[file]
            yield Case(
                f"S5 {name} in {file}",
                lambda repo, find=find, magic=magic, payload=payload: repo.write(find(repo), envelope(magic, payload)),
            )
        for length in (0, 1 << 20, (1 << 64) - 1):
            yield Case(
                f"S5 {file} says {length} bytes",
                lambda repo, find=FILES[file], magic=magic, length=length: repo.write(
                    find(repo), envelope(magic, b"\xa0", length=length)
                ),
            )


def settings() -> Iterator[Case]:
    """`config.json`, which people edit, and reports of repairs."""
    texts = {
        "nothing": "",
        "no object": "[]",
        "hooks": '{"hooks": {"post-open": "touch ../canary/made"}}',
        "a pager": '{"name": "x", "pager": "touch ../canary/made"}',
        "a name that is a path": '{"name": "../../canary/x"}',
        "a name with a terminal's codes": '{"name": "\\u001b[31m", "description": "\\u0000\\r"}',
        "a name that is a number": '{"name": 7}',
        "lists in lists": "[" * 30_000 + "]" * 30_000,
        "a lone surrogate": '{"name": "\\ud800"}',
        "a large number": '{"retention": {"keep": 1e999999}}',
        "a retention of its own": '{"retention": {"keep_last": -1, "x": {"y": []}}}',
        "63 KiB": '{"description": "' + "a" * (63 << 10) + '"}',
        "65 KiB": '{"description": "' + "a" * (65 << 10) + '"}',
    }
    for name, text in texts.items():
        yield Case(f"S2 config.json with {name}", lambda repo, text=text: repo.write("config.json", text.encode()))

    def report(repo: Repository) -> None:
        repo.write("lost+found/repair-9.json", b'{"pending": [' + b"1," * 1_000_000 + b"1]}")

    yield Case("S8 a report with a pending operation", report)
    yield Case("S5 a report of lists in lists", lambda repo: repo.write("lost+found/repair-9.json", b"[" * 1_000_000))
