"""`gradient ops`: the operations of a repository."""

from typing import Annotated

from gradient.cli import _out
from gradient.cli._params import Option, flag
from gradient.cli._session import Session, describe_changes, operation_fields


def ops(
    session: Session,
    limit: Annotated[int | None, Option(("-n", "--limit"), "Show at most N operations", "N", min=0)] = None,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """List operations.

    An operation is one published change: a commit, a branch, a deletion, a move of HEAD. Each line gives its number,
    time and kind, what it changed, and why.
    """
    with session.open() as repo:
        operations = repo.operations(limit=limit)
    if as_json:
        _out.document("gradient.ops/1", {"operations": [operation_fields(one) for one in operations]})
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
