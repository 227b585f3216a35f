"""Read-only folders and file systems, immutable files, missing folders, wrong permissions: reliability.md, row 18.

Root may do anything, so what is refused is tried without its powers, in a child that has become nobody.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from confined import NOBODY, confined, gradient, outcome
from writer_child import contents, state

import gradient as package
from gradient import Repo, _core, workspace

pytestmark = pytest.mark.slow

FOLDERS = ("ops", "packs", "leases", "tmp", "trash", "lost+found", "cache")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder that everybody may enter; pytest's are its user's own."""
    path = Path(tempfile.mkdtemp(prefix="gradient-permissions-"))
    path.chmod(0o755)
    yield path
    for at in (path, *path.rglob("*")):
        with contextlib.suppress(OSError):
            if at.is_dir() and not at.is_symlink():
                at.chmod(0o755)
    shutil.rmtree(path)


@pytest.fixture
def repo(folder: Path) -> Path:
    """A repository of three commits and a tag, nobody's own."""
    path = folder / "repo"
    core, _ = _core.Repository.init(str(path), name="repo")
    base = None
    for step in (1, 2, 3):
        base = core.commit("main", state(step), base=base, first=base is None, step=step, message=str(step)).id
    core.create_tag("v1", base or "")
    core.close()
    give(path)
    return path


def give(path: Path) -> None:
    if os.geteuid() == 0:
        for at in (path, *path.rglob("*")):
            os.chown(at, NOBODY, NOBODY)


def snapshot(path: Path) -> dict[str, tuple[int, bytes]]:
    files = [at for at in path.rglob("*") if at.is_file()]
    return {str(at.relative_to(path)): (at.stat().st_mtime_ns, at.read_bytes()) for at in files}


def protect(path: Path) -> None:
    for at in (path, *path.rglob("*")):
        at.chmod(0o555 if at.is_dir() else 0o444)


def read_all(path: Path) -> None:
    """Everything that only reads."""
    with Repo.open(path) as repo:
        assert [info.step for info in repo.log()] == [3, 2, 1]
        for step in (1, 2, 3):
            tensors = repo.state(f"main@{step}")["model"]["main"]["tensors"]
            assert {name: tensors[name].bytes() for name in tensors} == contents(step)
            repo.verify(f"main@{step}")
        assert len(repo.operations()) == 5


def commit(path: Path) -> None:
    with Repo.open(path) as repo:
        tip = repo.branches().get("main")
        step = 9 if tip is None else repo.core.commit_info(tip).step + 1
        repo.core.commit("main", state(step), base=tip, first=True, step=step, message=str(step))


def reads() -> dict[str, dict[str, Any]]:
    commands = (["log"], ["log", "--json", "--all"], ["status"], ["show", "main"], ["diff", "main@1", "main@2"])
    more = (["branch"], ["tag"], ["ops"], ["fsck", "--full"], ["repair"])
    return {" ".join(words): gradient(*words) for words in (*commands, *more)}


def writes() -> dict[str, dict[str, Any]]:
    commands = (["tag", "v2", "main"], ["branch", "side"], ["undo"], ["checkout", "v1"])
    return {" ".join(words): gradient(*words) for words in commands}


def check_read_only(path: Path, number: int) -> None:
    """Reading works, writing is refused with the number, and nothing is written."""
    before = snapshot(path)

    def work() -> dict[str, Any]:
        os.chdir(path)
        read_all(path)
        return {"reads": reads(), "writes": writes(), "commit": outcome(lambda: commit(path))}

    told = confined(work, as_nobody=True)
    for words, ended in told["reads"].items():
        assert (ended["code"], ended["err"]) == (0, ""), (words, ended)
    for words, ended in told["writes"].items():
        assert ended["code"] == 6, (words, ended)
        assert "Traceback" not in ended["err"] and "hint:" in ended["err"]
    assert told["commit"]["error"] == "StorageError"
    assert told["commit"]["errno"] == number
    assert told["commit"]["path"].split("/")[0] in FOLDERS, "the file is named"
    assert told["commit"]["hint"]
    assert snapshot(path) == before


def test_a_folder_that_may_only_be_read_is_read(repo: Path) -> None:
    protect(repo)
    check_read_only(repo, errno.EACCES)


def test_a_folder_that_may_only_be_read_needs_no_caches(repo: Path) -> None:
    shutil.rmtree(repo / ".gradient-repo" / "cache")
    for name in ("tmp", "leases", "trash", "lost+found"):
        (repo / ".gradient-repo" / name).rmdir()
    protect(repo)

    def work() -> dict[str, Any]:
        os.chdir(repo)
        read_all(repo)
        return {"reads": reads(), "commit": outcome(lambda: commit(repo))}

    told = confined(work, as_nobody=True)
    assert {ended["code"] for ended in told["reads"].values()} == {0}
    assert (told["commit"]["error"], told["commit"]["errno"]) == ("StorageError", errno.EACCES)


