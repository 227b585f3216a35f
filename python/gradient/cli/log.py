"""`gradient log`: the commits that lead to a ref. The rows are rendered in Rust."""

from typing import Annotated, Literal

import typer

from gradient.cli import _out


def log(
    ctx: typer.Context,
    ref: Annotated[
        str | None, typer.Argument(metavar="REF|A..B", help="Where to start [default: HEAD]", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option("-n", "--limit", metavar="N", min=0, help="Show at most N commits")
    ] = None,
    oneline: Annotated[bool, typer.Option("--oneline", help="One line a commit")] = False,
    graph: Annotated[bool, typer.Option("--graph", help="Draw the lines of descent")] = False,
    all_refs: Annotated[bool, typer.Option("--all", help="Start at every branch and tag")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document")] = False,
) -> None:
    """Show commits.

    Each entry gives the commit's id, its branch and step, the bytes that it added and its message. A..B shows what
    leads to B but not to A.
    """
    style: Literal["full", "oneline", "json"] = "json" if as_json else "oneline" if oneline else "full"
    with ctx.obj.open() as repo:
        text = repo.render_log(
            ref,
            all_refs=all_refs,
            limit=limit,
            style=style,
            graph=graph,
            color=_out.colored() and not as_json,
            now_ns=_out.now() if _out.on_terminal() and not as_json else None,
            width=_out.width() if _out.on_terminal() else None,
        )
        if as_json:
            _out.data(text)
        elif text:
            _out.paged(text)
        else:
            _out.note("no commits yet")
