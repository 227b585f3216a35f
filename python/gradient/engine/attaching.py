"""Attach: from the objects of a training run and what was asked for to an engine that stands on its line."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gradient import _core
from gradient._types import Grads, PathLike
from gradient.config import GradientConfig
from gradient.engine import committing
from gradient.engine.guards import check_single_process
from gradient.engine.manifest import Manifest
from gradient.engine.restoring import restore_latest, restore_ref
from gradient.engine.session import Line, Session, open_sessions
from gradient.engine.settings import Settings, settle
from gradient.errors import CorruptionError, InvalidInputError
from gradient.refs import LATEST, parse_ref
from gradient.repo import Repo
from gradient.state import TrainState

if TYPE_CHECKING:
    from gradient.engine.engine import GradientEngine

logger = logging.getLogger("gradient")

MAIN = "main"
"""What a single model, optimizer, scheduler, scaler or loader is called."""

E = TypeVar("E", bound="GradientEngine")


@dataclass(frozen=True)
class Objects:
    """What a script attaches to."""

    model: Any
    optimizer: Any
    scheduler: Any
    scaler: Any
    dataloader: Any
    grads: Grads


def attach(
    kind: type[E],
    objects: Objects,
    *,
    workspace: PathLike | None,
    repo: str | None,
    config: GradientConfig | None,
    resume: str | None,
) -> E:
    """Make an engine; see `GradientEngine.attach`."""
    check_single_process()
    if resume is not None:
        parse_ref(resume)
    state = _claim(objects, config or GradientConfig())
    try:
        settings = settle(workspace=workspace, repo=repo, config=config, resume=resume)
        opened = Repo.open(settings.location.repo_path)
    except BaseException:
        state.close()
        raise
    try:
        session = Session(
            repo=opened,
            state=state,
            line=Line(_branch(opened, settings)),
            manifest=Manifest(opened),
            models=tuple(named(objects.model).values()),
            config=settings.config,
            strict=settings.config.strict_resume,
        )
    except BaseException:
        state.close()
        opened.close()
        raise
    try:
        session.say(opened.core.notices)
        _meet_others(session)
        step = _start(session, settings)
        session.manifest.write()
        settings.consume()
    except BaseException:
        committing.finish(session)
        raise
    return kind(session, settings, current_step=step)


def named(value: Any) -> dict[str, Any]:
    """One object as `main`, several by their names, None as nothing."""
    if value is None:
        return {}
    return dict(value) if isinstance(value, Mapping) else {MAIN: value}


def _claim(objects: Objects, config: GradientConfig) -> TrainState:
    if not named(objects.model):
        raise InvalidInputError("there is no model to attach to", code="no-model")
    state = TrainState(grads=objects.grads, model_state=config.model_state, max_restore_bytes=config.max_restore_bytes)
    state.add_models(named(objects.model))
    state.add_optimizers(named(objects.optimizer))
    state.add_schedulers(named(objects.scheduler))
    for name, scaler in named(objects.scaler).items():
        state.add_scaler(name, scaler)
    for name, loader in named(objects.dataloader).items():
        state.add_dataloader(name, loader)
    return state


def _branch(repo: Repo, settings: Settings) -> str:
    if settings.branch is not None:
        _core.check_name(settings.branch)
        return settings.branch
    where, name = repo.head()
    if where == "commit":
        raise InvalidInputError(
            f"HEAD of {repo.path} is on no branch but at commit {name[:8]}",
            code="head-on-no-branch",
            hint="gradient checkout -b NEW, or name a branch: GradientConfig(branch=...) or GRADIENT_BRANCH",
        )
    return name


def _meet_others(session: Session) -> None:
    """Close older engines on the same model and branch; say that there are others on the branch."""
    branch, path = session.line.branch, os.path.realpath(session.repo.path)
    for other in list(open_sessions):
        if other is session or other.closed or other.line.branch != branch:
            continue
        if os.path.realpath(other.repo.path) != path:
            continue
        if any(model is old for model in session.models for old in other.models):
            logger.info("closing the older engine on the same model and branch %s", branch)
            committing.finish(other)
        else:
            logger.warning(
                "another engine commits on branch %s too: the one that loses a race goes on elsewhere", branch
            )


def _start(session: Session, settings: Settings) -> int:
    """Restore and reset what was asked for; returns the step restored, 0 for a fresh run."""
    asked, branch = settings.handover, session.line.branch
    has_commits = branch in session.repo.branches()
    skip = session.reset_components(asked)
    step = 0
    if settings.resume is None:
        if has_commits:
            try:
                name = session.repo.resolve(branch).name
            except CorruptionError as error:
                logger.warning("the newest commit of branch %s can not be read (%s)", branch, error)
            else:
                text = 'branch %s has commits, the last is %s: resume="latest" goes on from there'
                logger.warning(text, branch, name)
    elif settings.resume != LATEST:
        step = int(restore_ref(session, settings.resume, skip=skip))
    elif has_commits or (settings.resume_required and asked.branch is None):
        step = int(restore_latest(session, skip_damaged=False, skip=skip))
    elif settings.resume_required:
        # A fork of the latest commit: the new branch has none yet, so the latest of HEAD's branch is meant.
        step = int(restore_ref(session, session.repo.resolve(LATEST).id, skip=skip))
    else:
        session.say([f'resume="latest": branch {branch} has no commits yet, so the run starts anew'])
    session.reset(asked)
    return step
