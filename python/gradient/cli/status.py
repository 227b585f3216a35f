"""`gradient status`."""

from typing import TYPE_CHECKING, Annotated

from gradient import handover
from gradient.cli import _out
from gradient.cli._params import flag
from gradient.cli._session import (
    Session,
    describe_head,
    head_fields,
    read_commits,
    tell_unreadable,
    tip_fields,
    unreadable_fields,
)
from gradient.errors import CorruptionError
from gradient.refs import short_id

if TYPE_CHECKING:
    from gradient._core import CommitInfo
    from gradient.repo import Repo


def status(
    session: Session,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """Show a repository.

    Branches come with their newest commits, tags with those that they name. Variables that the next training script
    would act on are named.
    """
    pending = handover.read_handover().to_environ()
    with session.open() as repo:
        branches, tags = dict(sorted(repo.branches().items())), dict(sorted(repo.tags().items()))
        start, _ = repo.log_ends(None, all_refs=True)
        commits, unreadable = repo.core.readable_log(start) if start else ([], {})
        num_commits = len(commits)
        head = head_fields(repo)
        tip = head["commit"]
        named = {*branches.values(), *tags.values()} | ({tip} if tip else set())
        infos = read_commits(repo, sorted(named), unreadable)
        captured = None if tip is None else _data_captured(repo, tip, unreadable)
        disk_bytes = repo.disk_bytes()
        if as_json:
            _out.document(
                "gradient.status/1",
                {
                    "name": repo.name,
                    "path": repo.path,
                    "description": repo.description,
                    "head": head,
                    "branches": [tip_fields(name, at, infos.get(at)) for name, at in branches.items()],
                    "tags": tags,
                    "num_commits": num_commits,
                    "disk_bytes": disk_bytes,
                    "data_captured": captured,
                    "pending": pending,
                    "unreadable": unreadable_fields(unreadable),
                },
            )
            tell_unreadable(repo, unreadable)
            return
        lines = [f"repository {_out.paint(_out.one_line(repo.name), _out.BOLD)}, {repo.path}"]
        if repo.description:
            lines.append(_out.one_line(repo.description))
        lines.append(describe_head(repo) + ("" if tip else ", no commits yet"))
        if num_commits:
            lines.append(f"{_out.count(num_commits, 'commit')}, {_out.size(disk_bytes)} on disk")
        if captured is False:
            lines.append("data position: not captured")
        rows = []
        for name, at in branches.items():
            info = infos.get(at)
            place = f"{name}@{info.step}" if info else name
            rows.append(_row(_marked(_out.one_line(place), name == head["branch"]), at, info))
        for name, at in tags.items():
            info = infos.get(at)
            place = f", {info.branch}@{info.step}" if info else ""
            rows.append(_row("  " + _out.one_line(f"tag {name}{place}"), at, info))
        if rows:
            lines += ["", _out.table(rows)]
        if pending:
            lines += ["", "the next training script would act on:"]
            lines += [f"  {name}={value}" for name, value in pending.items()]
        _out.data("\n".join(lines))
        tell_unreadable(repo, unreadable)


def _data_captured(repo: "Repo", tip: str, unreadable: dict[str, str]) -> bool | None:
    try:
        return bool(repo.core.components(tip).get("data"))
    except CorruptionError as error:
        unreadable.setdefault(tip, str(error))
        return None


def _row(name: str, commit: str, info: "CommitInfo | None") -> tuple[str, str, str, str]:
    if info is None:
        return name, short_id(commit), "", _out.paint("can not be read", _out.RED)
    return name, short_id(info.id), _out.when(info.time_ns), _out.one_line(info.message)


def _marked(text: str, is_head: bool) -> str:
    return f"* {_out.paint(text, _out.GREEN)}" if is_head else f"  {text}"
