"""`gradient redo`."""

from typing import Annotated

import typer

from gradient.cli import _out
from gradient.cli._session import describe_changes, describe_head, operation_fields


def redo(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document")] = False,
) -> None:
    """Redo an operation.

    Branches, tags and HEAD become again what they were before gradient undo. Once something else changed, nothing is
    left to redo.
    """
    with ctx.obj.open() as repo:
        operation = repo.redo()
        head = describe_head(repo)
    if as_json:
        _out.document("gradient.redo/1", {"operation": operation_fields(operation)})
        return
    parts = (_out.one_line(operation.why), describe_changes(operation), f"HEAD {head}")
    _out.data("; ".join(part for part in parts if part))
