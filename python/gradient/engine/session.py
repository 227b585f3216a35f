"""One engine's repository, state and line: what commits and restores share."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradient.engine.guards import check_process, check_single_process
from gradient.errors import ConflictError, InvalidInputError, StateMismatchError

if TYPE_CHECKING:
    from gradient.config import GradientConfig
    from gradient.engine.manifest import Manifest
    from gradient.handover import Handover
    from gradient.repo import Repo
    from gradient.state import RestorePlan, TrainState

logger = logging.getLogger("gradient")


@dataclass
class Line:
    """Where an engine stands on its branch.

    Attributes:
        branch: The branch that commits go to.
        base: Id of the commit last committed or restored; None for a fresh line.
        first: Nothing was committed since attach or since the last restore: a tip that is no ancestor is displaced.
        step: Step last committed or restored; commits do not go below it.
    """

    branch: str
    base: str | None = None
    first: bool = True
    step: int | None = None


@dataclass(eq=False)
class Session:
    """What an engine works with; `Line` says where it stands.

    Attributes:
        repo: The repository.
        state: The objects that were attached to, and how each is captured and put back.
        line: Where commits go.
        manifest: The repository's manifest.
        models: The models attached to.
        config: How commits are stored.
        strict: Whether restores refuse what only one side has.
        pid: The process that attached.
        plan: The last restore's plan, for state that is registered later; None once something was committed.
        commit_id: The commit that was restored last.
        offered: Names of state that a restore found and nobody had claimed.
        dropped: Names that the script said it can do without.
        seed: The seed that was asked for instead of the restored generators.
        blocked: Why no commit is taken: a restore broke off half-way.
        num_commits: Commits made by this engine.
        heard: Id of the commit that the repository made last, as far as this session was told.
        unheard: The conflict of a commit whose call was interrupted: the script has not been told yet.
        staging_bytes_max: Bytes of earlier commits that may be kept in memory, where no setting says so; None before
            the first commit.
        closed: It has come to its end.
    """

    repo: Repo
    state: TrainState
    line: Line
    manifest: Manifest
    models: tuple[object, ...]
    config: GradientConfig
    strict: bool = True
    pid: int = field(default_factory=os.getpid)
    plan: RestorePlan | None = None
    commit_id: str | None = None
    offered: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    seed: int | None = None
    blocked: str | None = None
    num_commits: int = 0
    heard: str | None = None
    unheard: ConflictError | None = None
    staging_bytes_max: int | None = None
    closed: bool = False
    _said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        open_sessions.add(self)

    def check_usable(self) -> None:
        """Refuse to work after the end, in a forked child and in a process group of several ranks.

        Raises:
            InvalidInputError: `closed`, `forked` or `process-group`.
        """
        check_process(self.pid)
        if self.closed:
            raise InvalidInputError(
                "this engine is closed",
                code="closed",
                hint="attach again; attaching again to the same model and branch closes the older engine",
            )
        check_single_process()

    def check_committable(self) -> None:
        """Refuse a commit of a state that is half restored, or that lacks what its commit held.

        Raises:
            InvalidInputError: A restore broke off half-way (`restore-incomplete`).
            StateMismatchError: State of the restored commit was never claimed.
        """
        if self.blocked is not None:
            raise InvalidInputError(
                f"the training state is half restored: {self.blocked}",
                code="restore-incomplete",
                hint="restore a commit first: engine.resume(ref), or engine.resume_latest(skip_damaged=True)",
            )
        check_claimed(self.pending())

    def pending(self) -> list[tuple[str, str]]:
        """Section and name of what the restored commit holds and nobody has claimed or dropped."""
        if self.plan is None:
            return []
        return list(self.plan.pending)

    def drop(self, name: str) -> None:
        """Do without state of this name, in the commit that was restored and in those that will be."""
        self.dropped.add(name)
        if self.plan is not None:
            self.plan.pending = [key for key in self.plan.pending if not self.is_dropped(*key)]

    def is_dropped(self, section: str, name: str) -> bool:
        """Whether the script said that it can do without this."""
        return name in self.dropped or f"{section}/{name}" in self.dropped

    def reset_components(self, asked: Handover) -> list[tuple[str, str]]:
        """Section and name of what is reset anyway, so that no restore needs to compare or write it."""
        sections = {"optim": asked.reset_optimizer, "scheduler": asked.reset_scheduler}
        return [(section, name) for section, name in self.state.owner() if sections.get(section, False)]

    def reset(self, asked: Handover) -> None:
        """Reset what is asked for; if that breaks off half-way, no commit is taken until a restore succeeds."""
        try:
            if asked.reset_optimizer:
                self.state.reset_optimizers()
            if asked.reset_scheduler:
                self.state.reset_schedulers()
            if asked.reset_seed is not None:
                self.seed = asked.reset_seed
                self.state.reset_seed(asked.reset_seed)
        except BaseException as error:
            self.blocked = f"a reset failed after the restore: {error}"
            raise

    def say(self, lines: Iterable[str]) -> None:
        """Log each line, once in this engine's life."""
        for line in lines:
            if line not in self._said:
                self._said.add(line)
                logger.warning("%s", line)


open_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
"""The sessions of this process; those that have come to their end are marked `closed`."""


def check_claimed(pending: Iterable[tuple[str, str]]) -> None:
    """Refuse to go on while state of a restored commit has no owner.

    Raises:
        StateMismatchError: There is some; `unexpected` lists it.
    """
    names = [f"{section}/{name}" for section, name in pending]
    if names:
        section, _, bare = names[0].partition("/")
        claim = f"register it, as engine.register_state({bare!r}, getter=..., setter=...)"
        if section == "data":
            claim = f"attach with its loader, as dataloader={{{bare!r}: gradient.resumable(loader)}}"
        raise StateMismatchError(
            f"the restored commit holds state that nobody has claimed: {', '.join(names)}",
            code="state-unclaimed",
            hint=f"{claim}, or give it up: engine.drop_state({bare!r})",
            unexpected=names,
        )
