"""S4, S8, S12: what is no file, no folder, not there, or longer than any disk."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

from ..forge import Repository
from .case import FILES, Case

HUGE = 100 << 30
"""Length of a file that takes no space."""


def in_place_of_files() -> Iterator[Case]:
    """Links, pipes, sockets, devices and folders where files should be."""

    def link(repo: Repository, name: str) -> None:
        os.symlink(repo.path.parent / "canary" / "secret", repo.folder / name)

    def dangling(repo: Repository, name: str) -> None:
        os.symlink(repo.path.parent / "canary" / "made", repo.folder / name)

    def hard(repo: Repository, name: str) -> None:
        os.link(repo.path.parent / "canary" / "secret", repo.folder / name)

    def pipe(repo: Repository, name: str) -> None:
        os.mkfifo(repo.folder / name)

    def bound(repo: Repository, name: str) -> None:
        # A path of a socket is short.
        here = os.getcwd()
        os.chdir((repo.folder / name).parent)
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind((repo.folder / name).name)
        finally:
            os.chdir(here)

    def device(repo: Repository, name: str) -> None:
        if os.geteuid() == 0:
            os.mknod(repo.folder / name, 0o20666, os.makedev(1, 5))
        else:
            os.symlink("/dev/zero", repo.folder / name)

    def folder(repo: Repository, name: str) -> None:
        (repo.folder / name).mkdir()

    kinds = {
        "link": link,
        "dangling link": dangling,
        "hard link": hard,
        "pipe": pipe,
        "socket": bound,
        "device": device,
    }
    for kind, make in {**kinds, "folder": folder}.items():
        for name, find in FILES.items():

            def spoil(repo: Repository, make: Callable[[Repository, str], None] = make, find: object = find) -> None:
                place = find(repo)  # type: ignore[operator]
                (repo.folder / place).unlink(missing_ok=True)
                make(repo, place)

            yield Case(f"S4 {kind} for {name}", spoil)


def in_place_of_folders() -> Iterator[Case]:
    """Links and files where folders should be."""
    for name in ("", "ops", "packs", "leases", "tmp", "trash", "lost+found", "cache"):

        def link(repo: Repository, name: str = name) -> None:
            aside = repo.path.parent / "canary" / "aside"
            (repo.folder / name).rename(aside)
            os.symlink(aside, repo.folder / name)

        def file(repo: Repository, name: str = name) -> None:
            (repo.folder / name).rename(repo.path / "moved")
            (repo.folder / name).write_bytes(b"")

        def loop(repo: Repository, name: str = name) -> None:
            (repo.folder / name).rename(repo.path / "moved")
            os.symlink((repo.folder / name).name, repo.folder / name)

        shown = name or ".gradient-repo"
        yield Case(f"S4 link for folder {shown}", link)
        yield Case(f"S4 file for folder {shown}", file)
        yield Case(f"S4 loop of links for folder {shown}", loop)


# S5: lengths and numbers


def longer_than_disks() -> Iterator[Case]:
    """Files that are longer than any disk."""
    for name, find in FILES.items():

        def zeros(repo: Repository, find: Callable[[Repository], str] = find) -> None:
            file = repo.folder / find(repo)
            file.unlink(missing_ok=True)
            with file.open("wb") as out:
                out.truncate(HUGE)

        def longer(repo: Repository, find: Callable[[Repository], str] = find) -> None:
            with (repo.folder / find(repo)).open("ab") as out:
                out.truncate(HUGE)

        yield Case(f"S5 zeros for {name}", zeros)
        yield Case(f"S5 zeros behind {name}", longer)


def partial() -> Iterator[Case]:
    """A repository that is partly there, or holds what is nobody's."""
    for name in ("ops", "packs", "cache", "tmp", "leases"):

        def emptied(repo: Repository, name: str = name) -> None:
            for file in repo.files(name):
                file.unlink()

        def moved(repo: Repository, name: str = name) -> None:
            (repo.folder / name).rename(repo.path / "moved")

        yield Case(f"S12 without what lies in {name}", emptied)
        yield Case(f"S12 without the folder {name}", moved)
    yield Case("S12 without format", lambda repo: (repo.folder / "format").unlink())
    yield Case("S12 without the newest pack", lambda repo: repo.files("packs")[-1].unlink())
    folders = ("ops", "packs", "leases", "tmp", "trash", "cache")
    yield Case("S8 files that are nobody's", lambda repo: [repo.write(f"{name}/x", b"x") for name in folders])
