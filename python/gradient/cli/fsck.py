"""`gradient fsck`."""

from typing import TYPE_CHECKING, Annotated, Literal

from gradient.cli import _exit, _out
from gradient.cli._params import Option, flag
from gradient.cli._session import Session, naming_repository
from gradient.errors import InvalidInputError
from gradient.progress import progress
from gradient.refs import short_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradient._core import Finding, FsckReport

_COLORS = {"error": _out.RED, "warning": _out.YELLOW, "note": _out.DIM}


def fsck(
    session: Session,
    quick: Annotated[bool, flag("--quick", "Check operations and the structure of packs only")] = False,
    full: Annotated[bool, flag("--full", "Read every byte")] = False,
    sample: Annotated[str | None, Option(("--sample",), "Read so many of a hundred packs in full", "P%")] = None,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> int:
    """Check a repository.

    Nothing is changed. Without an option every operation, tree and commit is read, and everything that a ref needs is
    looked for. What a stopped writer left is a note and no fault. Exit code 5: something is damaged or missing.
    """
    from gradient import _core

    if quick and full:
        raise InvalidInputError("--quick and --full exclude each other", code="usage", hint="gradient fsck --help")
    level: Literal["quick", "metadata", "full"] = "quick" if quick else "full" if full else "metadata"
    path = session.locate().repo_path
    percent = _percent(sample)
    with naming_repository(path), progress("checking") as show:
        report = _core.fsck(path, level=level, sample_percent=percent, progress=show)
    if as_json:
        _out.document(
            "gradient.fsck/1",
            {
                "path": path,
                "level": level,
                "clean": report.clean,
                "findings": [finding_fields(finding) for finding in report.findings],
                "lost_commits": [{"id": commit, "why": why} for commit, why in report.lost.items()],
                **report.counts,
            },
        )
    else:
        _out.data(_text(path, report))
        if not report.clean:
            _out.hint(
                way_out(report.findings)
                or "gradient repair shows what can be mended; what can not has to come from a copy"
            )
    return _exit.DONE if report.clean else _exit.DAMAGED


def way_out(findings: "Sequence[Finding]") -> str | None:
    """Return what helps where a repair does not; None where one may."""
    files = {finding.file for finding in findings if finding.severity == "error"}
    for file in ("format", "ops", "packs"):
        if file in files:
            return f"put {file} back from a copy of the repository: gradient repair can do nothing without it"
    if files == {"config.json"}:
        return "mend config.json, or delete it: it holds a name and a description, which no commit needs"
    return None


def finding_fields(finding: "Finding") -> dict[str, object]:
    """Return a finding for programs."""
    return {
        "severity": finding.severity,
        "file": finding.file or None,
        "offset": finding.offset,
        "object": finding.object,
        "what": finding.what,
    }


def finding_line(finding: "Finding") -> str:
    """Return a finding for people, in one line."""
    place = finding.file + (f", byte {finding.offset}" if finding.offset is not None else "")
    severity = _out.paint(finding.severity, _COLORS[finding.severity])
    return f"{severity}: {_out.one_line(': '.join(part for part in (place, finding.object, finding.what) if part))}"


def _text(path: str, report: "FsckReport") -> str:
    counts = report.counts
    read = [
        _out.count(counts["operations"], "operation"),
        _out.count(counts["packs"], "pack"),
        _out.count(counts["commits"], "commit"),
        _out.count(counts["chunks"], "chunk"),
    ]
    lines = [finding_line(finding) for finding in report.findings]
    lines += [f"lost: commit {short_id(commit)}: {_out.one_line(why)}" for commit, why in report.lost.items()]
    in_full = (
        f", {_out.count(counts['packs_read_in_full'], 'pack')} read in full" if counts["packs_read_in_full"] else ""
    )
    num_errors = sum(finding.severity == "error" for finding in report.findings)
    verdict = _out.paint("clean", _out.GREEN) if report.clean else _out.paint(_out.count(num_errors, "error"), _out.RED)
    lines.append(f"{path}: {', '.join(read)} ({_out.size(counts['raw_bytes'])}){in_full}: {verdict}")
    return "\n".join(lines)


def _percent(sample: str | None) -> float:
    if sample is None:
        return 0.0
    try:
        percent = float(sample.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        message = f"--sample {sample} is no percentage from 0% to 100%"
        raise InvalidInputError(message, code="usage", hint="gradient fsck --sample 10%")
    return percent
