"""Where runs are kept: a workspace, a repository in it, and what a folder lies in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gradient.repo import REPO_DIR


@dataclass
class WorkspaceConfig:
    """A workspace: its name, its folder and the repositories in it.

    `existed` tells whether `init_workspace` found it or made it.
    """

    name: str
    root_path: str
    repos: list[str] = field(default_factory=list)
    created_at: str | None = None
    existed: bool = field(default=True, compare=False, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """The marker's content."""
        return {
            "workspace_name": self.name,
            "root_path": self.root_path,
            "repos": self.repos,
            "created_at": self.created_at or now(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], root_path: str) -> WorkspaceConfig:
        """Read a marker's content; the folder is where it was found, whatever it says."""
        return cls(
            name=str(data.get("workspace_name") or os.path.basename(root_path) or "unnamed"),
            root_path=root_path,
            repos=[str(name) for name in data.get("repos", [])],
            created_at=data.get("created_at"),
        )


@dataclass
class RepoConfig:
    """A repository: its name, its folder, its workspace and what people said it is for.

    `existed` tells whether `init_repo` found it or made it.
    """

    name: str
    repo_path: str
    workspace_path: str | None = None
    description: str | None = None
    created_at: str | None = None
    existed: bool = field(default=True, compare=False, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, under the keys of gradient-desc."""
        return {
            "repo_name": self.name,
            "description": self.description or "",
            "workspace_path": self.workspace_path,
            "created_at": self.created_at or now(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], repo_path: str) -> RepoConfig:
        """Read what `to_dict` gave."""
        return cls(
            name=str(data.get("repo_name") or os.path.basename(repo_path)),
            repo_path=repo_path,
            workspace_path=data.get("workspace_path"),
            description=data.get("description"),
            created_at=data.get("created_at"),
        )


@dataclass
class GradientContext:
    """What a folder lies in: a workspace, a repository, both or neither."""

    workspace_path: str | None = None
    workspace_config: WorkspaceConfig | None = None
    repo_path: str | None = None
    repo_config: RepoConfig | None = None

    @property
    def in_workspace(self) -> bool:
        """Whether there is a workspace here or above."""
        return self.workspace_path is not None

    @property
    def in_repo(self) -> bool:
        """Whether there is a repository here or above."""
        return self.repo_path is not None


@dataclass(frozen=True)
class RepoLocation:
    """A repository's place: the folder of its workspace and its name in it."""

    workspace_path: str
    repo_name: str

    @property
    def repo_path(self) -> str:
        """The repository's folder, the one that holds `.gradient-repo`."""
        return os.path.join(self.workspace_path, self.repo_name)

    def exists(self) -> bool:
        """Whether a repository is there already.

        One that is still being made, or whose making was cut off, is not yet there: `init_repo` finishes it.
        """
        return is_made(self.repo_path)


def now() -> str:
    """The time, for a marker."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def is_made(root: str) -> bool:
    """Whether a folder is a repository, be it a damaged one: `format` comes first, and everything else after it."""
    folder = os.path.join(root, REPO_DIR)
    inner = (os.path.join(folder, name) for name in ("ops", "packs"))
    return os.path.lexists(os.path.join(folder, "format")) or any(map(_has_entries, inner))


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        # Something is there, a loop of links or what may not be read: opening it says what.
        return True
