"""SIGKILL at a random moment, under load: reliability.md, row 5.

One repository, one writer after the other: each is killed while its threads commit, fork, tag, undo and clean up, and
the next one goes on where it stopped. `GRADIENT_KILLS` sets how many are killed (100), over `REPOSITORIES`.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import Child
from writer_child import contents, state

from gradient import Repo, _core

pytestmark = pytest.mark.slow

REPOSITORIES = 2
KILLS = int(os.environ.get("GRADIENT_KILLS", "100")) // REPOSITORIES
CHECK_ALL_EVERY = 10
"""Kills between two checks of everything."""
WRITER = Path(__file__).resolve().parent / "writer_child.py"


class KilledRepository:
    """One repository, and what its writers said before they died."""

    def __init__(self, cwd: Path, chance: random.Random) -> None:
        self.cwd, self.chance = cwd, chance
        self.path = cwd / "repo"
        self.acknowledged: dict[str, int] = {}
        self.operations: list[tuple[int, str]] = []
        self.changes: list[tuple[str, str | None, str | None]] = []
        self.heads: list[str] = []
        self.seen: set[str] = set()
        self.counts: Counter[str] = Counter()

    def kill_one(self) -> None:
        """Start a writer and kill it: while it opens, in its first commit, or with all its threads at work."""
        arguments = ["--reports", "{fd}", "--seed", str(self.chance.getrandbits(60))]
        child = Child.start_command([sys.executable, str(WRITER), *arguments], cwd=self.cwd)
        at = self.chance.choices(["opening", "left"], [1, 3])[0]
        delay = self.chance.uniform(0, 0.02 if at == "opening" else 0.15)
        began = time.monotonic()
        heard: list[dict[str, Any]] = []
        for said in child.hear():
            heard.append(said)
            if at in said:
                time.sleep(delay)
                child.kill()
        assert child.status == -9, f"{heard[-1:]} {child.last_words()}"
        assert time.monotonic() - began < 30, "a writer took its time after the death of another"
        self.counts["killed while it " + ("opened" if at == "opening" else "worked")] += 1
        self.take(heard)

    def take(self, heard: Iterable[dict[str, Any]]) -> None:
        for said in heard:
            assert "failed" not in said, said
            if "commit" in said:
                assert said["notices"] == []
                self.acknowledged[said["commit"]] = said["number"]
            elif "operation" in said:
                self.operations.append((said["operation"], said["kind"]))
            elif "ref" in said:
                self.changes.append((said["ref"], None, said["to"]))
            elif "deleted" in said:
                self.changes.append((said["deleted"], said["to"], None))
            elif "renamed" in said:
                self.changes.append((said["from"], said["to"], None))
                self.changes.append((said["renamed"], None, said["to"]))
            elif "head" in said:
                self.heads.append(said["head"])
            elif "left" in said:
                # The first commit after a death clears away what the dead one left.
                left = said["left"]
                assert left["tmp"] == [] and left["trash"] == [] and left["lost+found"] == []
                assert len(left["leases"]) == 1, "a dead writer's lease is still there"
            self.counts.update(said.keys() & {"commit", "operation", "refused", "ref", "renamed", "deleted", "head"})

    def check(self, *, all_of_it: bool) -> None:
        """Every acknowledged commit is there, bit for bit; one that was never acknowledged is whole or absent."""
        with Repo.open(self.path) as repo:
            assert repo.core.notices == []
            there = {info.id: info for info in repo.log(all_refs=True)}
            for commit_id, number in self.acknowledged.items():
                if all_of_it or commit_id not in self.seen:
                    self.check_commit(repo, commit_id, number)
            for commit_id, info in there.items():
                if commit_id not in self.acknowledged and (all_of_it or commit_id not in self.seen):
                    self.check_commit(repo, commit_id, int(info.message))
                    self.counts["never acknowledged, and whole"] += commit_id not in self.seen
                self.seen.add(commit_id)
            self.seen.update(self.acknowledged)
            if all_of_it:
                self.check_operations(repo)
        if all_of_it:
            report = _core.fsck(str(self.path), level="full")
            assert report.clean, report.findings
            assert report.lost == {}
            # Written by nobody now: leases and files in the making may be left of the one that died last.
            odd = [finding for finding in report.findings if finding.severity == "warning"]
            assert odd == [], odd
            self.counts["checks in full"] += 1

    def check_commit(self, repo: Repo, commit_id: str, number: int) -> None:
        info = repo.core.commit_info(commit_id)
        assert info.message == str(number)
        tensors = repo.state(commit_id)["model"]["main"]["tensors"]
        assert {name: tensors[name].bytes() for name in tensors} == contents(number), f"{commit_id} is not what it was"

    def check_operations(self, repo: Repo) -> None:
        """The log has no gap, and every commit and operation that was acknowledged is in it."""
        operations = {operation.number: operation for operation in repo.operations()}
        assert sorted(operations) == list(range(1, len(operations) + 1))
        named = {after for operation in operations.values() for _, _, after in operation.changes}
        assert self.acknowledged.keys() <= named
        for number, kind in self.operations:
            assert operations[number].kind == kind
        # Names of tags and branches are drawn: what was done to one is done once, by the operation that says so.
        done = Counter(
            (ref, before, after) for operation in operations.values() for ref, before, after in operation.changes
        )
        lost = [change for change in self.changes if not done[change]]
        assert not lost, lost
        stood = {at for kind, at in (operation.head for operation in operations.values()) if kind == "commit"}
        assert stood >= set(self.heads)
        self.check_refs(repo, operations)
        self.counts["operations"] = len(operations)

    def check_refs(self, repo: Repo, operations: dict[int, Any]) -> None:
        """What the refs are is what the operations made of them, one after the other."""
        refs: dict[str, str | None] = {}
        for number in sorted(operations):
            for ref, before, after in operations[number].changes:
                assert refs.get(ref) == before, (number, ref)
                refs[ref] = after
        there = {**repo.branches(), **repo.tags()}
        assert there == {ref: at for ref, at in refs.items() if at is not None}
        assert repo.head() == operations[max(operations)].head


def fill_the_log(path: Path) -> None:
    """So many operations that the writers soon fold them."""
    core, _ = _core.Repository.init(str(path), name="repo")
    result = core.commit("main", state(0), base=None, first=True, step=0, message="0")
    for _ in range(220):
        core.create_tag("short-lived", result.id)
        core.delete_tag("short-lived")
    core.close()


@pytest.mark.parametrize("number", range(REPOSITORIES))
def test_a_writer_killed_under_load_loses_nothing_and_the_next_goes_on_at_once(number: int, tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print(f"moments of the kills: seed {seed}")
    killed = KilledRepository(tmp_path, random.Random(seed))
    if number == 0:
        fill_the_log(killed.path)
    for kill in range(1, KILLS + 1):
        killed.kill_one()
        if (killed.path / ".gradient-repo" / "format").exists():
            killed.check(all_of_it=kill % CHECK_ALL_EVERY == 0)
    killed.check(all_of_it=True)
    folded = list((killed.path / ".gradient-repo" / "ops").glob("folded-*"))
    assert folded or number > 0
    print(dict(killed.counts))
    assert killed.counts["killed while it worked"] > KILLS / 4
    assert killed.counts["commit"] > KILLS
