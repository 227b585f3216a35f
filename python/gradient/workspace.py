"""Workspaces: find, make and list them and their repositories.

A workspace is a folder with a marker `.gradient/config.json`; its repositories are the folders in it that hold a
`.gradient-repo`. The marker is for people: which repositories there are is read from the folder itself, always.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import os
import re
import stat
from collections.abc import Mapping
from typing import Any

from gradient._types import PathLike
from gradient.errors import InvalidInputError, NotFoundError, StorageError
from gradient.handover import Handover, consume_handover, read_handover
from gradient.places import GradientContext, RepoConfig, RepoLocation, WorkspaceConfig, is_made, now
from gradient.repo import REPO_DIR, Repo

__all__ = [
    "GradientContext",
    "Handover",
    "RepoConfig",
    "RepoLocation",
    "WorkspaceConfig",
    "add_repo_to_workspace",
    "check_repo_name",
    "consume_handover",
    "find_repo",
    "find_workspace",
    "get_repo_path_in_workspace",
    "init_repo",
    "init_workspace",
    "list_workspace_repos",
    "load_repo_config",
    "load_workspace_config",
    "locate",
    "open_repo",
    "read_handover",
    "resolve_context",
    "save_workspace_config",
]


WORKSPACE_DIR = ".gradient"
CONFIG_FILE = "config.json"
CONFIG_BYTES_MAX = 64 << 10

_KNOWN_KEYS = frozenset({"workspace_name", "root_path", "repos", "created_at"})
_warned: set[str] = set()

_REPO_NAME = re.compile(r"[^/\\:\x00-\x20\x7f*?\[\]~^@]{1,255}")


# Finding


def find_workspace(start: PathLike = ".") -> str | None:
    """Walk up from a folder to the nearest workspace; None if there is none."""
    return _find_marker(start, WORKSPACE_DIR)


def find_repo(start: PathLike = ".") -> str | None:
    """Walk up from a folder to the nearest repository; None if there is none."""
    return _find_marker(start, REPO_DIR)


def resolve_context(start: PathLike = ".") -> GradientContext:
    """Find the workspace and the repository that a folder lies in."""
    context = GradientContext()
    repo_path = find_repo(start)
    if repo_path is not None:
        context.repo_path = repo_path
        context.repo_config = load_repo_config(repo_path)
    workspace_path = find_workspace(start)
    if workspace_path is not None:
        context.workspace_path = workspace_path
        context.workspace_config = load_workspace_config(workspace_path)
    return context


def list_workspace_repos(workspace_path: PathLike) -> list[str]:
    """Name the repositories of a workspace, sorted; those are the folders that hold a `.gradient-repo`.

    Raises:
        NotFoundError: There is no such folder.
        StorageError: A file is there.
    """
    root = _absolute(workspace_path)
    try:
        entries = os.listdir(root)
    except (FileNotFoundError, NotADirectoryError):
        _check_no_file(root)
        raise NotFoundError(f"there is no folder {root}", code="no-workspace") from None
    return sorted(name for name in entries if os.path.isdir(os.path.join(root, name, REPO_DIR)))


def get_repo_path_in_workspace(workspace_path: PathLike, repo_name: str) -> str:
    """The folder of a repository in a workspace, whether or not it exists.

    Raises:
        InvalidInputError: The name is a path, or can not name a folder.
    """
    check_repo_name(repo_name)
    return os.path.join(os.fspath(workspace_path), repo_name)


def locate(
    *,
    workspace: PathLike | None = None,
    repo: str | None = None,
    start: PathLike = ".",
) -> RepoLocation:
    """Say which repository is meant; what is not named is looked for from `start` upwards. Nothing is made.

    Without a name the repository that `start` lies in is meant, else the only one of the workspace.

    Raises:
        NotFoundError: No repository can be meant; the hint says how to make one.
        InvalidInputError: Several could be meant (`ambiguous-repository`, they are listed), or the name is a path.
    """
    if repo is not None:
        check_repo_name(repo)
    if workspace is not None:
        root = _absolute(workspace)
        return RepoLocation(root, repo if repo is not None else _only_repo(root))
    inside = find_repo(start)
    above = find_workspace(start)
    if inside is not None and (above is None or len(inside) >= len(above)):
        if repo is None:
            return RepoLocation(os.path.dirname(inside), os.path.basename(inside))
        return RepoLocation(above or os.path.dirname(inside), repo)
    if above is not None:
        return RepoLocation(above, repo if repo is not None else _only_repo(above))
    raise NotFoundError(
        f"no repository or workspace at {_absolute(start)} or above",
        code="no-repository",
        hint="name both, workspace=... and repo=..., or run: gradient workspace init && gradient repo init NAME",
    )


def open_repo(*, workspace: PathLike | None = None, repo: str | None = None, start: PathLike = ".") -> Repo:
    """Open the repository that `locate` finds.

    Raises:
        NotFoundError: It does not exist; near names are suggested.
    """
    location = locate(workspace=workspace, repo=repo, start=start)
    if not location.exists():
        raise _no_such_repo(location)
    return Repo.open(location.repo_path)


# Making


def init_workspace(path: PathLike, name: str | None = None) -> WorkspaceConfig:
    """Make a folder a workspace; one that is a workspace already is returned as it is (`existed`).

    Args:
        path: The folder; it and those above are made if need be.
        name: What people call it; None takes the folder's name.

    Raises:
        StorageError: A file is in the way, or the folder can not be written.
    """
    root = _absolute(path)
    _check_no_file(root)
    existing = load_workspace_config(root)
    if existing is not None:
        _log("workspace %s exists already: %s", existing.name, root)
        return existing
    config = WorkspaceConfig(
        name=name or os.path.basename(root) or "workspace", root_path=root, created_at=now(), existed=False
    )
    if os.path.isdir(root):
        config.repos = list_workspace_repos(root)
    save_workspace_config(config)
    return config


def init_repo(
    repo_path: PathLike,
    name: str | None = None,
    description: str | None = None,
    workspace_path: PathLike | None = None,
) -> RepoConfig:
    """Make a repository in a folder; one that is there already is returned as it is (`existed`).

    Args:
        repo_path: The folder that gets `.gradient-repo`; it and those above are made if need be.
        name: What people call it; None takes the folder's name.
        description: What it is for.
        workspace_path: The workspace whose marker is to name it.

    Raises:
        InvalidInputError: The folder's name can not name a repository.
    """
    from gradient import _core

    root = _absolute(repo_path)
    check_repo_name(os.path.basename(root))
    repository, created = _core.Repository.init(
        root, name=name or os.path.basename(root), description=description or ""
    )
    config = _repo_config(repository.config, root)
    repository.close()
    config.existed = not created
    if not created:
        _log("repository %s exists already: %s", config.name, root)
    if workspace_path is not None:
        config.workspace_path = _absolute(workspace_path)
        add_repo_to_workspace(config.workspace_path, os.path.basename(root))
    return config


def add_repo_to_workspace(workspace_path: PathLike, repo_name: str) -> None:
    """Note a repository in the workspace's marker.

    Raises:
        NotFoundError: There is no workspace at that folder.
    """
    config = load_workspace_config(workspace_path)
    if config is None:
        root = _absolute(workspace_path)
        raise NotFoundError(f"{root} is no workspace", code="no-workspace", hint=f"gradient workspace init {root}")
    noted = _read_marker(config.root_path).get("repos")
    if repo_name not in config.repos:
        config.repos = sorted([*config.repos, repo_name])
    if noted != config.repos:
        save_workspace_config(config)


def load_workspace_config(workspace_path: PathLike) -> WorkspaceConfig | None:
    """Read a workspace's marker, with the repositories that are in the folder now; None if it is no workspace.

    Raises:
        InvalidInputError: The marker is no JSON object.
    """
    root = _absolute(workspace_path)
    if not os.path.isdir(os.path.join(root, WORKSPACE_DIR)):
        return None
    config = WorkspaceConfig.from_dict(_read_marker(root), root)
    config.repos = list_workspace_repos(root)
    return config


def save_workspace_config(config: WorkspaceConfig) -> None:
    """Write a workspace's marker, whole or not at all."""
    folder = os.path.join(config.root_path, WORKSPACE_DIR)
    try:
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".config-{os.urandom(8).hex()}")
        try:
            with open(temporary, "x", encoding="utf-8") as file:
                json.dump(config.to_dict(), file, indent=2, ensure_ascii=False)
                file.write("\n")
            os.replace(temporary, os.path.join(folder, CONFIG_FILE))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _storage_error("write the workspace's marker", folder, error) from error


