"""Deleting a ref: the plan with its reasons first, then the deed if it is agreed to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradient.cli import _out
from gradient.cli._session import read_commits
from gradient.errors import ConflictError, CorruptionError, InvalidInputError, NotFoundError
from gradient.refs import short_id

if TYPE_CHECKING:
    from gradient.repo import Repo


@dataclass(frozen=True)
class Plan:
    """What deleting a ref means for the commits that it leads to.

    Args:
        kind: `branch` or `tag`.
        name: The ref.
        commit: Id of the commit that it points to.
        step: That commit's step; None if it can not be read.
        num_lost: Commits that no other ref leads to.
        lost_bytes: What these added to the repository.
        num_kept: Commits that other refs lead to.
        keepers: Refs that lead to `commit` itself.
        num_unreadable: Commits on the way that can not be read: what is behind them is not counted.
    """

    kind: str
    name: str
    commit: str
    step: int | None
    num_lost: int
    lost_bytes: int
    num_kept: int
    keepers: list[str]
    num_unreadable: int = 0

    def text(self) -> str:
        """Return it for people."""
        place = "which can not be read" if self.step is None else f"step {self.step}"
        lines = [f"{self.kind} {self.name} at {short_id(self.commit)}, {place}"]
        if self.num_lost:
            lost = f"{_out.count(self.num_lost, 'commit')} ({_out.size(self.lost_bytes)})"
            lines.append(f"  {lost} no longer on any branch or tag: gradient undo brings the {self.kind} back")
        if self.num_kept:
            by = ", ".join(self.keepers[:3]) + (", ..." if len(self.keepers) > 3 else "")
            lines.append(f"  {_out.count(self.num_kept, 'commit')} kept: on {by or 'other branches or tags'}")
        if self.num_unreadable:
            lines.append(f"  {_out.count(self.num_unreadable, 'commit')} not counted, which can not be read")
        return "\n".join(lines)

    def fields(self, *, dry_run: bool) -> dict[str, object]:
        """Return it for programs."""
        return {
            "name": self.name,
            "commit": self.commit,
            "dry_run": dry_run,
            "deleted": not dry_run,
            "lost": {"num_commits": self.num_lost, "added_bytes": self.lost_bytes},
            "kept": {"num_commits": self.num_kept, "by": self.keepers},
            "num_unreadable": self.num_unreadable,
        }


def delete_ref(repo: Repo, kind: str, name: str, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Delete a branch or a tag, or say what that would do.

    Raises:
        NotFoundError: There is no such ref; near names are suggested.
        ConflictError: HEAD stands on the branch.
        InvalidInputError: Nobody agreed.
    """
    plan = make_plan(repo, kind, name)
    if not as_json:
        (_out.data if dry_run else _out.note)(plan.text())
    if not dry_run:
        if not yes and not (_out.can_ask() and _out.confirm(f"delete {kind} {name}?")):
            message = f"{kind} {name} was not deleted: nobody agreed"
            raise InvalidInputError(message, code="not-agreed", hint="add --yes, or --dry-run to look only")
        if kind == "branch":
            repo.delete_branch(name)
        else:
            repo.delete_tag(name)
    if as_json:
        _out.document(f"gradient.{kind}-delete/1", plan.fields(dry_run=dry_run))
    elif not dry_run:
        _out.data(f"deleted {kind} {name}, which was at {short_id(plan.commit)}")
        _out.hint("gradient undo brings it back")


def make_plan(repo: Repo, kind: str, name: str) -> Plan:
    """Work out what deleting a ref would mean; nothing is changed."""
    refs = repo.branches() if kind == "branch" else repo.tags()
    if name not in refs:
        raise _unknown(kind, name, list(refs))
    if kind == "branch" and repo.head() == ("branch", name):
        # What `Repo.delete_branch` says; here the plan, and so --dry-run, says it too.
        raise ConflictError(
            f"branch {name} is where HEAD stands", code="deletes-head", hint="gradient checkout another branch first"
        )
    commit = refs[name]
    others = {f"branch {other}": at for other, at in repo.branches().items()}
    others.update({f"tag {other}": at for other, at in repo.tags().items()})
    del others[f"{kind} {name}"]
    head_kind, head_name = repo.head()
    if head_kind == "commit":
        others["HEAD"] = head_name
    unreadable: dict[str, str] = {}
    info = read_commits(repo, [commit], unreadable).get(commit)
    lost, _ = repo.core.readable_log([commit], exclude=sorted(set(others.values())))
    reached, holes = repo.core.readable_log([commit])
    return Plan(
        kind=kind,
        name=name,
        commit=commit,
        step=None if info is None else info.step,
        num_lost=len(lost),
        lost_bytes=sum(info.added_bytes for info in lost),
        num_kept=len(reached) - len(lost),
        keepers=sorted(other for other, at in others.items() if _leads_to(repo, commit, at)),
        num_unreadable=len(unreadable.keys() | holes.keys()),
    )


def _leads_to(repo: Repo, commit: str, tip: str) -> bool:
    try:
        return repo.core.is_ancestor(commit, tip)
    except CorruptionError:
        return False


def _unknown(kind: str, name: str, names: list[str]) -> NotFoundError:
    # Imported here: only mistakes need it.
    from difflib import get_close_matches

    near = get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"gradient {kind} --list"
    return NotFoundError(f"there is no {kind} {_out.one_line(name)}", code=f"no-{kind}", hint=hint)
