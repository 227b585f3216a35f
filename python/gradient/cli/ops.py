"""`gradient ops`: the operations of a repository."""

from typing import TYPE_CHECKING, Annotated

from gradient.cli import _out
from gradient.cli._params import Option, flag
from gradient.cli._session import Session, describe_changes, operation_fields

if TYPE_CHECKING:
    from gradient._core import Operation


def ops(
    session: Session,
    limit: Annotated[int | None, Option(("-n", "--limit"), "Show at most N operations", "N", min=0)] = None,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """List operations.

    An operation is one published change: a commit, a branch, a deletion, a move of HEAD. Each line gives its number,
    time and kind, what it changed, and why. Of a log with a damaged operation those behind it are listed.
    """
    with session.open() as repo:
        operations, damage = repo.core.readable_operations(limit=limit)
        _show(operations, damage, as_json)
        if damage is not None:
            # All that can be shown is; this makes the exit code.
            raise damage


def _show(operations: "list[Operation]", damage: Exception | None, as_json: bool) -> None:
    if as_json:
        unreadable = None if damage is None else str(damage)
        listed = [operation_fields(one) for one in operations]
        _out.document("gradient.ops/1", {"operations": listed, "unreadable": unreadable})
        return
    rows = [
        (
            f"{one.number}",
            _out.when(one.time_ns),
            one.kind + (" (undone)" if one.undone else ""),
            _out.one_line(describe_changes(one)),
            _out.one_line(one.why),
        )
        for one in operations
    ]
    if rows:
        _out.paged(_out.table(rows, right=(0,)))
