"""Two trainers in one repository, killed now and then and started again: no commit is lost, every handle resolves.

`GRADIENT_KILL_COMMITS` sets the commits of each trainer (500). The repository lies where pytest has its temporary
folders, so `--basetemp` chooses the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import Child, child_environment
from killing import shared_server

from gradient import Repo

pytestmark = pytest.mark.slow

COMMITS = int(os.environ.get("GRADIENT_KILL_COMMITS", "500"))
KILL_AFTER = (15, 60)
"""A trainer is killed when it was acknowledged so many commits since its start, drawn anew each time."""


class Trainer:
    """One trainer through all its deaths."""

    def __init__(self, name: str, branch: str, cwd: Path, chance: random.Random) -> None:
        self.name = name
        self.branch = branch
        self.cwd = cwd
        self.chance = chance
        self.deaths = 0
        self.start()

    def start(self) -> None:
        arguments = ["--reports", "{fd}", "--name", self.name, "--branch", self.branch, "--commits", str(COMMITS)]
        self.child: Child = shared_server().start("trainer_child", arguments, cwd=self.cwd)
        self.commits = 0
        self.kill_after = self.chance.randint(*KILL_AFTER)

    def go_on(self) -> bool:
        """Take what it said; kill it if its time has come, start it again if it is dead. False: it is done."""
        said = self.child.listen()
        if not said:
            if self.child.status == 0:
                return False
            assert self.child.status == -9, f"{self.name} ended with {self.child.status}\n{self.child.last_words()}"
            self.deaths += 1
            self.start()
            return True
        self.commits += sum("acknowledged" in line for line in said)
        if self.commits >= self.kill_after:
            time.sleep(self.chance.uniform(0, 0.03))
            self.child.kill()
        return True

    def acknowledged(self) -> list[dict[str, Any]]:
        lines = (self.cwd / f"{self.name}.log").read_text().splitlines()
        return [json.loads(line) for line in lines]


def train(branches: dict[str, str], cwd: Path) -> list[Trainer]:
    """Run a trainer for each name, on its branch, until all are done."""
    seed = secrets.randbits(32)
    print(f"moments of the kills: seed {seed}")
    chance = random.Random(seed)
    trainers = [Trainer(name, branch, cwd, chance) for name, branch in branches.items()]
    busy = list(trainers)
    while busy:
        ready = select.select([trainer.child.reports for trainer in busy], [], [], 180)[0]
        assert ready, "nobody has said anything for three minutes"
        busy = [trainer for trainer in busy if trainer.child.reports not in ready or trainer.go_on()]
    return trainers


def check(trainers: list[Trainer], cwd: Path) -> Counter[str]:
    """Every acknowledged commit is there with its content, by its id and by its handle; the log walks."""
    counts: Counter[str] = Counter()
    path = cwd / "ws" / "shared"
    with Repo.open(path) as repo:
        log = repo.log(all_refs=True)
        known = {info.id: info for info in log}
        assert len(known) == len(log)
        for info in log:
            assert set(info.parents) <= known.keys()
        lines_of = {branch: _present_line(repo, branch) for branch in repo.branches()}
        seen = set()
        for trainer in trainers:
            lines = trainer.acknowledged()
            assert [line["who"] for line in lines] == [[trainer.name, number] for number in range(COMMITS)]
            for line in lines:
                resolved = repo.resolve(line["handle"])
                branch, _, step = line["handle"].partition("@")
                assert resolved.step == int(step)
                # A conflict names the branch and no commit; the branch was new, so that its handle is this commit.
                commit_id = line["id"] or resolved.id
                if resolved.id != commit_id:
                    # Another trainer went on from below this commit and stands at its step now; the id still holds.
                    assert resolved.id == lines_of[branch][resolved.step]
                    counts["handles that mean another's commit by now"] += 1
                assert commit_id in known, f"{line} is lost"
                state = repo.state(commit_id)
                assert state["extra"]["who"]["value"] == line["who"]
                weights = state["model"]["main"]["tensors"]["weight"].bytes()
                assert hashlib.sha256(weights).hexdigest() == line["weights"]
                seen.add(commit_id)
                counts["acknowledged"] += 1
                counts["conflicts"] += line["conflict"]
        counts["branches"] = len(repo.branches())
        counts["commits"] = len(known)
        counts["never acknowledged"] = len(known.keys() - seen)
        counts["kills"] = sum(trainer.deaths for trainer in trainers)
        assert len(seen) == counts["acknowledged"] == COMMITS * len(trainers)
        # A commit that was durable when its trainer died before it heard of it: at most one a death.
        assert counts["never acknowledged"] <= counts["kills"]
        counts["left in tmp"] = len(list((path / ".gradient-repo" / "tmp").iterdir()))
    command = [sys.executable, "-m", "gradient", "-C", str(path), "log", "--all", "--oneline"]
    printed = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=True)
    assert len(printed.stdout.splitlines()) == counts["commits"]
    return counts


def _present_line(repo: Repo, branch: str) -> dict[int, str]:
    """The newest commit of each step on a branch's line, walked here and not by `resolve`."""
    line: dict[int, str] = {}
    commit_id: str | None = repo.branches()[branch]
    while commit_id is not None:
        info = repo.core.commit_info(commit_id)
        line.setdefault(info.step, commit_id)
        commit_id = info.parents[0] if info.parents else None
    return line


def test_two_trainers_on_two_branches_lose_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    trainers = train({"anna": "warm", "bert": "cold"}, tmp_path)
    trained = time.monotonic()
    counts = check(trainers, tmp_path)
    print(f"{dict(counts)}; trained {trained - began:.0f} s, checked {time.monotonic() - trained:.0f} s")
    assert counts["handles that mean another's commit by now"] == 0
    assert counts["conflicts"] == 0
    assert counts["branches"] == 2


def test_two_trainers_on_one_branch_lose_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    trainers = train({"anna": "main", "bert": "main"}, tmp_path)
    trained = time.monotonic()
    counts = check(trainers, tmp_path)
    print(f"{dict(counts)}; trained {trained - began:.0f} s, checked {time.monotonic() - trained:.0f} s")
    assert counts["conflicts"] > 0
    assert counts["kills"] > 0
