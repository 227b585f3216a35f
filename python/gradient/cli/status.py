"""`gradient status`."""

from typing import TYPE_CHECKING, Annotated

from gradient import handover
from gradient.cli import _out
from gradient.cli._params import flag
from gradient.cli._session import Session, commit_fields, describe_head, head_fields
from gradient.refs import short_id

if TYPE_CHECKING:
    from gradient._core import CommitInfo


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
        branches = repo.branches()
        tips = {name: repo.core.commit_info(tip) for name, tip in sorted(branches.items())}
        num_commits = len(repo.log(all_refs=True))
        head = head_fields(repo)
        tip = head["commit"]
        captured = None if tip is None else bool(repo.core.components(tip).get("data"))
        disk_bytes = repo.disk_bytes()
        if as_json:
            _out.document(
                "gradient.status/1",
                {
                    "name": repo.name,
                    "path": repo.path,
                    "description": repo.description,
                    "head": head,
                    "branches": [{"name": name, **commit_fields(info)} for name, info in tips.items()],
                    "tags": dict(sorted(repo.tags().items())),
                    "num_commits": num_commits,
                    "disk_bytes": disk_bytes,
                    "data_captured": captured,
                    "pending": pending,
                },
            )
            return
        lines = [f"repository {_out.paint(_out.one_line(repo.name), _out.BOLD)}, {repo.path}"]
        if repo.description:
            lines.append(_out.one_line(repo.description))
        lines.append(describe_head(repo) + ("" if tip else ", no commits yet"))
        if num_commits:
            lines.append(f"{_out.count(num_commits, 'commit')}, {_out.size(disk_bytes)} on disk")
        if captured is False:
            lines.append("data position: not captured")
        rows = [_row(_marked(f"{name}@{info.step}", name == head["branch"]), info) for name, info in tips.items()]
        for name, at in sorted(repo.tags().items()):
            info = repo.core.commit_info(at)
            rows.append(_row(f"  tag {name}, {info.branch}@{info.step}", info))
        if rows:
            lines += ["", _out.table(rows)]
    if pending:
        lines += ["", "the next training script would act on:"]
        lines += [f"  {name}={value}" for name, value in pending.items()]
    _out.data("\n".join(lines))


def _row(name: str, info: "CommitInfo") -> tuple[str, str, str, str]:
    return name, short_id(info.id), _out.when(info.time_ns), _out.one_line(info.message)


def _marked(text: str, is_head: bool) -> str:
    return f"* {_out.paint(text, _out.GREEN)}" if is_head else f"  {text}"
