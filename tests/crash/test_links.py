"""Links, pipes, devices, sockets and folders in place of every file and folder: reliability.md, row 19.

Outside the repository lies a copy of what was replaced, so that whoever follows a link reads something that fits: it
must be refused all the same, and what lies outside must not change. Nothing may hang, as opening a pipe does.
"""

from __future__ import annotations

import ctypes
import functools
import os
import random
import shutil
import socket
import stat
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from confined import confined, gradient, outcome
from writer_child import contents, state

import gradient as package
from gradient import Repo, _core, workspace

pytestmark = pytest.mark.slow

HIDDEN = Path(".gradient-repo")
FOLDERS = ("ops", "packs", "leases", "tmp", "trash", "lost+found", "cache")
NONCE = "0123456789abcdef0123456789abcdef"
STEPS = 4

# What is replaced: a glob below the repository and which of the files that it finds.
TRUTH = {
    "format": (".gradient-repo/format", 0),
    "first operation": (".gradient-repo/ops/0*", 0),
    "operation in the middle": (".gradient-repo/ops/0*", 2),
    "newest operation": (".gradient-repo/ops/0*", -1),
    "pack": (".gradient-repo/packs/*.pack", 0),
}
HINTS = {
    "config.json": (".gradient-repo/config.json", 0),
    "index cache": (".gradient-repo/cache/index", 0),
    "commit cache": (".gradient-repo/cache/commits", 0),
    "lease": (f".gradient-repo/leases/{NONCE}", 0),
    "file in the making": (f".gradient-repo/tmp/{NONCE}.tmp", 0),
    "pack in the trash": (f".gradient-repo/trash/{NONCE}.pack", 0),
    "repair log": (".gradient-repo/lost+found/repair-1.json", 0),
    "manifest": ("manifest.json", 0),
    "marker": ("../.gradient/config.json", 0),
}
FILES = {**TRUTH, **HINTS}
KINDS = ("link outside", "link inside", "dangling link", "hard link", "pipe", "device", "socket", "folder")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a repository that has one of every kind of file."""
    folder = tmp_path_factory.mktemp("made") / "workspace"
    workspace.init_workspace(folder)
    workspace.init_repo(folder / "repo")
    repo = folder / "repo"
    with Repo.open(repo) as opened:
        base = None
        for step in range(1, STEPS + 1):
            base = opened.core.commit(
                "main", state(step), base=base, first=base is None, step=step, message=str(step)
            ).id
    for name, (pattern, _) in HINTS.items():
        at = repo / pattern
        if name not in ("marker", "config.json") and not at.exists():
            at.write_bytes(b'{"pending": null}')
    return folder


@pytest.fixture
def repo(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "workspace")
    (tmp_path / "outside").mkdir()
    return tmp_path / "workspace" / "repo"


def put(kind: str, at: Path, kept: Path, inside: Path) -> None:
    """Put something of a kind in place of a file or folder, which goes on living at `kept`."""
    shutil.move(at, kept)
    if kind == "link outside":
        at.symlink_to(kept)
    elif kind == "link inside":
        at.symlink_to(os.path.relpath(inside, at.parent))
    elif kind == "dangling link":
        at.symlink_to(kept.with_name("nothing"))
    elif kind == "hard link":
        os.link(kept, at)
    elif kind == "pipe":
        os.mkfifo(at)
    elif kind == "device":
        try:
            os.mknod(at, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("the right is missing: only root makes devices")
    elif kind == "socket":
        # A path for a socket is short.
        with socket.socket(socket.AF_UNIX) as made:
            here = os.open(at.parent, os.O_RDONLY)
            try:
                made.bind(f"/proc/self/fd/{here}/{at.name}")
            finally:
                os.close(here)
    elif kind == "folder":
        at.mkdir()
        (at / "canary").write_bytes(b"canary")
    else:
        at.write_bytes(b"a file")


def take_away(at: Path) -> None:
    if at.is_dir() and not at.is_symlink():
        shutil.rmtree(at)
    elif os.path.lexists(at):
        at.unlink()


def outside(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything about the files outside, but how many names they have."""
    files = [at for at in folder.rglob("*") if at.is_file()]
    return {str(at): (at.stat().st_mtime_ns, at.stat().st_mode, at.read_bytes()) for at in files}


