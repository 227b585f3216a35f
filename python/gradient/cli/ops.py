"""`gradient ops`: the operations of a repository."""

from typing import Annotated

import typer

from gradient.cli import _out
from gradient.cli._session import describe_changes, operation_fields


def ops(
    ctx: typer.Context,
    limit: Annotated[
        int | None, typer.Option("-n", "--limit", metavar="N", min=0, help="Show at most N operations")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document")] = False,
) -> None:
    """List operations.

    An operation is one published change: a commit, a branch, a deletion, a move of HEAD. Each line gives its number,
    time and kind, what it changed, and why.
    """
    with ctx.obj.open() as repo:
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
