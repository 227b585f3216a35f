"""`gradient branch`: list, make, rename and delete branches."""

from typing import TYPE_CHECKING, Annotated

from gradient.cli import _out
from gradient.cli._delete import delete_ref
from gradient.cli._params import Argument, flag
from gradient.cli._session import (
    Session,
    describe_head,
    head_fields,
    read_commits,
    tell_unreadable,
    tip_fields,
    unreadable_fields,
)
from gradient.errors import InvalidInputError
from gradient.refs import HEAD, short_id

if TYPE_CHECKING:
    from gradient.repo import Repo


def branch(
    session: Session,
    name: Annotated[str | None, Argument("NAME", "The branch")] = None,
    ref: Annotated[
        str | None,
        Argument("REF", "Where a new one starts [default: HEAD]"),
    ] = None,
    list_all: Annotated[bool, flag("--list", "List the branches; so does no NAME")] = False,
    rename: Annotated[bool, flag("--rename", "Rename: gradient branch --rename OLD NEW")] = False,
    delete: Annotated[bool, flag("--delete", "Delete: shows the plan, asks, and can be undone")] = False,
    yes: Annotated[bool, flag("--yes", "Delete without asking")] = False,
    dry_run: Annotated[bool, flag("--dry-run", "Show the plan of --delete only")] = False,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """Look after branches.

    A new branch costs one small operation, whatever the size of the commit. Every change can be undone.
    """
    if list_all + rename + delete > 1:
        raise InvalidInputError("--list, --rename and --delete exclude each other", code="usage")
    if (rename and (name is None or ref is None)) or (delete and (name is None or ref is not None)):
        usage = "--rename OLD NEW" if rename else "--delete NAME"
        raise InvalidInputError(f"wrong number of names: gradient branch {usage}", code="usage")
    if (yes or dry_run) and not delete:
        raise InvalidInputError("--yes and --dry-run belong to --delete", code="usage")
    if list_all and name is not None:
        raise InvalidInputError("--list takes no names", code="usage", hint="gradient branch --list")
    with session.open() as repo:
        if name is None:
            _list(repo, as_json)
        elif delete:
            delete_ref(repo, "branch", name, yes=yes, dry_run=dry_run, as_json=as_json)
        elif rename and ref is not None:
            repo.rename_branch(name, ref)
            if as_json:
                _out.document("gradient.branch-rename/1", {"old": name, "new": ref})
            else:
                _out.data(f"renamed branch {name} to {ref}")
        else:
            commit = repo.create_branch(name, ref or HEAD)
            if as_json:
                _out.document("gradient.branch-create/1", {"name": name, "commit": commit})
            else:
                _out.data(f"made branch {name} at {short_id(commit)}")


def _list(repo: "Repo", as_json: bool) -> None:
    tips = dict(sorted(repo.branches().items()))
    unreadable: dict[str, str] = {}
    infos = read_commits(repo, tips.values(), unreadable)
    head = head_fields(repo)
    if as_json:
        # The commit's `branch` is the one that the writer worked on; `name` is the branch that is listed.
        rows = [tip_fields(name, at, infos.get(at)) for name, at in tips.items()]
        fields = {"head": head, "branches": rows, "unreadable": unreadable_fields(unreadable)}
        _out.document("gradient.branch/1", fields)
        tell_unreadable(repo, unreadable)
        return
    if head["branch"] not in tips:
        _out.note(describe_head(repo) + ("" if head["commit"] else ", which has no commits yet"))
    lines = []
    for name, at in tips.items():
        info = infos.get(at)
        mark = f"* {_out.paint(name, _out.GREEN)}" if name == head["branch"] else f"  {name}"
        if info is None:
            lines.append((mark, "", short_id(at), "", _out.paint("can not be read", _out.RED)))
        else:
            told = _out.one_line(info.message)
            lines.append((mark, f"step {info.step}", short_id(at), _out.when(info.time_ns), told))
    if lines:
        _out.data(_out.table(lines))
    tell_unreadable(repo, unreadable)
