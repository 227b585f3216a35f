"""`gradient checkout`: move HEAD."""

from typing import Annotated

from gradient.cli import _out
from gradient.cli._params import Argument, Option, flag
from gradient.cli._session import Session, describe_head, head_fields, say_notices
from gradient.errors import InvalidInputError


def checkout(
    session: Session,
    ref: Annotated[str | None, Argument("BRANCH|REF", "Where to")] = None,
    new: Annotated[str | None, Option(("-b",), "Make branch NEW at REF [default: HEAD] and go there", "NEW")] = None,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """Move HEAD.

    The next attach without a branch works on HEAD's. A run that is attached stays where it is, and no file of yours
    changes: states are restored by training scripts. A ref that is no branch leaves HEAD on no branch.
    """
    with session.open() as repo:
        if new is not None:
            repo.checkout_new(new, ref)
        elif ref is None:
            raise InvalidInputError("missing a branch or a ref", code="usage", hint="gradient checkout --help")
        else:
            if ref not in repo.branches() and ref != "HEAD":
                say_notices(repo.resolve(ref).notices)
            repo.checkout(ref)
        head = head_fields(repo)
        if as_json:
            _out.document("gradient.checkout/1", {"head": head})
            return
        _out.data(f"HEAD is {describe_head(repo)}{'' if head['commit'] else ', no commits yet'}")
    if head["branch"] is None:
        _out.hint("training needs a branch: gradient checkout -b NEW")
