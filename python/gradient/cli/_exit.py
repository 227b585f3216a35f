"""Exit codes: what a failure is to a shell. The table is an interface; any other non-zero code means failure."""

from gradient import errors

DONE = 0
FAILED = 1
WRONG_INPUT = 2
NOT_FOUND = 3
CONFLICT = 4
DAMAGED = 5
STORAGE = 6
BUG = 70
INTERRUPTED = 130

# The first match counts.
_CODES: tuple[tuple[type[errors.GradientError], int], ...] = (
    (errors.InvalidInputError, WRONG_INPUT),
    (errors.NotFoundError, NOT_FOUND),
    (errors.AlreadyExistsError, CONFLICT),
    (errors.ConflictError, CONFLICT),
    (errors.StateMismatchError, CONFLICT),
    (errors.CorruptionError, DAMAGED),
    (errors.FormatError, DAMAGED),
    (errors.StorageError, STORAGE),
    (errors.InternalError, BUG),
    (errors.GradientError, FAILED),
)


def exit_code(error: BaseException) -> int:
    """Return the exit code for `error`; what is no `GradientError` is a bug of ours, a file error apart."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, OSError):
        return STORAGE
    return BUG
