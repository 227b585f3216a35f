"""What the kill tests share: the run that was never killed, one that is killed and resumed, and their comparison."""

from __future__ import annotations

import atexit
import functools
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fork_server import HERE, Child, ForkServer

from gradient import Repo

STEPS = 40
EVERY = 3
SCRIPT = str(HERE / "kill_child.py")


@dataclass
class Reference:
    """A run that was never interrupted.

    Attributes:
        digests: What the script is made of at the end of each step, by SHA-256 of its own.
        roots: Root hash of the commit of each step that has one.
        seconds: How long a step took, with its commit.
        rates: Learning rate at the end of each step.
    """

    digests: dict[int, dict[str, str]]
    roots: dict[int, str] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, heard: Iterable[dict[str, Any]]) -> Reference:
        reference = cls({})
        began: dict[int, float] = {}
        for said in heard:
            if "begin" in said:
                began[said["begin"]] = said["at"]
            elif "committed" in said:
                reference.roots[said["committed"]] = said["root"]
                reference.seconds[said["committed"]] = said["at"] - began[said["committed"]]
            elif "trained" in said:
                reference.seconds[said["trained"]] = said["at"] - began[said["trained"]]
            elif "end" in said:
                step = said["end"]
                reference.digests[step] = said["digests"]
                reference.rates[step] = said["lr"]
        return reference

    def typical_seconds(self, step: int) -> float:
        """The median of all steps that commit, or of all that do not."""
        alike = [seconds for other, seconds in self.seconds.items() if (other % EVERY == 0) == (step % EVERY == 0)]
        return statistics.median(alike)

    def differences(self, heard: Iterable[dict[str, Any]]) -> list[str]:
        """Compare what a child said, step for step, with this run; no difference is an empty list."""
        found = []
        for said in heard:
            step, digests = said.get("end", said.get("start")), said.get("digests")
            if step and digests:
                theirs = self.digests[step]
                found += [f"{what} at step {step}" for what, digest in digests.items() if digest != theirs[what]]
            if "committed" in said and said["root"] != self.roots[said["committed"]]:
                found.append(f"root at step {said['committed']}")
        return found


@functools.cache
def shared_server() -> ForkServer:
    """One for all test files of this process: what it has imported takes seconds."""
    server = ForkServer("kill_child", "trainer_child")
    atexit.register(server.close)
    return server


@functools.cache
def never_killed() -> Reference:
    """Train to the end, once without Gradient and once with it, which must not be noticed."""
    with tempfile.TemporaryDirectory(prefix="never-killed-") as folder:
        cwd = Path(folder)
        plain = Reference.of(shared_server().start("kill_child", ["--reports", "{fd}", "--plain"], cwd=cwd).finish())
        reference = Reference.of(shared_server().start("kill_child", ["--reports", "{fd}"], cwd=cwd).finish())
    assert list(plain.digests) == list(range(1, STEPS + 1))
    assert reference.digests == plain.digests, "training noticed that it was committed"
    assert list(reference.roots) == list(range(EVERY, STEPS + 1, EVERY))
    assert len(set(reference.roots.values())) == len(reference.roots)
    assert len({digests["weights"] for digests in reference.digests.values()}) == STEPS
    return reference


