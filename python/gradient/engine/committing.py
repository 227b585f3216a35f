"""Commit the state of a session, and bring a session to its end."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from gradient.engine.guards import check_text, checked_metrics, checked_step
from gradient.engine.handle import CommitHandle
from gradient.engine.session import Line
from gradient.errors import ConflictError, GradientError, InvalidInputError
from gradient.memory import available_bytes
from gradient.progress import progress

if TYPE_CHECKING:
    from gradient._core import CommitResult
    from gradient._types import Metrics
    from gradient.engine.session import Session

logger = logging.getLogger("gradient")

MAINTAIN_EVERY = 256
"""Commits between two looks whether caches, small packs or operations are due for housekeeping."""


def commit(
    session: Session, step: Any, message: str, metrics: Metrics | None, *, branch: str | None = None
) -> CommitHandle:
    """Commit on the session's line; with `branch`, as the first commit of that new branch.

    Raises:
        InvalidInputError: See `GradientEngine.commit`.
        AlreadyExistsError: `branch` came into being meanwhile.
        ConflictError: The commit landed on another branch, where the session now stands; or an earlier one did whose
            call was interrupted, and this one followed it.
    """
    catch_up(session)
    line = session.line
    number = checked_step(step)
    if not isinstance(message, str):
        raise InvalidInputError(f"a message is a text, not {message!r}", code="bad-message")
    check_text(message, "a message", code="bad-message")
    numbers = checked_metrics(metrics)
    if line.step is not None and number < line.step:
        raise InvalidInputError(
            f"step {number} is below {line.step}, which this engine committed or restored last",
            code="step-backwards",
            hint=_way_back(session, f"{line.branch}@{number}"),
        )
    session.check_committable()
    captured = session.state.capture()
    with progress(f"committing {branch or line.branch}@{number}") as show:
        result = session.repo.core.commit(
            branch or line.branch,
            captured.sections,
            base=line.base,
            first=line.first or branch is not None,
            step=number,
            message=message,
            metrics=numbers,
            environment=captured.environment,
            create=branch is not None,
            compression="off" if session.config.compression == "off" else "auto",
            deltas=session.config.deltas,
            staging_bytes_max=_staging_bytes_max(session),
            reanchor_interval=session.config.reanchor_interval,
            progress=show,
        )
    # From here on the commit is durable: nothing below may hide that.
    session.line = Line(branch=result.branch, base=result.id, first=False, step=number)
    session.heard = result.id
    session.num_commits += 1
    # What is registered from now on is new: the restored commit's values, and its generators, are of the past.
    session.plan = None
    _tell(session, result, [*captured.notes, *_data_position(captured.sections)])
    _housekeeping(session)
    unheard, session.unheard = session.unheard, None
    if result.conflict:
        raise _conflict(result, expected=line.base, asked=branch or line.branch)
    if unheard is not None:
        raise unheard
    return CommitHandle.of(result)


def catch_up(session: Session) -> None:
    """Stand on a commit that became durable while Ctrl-C, or what else a signal raised, took its call away.

    The next commit is its child then, as it would have been. A conflict that it met is raised once that one is durable.
    """
    last = session.repo.core.last_commit
    if last is None or last.id == session.heard:
        return
    if last.conflict:
        session.unheard = _conflict(last, expected=session.line.base, asked=session.line.branch)
    session.line = Line(branch=last.branch, base=last.id, first=False, step=last.step)
    session.heard = last.id
    session.num_commits += 1
    session.plan = None
    session.manifest.note_commit()
    logger.warning("%s@%s was committed, although its call was interrupted", last.branch, last.step)
    _tell_displaced(last)
    session.say(last.notices)


def finish(session: Session) -> None:
    """Bring the manifest up to date and let go of everything; in a forked child nothing is done."""
    if session.closed or os.getpid() != session.pid:
        return
    session.closed = True
    session.manifest.flush()
    try:
        session.state.close()
        session.repo.close()
    except GradientError as error:
        logger.warning("closing %s: %s", session.repo.path, error)


def _way_back(session: Session, name: str) -> str:
    """Say how to go back to a step; a commit is named only if it is there."""
    try:
        session.repo.resolve(name)
    except GradientError:
        return "steps only rise; to go back, restore an earlier commit first: gradient log names them"
    return f"go back by restoring: engine.resume({name!r})"


def _staging_bytes_max(session: Session) -> int:
    """Bytes of earlier commits that may be kept in memory."""
    config = session.config
    if config.deltas == "off" or config.compression == "off":
        return 0
    if config.staging_bytes_max is not None:
        return config.staging_bytes_max
    # Once: what is kept is no longer available, and must not lower what may be kept.
    if session.staging_bytes_max is None:
        session.staging_bytes_max = available_bytes() // 4
    return session.staging_bytes_max


def _tell(session: Session, result: CommitResult, notes: list[str]) -> None:
    _tell_displaced(result)
    session.say(notes)
    session.say(result.notices)
    logger.info("committed %s@%s (%s)", result.branch, result.step, result.id[:8])


def _tell_displaced(result: CommitResult) -> None:
    if result.displaced is not None:
        logger.warning(
            "branch %s goes on with %s, which does not descend from its old tip; that is kept as branch %s",
            result.branch,
            f"{result.branch}@{result.step}",
            result.displaced,
        )


def _data_position(sections: dict[str, Any]) -> list[str]:
    return [] if sections.get("data") else ["data position: not captured"]


def _housekeeping(session: Session) -> None:
    session.manifest.note_commit()
    if session.num_commits % MAINTAIN_EVERY == 0:
        try:
            session.repo.core.maintain()
        except GradientError as error:
            logger.warning("housekeeping of %s: %s", session.repo.path, error)


def _conflict(result: CommitResult, *, expected: str | None, asked: str) -> ConflictError:
    return ConflictError(
        f"another writer moved branch {asked}: step {result.step} is committed on branch {result.branch}, "
        "and the next commits go on there",
        code="branch-moved",
        hint=f"nothing is lost: gradient log {result.branch}; give each trainer a branch of its own",
        expected=expected,
        actual=result.actual_tip,
        branch=result.branch,
        commit=result.id,
    )
