"""One repository, in Python's words: open it, look at its history, read its states, move its refs. No torch anywhere.

A thin layer over `_core.Repository`: refs go in where ids go in there, and what comes out is for people and programs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from gradient._types import SECTIONS, PathLike
from gradient.errors import CorruptionError, InvalidInputError, NotFoundError, StorageError
from gradient.refs import HEAD, LATEST, parse_range, parse_ref

if TYPE_CHECKING:
    from gradient._core import CommitInfo, Operation, Progress, Repository, Resolved
    from gradient.stored import State

REPO_DIR = ".gradient-repo"

NOTHING_YET = "nothing is committed in this repository yet: engine.commit(step) in the training script does it"
"""What to do where there is no commit to name."""


@dataclass(frozen=True)
class ComponentSummary:
    """One component of a commit's state: its tree's id, and how many tensors and raw bytes it holds."""

    section: str
    name: str
    root: str
    num_tensors: int
    raw_len: int


@dataclass(frozen=True)
class CommitDetails:
    """What `show` tells of a commit.

    Attributes:
        info: The commit itself.
        name: `branch@step`, or what the ref said.
        branches: Branches that point to it now.
        tags: Tags that point to it.
        components: Its state, a row a component.
        environment: Versions, devices and flags at commit time.
        data_captured: Whether the state holds a data position.
        notices: What resolving the ref had to say.
    """

    info: CommitInfo
    name: str
    branches: tuple[str, ...]
    tags: tuple[str, ...]
    components: tuple[ComponentSummary, ...]
    environment: dict[str, object]
    data_captured: bool
    notices: tuple[str, ...]


class Repo:
    """A repository. Safe to use from several threads; use as a context manager, or call `close`.

    Wherever a ref is asked for, `branch@step`, a branch, a tag, `latest`, `HEAD` or an id prefix will do.
    """

    def __init__(self, core: Repository, path: str) -> None:
        self._core = core
        self._path = path
        self._pid = os.getpid()

    @classmethod
    def open(cls, path: PathLike = ".") -> Repo:
        """Open the repository in a folder.

        Args:
            path: The repository's folder, as `my_workspace/gpt`, or its `.gradient-repo`. Nothing is looked for
                elsewhere; `gradient.workspace.open_repo` does that.

        Raises:
            NotFoundError: There is no repository.
            FormatError: A newer version wrote it.
            CorruptionError: Its `format` file is damaged, or none of its operations can be read.
            StorageError: The folder may not be looked into.
        """
        from gradient import _core

        root = os.path.abspath(os.path.expanduser(os.fspath(path)))
        if os.path.basename(root) == REPO_DIR:
            root = os.path.dirname(root)
        try:
            is_there = stat.S_ISDIR(os.stat(os.path.join(root, REPO_DIR)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            is_there = False
        except OSError as error:
            raise StorageError(
                f"could not look into {root}: {error.strerror}",
                errno=error.errno,
                path=root,
                hint="check the permissions of the repository's folder",
            ) from error
        if not is_there:
            raise NotFoundError(
                f"{root} is no repository", code="no-repository", hint="gradient repo init NAME, in a workspace"
            )
        return cls(_core.Repository.open(root), root)

    @property
    def core(self) -> Repository:
        """The compiled repository behind this one.

        Raises:
            InvalidInputError: This process was forked after it was opened (`forked`).
        """
        if os.getpid() != self._pid:
            raise InvalidInputError(
                "this repository was opened before the process was forked and can not be used in the child",
                code="forked",
                hint="open it in the process that uses it",
            )
        return self._core

    @property
    def path(self) -> str:
        """The repository's folder."""
        return self._path

    @property
    def id(self) -> str:
        """The repository's own id, made once, in hexadecimal digits."""
        return self.core.id

    @property
    def name(self) -> str:
        """What people call it: the name in its settings, else its folder's."""
        return str(self.core.config.get("name") or os.path.basename(self._path))

    @property
    def description(self) -> str:
        """What it is for."""
        return str(self.core.config.get("description") or "")

    def refresh(self) -> None:
        """Read what others published since."""
        self.core.refresh()

    # History

    def resolve(self, ref: str = HEAD, *, branch: str | None = None) -> Resolved:
        """Find the commit that a ref means: `.id .step .branch .name .notices`.

        `latest` is the tip of `branch`, or of HEAD's branch.

        Raises:
            NotFoundError: It means none; the nearest names are suggested.
            InvalidInputError: What follows its `@` is no step.
        """
        parse_ref(ref)
        try:
            return self.core.resolve(ref, branch=branch)
        except NotFoundError as error:
            if error.code == "empty-branch" and not self.log_ends(None, all_refs=True)[0]:
                error.hint = NOTHING_YET
            raise

    def info(self, ref: str = HEAD) -> CommitInfo:
        """One commit: `.id .root .parents .branch .step .message .metrics .time_ns .kind .mode .added_bytes`."""
        return self.core.commit_info(self.resolve(ref).id)

    def log(
        self,
        ref: str | None = None,
        *,
        all_refs: bool = False,
        limit: int | None = None,
        first_parent: bool = False,
    ) -> list[CommitInfo]:
        """Commits that lead to a ref, children before parents, newest first.

        Args:
            ref: Where to start, or `A..B`: what leads to B but not to A. None is HEAD; a HEAD without commits gives
                an empty list.
            all_refs: Start at every branch and tag instead.
            limit: At most so many.
            first_parent: Follow only each commit's own line.

        Raises:
            NotFoundError: A ref means no commit.
        """
        start, exclude = self.log_ends(ref, all_refs=all_refs)
        if not start:
            return []
        return self.core.log(start, exclude=exclude, limit=limit, first_parent=first_parent)

    def render_log(
        self,
        ref: str | None = None,
        *,
        all_refs: bool = False,
        limit: int | None = None,
        style: Literal["full", "oneline", "json"] = "full",
        graph: bool = False,
        color: bool = False,
        now_ns: int | None = None,
        width: int | None = None,
    ) -> str:
        """`log` as text for a terminal, or as one JSON document (`style="json"`, schema `gradient.log/1`).

        Commits that can not be read have rows that say so, and are in the document's `unreadable`.
        """
        start, exclude = self.log_ends(ref, all_refs=all_refs, readable=False)
        text, _ = self.core.render_log(
            start, exclude=exclude, limit=limit, style=style, graph=graph, color=color, now_ns=now_ns, width=width
        )
        return text

    def log_ends(
        self, ref: str | None, *, all_refs: bool = False, readable: bool = True
    ) -> tuple[list[str], list[str]]:
        """Ids of the commits to start at and to leave out, for `log(ref)`.

        Args:
            ref: As for `log`.
            all_refs: As for `log`.
            readable: Whether the commits themselves have to be readable.
        """
        if all_refs:
            return sorted({*self.branches().values(), *self.tags().values()}), []
        if ref is None:
            kind, name = self.head()
            if kind == "branch" and name not in self.branches():
                return [], []
            ref = HEAD
        without, start = parse_range(ref)
        find = (lambda ref: self.resolve(ref).id) if readable else self._id_of
        return [find(start)], [] if without is None else [find(without)]

    def _id_of(self, ref: str) -> str:
        """The id that a ref leads to, whether the commit can be read or not."""
        try:
            return self.resolve(ref).id
        except CorruptionError:
            kind, name = self.head()
            if ref == HEAD and kind == "commit":
                return name
            known = {**self.tags(), **self.branches()}.get(name if ref in (HEAD, LATEST) else ref)
            if known is None:
                raise
            return known

    def show(self, ref: str = HEAD) -> CommitDetails:
        """Gather what there is to know about a commit; no tensor data is read."""
        core = self.core
        resolved = self.resolve(ref)
        components = core.components(resolved.id)
        return CommitDetails(
            info=core.commit_info(resolved.id),
            name=resolved.name,
            branches=tuple(sorted(name for name, tip in core.branches().items() if tip == resolved.id)),
            tags=tuple(sorted(name for name, at in core.tags().items() if at == resolved.id)),
            components=tuple(self._summaries(resolved.id, components)),
            environment=core.environment(resolved.id),
            data_captured=bool(components.get("data")),
            notices=tuple(resolved.notices),
        )

    def state(self, ref: str = HEAD) -> State:
        """Open a commit's state: `state["model"]["main"]["tensors"]["weight"]` is a `StoredTensor`.

        A component's description is read when it is asked for, and a tensor's data when its `bytes()`, `numpy()` or
        `to_float32()` is called; nothing else is touched.
        """
        from gradient.stored import State

        return State(self.core, self.resolve(ref).id)

    def verify(self, ref: str = HEAD, *, progress: Progress | None = None) -> None:
        """Read every chunk of a commit and check its hash.

        Raises:
            CorruptionError: One is not what it was; the object is named.
        """
        self.core.verify(self.resolve(ref).id, progress=progress)

    # Refs

    def head(self) -> tuple[Literal["branch", "commit"], str]:
        """Where HEAD stands: on a branch, by its name (it need not have commits), or on a commit, by its id."""
        return self.core.head()

    def branches(self) -> dict[str, str]:
        """Branches and the ids that they point to."""
        return self.core.branches()

    def tags(self) -> dict[str, str]:
        """Tags and the ids that they point to."""
        return self.core.tags()

    def create_branch(self, name: str, at: str = HEAD) -> str:
        """Make a branch at a ref; returns the commit's id.

        Raises:
            AlreadyExistsError: A branch or tag has that name.
        """
        commit_id = self.resolve(at).id
        self.core.create_branch(name, commit_id, why=f"branch {name} at {at}")
        return commit_id

    def delete_branch(self, name: str) -> str:
        """Delete a branch; returns the id that it pointed to. `undo` takes it back.

        Raises:
            NotFoundError: There is no such branch.
            ConflictError: HEAD stands on it.
        """
        return self.core.delete_branch(name)

    def rename_branch(self, old: str, new: str) -> None:
        """Give a branch another name; HEAD goes along if it stands there."""
        self.core.rename_branch(old, new)

    def create_tag(self, name: str, at: str = HEAD) -> str:
        """Make a tag at a ref; returns the commit's id.

        Raises:
            AlreadyExistsError: A branch or tag has that name.
        """
        commit_id = self.resolve(at).id
        self.core.create_tag(name, commit_id)
        return commit_id

    def delete_tag(self, name: str) -> str:
        """Delete a tag; returns the id that it pointed to. `undo` takes it back."""
        return self.core.delete_tag(name)

    def checkout(self, ref: str) -> tuple[Literal["branch", "commit"], str]:
        """Move HEAD to a branch, or to the commit that another ref means; returns where it stands then.

        A running engine stays on its branch.
        """
        if ref in self.core.branches():
            self.core.checkout(branch=ref)
        elif ref != HEAD:
            self.core.checkout(commit=self.resolve(ref).id)
        return self.core.head()

    def checkout_new(self, name: str, at: str | None = None) -> str | None:
        """Make a branch and move HEAD to it; returns the id that it points to, None without commits.

        Args:
            name: The new branch.
            at: Where it starts; None is HEAD. On a HEAD without commits the branch comes with its first commit.

        Raises:
            AlreadyExistsError: A branch or tag has that name.
        """
        if at is None and not self.log_ends(None)[0]:
            self.core.checkout(branch=name, create=True)
            return None
        commit_id = self.resolve(at or HEAD).id
        self.core.checkout(branch=name, create_at=commit_id)
        return commit_id

    # Operations

    def operations(self, *, limit: int | None = None) -> list[Operation]:
        """Every published change of refs and HEAD, newest first."""
        return self.core.operations(limit=limit)

    def undo(self) -> Operation:
        """Take back the newest operation that is not yet taken back; returns that operation."""
        return self.core.undo()

    def redo(self) -> Operation:
        """Make again what `undo` took back last; returns that operation."""
        return self.core.redo()

    # Housekeeping

    def disk_bytes(self) -> int:
        """Bytes of all files of the repository."""
        return self.core.disk_bytes()

    def close(self) -> None:
        """Let go of the repository; calling it twice is fine, as is calling it in a forked child."""
        if os.getpid() == self._pid:
            self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Repo({self._path!r})"

    def _summaries(self, commit_id: str, components: Mapping[str, Sequence[str]]) -> Iterator[ComponentSummary]:
        from gradient.stored import stored_tensors

        order = {section: position for position, section in enumerate(SECTIONS)}
        for section in sorted(components, key=lambda section: order.get(section, len(order))):
            for name in components[section]:
                tensors = list(stored_tensors(self.core.component(commit_id, section, name)))
                yield ComponentSummary(
                    section=section,
                    name=name,
                    root=self.core.component_root(commit_id, section, name),
                    num_tensors=len(tensors),
                    raw_len=sum(tensor.nbytes for tensor in tensors),
                )
