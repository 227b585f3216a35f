"""A writer that is killed: commits, forks, tags, branches, undoes and cleans up from several threads, without torch.

What a commit holds follows from the number in its message, so that whoever finds the commit knows what must be in it.
Each thing done is said over the pipe after it came back and before the thread goes on: that must never be lost.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from fork_server import reporter

from gradient import Repo, _core
from gradient.errors import AlreadyExistsError, ConflictError, NotFoundError

THREADS = 3
LENS = (0, 10, 300, 5_000, 70_000, 1_200_000)
"""Inline, one chunk, more than one."""


ALIKE = random.Random(0).randbytes(20_000)


def contents(number: int) -> dict[str, bytes]:
    """The tensors of a commit: one of its own, one that others have too, one that is nearly that of any other."""
    own, shared = random.Random(number), random.Random(number % 7)
    alike = bytearray(ALIKE)
    for _ in range(40):
        alike[own.randrange(len(alike))] ^= 1
    return {"own": own.randbytes(own.choice(LENS)), "shared": shared.randbytes(20_000), "alike": bytes(alike)}


def state(number: int) -> dict[str, dict[str, object]]:
    tensors = {name: _core.TensorLeaf("uint8", [len(data)], data) for name, data in contents(number).items()}
    return {"model": {"main": {"tensors": tensors}}}


def fill(path: Path, commits: int) -> None:
    """Make a repository of so many small commits."""
    core, _ = _core.Repository.init(str(path), name="repo")
    base = None
    for step in range(1, commits + 1):
        number = step % 7
        base = core.commit("main", state(number), base=base, first=base is None, step=step, message=str(number)).id
    core.close()


class Writer:
    """One thread: its branch, where it stands on it, what it says."""

    def __init__(self, repo: Repo, branch: str, chance: random.Random, report: Callable[..., None]) -> None:
        self.repo, self.branch, self.chance, self.report = repo, branch, chance, report
        tip = repo.branches().get(branch)
        self.base, self.first = tip, True
        self.step = 0 if tip is None else repo.core.commit_info(tip).step
        self.names: list[str] = []

    def commit(self, *, fork: bool = False) -> None:
        number = self.chance.getrandbits(60)
        branch = f"{self.branch.partition('-')[0]}-{self.name()}" if fork else self.branch
        self.step += 1
        result = self.repo.core.commit(
            branch,
            state(number),
            base=self.base,
            first=self.first or fork,
            step=self.step,
            message=str(number),
            create=fork,
        )
        self.report(commit=result.id, number=number, branch=result.branch, notices=result.notices)
        if not fork:
            self.branch, self.base, self.first = result.branch, result.id, False

    def name(self) -> str:
        return f"{self.chance.getrandbits(40):x}"

    def change_refs(self) -> None:
        what = self.chance.choice(["tag", "tag", "branch", "branch", "drop", "drop", "rename", "undo", "redo", "head"])
        core, at = self.repo.core, self.base
        assert at is not None
        self.repo.refresh()
        if what == "undo" or what == "redo":
            done = self.repo.undo() if what == "undo" else self.repo.redo()
            self.report(operation=done.number, kind=done.kind)
        elif what == "head":
            core.checkout(commit=at)
            self.report(head=at)
        elif what in ("tag", "branch"):
            name = f"{what}-{self.name()}"
            (core.create_tag if what == "tag" else core.create_branch)(name, at)
            self.names.append(name)
            self.report(ref=name, to=at)
        elif self.names:
            name = self.names.pop()
            if what == "rename" and name.startswith("branch"):
                at = self.repo.branches().get(name)
                core.rename_branch(name, f"{name}r")
                self.names.append(f"{name}r")
                self.report(renamed=f"{name}r", to=at, **{"from": name})
            else:
                at = (core.delete_tag if name.startswith("tag") else core.delete_branch)(name)
                self.report(deleted=name, to=at)

    def work(self) -> None:
        """Go on for ever: the end comes from outside."""
        while True:
            drawn = self.chance.random()
            try:
                if drawn < 0.6 or self.base is None:
                    self.commit()
                elif drawn < 0.65:
                    self.commit(fork=True)
                elif drawn < 0.97:
                    self.change_refs()
                else:
                    self.repo.core.maintain()
            except (NotFoundError, AlreadyExistsError, ConflictError) as refused:
                # Another thread has undone, or moved, what this one was going to use.
                self.report(refused=refused.code)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reports", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    report = reporter(options.reports)
    chance = random.Random(options.seed)

    def fail(broken: Any) -> None:
        report(failed=f"{broken.exc_type.__name__}: {broken.exc_value}")
        os._exit(1)

    threading.excepthook = fail
    report(opening=True)
    core, _ = _core.Repository.init("repo", name="repo")
    core.close()
    repo = Repo.open("repo")
    writer = Writer(repo, "main", chance, report)
    writer.commit()
    folder = Path("repo", ".gradient-repo")
    report(left={name: sorted(os.listdir(folder / name)) for name in ("tmp", "leases", "trash", "lost+found")})
    # One handle for all of them, or one each; two on one branch.
    with_own = chance.random() < 0.5
    for at, branch in enumerate(["main", *(f"line{at}" for at in range(THREADS - 2))]):
        mine = Repo.open("repo") if with_own else repo
        threading.Thread(target=Writer(mine, branch, random.Random(options.seed + 1 + at), report).work).start()
    writer.work()


if __name__ == "__main__":
    main()
