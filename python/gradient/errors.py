"""Every failure that a caller can meet: few classes, by what one would do next; `code` tells the rest.

A message says what happened and to which thing; `hint` says what to do about it. Codes are kebab-case and, once
released, never change. The compiled module raises these classes too, so every fact is keyword-only and has a default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class GradientError(Exception):
    """Something that Gradient was asked for did not happen.

    Args:
        message: What happened, to which thing; `str(error)` is exactly this.
        code: What happened, for programs, in kebab-case; the class has one for when nothing finer is known.
        hint: What to do about it, best a command or a call. It is also a note of the exception, so that a traceback
            ends with it.

    Attributes:
        repository: Folder of the repository that it happened in; the command line sets it where a damaged file, a
            disk or a format is to blame.
    """

    default_code: ClassVar[str] = "failed"
    repository: str | None = None

    def __init__(self, message: str = "", *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self._hint: str | None = None
        self.hint = hint

    @property
    def hint(self) -> str | None:
        """What to do about it; None if there is nothing to say."""
        return self._hint

    @hint.setter
    def hint(self, hint: str | None) -> None:
        # A new list: a copy of this error shares the old one.
        notes = [note for note in getattr(self, "__notes__", ()) if self._hint is None or note != _note(self._hint)]
        self._hint = hint
        self.__notes__ = notes if hint is None else [*notes, _note(hint)]

    def __str__(self) -> str:
        return self.message


def _note(hint: str) -> str:
    return f"hint: {hint}"


class NotFoundError(GradientError, LookupError):
    """A workspace, repository, ref, object or remote is not there."""

    default_code = "not-found"


class AlreadyExistsError(GradientError):
    """A branch or tag of that name exists."""

    default_code = "already-exists"


class InvalidInputError(GradientError, ValueError):
    """A name, option, step, value or tensor can not be accepted, or a call came at a time when it has no meaning."""

    default_code = "invalid-input"


class ConflictError(GradientError):
    """Somebody else moved the ref first; nothing is lost.

    Attributes:
        expected: Id of the commit that the ref was thought to point to.
        actual: Id of the commit that it points to.
        branch: The branch that keeps this writer's commit, where it goes on; None if nothing was committed.
        commit: Id of this writer's commit there.
    """

    default_code = "conflict"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        hint: str | None = None,
        expected: str | None = None,
        actual: str | None = None,
        branch: str | None = None,
        commit: str | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.expected = expected
        self.actual = actual
        self.branch = branch
        self.commit = commit


class StateMismatchError(GradientError):
    """The script's training state and the commit's differ; nothing has been touched.

    Attributes:
        missing: What the script has and the commit lacks.
        unexpected: What the commit has and the script lacks.
        changed: What both have, in different shapes, dtypes or groups.
    """

    default_code = "state-mismatch"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        hint: str | None = None,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        changed: Sequence[str] = (),
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.missing = list(missing)
        self.unexpected = list(unexpected)
        self.changed = list(changed)


class CorruptionError(GradientError):
    """Bytes are not what they were when they were written.

    Attributes:
        object_id: Id of the damaged object, if it is known.
        path: The file that it lies in, if it is known.
        partial: Live tensors were already written when the damage was met.
    """

    default_code = "damaged"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        hint: str | None = None,
        object_id: str | None = None,
        path: str | None = None,
        partial: bool = False,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.object_id = object_id
        self.path = path
        self.partial = partial


class FormatError(GradientError):
    """The repository was written by a newer or an unknown version.

    Attributes:
        found: The version or feature that was found.
        supported: What this version can read.
    """

    default_code = "unknown-format"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        hint: str | None = None,
        found: str | int | None = None,
        supported: str | int | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.found = found
        self.supported = supported


class StorageError(GradientError, OSError):
    """A disk, a network or a permission stood in the way; `errno` is the system's number, `path` the file."""

    default_code = "storage"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        hint: str | None = None,
        errno: int | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.errno = errno
        self.path = path


class InternalError(GradientError):
    """Our bug: please report it with the message."""

    default_code = "internal"