def load_repo_config(repo_path: PathLike) -> RepoConfig | None:
    """Read a repository's settings; None if there is no repository."""
    from gradient import _core

    root = _absolute(repo_path)
    if not is_made(root):
        return None
    repository = _core.Repository.open(root)
    try:
        return _repo_config(repository.config, root)
    finally:
        repository.close()


def check_repo_name(name: str) -> None:
    """Accept what can name a repository's folder.

    Raises:
        InvalidInputError: It is a path, starts with a dot or a dash, or has characters that names do not have.
    """
    fits = _REPO_NAME.fullmatch(name) is not None and len(name.encode(errors="replace")) <= 255
    if not fits or name[0] in ".-" or name[-1] == "." or name.endswith(".lock"):
        raise InvalidInputError(
            f"{name!r} can not name a repository",
            code="bad-name",
            hint="one folder name without blanks; the folder it lies in is the workspace",
        )


# What they lean on


def _find_marker(start: PathLike, marker: str) -> str | None:
    folder = _absolute(start)
    while True:
        if os.path.isdir(os.path.join(folder, marker)):
            return folder
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def _only_repo(workspace_path: str) -> str:
    names = list_workspace_repos(workspace_path)
    if len(names) == 1:
        return names[0]
    if not names:
        raise NotFoundError(
            f"workspace {workspace_path} has no repository",
            code="no-repository",
            hint="name one, repo=..., or run: gradient repo init NAME",
        )
    raise InvalidInputError(
        f"workspace {workspace_path} has {len(names)} repositories: {', '.join(names)}",
        code="ambiguous-repository",
        hint=f"name one: repo={names[0]!r}, or --repo {names[0]} on the command line",
    )


