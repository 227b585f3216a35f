"""What a case is, and where in a repository the files lie that are spoilt."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

from ..forge import Repository

Spoil = Callable[[Repository], object]

NAMES = {
    "parents": "../../canary/x",
    "absolute": "/etc/passwd",
    "nul": "a\0b",
    "escape": "\x1b[31m\x1b]0;title\x07",
    "return": "a\r\nb",
    "dot": ".",
    "empty": "",
    "dash": "--help",
    "wide": "\u202eevil",
    "long": "n" * 255,
    "format": "{0.__class__}%s%n$(id)`id`",
}


@dataclass(frozen=True)
class Case:
    """One repository.

    Attributes:
        name: Rule and what is wrong.
        spoil: Does it.
        more_mib: Memory that it may take beyond the bound: what its content really is.
        misuse: What else is done to it, before all that is done to every one.
    """

    name: str
    spoil: Spoil
    more_mib: int = 0
    misuse: Callable[[pathlib.Path], str] | None = None


def first(repo: Repository, folder: str) -> str:
    """A file of a folder, below `.gradient-repo`."""
    return f"{folder}/{repo.files(folder)[0].name}"


def newest(repo: Repository) -> str:
    """The newest operation."""
    return f"ops/{repo.files('ops')[-1].name}"


FILES: dict[str, Callable[[Repository], str]] = {
    "format": lambda _: "format",
    "config": lambda _: "config.json",
    "first operation": lambda repo: first(repo, "ops"),
    "newest operation": newest,
    "pack": lambda repo: first(repo, "packs"),
    "index": lambda _: "cache/index",
    "commit rows": lambda _: "cache/commits",
    "lease": lambda _: "leases/" + "ab" * 16,
    "temporary": lambda _: "tmp/" + "ab" * 16 + ".tmp",
    "trash": lambda _: "trash/" + "ab" * 16 + ".pack",
    "folded": lambda _: f"ops/folded-{2:020}",
    "report": lambda _: "lost+found/repair-1.json",
    "manifest": lambda _: "../manifest.json",
}


def tip(repo: Repository) -> bytes:
    """A commit that is there: that of the first pack, as it was when this was asked first."""
    repo.tip = repo.tip or read_tip(repo)
    return repo.tip


def read_tip(repo: Repository) -> bytes:
    """The commit of the first pack."""
    data = repo.files("packs")[0].read_bytes()
    index, objects = struct.unpack("<Q", data[-120:-112])[0], struct.unpack("<I", data[-112:-108])[0]
    rows = (data[index + 64 * i : index + 64 * (i + 1)] for i in range(objects))
    return next(row[:32] for row in rows if row[58] == 3)
