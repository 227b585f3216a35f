"""`gradient repair`."""

from typing import Annotated

from gradient.cli import _exit, _out
from gradient.cli._params import flag
from gradient.cli._session import WAYS_OUT, Session, naming_repository
from gradient.cli.fsck import finding_fields, finding_line, way_out
from gradient.progress import progress
from gradient.refs import short_id


def repair(
    session: Session,
    apply: Annotated[bool, flag("--apply", "Do it; without this only the plan is shown")] = False,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> int:
    """Repair a repository.

    What is damaged and can be done without moves to lost+found: operations that can not be read, a cache, a pack of
    which everything that is needed lies elsewhere. Refs go where the lost operations led, as far as that can be told.
    Exit code 5: damage is left that only a copy can mend. End whatever writes to the repository before.
    """
    from gradient import _core

    path = session.locate().repo_path
    with naming_repository(path), progress("checking") as show:
        report = _core.repair(path, apply=apply, progress=show)
    if as_json:
        _out.document(
            "gradient.repair/1",
            {
                "path": path,
                "applied": apply,
                "moves": [{"file": file, "why": why, "to": to} for file, why, to in report.moves],
                "rescued": [{"branch": branch, "commit": commit} for branch, commit in report.rescued],
                "unnamed_commits": report.unnamed,
                "left": [finding_fields(finding) for finding in report.left],
                "publishes": report.publishes,
                "log": report.log,
            },
        )
        return _exit.DAMAGED if report.left else _exit.DONE
    verb = "moved" if apply else "would move"
    lines = [f"{verb} {file} to {to or 'lost+found'}: {_out.one_line(why)}" for file, why, to in report.moves]
    verb = "went" if apply else "would go"
    lines += [
        f"branch {_out.one_line(branch)} {verb} on to commit {short_id(commit)}" for branch, commit in report.rescued
    ]
    lines += [f"left: {finding_line(finding)}" for finding in report.left]
    if report.publishes and not report.moves:
        lines.append("finished what an earlier repair began" if apply else "would finish what an earlier repair began")
    elif not report.moves:
        lines.append("nothing to repair" if not report.left else "nothing that could be repaired")
    if report.log:
        lines.append(f"what was done is in {report.log}")
    _out.data("\n".join(lines))
    if report.unnamed:
        _out.note(f"{_out.count(len(report.unnamed), 'commit')} that no operation names, as far as they can be read:")
        for commit in report.unnamed[:20]:
            _out.note(f"  {short_id(commit)}  (gradient branch NAME {short_id(commit)} keeps it)")
    if (report.moves or report.publishes) and not apply:
        _out.hint("gradient repair --apply")
    elif report.left:
        names_commit = any((finding.object or "").startswith("commit ") for finding in report.left)
        copy = "put what is named back from a copy of the repository; commits that do not need it are whole"
        _out.hint(way_out(report.left) or (WAYS_OUT if names_commit else f"{copy}: gradient log --all"))
    return _exit.DAMAGED if report.left else _exit.DONE
