"""The compiled module: the only door to Rust. It translates and decides nothing.

Values cross as plain Python objects. Going in: None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset
and dict (exact types, dicts in their order), `TensorLeaf` for tensors and arrays, `Alias` for a tensor that is another one,
`Named` for the closed table of `docs/format/objects.md`. Coming out: the same, with `StoredTensor` for tensors.

Failures are the classes of `gradient.errors`, raised with `code` and `hint`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self, TypeAlias, final

from typing_extensions import Buffer

Progress: TypeAlias = Callable[[int, int], object]
"""Called about ten times a second with bytes done and bytes in all, on the calling thread."""

__version__: str
DEBUG_BUILD: bool
CHUNK_BYTES: int

@final
class TensorLeaf:
    """A tensor or array on its way into a commit."""

    def __new__(
        cls,
        dtype: str,
        shape: Sequence[int],
        data: Buffer,
        *,
        order: Sequence[int] | None = None,
        numpy: bool = False,
    ) -> Self:
        """`data`: contiguous uint8 buffer of the elements in row-major order of `shape`; it is read once, in `commit`."""
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def order(self) -> tuple[int, ...] | None: ...
    @property
    def numpy(self) -> bool: ...

@final
class Alias:
    """This tensor is the one at `path` of the same component."""

    def __new__(cls, path: Sequence[object]) -> Self: ...
    @property
    def path(self) -> tuple[object, ...]: ...

@final
class Named:
    """A value of the closed table: `ordered-dict`, `counter`, `default-dict`, `deque`, `numpy-scalar`, ..."""

    def __new__(cls, name: str, value: object, extra: object = None) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> object: ...
    @property
    def extra(self) -> object: ...

@final
class StoredTensor:
    """A tensor of a commit: described at once, read when asked, verified always."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def order(self) -> tuple[int, ...] | None: ...
    @property
    def numpy(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def digest(self) -> str:
        """Hex of the hash of dtype, shape, order and content ids: equal for equal tensors, read without the data."""
    def bytes(self) -> bytes:
        """The elements in row-major order, little-endian."""

@final
class CommitInfo:
    """One commit, as the log shows it."""

    @property
    def id(self) -> str: ...
    @property
    def root(self) -> str: ...
    @property
    def parents(self) -> tuple[str, ...]: ...
    @property
    def branch(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def message(self) -> str: ...
    @property
    def metrics(self) -> dict[str, float]: ...
    @property
    def time_ns(self) -> int: ...
    @property
    def kind(self) -> Literal["anchor", "delta"]: ...
    @property
    def mode(self) -> str: ...
    @property
    def added_bytes(self) -> int: ...

@final
class CommitResult:
    """What a commit became."""

    @property
    def id(self) -> str: ...
    @property
    def root(self) -> str: ...
    @property
    def branch(self) -> str:
        """Where it landed: the branch asked for, or `<branch>.<n>` after a conflict."""
    @property
    def step(self) -> int: ...
    @property
    def kind(self) -> Literal["anchor", "delta"]: ...
    @property
    def existing(self) -> bool:
        """The line's tip already was this state at this step: no commit was made."""
    @property
    def displaced(self) -> str | None:
        """The branch that now keeps the tip which this first commit of a line did not descend from."""
    @property
    def conflict(self) -> bool:
        """Somebody else moved the branch: the commit stands on `branch`, which is a new one."""
    @property
    def actual_tip(self) -> str | None:
        """On a conflict: the commit that the branch asked for points to now."""
    @property
    def added_bytes(self) -> int: ...
    @property
    def raw_bytes(self) -> int: ...
    @property
    def notices(self) -> list[str]: ...

@final
class Resolved:
    """What a ref means."""

    @property
    def id(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def branch(self) -> str | None:
        """The branch the ref was resolved on; None for a tag or an id."""
    @property
    def name(self) -> str:
        """`branch@step` for people."""
    @property
    def notices(self) -> list[str]: ...

@final
class Operation:
    """One published change of refs, HEAD or what was condemned."""

    @property
    def number(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def time_ns(self) -> int: ...
    @property
    def by(self) -> dict[str, object]: ...
    @property
    def changes(self) -> list[tuple[str, str | None, str | None]]:
        """(ref, commit id before, commit id after); None: absent."""
    @property
    def head(self) -> tuple[Literal["branch", "commit"], str]: ...
    @property
    def undone(self) -> bool: ...

@final
class Repository:
    """A repository's folder `.gradient-repo`. Safe to use from several threads; not after a fork."""

    @staticmethod
    def init(path: str, *, name: str, description: str = "") -> tuple[Repository, bool]:
        """Make the repository at `path` (the folder that gets `.gradient-repo`) or open it; True if it was made."""
    @staticmethod
    def open(path: str) -> Repository: ...
    @property
    def id(self) -> str: ...
    @property
    def config(self) -> dict[str, object]:
        """Name, description, created_at."""
    @property
    def notices(self) -> list[str]:
        """What a reader should hear: that the newest operation can not be read, and what is shown instead."""
    def refresh(self) -> None:
        """Read what others published since."""
    def commit(
        self,
        branch: str,
        state: Mapping[str, Mapping[str, object]],
        *,
        base: str | None,
        first: bool,
        step: int,
        message: str = "",
        metrics: Mapping[str, float] | None = None,
        environment: Mapping[str, object] | None = None,
        create: bool = False,
        compression: Literal["off", "auto"] = "auto",
        deltas: Literal["off", "auto", "all"] = "auto",
        staging_bytes_max: int | None = None,
        reanchor_interval: int | None = None,
        progress: Progress | None = None,
    ) -> CommitResult:
        """Commit `state` ({section: {component: mapping}}) on `branch`; returns once it is durable.

        `base` is the commit that this line last committed or restored, None for a fresh line; `first` says that this
        writer has committed nothing on the branch yet, so that a tip which is not an ancestor is displaced
        (`CommitResult.displaced`) and is no conflict. `create`: the branch must not exist (`AlreadyExistsError`).
        Every buffer is copied before the first byte is used; nothing of Python's is read afterwards.

        `compression` and `deltas` say how chunks are stored, `staging_bytes_max` how many bytes of earlier ones are kept
        to take differences to (never more than twice the state), `reanchor_interval` how many commits with deltas may
        follow one without. None of them enters an id.
        """
    def resolve(self, ref: str, *, branch: str | None = None) -> Resolved:
        """Resolve `branch@step`, a branch, a tag, `latest`, `HEAD` or an id prefix (four digits or more).

        `latest` is the tip of `branch`, or of HEAD's branch. Raises NotFoundError with the nearest names.
        """
    def commit_info(self, id: str) -> CommitInfo: ...
    def environment(self, id: str) -> dict[str, object]: ...
    def components(self, id: str) -> dict[str, list[str]]:
        """Sections of a commit's state and the components in each."""
    def component(self, id: str, section: str, name: str) -> dict[object, object]:
        """One component's mapping, tensors as `StoredTensor`; no tensor data is read."""
    def component_root(self, id: str, section: str, name: str) -> str:
        """The id of the component's tree: equal for equal content."""
    def read_into(
        self,
        jobs: Sequence[tuple[StoredTensor, Buffer]],
        *,
        progress: Progress | None = None,
    ) -> None:
        """Read many tensors into writable uint8 buffers of their exact length, in parallel.

        Each chunk is verified before its bytes are written. CorruptionError has `partial=True` once any were.
        """
    def verify(self, id: str, *, progress: Progress | None = None) -> None:
        """Read every chunk of a commit and check its hash; CorruptionError names the object."""
    def head(self) -> tuple[Literal["branch", "commit"], str]: ...
    def branches(self) -> dict[str, str]: ...
    def tags(self) -> dict[str, str]: ...
    def is_ancestor(self, ancestor: str, descendant: str) -> bool: ...
    def log(
        self,
        start: Sequence[str],
        *,
        exclude: Sequence[str] = ...,
        limit: int | None = None,
        first_parent: bool = False,
    ) -> list[CommitInfo]:
        """Commits that lead to `start` (ids) but not to `exclude`, children before parents, newest first."""
    def readable_log(
        self,
        start: Sequence[str],
        *,
        exclude: Sequence[str] = ...,
        limit: int | None = None,
        first_parent: bool = False,
    ) -> tuple[list[CommitInfo], dict[str, str]]:
        """As `log`, without the commits that can not be read; those by their ids, and why. Behind them it goes on where
        the operations say that the branch was before."""
    def render_log(
        self,
        start: Sequence[str],
        *,
        exclude: Sequence[str] = ...,
        limit: int | None = None,
        style: Literal["full", "oneline", "json"] = "full",
        graph: bool = False,
        color: bool = False,
        now_ns: int | None = None,
        width: int | None = None,
    ) -> tuple[str, dict[str, str]]:
        """`readable_log` as text, rendered in Rust, and what can not be read. `json`: one document, schema `gradient.log/1`; times are ISO 8601 there,
        and relative to `now_ns` in text when it is given."""
    def create_branch(self, name: str, at: str, *, why: str = "") -> None: ...
    def delete_branch(self, name: str, *, why: str = "") -> str:
        """Delete a branch; returns the commit it pointed to. Refused for the branch HEAD stands on."""
    def rename_branch(self, old: str, new: str) -> None: ...
    def create_tag(self, name: str, at: str) -> None: ...
    def delete_tag(self, name: str) -> str: ...
    def checkout(
        self,
        *,
        branch: str | None = None,
        commit: str | None = None,
        create: bool = False,
        create_at: str | None = None,
    ) -> None:
        """Move HEAD: to a branch, to a new branch (at `create_at`, or without commits), or to a commit."""
    def operations(self, *, limit: int | None = None) -> list[Operation]:
        """Newest first."""
    def readable_operations(self, *, limit: int | None = None) -> tuple[list[Operation], Exception | None]:
        """As far as they can be read, and why there are no more, if more were asked for."""
    def undo(self) -> Operation: ...
    def redo(self) -> Operation: ...
    @property
    def last_commit(self) -> CommitResult | None:
        """What this handle committed last: how a caller whose `commit` was interrupted learns that it is durable."""
    def maintain(self) -> None:
        """Write caches, merge small packs and fold operations where that is due."""
    def disk_bytes(self) -> int: ...
    def close(self) -> None:
        """Write caches, end the lease. Every later call raises."""

@final
class Finding:
    """One thing that a check found.

    Attributes:
        severity: `error`: bytes are not what they were; `warning`: it is rebuilt or outlived by itself; `note`: no fault.
        file: The file, as a path below `.gradient-repo`; empty for an object that no file holds.
        offset: Where in the file, in bytes.
        object: The object that is damaged or missing: its kind and id.
        what: What is wrong.
    """

    @property
    def severity(self) -> Literal["error", "warning", "note"]: ...
    @property
    def file(self) -> str: ...
    @property
    def offset(self) -> int | None: ...
    @property
    def object(self) -> str | None: ...
    @property
    def what(self) -> str: ...

@final
class FsckReport:
    """What a check looked at and found.

    Attributes:
        clean: No finding is an error.
        findings: All findings.
        lost: Ids of commits that can not be restored, with the first reason.
        counts: `operations`, `packs`, `packs_read_in_full`, `commits`, `trees`, `chunks`, `raw_bytes`, `orphans`.
    """

    @property
    def clean(self) -> bool: ...
    @property
    def findings(self) -> list[Finding]: ...
    @property
    def lost(self) -> dict[str, str]: ...
    @property
    def counts(self) -> dict[str, int]: ...

@final
class RepairReport:
    """What a repair does, or would do.

    Attributes:
        moves: Files to move aside: file, reason, where it lies now (None before).
        rescued: Branches that go on to a commit which only a lost operation named: branch, commit id.
        publishes: A new operation says where refs point, or which packs are condemned.
        unnamed: Ids of stored commits that no readable operation names.
        left: Errors that only a copy can mend.
        log: The file that tells what was done; None before.
    """

    @property
    def moves(self) -> list[tuple[str, str, str | None]]: ...
    @property
    def rescued(self) -> list[tuple[str, str]]: ...
    @property
    def publishes(self) -> bool: ...
    @property
    def unnamed(self) -> list[str]: ...
    @property
    def left(self) -> list[Finding]: ...
    @property
    def log(self) -> str | None: ...

def fsck(
    path: str,
    *,
    level: Literal["quick", "metadata", "full"] = "metadata",
    sample_percent: float = 0.0,
    progress: Progress | None = None,
) -> FsckReport:
    """Check the repository in a folder and change nothing. It need not be one that opens.

    `quick` reads operations and the structure of packs; `metadata` also all trees and commits, and follows what refs
    need; `full` reads every byte. Of every hundred packs `sample_percent` are read in full whatever the level.
    """

def repair(path: str, *, apply: bool = False, progress: Progress | None = None) -> RepairReport:
    """Plan the repair of the repository in a folder; with `apply` carry it out. Nothing is deleted."""

def check_name(name: str, what: str = "branch") -> None:
    """Raise InvalidInputError if `name` can not name a branch, tag or component."""

Floating: TypeAlias = Literal["float32", "bfloat16", "float16"]
"""A dtype that a step computes with."""

Moment: TypeAlias = tuple[object, object] | tuple[object, Floating]
"""A moment, as contiguous tensors of uint8: codes and their float32 scales; or floats and what they are."""

@final
class Moments:
    """The moments of one parameter: memory that a step changes, held as long as this lives.

    Codes have the order of the parameter's elements in memory; the last block of a row is as short as it has to be.
    """

    def __new__(
        cls, dtype: Floating, momentum: Moment, variance: Moment | None = None, *, row_len: int, seed: int = 0
    ) -> Self:
        """`dtype`: the parameter's; `row_len`: elements of a row, which blocks end with; `seed`: what stochastic rounding is drawn from."""
    @property
    def nbytes(self) -> int: ...

Entry: TypeAlias = tuple[Moments, object, object]
"""Moments, the parameter and its gradient: tensors of one dtype, contiguous, on the CPU.

While a step runs no other thread may write them or give them other memory; no two tensors that are written may overlap.
"""

def step_adamw(
    groups: Sequence[tuple[tuple[float, float, float, float, float, bool, float, int, bool], Sequence[Entry]]],
    *,
    threads: int,
    capability: str,
) -> None:
    """Do a step: `lr, beta1, beta2, eps, weight_decay, decoupled, grad_factor, step, stochastic`; see `gradient_optim::AdamW`."""

def step_sgd(
    groups: Sequence[tuple[tuple[float, float, float, float, bool, float, bool], Sequence[Entry]]],
    *,
    threads: int,
    capability: str,
) -> None:
    """Do a step: `lr, momentum, dampening, weight_decay, nesterov, grad_factor, first`; see `gradient_optim::Sgd`."""

def step_lion(
    groups: Sequence[tuple[tuple[float, float, float, float, float], Sequence[Entry]]], *, threads: int, capability: str
) -> None:
    """Do a step: `lr, beta1, beta2, weight_decay, grad_factor`; see `gradient_optim::Lion`."""

def encode_moment(
    name: str,
    dtype: Floating,
    values: object,
    codes: object,
    scales: object,
    *,
    row_len: int,
    stochastic: tuple[int, int] | None = None,
    threads: int,
    capability: str,
) -> None:
    """Code a moment, `signed-sqrt` or `fourth-root`, into tensors that are there; `stochastic`: seed and draws of stochastic rounding."""

def decode_moment(
    name: str,
    dtype: Floating,
    codes: object,
    scales: object,
    values: object,
    *,
    row_len: int,
    threads: int,
    capability: str,
) -> None:
    """Give a moment back, into a tensor that is there."""

def cpu_capabilities() -> list[str]:
    """Give the instruction sets that this processor has and the kernels know, the fastest first."""
