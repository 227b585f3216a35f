"""`gradient log`: the commits that lead to a ref. The rows are rendered in Rust."""

from typing import Annotated, Literal

from gradient.cli import _out
from gradient.cli._params import Argument, Option, flag
from gradient.cli._session import Session, tell_unreadable
from gradient.errors import InvalidInputError


def log(
    session: Session,
    ref: Annotated[str | None, Argument("REF|A..B", "Where to start [default: HEAD]")] = None,
    limit: Annotated[int | None, Option(("-n", "--limit"), "Show at most N commits", "N", min=0)] = None,
    oneline: Annotated[bool, flag("--oneline", "One line a commit")] = False,
    graph: Annotated[bool, flag("--graph", "Draw the lines of descent")] = False,
    all_refs: Annotated[bool, flag("--all", "Start at every branch and tag")] = False,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """Show commits.

    Each entry gives the commit's id, its branch and step, the bytes that it added and its message. A..B shows what
    leads to B but not to A. A commit that can not be read has a row that says so, and makes the exit code 5; behind it
    the log goes on where the operations say that the branch was before.
    """
    if all_refs and ref is not None:
        message = f"--all starts at every branch and tag, and takes no {_out.one_line(ref)} beside it"
        raise InvalidInputError(message, code="usage", hint="gradient log --all, or gradient log REF")
    style: Literal["full", "oneline", "json"] = "json" if as_json else "oneline" if oneline else "full"
    with session.open() as repo:
        start, exclude = repo.log_ends(ref, all_refs=all_refs, readable=False)
        text, unreadable = repo.core.render_log(
            start,
            exclude=exclude,
            limit=limit,
            style=style,
            graph=graph,
            color=_out.colored() and not as_json,
            now_ns=_out.now() if _out.on_terminal() and not as_json else None,
            width=_out.width() if _out.on_terminal() else None,
        )
        if as_json:
            _out.data(text, as_is=True)
        elif text:
            _out.paged(_out.painted_by_core(text))
        elif not start:
            _out.note("no commits yet")
        elif limit != 0:
            _out.note("no commits in that range")
        tell_unreadable(repo, unreadable)