def read_all(repo: Path) -> None:
    with Repo.open(repo) as opened:
        assert [info.step for info in opened.log()] == list(range(STEPS, 0, -1))
        for step in range(1, STEPS + 1):
            tensors = opened.state(f"main@{step}")["model"]["main"]["tensors"]
            assert {name: tensors[name].bytes() for name in tensors} == contents(step)
        assert len(opened.operations()) == STEPS + 1


def read_what_there_is(repo: Path) -> None:
    """Read every commit that can be reached: it holds what it must, or is refused."""
    with Repo.open(repo) as opened:
        for info in opened.log():
            tensors = opened.state(info.id)["model"]["main"]["tensors"]
            assert {name: tensors[name].bytes() for name in tensors} == contents(int(info.message))
        opened.operations()


def commit(repo: Path) -> None:
    with Repo.open(repo) as opened:
        tip = opened.branches().get("main")
        result = opened.core.commit("main", state(9), base=tip, first=True, step=9, message="9")
        opened.core.maintain()
        opened.verify(result.id)


def commit_another(repo: Path, number: int, acknowledged: dict[str, int]) -> None:
    """Commit what nobody has committed before, and note it once it is durable, whatever comes then."""
    with Repo.open(repo) as opened:
        tip = opened.branches().get("main")
        result = opened.core.commit("main", state(number), base=tip, first=True, step=number, message=str(number))
        acknowledged[result.id] = number
        opened.core.maintain()


def calls(repo: Path) -> dict[str, Callable[[], object]]:
    def fsck() -> None:
        report = _core.fsck(str(repo), level="full")
        errors = [finding for finding in report.findings if finding.severity == "error"]
        if errors:
            raise package.CorruptionError(str(errors), path=errors[0].file)

    return {
        "read": lambda: read_what_there_is(repo),
        "fsck": fsck,
        "commit": lambda: commit(repo),
        "repair": lambda: _core.repair(str(repo), apply=True),
        "read again": lambda: read_what_there_is(repo),
        "workspace": lambda: workspace.load_workspace_config(repo.parent),
        "init": lambda: workspace.init_repo(repo, workspace_path=repo.parent),
    }


def everything(repo: Path) -> dict[str, Any]:
    told: dict[str, Any] = {name: outcome(call) for name, call in calls(repo).items()}
    commands = {words: gradient("-C", str(repo), *words.split()) for words in ("log", "status", "fsck --full")}
    for words, ended in commands.items():
        assert ended["code"] in (0, 2, 3, 5, 6) and "Traceback" not in ended["err"], (words, ended)
    return told


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_what_lies_in_place_of_a_file_is_refused_or_harmless(name: str, kind: str, repo: Path) -> None:
    pattern, which = FILES[name]
    at = sorted(repo.glob(pattern))[which] if ".." not in pattern else repo / pattern
    inside = min(repo.glob(pattern)) if name in ("newest operation", "operation in the middle") else None
    kept = repo.parent.parent / "outside" / at.name
    put(kind, at, kept, inside or repo / HIDDEN / "format")
    before = outside(kept.parent)
    told = confined(lambda: everything(repo))
    assert outside(kept.parent) == before
    if name in TRUTH and kind != "hard link":
        refused = {what for what in ("read", "fsck") if told[what]["error"] is not None}
        assert "fsck" in refused, told
        # The log of operations is not needed to read commits but for its newest.
        assert "read" in refused or name.endswith("operation"), told
        if name in ("format", "newest operation"):
            assert told["commit"]["error"] == "CorruptionError", told["commit"]
            assert told["commit"]["hint"] and told["commit"]["path"], told["commit"]
    elif name != "config.json":
        assert told["read"]["error"] is None, told
    # Whatever it was: taken away, and the file put back where it was, all is well.
    if kind != "hard link":
        for left in (repo / HIDDEN / "lost+found").iterdir():
            if not left.is_file() or left.is_symlink():
                take_away(left)
        if name == "newest operation":
            return  # The repair went on without it, so that another one has its number.
        take_away(at)
        shutil.copy(kept, at)
    confined(lambda: read_what_there_is(repo))
    confined(lambda: commit(repo))
    report = confined(
        lambda: [
            finding.what for finding in _core.fsck(str(repo), level="full").findings if finding.severity == "error"
        ]
    )
    assert report == []


