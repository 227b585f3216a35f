"""`gradient tag`: list, make and delete tags."""

from typing import Annotated

import typer

from gradient.cli import _out
from gradient.cli._delete import delete_ref
from gradient.errors import InvalidInputError
from gradient.refs import HEAD, short_id


def tag(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The tag", show_default=False)] = None,
    ref: Annotated[
        str | None, typer.Argument(metavar="REF", help="What it names [default: HEAD]", show_default=False)
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the tags; so does no NAME")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete: shows the plan, asks, and can be undone")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan of --delete only")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document")] = False,
) -> None:
    """Look after tags.

    A tag names one commit and never moves.
    """
    if list_all and (delete or name is not None):
        raise InvalidInputError("--list takes no names and excludes --delete", code="usage", hint="gradient tag --list")
    if delete and (name is None or ref is not None):
        raise InvalidInputError("wrong number of names: gradient tag --delete NAME", code="usage")
    if (yes or dry_run) and not delete:
        raise InvalidInputError("--yes and --dry-run belong to --delete", code="usage")
    with ctx.obj.open() as repo:
        if name is None:
            tags = sorted(repo.tags().items())
            if as_json:
                _out.document("gradient.tag/1", {"tags": [{"name": one, "commit": at} for one, at in tags]})
            elif tags:
                infos = [(one, repo.core.commit_info(at)) for one, at in tags]
                _out.data(_out.table([(one, f"{info.branch}@{info.step}", short_id(info.id)) for one, info in infos]))
        elif delete:
            delete_ref(repo, "tag", name, yes=yes, dry_run=dry_run, as_json=as_json)
        else:
            commit = repo.create_tag(name, ref or HEAD)
            if as_json:
                _out.document("gradient.tag-create/1", {"name": name, "commit": commit})
            else:
                _out.data(f"made tag {name} at {short_id(commit)}")