class KilledRun:
    """One run in a repository of its own, killed and resumed until it is done; every child is compared.

    Args:
        cwd: An empty folder.
        chance: Draws the moments of the kills and how each resume is asked for.
        variables: More environment variables for every child.
    """

    def __init__(self, cwd: Path, chance: random.Random, *, variables: dict[str, str] | None = None) -> None:
        self.cwd = cwd
        self.chance = chance
        self.variables = variables or {}
        self.acknowledged: dict[str, tuple[str, str]] = {}
        self.heard: list[dict[str, Any]] = []
        self.kills: Counter[str] = Counter()
        self.resumes: Counter[str] = Counter()

    @property
    def repo_path(self) -> Path:
        return self.cwd / "ws" / "model"

    def next_step(self) -> int:
        """The step that the next child begins with: a commit that was durable before it was acknowledged counts."""
        if not (self.repo_path / ".gradient-repo" / "format").exists():
            return 1
        with Repo.open(self.repo_path) as repo:
            return max((info.step for info in repo.log(limit=1)), default=0) + 1

    def start(self, *, hold: int | None = None, command: bool = False) -> Child:
        """Start a child that goes on from the last commit, if there is one, in one of the ways that there are."""
        more = ["--hold", str(hold)] if hold is not None else []
        variables = dict(self.variables)
        handles = list(self.acknowledged)
        if command:
            script = [sys.executable, SCRIPT, "--reports", "{fd}", *more]
            resume = [sys.executable, "-m", "gradient", "-C", "ws/model", "resume", "latest", "--"]
            self.resumes["command"] += bool(handles)
            return Child.start_command([*resume, *script] if handles else script, cwd=self.cwd, variables=variables)
        way = self.chance.choice(["argument", "call", "latest", "handle"]) if handles else "argument"
        if way == "latest" or way == "handle":
            variables |= {
                "GRADIENT_WORKSPACE": str(self.cwd / "ws"),
                "GRADIENT_REPO": "model",
                "GRADIENT_RESUME_REF": way if way == "latest" else handles[-1],
            }
        else:
            more += ["--resume", way]
        self.resumes[way] += bool(handles)
        return shared_server().start("kill_child", ["--reports", "{fd}", *more], cwd=self.cwd, variables=variables)

    def kill_in(self, step: int, reference: Reference, *, command: bool = False) -> None:
        """Start a child and kill it at a random moment of a step, which it holds at its end."""
        child = self.start(hold=step, command=command)
        for said in child.hear():
            if said.get("begin") == step:
                time.sleep(self.chance.uniform(0, 1.05 * reference.typical_seconds(step)))
                child.kill()
        steps = [said["begin"] for said in child.heard if "begin" in said]
        assert steps[-1:] == [step], f"killed in step {steps[-1:]} instead of {step}\n{child.last_words()}"
        last = child.heard[-1]
        if "begin" in last:
            self._note(child, "while it trained")
        elif "trained" in last and step % EVERY == 0:
            self._note(child, "while it committed")
        else:
            self._note(child, "afterwards")
        self.check_repository(reference)

    def kill_in_attach(self, reference: Reference) -> None:
        """Start a child and kill it at a random moment while it makes, opens or restores from its repository."""
        child = self.start(hold=self.next_step())
        for said in child.hear():
            if "attaching" in said:
                time.sleep(self.chance.uniform(0, 0.08))
                child.kill()
        self._note(child, "while it attached" if "attaching" in child.heard[-1] else "afterwards")
        self.check_repository(reference)

    def finish(self, *, command: bool = False) -> None:
        """Go on to the last step."""
        child = self.start(command=command)
        child.finish()
        assert child.heard[-1]["end"] == STEPS
        self._note(child)

    def check_repository(self, reference: Reference) -> None:
        """Every acknowledged commit is there and whole, and so is whatever else is there."""
        if not (self.repo_path / ".gradient-repo" / "format").exists():
            assert not self.acknowledged
            return
        with Repo.open(self.repo_path) as repo:
            there = {info.id: info for info in repo.log(all_refs=True)}
            for handle, (commit_id, root) in self.acknowledged.items():
                assert repo.resolve(handle).id == commit_id
                assert there[commit_id].root == root
            for info in there.values():
                repo.verify(info.id)
                assert self.variables or info.root == reference.roots[info.step]
            assert len(there) <= len(self.acknowledged) + self.kills.total()

    def _note(self, child: Child, killed: str | None = None) -> None:
        if killed is not None:
            assert child.status == -9, f"{child.status} instead of death\n{child.last_words()}"
            self.kills[killed] += 1
        self.heard += child.heard
        for said in child.heard:
            if "committed" in said:
                self.acknowledged[said["handle"]] = said["id"], said["root"]