@contextlib.contextmanager
def read_only_mount(path: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("the right is missing: only root mounts")
    if shutil.which("mount") is None:
        pytest.skip("mount is missing")
    bound = subprocess.run(["mount", "--bind", path, path], capture_output=True, text=True, check=False)
    if bound.returncode != 0:
        pytest.skip(f"the right is missing: mounting is not allowed here: {bound.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", path], check=True)
        yield
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_read_only_file_system_is_read(repo: Path) -> None:
    with read_only_mount(repo):
        check_read_only(repo, errno.EROFS)


def test_training_reads_weights_where_nothing_may_be_written(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(8, 8)
    with package.GradientEngine.attach(model, workspace=folder / "w", repo="repo") as engine:
        engine.commit(1)
    give(folder / "w")
    protect(folder / "w")

    def work() -> dict[str, Any]:
        torch.set_num_threads(1)
        other = torch.nn.Linear(8, 8)
        step = package.load("main@1", other, workspace=folder / "w", repo="repo")
        assert int(step) == 1 and torch.equal(other.weight, model.weight)
        with package.GradientEngine.attach(other, workspace=folder / "w", repo="repo", resume="latest") as engine:
            return outcome(lambda: engine.commit(2))

    told = confined(work, as_nobody=True)
    assert (told["error"], told["errno"]) == ("StorageError", errno.EACCES)


def test_an_immutable_file_or_folder_is_named(repo: Path) -> None:
    hidden = repo / ".gradient-repo"
    if shutil.which("chattr") is None:
        pytest.skip("chattr is missing")
    tried = subprocess.run(["chattr", "+i", hidden / "format"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"the right is missing: files can not be made immutable here: {tried.stderr.strip()}")
    try:
        confined(lambda: commit(repo))
        for name in ("tmp", "ops", "packs"):
            subprocess.run(["chattr", "+i", hidden / name], check=True)
            try:
                confined(lambda: Repo.open(repo).verify("main@3"))
                told = confined(lambda: outcome(lambda: commit(repo)))
            finally:
                subprocess.run(["chattr", "-i", hidden / name], check=True)
            assert (told["error"], told["errno"]) == ("StorageError", errno.EPERM), told
            assert told["hint"] and told["path"].startswith(("tmp/", f"{name}/"))
    finally:
        subprocess.run(["chattr", "-i", hidden / "format"], check=True)
    confined(lambda: commit(repo))
    assert _core.fsck(str(repo), level="full").clean


FILES = ("format", "config.json", "first operation", "newest operation", "pack", "cache/index", "cache/commits")


# What can not be done without; all, where nothing is said. A file of a cache costs nothing.
REFUSED = {
    "leases": {"fsck", "repair"},
    "tmp": {"commit", "fsck", "repair"},
    "trash": {"fsck", "repair"},
    "lost+found": {"fsck", "repair"},
    "cache": {"commit", "fsck", "repair"},
    "cache/index": set[str](),
    "cache/commits": set[str](),
    "first operation": {"read", "fsck", "repair"},
    "pack": {"read", "fsck", "repair"},
}


def file_of(repo: Path, name: str) -> Path:
    hidden = repo / ".gradient-repo"
    if name.endswith("operation"):
        operations = sorted((hidden / "ops").iterdir())
        return operations[0 if name.startswith("first") else -1]
    return next((hidden / "packs").iterdir()) if name == "pack" else hidden / name


@pytest.mark.parametrize("name", [*FOLDERS, *FILES, ".", ".."])
def test_what_may_not_be_opened_is_named_and_nothing_is_lost(name: str, repo: Path) -> None:
    spoilt = file_of(repo, name) if name in FILES else repo / ".gradient-repo" / name
    mode = spoilt.stat().st_mode
    spoilt.chmod(0)

    def work() -> dict[str, Any]:
        os.chdir("/")
        calls = {
            "read": lambda: read_all(repo),
            "commit": lambda: commit(repo),
            "fsck": lambda: _core.fsck(str(repo), level="full"),
            "repair": lambda: _core.repair(str(repo), apply=True),
        }
        told: dict[str, Any] = {what: outcome(call) for what, call in calls.items()}
        commands = (["log"], ["status"], ["fsck", "--full"], ["tag", "v2", "main"])
        told["commands"] = {" ".join(words): gradient("-C", str(repo), *words) for words in commands}
        return told

    told = confined(work, as_nobody=True)
    spoilt.chmod(mode)
    for what, ended in told.pop("commands").items():
        assert ended["code"] in (0, 6), (what, ended)
        assert "Traceback" not in ended["err"] and (ended["code"] == 0 or "error:" in ended["err"]), ended
    refused = {what: ended for what, ended in told.items() if ended["error"] is not None}
    for what, ended in refused.items():
        assert (ended["error"], ended["errno"]) == ("StorageError", errno.EACCES), (what, ended)
        assert ended["path"] and ended["hint"], (what, ended)
    expected = REFUSED.get(name, {"read", "commit", "fsck", "repair"})
    # A commit needs no pack that it has nothing in common with.
    assert refused.keys() - ({"commit"} if name == "pack" else set()) == expected, refused
    give(repo)
    confined(lambda: commit(repo), as_nobody=True)
    report = _core.fsck(str(repo), level="full")
    assert report.clean and not report.lost, report.findings


# Folders that are gone: `git clone` and some ways of copying leave empty ones out.


@pytest.mark.parametrize("name", ["leases", "tmp", "trash", "lost+found", "cache", "all of them"])
def test_a_missing_empty_folder_is_made_by_the_next_writer(name: str, repo: Path) -> None:
    hidden = repo / ".gradient-repo"
    gone = [name] if name != "all of them" else ["leases", "tmp", "trash", "lost+found", "cache"]
    for one in gone:
        shutil.rmtree(hidden / one)
    before = snapshot(repo)
    read_all(repo)
    report = _core.fsck(str(repo), level="full")
    assert report.clean
    assert {finding.file for finding in report.findings if "missing" in finding.what} == set(gone)
    assert gradient("-C", str(repo), "status")["code"] == 0
    assert snapshot(repo) == before, "whoever reads makes nothing"
    commit(repo)
    assert sorted(at.name for at in hidden.iterdir() if at.is_dir()) == sorted(FOLDERS)
    assert _core.fsck(str(repo), level="full").clean


@pytest.mark.parametrize("name", ["ops", "packs"])
def test_a_missing_folder_that_held_something_is_damage(name: str, repo: Path) -> None:
    hidden = repo / ".gradient-repo"
    shutil.move(hidden / name, repo / "elsewhere")
    for call in (lambda: read_all(repo), lambda: commit(repo), lambda: workspace.init_repo(repo)):
        told = outcome(call)
        assert (told["error"], told["path"]) == ("CorruptionError", name), told
        assert "the folder is missing" in told["told"] and told["hint"]
    report = _core.fsck(str(repo), level="full")
    assert not report.clean
    assert any(finding.file == name and "missing" in finding.what for finding in report.findings)
    assert gradient("-C", str(repo), "log")["code"] == 5
    assert not (hidden / name).exists(), "nothing was made in its place"
    shutil.move(repo / "elsewhere", hidden / name)
    read_all(repo)
    commit(repo)


def test_a_repository_without_commits_survives_the_loss_of_its_empty_folders(folder: Path) -> None:
    path = folder / "repo"
    _core.Repository.init(str(path), name="repo")[0].close()
    for name in ("packs", "leases", "tmp", "trash", "lost+found", "cache"):
        shutil.rmtree(path / ".gradient-repo" / name)
    with Repo.open(path) as repo:
        assert repo.log() == []
    assert _core.fsck(str(path), level="full").clean
    commit(path)
    with Repo.open(path) as repo:
        repo.verify("main")


def test_a_folder_that_goes_while_it_is_in_use_is_named_with_what_to_do(repo: Path) -> None:
    opened = Repo.open(repo)
    tip = opened.branches()["main"]
    base = opened.core.commit("main", state(4), base=tip, first=True, step=4).id
    shutil.rmtree(repo / ".gradient-repo" / "tmp")
    told = outcome(lambda: opened.core.commit("main", state(5), base=base, first=False, step=5))
    assert (told["error"], told["path"]) == ("StorageError", "tmp/")
    assert "open the repository again" in told["hint"]
    assert outcome(opened.close)["path"] == "tmp/", "the caches could not be written"
    commit(repo)


# A `format` file that is gone.


def test_a_lost_format_file_is_damage_and_never_made_anew(repo: Path) -> None:
    lost = repo / ".gradient-repo" / "format"
    kept = lost.read_bytes()
    lost.unlink()
    workspace.init_workspace(repo.parent)
    before = snapshot(repo)
    init = lambda: workspace.init_repo(repo)  # noqa: E731
    for call in (lambda: read_all(repo), lambda: commit(repo), init, lambda: _core.repair(str(repo), apply=True)):
        told = outcome(call)
        assert (told["error"], told["path"]) == ("CorruptionError", "format"), told
        assert "it is missing, and there are 5 operations and 3 packs" in told["told"]
        assert "from a copy" in told["hint"]
    report = _core.fsck(str(repo), level="full")
    assert [finding.file for finding in report.findings if finding.severity == "error"] == ["format"]
    assert report.counts["commits"] == 3, "the rest is checked all the same"
    said = gradient("-C", str(repo.parent), "repo", "init", "repo")
    assert said["code"] == 5 and "made" not in said["out"], said
    assert gradient("-C", str(repo), "log")["code"] == 5
    assert snapshot(repo) == before
    lost.write_bytes(kept)
    read_all(repo)
