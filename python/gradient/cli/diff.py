"""`gradient diff`: what differs between the states of two commits, by ids; no tensor data is read."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from gradient.cli import _out
from gradient.cli._params import Argument, flag
from gradient.cli._session import Session, say_notices
from gradient.refs import HEAD

if TYPE_CHECKING:
    from gradient.repo import Repo

_MARKS = {"added": ("+", _out.GREEN), "removed": ("-", _out.RED), "changed": ("~", _out.YELLOW)}


@dataclass(frozen=True)
class ComponentDiff:
    """What differs in one component; `changes` are pairs of a path and what happened there."""

    section: str
    name: str
    num_values: int
    changed_raw_len: int
    changes: list[tuple[str, str]]

    def fields(self, *, stat: bool) -> dict[str, object]:
        """Return it for programs."""
        fields: dict[str, object] = {
            "section": self.section,
            "name": self.name,
            "num_values": self.num_values,
            "num_changed": len(self.changes),
            "changed_raw_len": self.changed_raw_len,
        }
        if not stat:
            fields["changes"] = [{"path": path, "change": change} for path, change in self.changes]
        return fields


def diff(
    session: Session,
    old: Annotated[str, Argument("A", "One commit")],
    new: Annotated[str, Argument("B", "The other [default: HEAD]")] = HEAD,
    stat: Annotated[bool, flag("--stat", "One line a component")] = False,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """Compare two states.

    Each line names what was added (+), removed (-) or changed (~) from A to B. Equal root hashes mean equal states.
    """
    with session.open() as repo:
        ends = [repo.resolve(old), repo.resolve(new)]
        roots = [repo.core.commit_info(end.id).root for end in ends]
        parts = compare(repo, ends[0].id, ends[1].id) if roots[0] != roots[1] else []
    for end in ends:
        say_notices(end.notices)
    if as_json:
        old_end, new_end = (
            {"id": end.id, "name": end.name, "root": root} for end, root in zip(ends, roots, strict=True)
        )
        components = [part.fields(stat=stat) for part in parts]
        fields = {"old": old_end, "new": new_end, "equal": roots[0] == roots[1], "components": components}
        _out.document("gradient.diff/1", fields)
    elif not parts:
        _out.note(f"{ends[0].name} and {ends[1].name} hold the same state, root {roots[0][:8]}")
    elif stat:
        _out.data(_out.table([_stat_row(part) for part in parts], right=(1, 2)))
    else:
        lines = [_line(part, path, change) for part in parts for path, change in part.changes]
        _out.paged("\n".join(lines))


def compare(repo: "Repo", old: str, new: str) -> list[ComponentDiff]:
    """Return what differs between two commits, a row for each component that differs."""
    core = repo.core
    names_old, names_new = (
        {(section, name) for section, names in core.components(commit).items() for name in names}
        for commit in (old, new)
    )
    parts = []
    for section, name in sorted(names_old | names_new):
        in_old, in_new = (section, name) in names_old, (section, name) in names_new
        if in_old and in_new and core.component_root(old, section, name) == core.component_root(new, section, name):
            continue
        before = leaves(core.component(old, section, name)) if in_old else {}
        after = leaves(core.component(new, section, name)) if in_new else {}
        changes = [(path, "removed") for path in before.keys() - after.keys()]
        changes += [(path, "added") for path in after.keys() - before.keys()]
        changes += [(path, "changed") for path in before.keys() & after.keys() if before[path] != after[path]]
        changed_raw_len = sum(raw_len for path, (_, raw_len) in after.items() if before.get(path) != after[path])
        parts.append(ComponentDiff(section, name, len(before.keys() | after.keys()), changed_raw_len, sorted(changes)))
    return parts


def leaves(mapping: Mapping[object, object]) -> dict[str, tuple[str, int]]:
    """Return every value of a component by its path: a text that is equal for equal values, and a tensor's bytes."""
    found: dict[str, tuple[str, int]] = {}
    # A stack, not recursion: how deep it goes was the writer's choice.
    stack: list[tuple[str, object]] = [("", mapping)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, Mapping) and value:
            stack.extend((f"{path}/{_key(key)}" if path else _key(key), item) for key, item in value.items())
        elif isinstance(value, list | tuple) and value:
            stack.extend((f"{path}/{position}", item) for position, item in enumerate(value))
        else:
            digest = getattr(value, "digest", None)
            is_tensor = isinstance(digest, str)
            found[path] = (str(digest), int(getattr(value, "nbytes", 0))) if is_tensor else (_text(value), 0)
    return found


def _text(value: object) -> str:
    # Floats by their bits: NaN differs from itself, and 0.0 equals -0.0.
    if isinstance(value, float):
        return "float " + struct.pack(">d", value).hex()
    if isinstance(value, complex):
        return f"complex {struct.pack('>dd', value.real, value.imag).hex()}"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__} {sorted(_text(item) for item in value)}"
    if type(value).__name__ == "Named":
        inner = leaves({"value": getattr(value, "value", None), "extra": getattr(value, "extra", None)})
        return f"{getattr(value, 'name', '')} {sorted(inner.items())}"
    if type(value).__name__ == "Alias":
        return f"alias {getattr(value, 'path', ())!r}"
    return f"{type(value).__name__} {value!r}"


def _key(key: object) -> str:
    return _out.one_line(key) if isinstance(key, str) else repr(key)


def _line(part: ComponentDiff, path: str, change: str) -> str:
    mark, color = _MARKS[change]
    return _out.paint(f"{mark} {part.section}/{part.name}/{path}", color)


def _stat_row(part: ComponentDiff) -> tuple[str, str, str]:
    changed = f"{len(part.changes):,} of {part.num_values:,} values"
    return f"{part.section}/{part.name}", changed, _out.size(part.changed_raw_len)
