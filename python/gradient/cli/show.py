"""`gradient show`: one commit."""

from typing import TYPE_CHECKING, Annotated

from gradient.cli import _out
from gradient.cli._params import Argument, flag
from gradient.cli._session import Session, commit_fields, say_notices
from gradient.refs import HEAD, short_id

if TYPE_CHECKING:
    from gradient.repo import CommitDetails


def show(
    session: Session,
    ref: Annotated[str, Argument("REF", "The commit [default: HEAD]")] = HEAD,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """Show a commit.

    The root hash covers the whole training state and nothing else: two runs with the same one are equal. No tensor data
    is read.
    """
    with session.open() as repo:
        details = repo.show(ref)
    say_notices(details.notices)
    if as_json:
        _out.document("gradient.show/1", _fields(details))
    else:
        _out.paged(_text(details))


def _fields(details: "CommitDetails") -> dict[str, object]:
    return {
        **commit_fields(details.info),
        "name": details.name,
        "branches": list(details.branches),
        "tags": list(details.tags),
        "components": [
            {
                "section": part.section,
                "name": part.name,
                "root": part.root,
                "num_tensors": part.num_tensors,
                "raw_len": part.raw_len,
            }
            for part in details.components
        ],
        "data_captured": details.data_captured,
        "environment": _plain(details.environment),
    }


def _text(details: "CommitDetails") -> str:
    info = details.info
    names = ", ".join([*details.branches, *(f"tag {tag}" for tag in details.tags)])
    lines = [f"{_out.paint('commit ' + info.id, _out.YELLOW)}{f' ({names})' if names else ''}"]
    facts = [
        ("name", details.name),
        ("root", info.root),
        ("parents", " ".join(short_id(parent) for parent in info.parents) or "none"),
        ("time", f"{_out.clock(info.time_ns)} ({_out.ago(info.time_ns, _out.now())})"),
        ("kind", info.kind if info.mode == "exact" else f"{info.kind}, {info.mode}"),
        ("added", _out.size(info.added_bytes)),
    ]
    facts += [(name, f"{value:.8g}") for name, value in info.metrics.items()]
    lines.append(_out.table(facts))
    if info.message:
        lines += ["", *("    " + line for line in _out.first_lines(info.message))]
    rows = [
        (
            f"{part.section}/{part.name}",
            _out.count(part.num_tensors, "tensor"),
            _out.size(part.raw_len),
            short_id(part.root),
        )
        for part in details.components
    ]
    lines += ["", "state", _out.table(rows, right=(1, 2), indent="  ")]
    if not details.data_captured:
        lines.append("  data position: not captured")
    known = {key: value for key, value in details.environment.items() if value not in (None, "", [], {})}
    environment = sorted((str(key), _out.one_line(str(value))) for key, value in known.items())
    if environment:
        lines += ["", "environment", _out.table(environment, indent="  ")]
    return "\n".join(lines)


def _plain(value: object) -> object:
    """Return a stored value as JSON has it; what JSON lacks comes as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
