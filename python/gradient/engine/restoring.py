"""Bring a commit back into the live objects; and find one that is whole if the newest is not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradient.engine.handle import RestoredStep
from gradient.engine.session import check_claimed
from gradient.errors import CorruptionError, GradientError, InvalidInputError, NotFoundError
from gradient.progress import progress
from gradient.refs import LATEST
from gradient.repo import NOTHING_YET
from gradient.state import restore
from gradient.state.environment import compare

if TYPE_CHECKING:
    from gradient._core import Repository, Resolved
    from gradient._types import Hyperparameters
    from gradient.engine.session import Session
    from gradient.state import RestorePlan

logger = logging.getLogger("gradient")

SECTION_WORDS = {"optimizer": "optim", "optimizers": "optim", "models": "model", "schedulers": "scheduler"}
"""Words that people use for sections of the state."""


def restore_ref(
    session: Session,
    ref: str,
    *,
    hyperparameters: Hyperparameters = "commit",
    only: Collection[str] | None = None,
    strict: bool | None = None,
    skip: Collection[tuple[str, str]] = (),
    complete: bool = False,
) -> RestoredStep:
    """Restore the commit that a ref means, and stand on it: the next commit is its child.

    Args:
        session: What to restore into.
        ref: The ref; `latest` is the tip of the engine's branch.
        hyperparameters: Whose hyper-parameters the optimizers get.
        only: Sections to restore; None is all of them.
        strict: Refuse what only one side has; None is the config's.
        skip: Components to leave alone, as (section, name).
        complete: Refuse, before anything is touched, a commit that holds what nobody has claimed.

    Raises:
        NotFoundError: The ref means no commit; the nearest names are suggested.
        StateMismatchError: Script and commit differ; nothing was touched.
        CorruptionError: The commit is damaged; with `partial=True` live tensors were already written, and every
            commit is refused until a restore succeeds.
    """
    if hyperparameters not in ("commit", "script"):
        raise InvalidInputError(f'hyperparameters is "commit" or "script", not {hyperparameters!r}', code="bad-option")
    session.repo.refresh()
    core = session.repo.core
    resolved = session.repo.resolve(ref, branch=session.line.branch)
    session.say(resolved.notices)
    plan = session.state.plan(
        lambda section, name: core.component(resolved.id, section, name),
        core.components(resolved.id),
        only=sections(only),
        strict=session.strict if strict is None else strict,
        hyperparameters=hyperparameters,
        skip=skip,
    )
    pending = [(section, name) for section, name in plan.pending if not session.is_dropped(section, name)]
    session.offered.update(name for _, name in pending)
    if complete:
        check_claimed(pending)
    _carry_out(session, plan, resolved)
    if only is None:
        session.blocked = None
    plan.pending = pending
    session.plan = plan
    session.commit_id = resolved.id
    session.seed = None
    last = core.last_commit
    session.heard = None if last is None else last.id
    session.line.base, session.line.step, session.line.first = resolved.id, resolved.step, True
    _tell(session, plan, resolved)
    skipped = [*plan.skipped, *("/".join(component) for component in skip)]
    return RestoredStep(resolved.step, id=resolved.id, name=resolved.name, skipped=tuple(skipped))


def restore_latest(session: Session, *, skip_damaged: bool, **options: Any) -> RestoredStep:
    """Restore the tip of the engine's branch; if it is damaged, name or take the newest commit that verifies.

    Raises:
        NotFoundError: The branch has no commits.
        CorruptionError: The tip is damaged, and `skip_damaged` is False or no commit of the branch is whole.
    """
    session.repo.refresh()
    branch = session.line.branch
    if branch not in session.repo.branches():
        others = session.repo.log_ends(None, all_refs=True)[0]
        raise NotFoundError(
            f"branch {branch} has no commits yet",
            code="no-commits",
            hint="name a ref: gradient log --all --oneline" if others else NOTHING_YET,
        )
    try:
        return restore_ref(session, LATEST, **options)
    except CorruptionError as error:
        whole = _newest_whole(session.repo.core, branch)
        if whole is None:
            error.hint = (
                f"no commit of branch {branch} verifies; restore one of another branch: gradient log --all, "
                "then engine.resume(ref)"
            )
            raise
        name = f"{branch}@{whole.step}"
        if not skip_damaged:
            error.hint = f"the newest commit that verifies is {name} ({whole.id[:8]}): resume_latest(skip_damaged=True)"
            raise
        session.say([f"the tip of {branch} is damaged ({error}); taking the newest commit that verifies, {name}"])
        return restore_ref(session, whole.id, **options)


def register(session: Session, section: str, name: str, add: Callable[[], object]) -> None:
    """Register state, give it what the restored commit holds for it, then set the generators again.

    A name that is taken goes over to the newcomer, as in gradient-desc: a notebook cell run twice registers anew. That
    is said, unless it is the same again: the old one is in no commit from now on. Whether the script still has it can
    not be told: two functions do not say what they read. The newcomer stays as it is: the run may have gone on since,
    and giving it what was restored then would roll it back, and the generators with it.

    Raises:
        Exception: What `add` or the setter raised. The registration is taken back; if the setter had begun, every
            commit is refused until a restore succeeds.
    """
    before = session.state.owner().get((section, name))
    add()
    if before is not None and not session.state.owner()[section, name].same(before):
        news = f"{section}/{name} is registered again, by another one: commits hold that, as it is, and not the old"
        session.say([f"{news}; give each a name of its own to keep both"])
    plan = session.plan
    if plan is None or session.commit_id is None or (section, name) not in plan.pending:
        return
    mapping = session.repo.core.component(session.commit_id, section, name)
    try:
        session.state.apply_late(plan, section, name, mapping, _reader(session, f"restoring {section}/{name}"))
    except BaseException as error:
        if plan.partial:
            session.blocked = f"{section}/{name} could not be set: {error}"
        session.state.take_back(section, name, before)
        raise
    if session.seed is not None:
        session.state.reset_seed(session.seed)


def sections(only: Collection[str] | None) -> list[str] | None:
    """Understand what `only` names.

    Raises:
        InvalidInputError: It is a plain text, or empty.
    """
    if only is None:
        return None
    if isinstance(only, str) or not only:
        raise InvalidInputError('only= takes several names, as only=("model",)', code="bad-option")
    return [SECTION_WORDS.get(name, name) for name in only]


def _carry_out(session: Session, plan: RestorePlan, resolved: Resolved) -> None:
    try:
        restore(plan, _reader(session, f"restoring {resolved.name}"))
    except BaseException as error:
        if plan.partial:
            session.blocked = f"restoring {resolved.name} failed after part of it was written: {error}"
        raise


def _reader(session: Session, doing: str) -> Callable[[Sequence[tuple[Any, Any]]], None]:
    def read_into(jobs: Sequence[tuple[Any, Any]]) -> None:
        with progress(doing) as show:
            session.repo.core.read_into(jobs, progress=show)

    return read_into


def _tell(session: Session, plan: RestorePlan, resolved: Resolved) -> None:
    session.say(plan.messages)
    if plan.skipped:
        session.say([f"restored {resolved.name} without {', '.join(plan.skipped)}"])
    differences = compare(_environment(session, resolved.id), session.state.environment())
    if differences:
        session.say([f"{resolved.name} was made elsewhere: {'; '.join(differences)}"])
    logger.info("restored %s (%s)", resolved.name, resolved.id[:8])


def _environment(session: Session, commit_id: str) -> Mapping[str, object]:
    try:
        return session.repo.core.environment(commit_id)
    except GradientError as error:
        # It is there to be compared; the state itself is already back and verified.
        logger.warning("the environment of %s can not be read: %s", commit_id[:8], error)
        return session.state.environment()


def _newest_whole(core: Repository, branch: str) -> Any:
    for commit_id in _candidates(core, branch):
        try:
            info = core.commit_info(commit_id)
            core.verify(commit_id)
        except (CorruptionError, NotFoundError) as error:
            logger.warning("commit %s does not verify: %s", commit_id[:8], error)
        else:
            return info
    return None


def _candidates(core: Repository, branch: str) -> Iterator[str]:
    """Commits of a branch, newest first: its line as far as it can be walked, then what the operations saw there."""
    seen = set()
    tip: str | None = core.branches()[branch]
    while tip is not None and tip not in seen:
        seen.add(tip)
        yield tip
        try:
            parents = core.commit_info(tip).parents
        except (CorruptionError, NotFoundError):
            break
        tip = parents[0] if parents else None
    # The newest ones, where an old operation can not be read: newest first is what is wanted.
    for operation in core.readable_operations()[0]:
        for name, before, after in operation.changes:
            for commit_id in (after, before):
                if name == branch and commit_id is not None and commit_id not in seen:
                    seen.add(commit_id)
                    yield commit_id