def _no_such_repo(location: RepoLocation) -> NotFoundError:
    _check_no_file(location.workspace_path)
    try:
        names = [name for name in list_workspace_repos(location.workspace_path) if name != location.repo_name]
    except NotFoundError:
        names = []
    near = difflib.get_close_matches(location.repo_name, names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"gradient repo init {location.repo_name}"
    return NotFoundError(
        f"workspace {location.workspace_path} has no repository {location.repo_name!r}", code="no-repository", hint=hint
    )


def _check_no_file(root: str) -> None:
    """Refuse a file where a workspace, or a folder above it, should be."""
    path = root
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        where = "a workspace is a folder" if path == root else f"the workspace would be {root}"
        message = f"{path} is a file: {where}"
        raise StorageError(message, code="not-a-folder", errno=errno.ENOTDIR, path=path, hint="name another folder")


def _repo_config(settings: Mapping[str, object], root: str) -> RepoConfig:
    created_at = settings.get("created_at")
    return RepoConfig(
        name=str(settings.get("name") or os.path.basename(root)),
        repo_path=root,
        workspace_path=find_workspace(os.path.dirname(root)),
        description=str(settings.get("description") or ""),
        created_at=None if created_at is None else str(created_at),
    )


def _read_marker(root: str) -> dict[str, Any]:
    path = os.path.join(root, WORKSPACE_DIR, CONFIG_FILE)
    try:
        # Without waiting for the other end of a pipe that somebody put there.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file", path)
            raw = file.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _storage_error("read the workspace's marker", path, error) from error
    try:
        if len(raw) > CONFIG_BYTES_MAX:
            raise ValueError(f"over {CONFIG_BYTES_MAX} bytes")
        data = json.loads(raw)
        if not isinstance(data, dict) or not isinstance(data.get("repos", []), list):
            raise ValueError("not an object as this marker is")
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"{path} is no workspace marker: {error}",
            code="bad-config",
            hint="delete that file: which repositories there are is read from the folder",
        ) from None
    unknown = sorted(data.keys() - _KNOWN_KEYS)
    if unknown and path not in _warned:
        _warned.add(path)
        _log("%s: no meaning here, and not kept: %s", path, ", ".join(map(repr, unknown)), warn=True)
    return data


def _storage_error(doing: str, path: str, error: OSError) -> StorageError:
    return StorageError(f"could not {doing}: {path}: {error.strerror}", errno=error.errno, path=path)


def _absolute(path: PathLike) -> str:
    return os.path.abspath(os.path.expanduser(os.fspath(path)))


def _log(message: str, *arguments: object, warn: bool = False) -> None:
    # Imported here: `gradient log` has no need of it, and it takes a tenth of its time.
    import logging

    logging.getLogger("gradient").log(logging.WARNING if warn else logging.INFO, message, *arguments)
