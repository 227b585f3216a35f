"""Random calls of the Python API against a plain model of it: dicts of branches, tags and commits (row 16).

A slice of it runs with the tests; `GRADIENT_PROPERTY_RUNS=200 GRADIENT_PROPERTY_STEPS=75` asks for more.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gradient import GradientConfig, GradientEngine, Repo, _core, init_repo, init_workspace
from gradient.errors import AlreadyExistsError, ConflictError, GradientError, InvalidInputError, NotFoundError

RUNS = int(os.environ.get("GRADIENT_PROPERTY_RUNS", "100"))
STEPS = int(os.environ.get("GRADIENT_PROPERTY_STEPS", "60"))
BRANCHES = st.sampled_from(["main", "a", "b"])
NAMES = st.sampled_from(["main", "a", "b", "t", "u"])
PICK = st.integers(0, 1 << 16)
# Two chunks each; the second is the same in all, and each comes again and again.
TABLES = [torch.cat([torch.full((1 << 20,), at, dtype=torch.uint8), torch.arange(5000).byte()]) for at in range(3)]


@dataclass(frozen=True)
class Made:
    """A commit as the model knows it."""

    id: str
    value: int
    step: int
    parent: str | None


@dataclass
class Refs:
    """What branches, tags and HEAD are."""

    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    head: tuple[str, str] = ("branch", "main")

    def copy(self) -> Refs:
        return Refs(dict(self.branches), dict(self.tags), self.head)


class Machine(RuleBasedStateMachine):
    """The repository beside its model."""

    @initialize()
    def begin(self) -> None:
        self.engine: GradientEngine | None = None
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        init_workspace(self.folder.name)
        init_repo(f"{self.folder.name}/it", "it")
        self.repo = Repo.open(f"{self.folder.name}/it")
        self.refs = Refs()
        self.past: list[Refs] = []
        self.future: list[Refs] = []
        self.commits: dict[str, Made] = {}
        self.base: str | None = None
        self.value = 0
        self.published = self.newest()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.leave()
            self.repo.close()
            self.folder.cleanup()

    # The model's own words

    def newest(self) -> int:
        return self.repo.operations(limit=1)[0].number

    def moved(self, refs: Refs) -> None:
        """Take what a call should have done; one that published nothing has changed nothing."""
        self.repo.refresh()
        number = self.newest()
        if number == self.published:
            assert refs == self.refs
            return
        self.published = number
        if refs == self.refs:
            # A checkout of where HEAD is: published, but nothing that undo would take back.
            return
        self.past.append(self.refs)
        self.future = []
        self.refs = refs

    def refused(self, kind: type[GradientError], call: Any) -> None:
        with pytest.raises(kind):
            call()
        self.repo.refresh()
        assert self.newest() == self.published

    def line(self, tip: str | None) -> list[str]:
        found = []
        while tip is not None:
            found.append(tip)
            tip = self.commits[tip].parent
        return found

    def any_commit(self, pick: int) -> Made:
        # Small picks are what is tried most: the newest.
        return list(self.commits.values())[-1 - pick % len(self.commits)]

    def at_head(self) -> str | None:
        kind, where = self.refs.head
        return where if kind == "commit" else self.refs.branches.get(where)

    def free_name(self, branch: str) -> str:
        number = 1
        while f"{branch}.{number}" in self.refs.branches:
            number += 1
        return f"{branch}.{number}"

    # The engine

    def leave(self) -> None:
        if self.engine is not None:
            self.engine.close()
        self.engine = None

    def attach(self, branch: str) -> GradientEngine:
        """Give an engine on a branch, at its tip; the one that is there, if nothing else moved the branch."""
        tip = self.refs.branches.get(branch)
        if self.engine is not None and self.engine.branch == branch and self.base == tip:
            return self.engine
        self.leave()
        self.model = torch.nn.Module()
        self.model.register_buffer("value", torch.tensor(-1))
        self.model.register_buffer("table", torch.zeros_like(TABLES[0]))
        config = GradientConfig(workspace_path=self.folder.name, repo_name="it", branch=branch)
        self.engine = GradientEngine.attach(self.model, config=config, resume="latest" if tip else None)
        self.base = tip
        if tip:
            assert int(self.model.value) == self.commits[tip].value
            assert self.engine.current_step == self.commits[tip].step
        return self.engine

    def publish(self, engine: GradientEngine, made: Made, refs: Refs) -> None:
        self.commits[made.id] = made
        refs.branches[engine.branch] = made.id
        self.base = made.id
        self.moved(refs)

    def commit_now(self, engine: GradientEngine, step: int) -> Made:
        self.value += 1
        self.model.value.fill_(self.value)
        self.model.table.copy_(TABLES[self.value % 3])
        handle = engine.commit(step, f"value {self.value}", metrics={"value": self.value})
        assert str(handle) == f"{engine.branch}@{step}"
        return Made(handle.id, self.value, step, self.base)

    @rule(branch=BRANCHES, further=st.integers(0, 3))
    def commit(self, branch: str, further: int) -> None:
        if branch in self.refs.tags:
            return
        engine = self.attach(branch)
        step = further + (self.commits[self.base].step if self.base else 0)
        made = self.commit_now(engine, step)
        self.publish(engine, made, self.refs.copy())

    @rule(branch=BRANCHES)
    @precondition(lambda self: self.commits)
    def commit_the_same_again(self, branch: str) -> None:
        if branch not in self.refs.branches:
            return
        engine = self.attach(branch)
        held = self.commits[self.refs.branches[branch]]
        engine.resume(held.id)
        handle = engine.commit(held.step)
        assert handle.id == held.id
        self.moved(self.refs.copy())
        with pytest.raises(InvalidInputError):
            engine.commit(held.step - 1)

    @rule(branch=BRANCHES, pick=PICK, further=st.integers(0, 2))
    @precondition(lambda self: self.commits)
    def go_back_and_commit(self, branch: str, pick: int, further: int) -> None:
        if branch in self.refs.tags:
            return
        engine = self.attach(branch)
        held = self.any_commit(pick)
        assert engine.resume(held.id) == held.step
        assert int(self.model.value) == held.value
        tip, self.base = self.refs.branches.get(branch), held.id
        refs = self.refs.copy()
        if tip is not None and tip not in self.line(held.id):
            refs.branches[self.free_name(branch)] = tip
        made = self.commit_now(engine, held.step + further)
        self.publish(engine, made, refs)

    @rule(branch=BRANCHES, name=NAMES, pick=PICK)
    @precondition(lambda self: self.commits)
    def fork(self, branch: str, name: str, pick: int) -> None:
        if branch in self.refs.tags:
            return
        engine, held = self.attach(branch), self.any_commit(pick)
        if name in self.refs.branches or name in self.refs.tags:
            self.refused(AlreadyExistsError, lambda: engine.fork(from_ref=held.id, new_branch=name))
            return
        handle = engine.fork(from_ref=held.id, new_branch=name)
        assert engine.branch == name
        self.base = held.id
        made = Made(handle.id, held.value, held.step, held.id)
        self.publish(engine, self.commits.get(handle.id, made), self.refs.copy())

    # Refs

    @rule(name=NAMES, pick=PICK)
    @precondition(lambda self: self.commits)
    def create_branch(self, name: str, pick: int) -> None:
        held, refs = self.any_commit(pick), self.refs.copy()
        if name in refs.branches or name in refs.tags:
            self.refused(AlreadyExistsError, lambda: self.repo.create_branch(name, held.id))
            return
        assert self.repo.create_branch(name, held.id) == held.id
        refs.branches[name] = held.id
        self.moved(refs)

    @rule(name=NAMES)
    def delete_branch(self, name: str) -> None:
        refs = self.refs.copy()
        if name not in refs.branches:
            self.refused(NotFoundError, lambda: self.repo.delete_branch(name))
        elif refs.head == ("branch", name):
            self.refused(ConflictError, lambda: self.repo.delete_branch(name))
        else:
            assert self.repo.delete_branch(name) == refs.branches.pop(name)
            self.moved(refs)

    @rule(old=NAMES, new=NAMES)
    def rename_branch(self, old: str, new: str) -> None:
        refs = self.refs.copy()
        if old == new or refs.head == ("branch", new):
            return
        if old not in refs.branches or new in refs.branches or new in refs.tags:
            self.refused(GradientError, lambda: self.repo.rename_branch(old, new))
            return
        self.repo.rename_branch(old, new)
        refs.branches[new] = refs.branches.pop(old)
        if refs.head == ("branch", old):
            refs.head = ("branch", new)
        self.moved(refs)

    @rule(name=NAMES, pick=PICK)
    @precondition(lambda self: self.commits)
    def create_tag(self, name: str, pick: int) -> None:
        held, refs = self.any_commit(pick), self.refs.copy()
        if name in refs.branches or name in refs.tags:
            self.refused(AlreadyExistsError, lambda: self.repo.create_tag(name, held.id))
            return
        if refs.head == ("branch", name):
            # HEAD stands on a branch of that name without commits.
            return
        self.repo.create_tag(name, held.id)
        refs.tags[name] = held.id
        self.moved(refs)

    @rule(name=NAMES)
    def delete_tag(self, name: str) -> None:
        refs = self.refs.copy()
        if name not in refs.tags:
            self.refused(NotFoundError, lambda: self.repo.delete_tag(name))
            return
        assert self.repo.delete_tag(name) == refs.tags.pop(name)
        self.moved(refs)

    @rule(name=NAMES)
    def checkout(self, name: str) -> None:
        refs = self.refs.copy()
        if name in refs.branches:
            refs.head = ("branch", name)
        elif name in refs.tags:
            refs.head = ("commit", refs.tags[name])
        else:
            self.refused(NotFoundError, lambda: self.repo.checkout(name))
            return
        assert self.repo.checkout(name) == refs.head
        self.moved(refs)

    @rule(pick=PICK)
    @precondition(lambda self: self.commits)
    def checkout_commit(self, pick: int) -> None:
        refs = self.refs.copy()
        refs.head = ("commit", self.any_commit(pick).id)
        assert self.repo.checkout(refs.head[1]) == refs.head
        self.moved(refs)

    # Operations

    @rule()
    def undo(self) -> None:
        if not self.past:
            self.refused(GradientError, self.repo.undo)
            return
        self.repo.undo()
        self.future.append(self.refs)
        self.refs = self.past.pop()
        self.published = self.newest()

    @rule()
    def redo(self) -> None:
        if not self.future:
            self.refused(GradientError, self.repo.redo)
            return
        self.repo.redo()
        self.past.append(self.refs)
        self.refs = self.future.pop()
        self.published = self.newest()

    @rule()
    def reopen(self) -> None:
        self.leave()
        self.repo.close()
        self.repo = Repo.open(f"{self.folder.name}/it")

    @rule()
    def keep_house(self) -> None:
        self.repo.core.maintain()
        self.published = self.newest()

    @rule()
    def check(self) -> None:
        report = _core.fsck(f"{self.folder.name}/it", level="full")
        assert report.clean and not report.lost, report.findings

    # What is always so

    @invariant()
    def refs_are_the_model_s(self) -> None:
        if not hasattr(self, "repo"):
            return
        self.repo.refresh()
        assert self.repo.branches() == self.refs.branches
        assert self.repo.tags() == self.refs.tags
        assert self.repo.head() == self.refs.head

    @rule(pick=PICK)
    @precondition(lambda self: self.refs.branches)
    def look(self, pick: int) -> None:
        name, tip = list(self.refs.branches.items())[pick % len(self.refs.branches)]
        line = self.line(tip)
        assert [info.id for info in self.repo.log(name)] == line
        for commit_id in line:
            made = self.commits[commit_id]
            newest = next(at for at in line if self.commits[at].step == made.step)
            assert self.repo.resolve(f"{name}@{made.step}").id == newest
            assert self.repo.info(commit_id).parents == (() if made.parent is None else (made.parent,))

    @rule(pick=PICK)
    @precondition(lambda self: self.commits)
    def read(self, pick: int) -> None:
        # Whatever became of its branches: a commit that was acknowledged is there.
        held = self.any_commit(pick)
        tensors = self.repo.state(held.id)["model"]["main"]["tensors"]
        assert int(tensors["value"].numpy()) == held.value
        assert tensors["table"].bytes() == TABLES[held.value % 3].numpy().tobytes()
        assert self.repo.info(held.id).step == held.step


@pytest.mark.slow
def test_any_calls_leave_what_a_plain_model_says() -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize="GRADIENT_PROPERTY_RUNS" not in os.environ,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
