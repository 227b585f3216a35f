"""`gradient tag`: list, make and delete tags."""

from typing import Annotated

from gradient.cli import _out
from gradient.cli._delete import delete_ref
from gradient.cli._params import Argument, flag
from gradient.cli._session import Session
from gradient.errors import InvalidInputError
from gradient.refs import HEAD, short_id


def tag(
    session: Session,
    name: Annotated[str | None, Argument("NAME", "The tag")] = None,
    ref: Annotated[str | None, Argument("REF", "What it names [default: HEAD]")] = None,
    list_all: Annotated[bool, flag("--list", "List the tags; so does no NAME")] = False,
    delete: Annotated[bool, flag("--delete", "Delete: shows the plan, asks, and can be undone")] = False,
    yes: Annotated[bool, flag("--yes", "Delete without asking")] = False,
    dry_run: Annotated[bool, flag("--dry-run", "Show the plan of --delete only")] = False,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
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
    with session.open() as repo:
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
