"""`gradient workspace init|status`."""

from typing import Annotated, Any

from gradient import workspace
from gradient.cli import _out
from gradient.cli._params import Argument, Option, flag
from gradient.cli._session import Session, head_fields
from gradient.errors import GradientError, NotFoundError
from gradient.repo import Repo


def init(
    _session: Session,
    path: Annotated[str, Argument("PATH", "The folder [default: here]")] = ".",
    name: Annotated[str | None, Option(("--name",), "What people call it [default: the folder's name]", "NAME")] = None,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """Make a workspace.

    A workspace is a folder of repositories, one for each model. What is one already stays as it is.
    """
    config = workspace.init_workspace(path, name)
    if as_json:
        fields = {"name": config.name, "path": config.root_path, "created": not config.existed}
        _out.document("gradient.workspace-init/1", fields)
        return
    _out.data(f"{'exists already' if config.existed else 'made'}: workspace {config.name}, {config.root_path}")
    if not config.existed:
        _out.hint(f"cd {_out.quoted(path)} && gradient repo init NAME" if path != "." else "gradient repo init NAME")


def status(
    _session: Session,
    path: Annotated[str, Option(("--path",), "Look here and above [default: here]", "PATH")] = ".",
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """Show a workspace.

    Each repository comes with its branches and where they stand.
    """
    root = find_root(path)
    config = workspace.load_workspace_config(root)
    title = config.name if config is not None else root
    rows = [(name, _repo_fields(workspace.get_repo_path_in_workspace(root, name))) for name in repos(root)]
    if as_json:
        fields = [{"name": name, **row} for name, row in rows]
        _out.document("gradient.workspace-status/1", {"name": title, "path": root, "repos": fields})
        return
    lines = [f"workspace {_out.paint(title, _out.BOLD)}, {root}"]
    for name, row in rows:
        lines += ["", *_repo_lines(name, row)]
    _out.data("\n".join(lines))
    if not rows:
        _out.note("no repositories yet")
        _out.hint("gradient repo init NAME")


def find_root(path: str) -> str:
    """Return the workspace at `path` or above.

    Raises:
        NotFoundError: There is none.
    """
    root = workspace.find_workspace(path)
    if root is None:
        raise NotFoundError(
            f"no workspace at {path if path != '.' else 'this folder'} or above",
            code="no-workspace",
            hint="gradient workspace init",
        )
    return root


def repos(root: str) -> list[str]:
    """Return the names of a workspace's repositories."""
    return workspace.list_workspace_repos(root)


def _repo_fields(path: str) -> dict[str, object]:
    # One damaged repository must not hide the others.
    try:
        with Repo.open(path) as repo:
            infos = repo.log(all_refs=True)
            steps = {info.id: info.step for info in infos}
            branches = sorted(repo.branches().items())
            return {
                "path": path,
                "description": repo.description,
                "num_commits": len(infos),
                "num_anchors": sum(info.kind == "anchor" for info in infos),
                "head": head_fields(repo),
                "branches": [{"name": name, "commit": tip, "step": steps[tip]} for name, tip in branches],
                "error": None,
            }
    except GradientError as error:
        return {"path": path, "error": {"code": error.code, "message": str(error), "hint": error.hint}}


def _repo_lines(name: str, row: dict[str, Any]) -> list[str]:
    title = _out.paint(name, _out.BOLD)
    if row["error"]:
        return [f"{title}  {_out.paint('can not be read:', _out.RED)} {_out.one_line(row['error']['message'])}"]
    lines = [f"{title}  {_out.one_line(row['description'])}".rstrip()]
    total, anchors = row["num_commits"], row["num_anchors"]
    if not total:
        return [*lines, "  no commits yet"]
    deltas = _out.count(total - anchors, "delta")
    lines.append(f"  {_out.count(total, 'commit')} ({_out.count(anchors, 'anchor')}, {deltas})")
    for branch in row["branches"]:
        mark = "*" if branch["name"] == row["head"]["branch"] else " "
        lines.append(f"  {mark} {branch['name']}@{branch['step']}")
    return lines
