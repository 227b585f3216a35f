"""What the engine's calls give back: a handle to a commit, and the step that a restore went to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from gradient._core import CommitResult


@dataclass(frozen=True)
class CommitHandle:
    """A commit of this engine; `str(handle)` is `branch@step`.

    Attributes:
        id: The commit's id.
        root: The root hash: two runs are equal exactly when it is.
        step: The step it was made at.
        branch: The branch it stands on.
        kind: `"anchor"` or `"delta"`.
        existing: The branch's tip already was this state at this step; no commit was made.
        displaced: The branch that now keeps the tip which this commit does not descend from.
        added_bytes: Bytes that the repository grew by.
        raw_bytes: Bytes of the state's distinct tensors.
    """

    id: str
    root: str
    step: int
    branch: str
    kind: Literal["anchor", "delta"]
    existing: bool = field(default=False, compare=False)
    displaced: str | None = field(default=None, compare=False)
    added_bytes: int = field(default=0, compare=False)
    raw_bytes: int = field(default=0, compare=False)

    @classmethod
    def of(cls, result: CommitResult) -> CommitHandle:
        """Make a handle of what the repository reported."""
        return cls(
            id=result.id,
            root=result.root,
            step=result.step,
            branch=result.branch,
            kind=result.kind,
            existing=result.existing,
            displaced=result.displaced,
            added_bytes=result.added_bytes,
            raw_bytes=result.raw_bytes,
        )

    def wait(self, timeout: float | None = None) -> CommitHandle:
        """Wait until the commit is durable. It is by the time `commit` returns, so this returns at once."""
        return self

    def done(self) -> bool:
        """Whether the commit is durable: always, as long as commits are made in the foreground."""
        return True

    def __str__(self) -> str:
        return f"{self.branch}@{self.step}"


class RestoredStep(int):
    """The step of the commit that was restored: an int that also knows what was left out.

    Attributes:
        id: The commit's id.
        name: The commit as `branch@step`.
        skipped: What the commit holds and this restore left alone, as `section/name`.
    """

    id: str
    name: str
    skipped: tuple[str, ...]

    def __new__(cls, step: int, *, id: str = "", name: str = "", skipped: tuple[str, ...] = ()) -> Self:
        """Make the step of a restore."""
        restored = super().__new__(cls, step)
        restored.id = id
        restored.name = name
        restored.skipped = skipped
        return restored

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        # It travels as the plain number that most people take it for.
        return int, (int(self),)
