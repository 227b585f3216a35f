"""What a command works on: the repository that the global options mean, and the program after `--`."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradient.cli import _out
from gradient.errors import CorruptionError, FormatError, InvalidInputError, NotFoundError, StorageError
from gradient.refs import short_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gradient._core import CommitInfo, Operation
    from gradient.repo import Repo
    from gradient.workspace import RepoLocation

_CHANGES_SHOWN = 10
"""Of an operation in a line; JSON has all."""


@dataclass(frozen=True)
class Session:
    """One call of the command line.

    Args:
        repo_name: What `--repo` named.
        child: The program after `--` and its arguments; None without one.
    """

    repo_name: str | None = None
    child: list[str] | None = None

    def locate(self) -> RepoLocation:
        """Say which repository is meant.

        Raises:
            NotFoundError: None is.
            InvalidInputError: Several could be.
        """
        from gradient import workspace

        with _options_in_hints():
            return workspace.locate(repo=self.repo_name)

    @contextmanager
    def open(self) -> Iterator[Repo]:
        """Open the repository that is meant, and close it."""
        from gradient import workspace

        with naming_repository(self.locate().repo_path):
            repo = workspace.open_repo(repo=self.repo_name)
            try:
                say_notices(repo.core.notices)
                yield repo
            finally:
                repo.close()


@contextmanager
def naming_repository(path: str) -> Iterator[None]:
    """Note the repository's folder on errors whose cause lies in it: they name files below it, or none."""
    try:
        yield
    except (CorruptionError, FormatError, StorageError) as error:
        error.repository = error.repository or path
        raise
    except NotFoundError as error:
        # The folder is there, and what makes it a repository is not.
        if error.code == "not-a-repository":
            error.repository = error.repository or path
        raise


@contextmanager
def _options_in_hints() -> Iterator[None]:
    """Name options where `gradient.workspace`, which speaks to scripts, names arguments of `attach`."""
    try:
        yield
    except (InvalidInputError, NotFoundError) as error:
        from gradient import workspace

        root = workspace.find_workspace()
        make = "gradient repo init NAME"
        if error.code == "ambiguous-repository" and root is not None:
            first = _out.quoted(workspace.list_workspace_repos(root)[0])
            error.hint = f"name one before the command: gradient --repo {first} ..."
        elif error.code == "no-repository":
            make_both = f"say where it is: gradient -C PATH ..., or make one: gradient workspace init && {make}"
            error.hint = make_both if root is None else make
        raise


COMMIT_KEYS = (
    "id",
    "root",
    "parents",
    "branch",
    "step",
    "message",
    "metrics",
    "time",
    "kind",
    "mode",
    "added_bytes",
)

WAYS_OUT = (
    "put the file back from a copy (gradient fsck names it); or go on from a commit that gradient log --all lists: "
    "gradient resume ID -- CMD, or gradient branch NEW ID; or gradient undo, if the newest operation brought it"
)
"""What works where a commit can not be read."""

_said: set[str] = set()


def say_notices(notices: Sequence[str]) -> None:
    """Print what a repository's state or a ref's meaning needs said, each once."""
    for notice in notices:
        if notice not in _said:
            _said.add(notice)
            _out.note(f"note: {notice}")


def describe_head(repo: Repo) -> str:
    """Return where HEAD stands, for people: `on branch main`."""
    kind, name = repo.head()
    return f"on branch {name}" if kind == "branch" else f"on no branch, at {short_id(name)}"


def head_fields(repo: Repo) -> dict[str, str | None]:
    """Return where HEAD stands, for programs."""
    kind, name = repo.head()
    commit = repo.branches().get(name) if kind == "branch" else name
    return {"branch": name if kind == "branch" else None, "commit": commit}


def commit_fields(info: CommitInfo) -> dict[str, object]:
    """Return a commit for programs; the keys are those of `gradient log --json`."""
    return {
        "id": info.id,
        "root": info.root,
        "parents": list(info.parents),
        "branch": info.branch,
        "step": info.step,
        "message": info.message,
        "metrics": dict(info.metrics),
        "time": _out.iso(info.time_ns),
        "kind": info.kind,
        "mode": info.mode,
        "added_bytes": info.added_bytes,
    }


def read_commits(repo: Repo, ids: Iterable[str], unreadable: dict[str, str]) -> dict[str, CommitInfo]:
    """Return the commits of these ids that can be read; why the others can not goes into `unreadable`."""
    found = {}
    for commit in ids:
        try:
            found[commit] = repo.core.commit_info(commit)
        except CorruptionError as error:
            unreadable.setdefault(commit, str(error))
    return found


def tip_fields(name: str, commit: str, info: CommitInfo | None) -> dict[str, object]:
    """Return a branch with its newest commit for programs; of one that can not be read all but the id is null."""
    if info is not None:
        return {"name": name, **commit_fields(info), "readable": True}
    return {"name": name, **dict.fromkeys(COMMIT_KEYS), "id": commit, "readable": False}


def unreadable_fields(unreadable: Mapping[str, str]) -> list[dict[str, str]]:
    """Return commits that can not be read, and why, for programs."""
    return [{"id": commit, "why": why} for commit, why in sorted(unreadable.items())]


def tell_unreadable(repo: Repo, unreadable: Mapping[str, str]) -> None:
    """Once everything that can be read is printed: end with the damage, if there is any.

    Raises:
        CorruptionError: There is.
    """
    if not unreadable:
        return
    first, why = min(unreadable.items())
    more = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
    raise CorruptionError(
        f"commit {short_id(first)}{more} can not be read, the others are shown: {why}",
        code="unreadable-commits",
        object_id=first,
        hint=WAYS_OUT,
    )


def operation_fields(operation: Operation) -> dict[str, object]:
    """Return an operation for programs."""
    kind, name = operation.head
    return {
        "number": operation.number,
        "id": operation.id,
        "kind": operation.kind,
        "why": operation.why,
        "time": _out.iso(operation.time_ns),
        "by": {key: value for key, value in operation.by.items() if isinstance(value, str | int)},
        "changes": [{"ref": ref, "before": before, "after": after} for ref, before, after in operation.changes],
        "head": {"branch": name if kind == "branch" else None, "commit": name if kind == "commit" else None},
        "undone": operation.undone,
    }


def describe_changes(operation: Operation) -> str:
    """Return what an operation changed, in one line: `main 3fa9c1d2 -> 77b0e415`."""
    parts = []
    changes = operation.changes
    for ref, before, after in changes[:_CHANGES_SHOWN]:
        old, new = (short_id(end) if end else "none" for end in (before, after))
        parts.append(f"{ref} {old} -> {new}")
    if len(changes) > _CHANGES_SHOWN:
        parts.append(f"{len(changes) - _CHANGES_SHOWN:,} more")
    return ", ".join(parts)
