"""`gradient redo`."""

from typing import Annotated

from gradient.cli import _out
from gradient.cli._params import flag
from gradient.cli._session import Session, describe_head, operation_fields


def redo(
    session: Session,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """Redo an operation.

    Branches, tags and HEAD become again what they were before gradient undo. Once something else changed, nothing is
    left to redo.
    """
    with session.open() as repo:
        operation = repo.redo()
        head = describe_head(repo)
    if as_json:
        _out.document("gradient.redo/1", {"operation": operation_fields(operation)})
        return
    what = _out.one_line(operation.why) or operation.kind
    _out.data(f"done again: {what} (operation {operation.number}); HEAD is {head}")