@pytest.mark.parametrize("kind", ["link outside", "dangling link", "pipe", "device", "socket", "file"])
@pytest.mark.parametrize("name", [*FOLDERS, "."])
def test_what_lies_in_place_of_a_folder_is_refused(name: str, kind: str, repo: Path) -> None:
    at = repo / HIDDEN / name if name != "." else repo / HIDDEN
    kept = repo.parent.parent / "outside" / at.name
    put(kind, at, kept, kept)
    before = outside(kept.parent)
    told = confined(lambda: everything(repo))
    assert outside(kept.parent) == before
    for what in ("read", "commit", "fsck", "repair", "init"):
        # Behind something that is no folder there is no repository; inside one, it is damage.
        assert told[what]["error"] in (
            ("NotFoundError", "CorruptionError", "StorageError") if name == "." else ("CorruptionError",)
        ), (what, told)
    take_away(at)
    shutil.move(kept, at)
    confined(lambda: read_all(repo))
    confined(lambda: commit(repo))


# Swapped while we work


RENAME_EXCHANGE = 2
AT_FDCWD = -100


def exchange(one: Path, other: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    return int(done) == 0


def swap_for_ever(repo: Path, aside: Path, canary: Path, stop: threading.Event, swaps: list[int]) -> None:
    """Exchange some file for a link or a pipe, and back, so that no name is ever free."""
    chance = random.Random()
    number = 0
    while not stop.is_set():
        folder = chance.choice(["ops", "ops", "packs", "packs", "cache", ".", "leases"])
        try:
            names = [at for at in (repo / HIDDEN / folder).iterdir() if at.is_file() and not at.is_symlink()]
        except FileNotFoundError:
            continue
        if not names:
            continue
        at = chance.choice(names)
        number += 1
        odd = aside / str(number)
        if chance.random() < 0.7:
            odd.symlink_to(canary)
        else:
            os.mkfifo(odd)
        if exchange(at, odd):
            stop.wait(chance.uniform(0, 0.002))
            # A lease may have been written anew, or removed, meanwhile: then it stays as it is.
            if folder == "leases":
                continue
            assert exchange(at, odd) or folder == "cache"
            swaps[0] += 1


def test_files_that_are_swapped_for_links_and_pipes_while_we_work_harm_nothing_outside(repo: Path) -> None:
    if not hasattr(ctypes.CDLL(None), "renameat2"):
        pytest.skip("renameat2 is missing in this C library")
    folder = repo.parent.parent / "outside"
    canary = folder / "canary"
    canary.write_bytes(b"canary" * 1000)
    aside = repo.parent.parent / "aside"
    aside.mkdir()
    before = outside(folder)

    def work(first: int) -> dict[str, Any]:
        counts = {"done": 0, "refused": 0}
        acknowledged: dict[str, int] = {}
        for number in range(first, first + 4):
            # A repair would move aside what is only swapped for a moment.
            wanted = {name: call for name, call in calls(repo).items() if name != "repair"}
            wanted["commit"] = functools.partial(commit_another, repo, number, acknowledged)
            for call in wanted.values():
                told = outcome(call)
                counts["done" if told["error"] is None else "refused"] += 1
                assert told["error"] in (None, "CorruptionError", "StorageError", "NotFoundError"), told
        return {"counts": counts, "acknowledged": acknowledged}

    totals, acknowledged = {"done": 0, "refused": 0}, dict[str, int]()
    stop, swaps = threading.Event(), [0]
    with ThreadPoolExecutor(1) as pool:
        swapper = pool.submit(swap_for_ever, repo, aside, canary, stop, swaps)
        try:
            for at in range(10):
                told = confined(functools.partial(work, STEPS + 1 + 4 * at))
                acknowledged.update(told["acknowledged"])
                for name, count in told["counts"].items():
                    totals[name] += count
        finally:
            stop.set()
    # What it raised, if anything.
    swapper.result()
    print(f"{swaps[0]} swaps, {totals}, {len(acknowledged)} commits acknowledged")
    assert outside(folder) == before
    assert swaps[0] >= 40 and totals["refused"] > 0 and acknowledged
    # All files are back in their places: nothing that was acknowledged is lost, and nothing is damaged.
    with Repo.open(repo) as opened:
        assert {info.id for info in opened.log(all_refs=True)} >= acknowledged.keys()
        for commit_id, number in acknowledged.items():
            tensors = opened.state(commit_id)["model"]["main"]["tensors"]
            assert {name: tensors[name].bytes() for name in tensors} == contents(number)
    read_what_there_is(repo)
    report = _core.fsck(str(repo), level="full")
    assert report.clean and not report.lost, report.findings
