"""`gradient undo`."""

from typing import Annotated

from gradient.cli import _out
from gradient.cli._params import flag
from gradient.cli._session import Session, describe_head, operation_fields


def undo(
    session: Session,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """Undo an operation.

    Branches, tags and HEAD go back to what they were before it. No commit is lost: gradient redo brings it back.
    """
    with session.open() as repo:
        operation = repo.undo()
        head = describe_head(repo)
    if as_json:
        _out.document("gradient.undo/1", {"operation": operation_fields(operation)})
        return
    what = _out.one_line(operation.why) or operation.kind
    _out.data(f"undone: {what} (operation {operation.number}); HEAD is {head}")
