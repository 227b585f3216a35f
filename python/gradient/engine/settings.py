"""What an attach works on: environment beats arguments, arguments beat the config, the config beats discovery."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from gradient._types import PathLike
from gradient.config import GradientConfig, check_interval
from gradient.handover import Handover, consume_handover, read_handover
from gradient.workspace import RepoLocation, find_repo, find_workspace, init_repo, init_workspace, locate

logger = logging.getLogger("gradient")

_remembered: RepoLocation | None = None
"""Where the environment last pointed: its variables are gone, but a notebook cell that is run again means the same."""


@dataclass(frozen=True)
class Settings:
    """Everything an attach needs to know besides the objects to attach to.

    Attributes:
        location: The repository; it exists.
        branch: The branch asked for; None is HEAD's.
        resume: The ref to restore; None starts fresh.
        resume_required: `latest` of a branch without commits is an error and no fresh start.
        autocommit: Interval of `maybe_commit`.
        config: The config, or the defaults.
        handover: What the environment asked of this attach.
    """

    location: RepoLocation
    branch: str | None
    resume: str | None
    resume_required: bool
    autocommit: int | None
    config: GradientConfig
    handover: Handover

    def consume(self) -> None:
        """Take the hand-over out of the environment, once the attach that it was meant for has succeeded."""
        global _remembered
        if self.handover != Handover():
            if self.handover.workspace or self.handover.repo:
                _remembered = self.location
            consume_handover()


def settle(
    *,
    workspace: PathLike | None,
    repo: str | None,
    config: GradientConfig | None,
    resume: str | None,
) -> Settings:
    """Settle what an attach works on, and make the workspace and the repository if they were named and are not there.

    Raises:
        NotFoundError: No repository was named, and none was found.
        InvalidInputError: Several could be meant, or a name, an option or a variable is no good.
    """
    config = config if config is not None else GradientConfig()
    workspace = workspace if workspace is not None else config.workspace_path
    repo = repo if repo is not None else config.repo_name
    handover = read_handover()
    if not _meant_for(handover, workspace, repo):
        handover = Handover()
    location = _location(
        handover.workspace if handover.workspace is not None else workspace,
        handover.repo if handover.repo is not None else repo,
    )
    check_interval("autocommit", handover.autocommit)
    return Settings(
        location=location,
        branch=handover.branch or config.branch,
        resume=handover.resume_ref or resume,
        resume_required=handover.resume_ref is not None,
        autocommit=handover.autocommit or config.checkpoint_every,
        config=config,
        handover=handover,
    )


def _meant_for(handover: Handover, workspace: PathLike | None, repo: str | None) -> bool:
    """Whether a hand-over is for the repository that an attach names.

    A script that attaches to several repositories of a workspace is resumed in one of them. So what asks for a restore
    passes by an attach that names another repository which is there; everything else simply beats the arguments.
    """
    asks = handover.resume_ref is not None or handover.branch is not None or handover.resets
    if not asks or handover.repo is None or repo is None or repo == handover.repo:
        return True
    root = find_workspace() if workspace is None else os.path.abspath(os.path.expanduser(os.fspath(workspace)))
    if root is None or not os.path.isdir(root):
        return True
    if handover.workspace is not None and os.path.realpath(handover.workspace) != os.path.realpath(root):
        return True
    if not RepoLocation(root, repo).exists():
        return True
    logger.warning("GRADIENT_REPO hands over to %s: the attach to %s goes on without it", handover.repo, repo)
    return False


def _location(workspace: PathLike | None, repo: str | None) -> RepoLocation:
    nowhere = workspace is None and repo is None and find_repo() is None and find_workspace() is None
    if nowhere and _remembered is not None:
        return _remembered
    location = locate(workspace=workspace, repo=repo)
    if not location.exists():
        if workspace is not None:
            init_workspace(location.workspace_path)
        in_workspace = find_workspace(location.workspace_path) == location.workspace_path
        init_repo(location.repo_path, workspace_path=location.workspace_path if in_workspace else None)
        logger.info("made repository %s", location.repo_path)
    return location
