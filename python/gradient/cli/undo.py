"""`gradient undo`."""

from typing import Annotated

from gradient.cli import _out
from gradient.cli._params import flag
from gradient.cli._session import Session, describe_changes, describe_head, operation_fields


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
    parts = (_out.one_line(operation.why), describe_changes(operation), f"HEAD {head}")
    _out.data("; ".join(part for part in parts if part))
