"""`gradient repo init|list`."""

from typing import Annotated

from gradient import workspace
from gradient.cli import _out
from gradient.cli._params import Argument, Option, flag
from gradient.cli._session import Session, naming_repository
from gradient.cli.workspace import find_root, repos
from gradient.errors import GradientError


def init(
    _session: Session,
    name: Annotated[str, Argument("NAME", "Its folder in the workspace")],
    description: Annotated[str | None, Option(("-d", "--description"), "What it is for", "TEXT")] = None,
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """Make a repository.

    A repository holds the history of one model. What is one already stays as it is.
    """
    root = find_root(".")
    path = workspace.get_repo_path_in_workspace(root, name)
    with naming_repository(path):
        config = workspace.init_repo(path, name=name, description=description, workspace_path=root)
    if as_json:
        fields = {
            "name": name,
            "path": config.repo_path,
            "description": config.description or "",
            "created": not config.existed,
        }
        _out.document("gradient.repo-init/1", fields)
        return
    _out.data(f"{'exists already' if config.existed else 'made'}: repository {name}, {config.repo_path}")
    if not config.existed:
        _out.hint("in the training script: engine = GradientEngine.attach(model, optimizer)")


def list_repos(
    _session: Session,
    path: Annotated[str, Option(("--path",), "Look here and above [default: here]", "PATH")] = ".",
    as_json: Annotated[bool, flag("--json", "Print one JSON document")] = False,
) -> None:
    """List repositories.

    Each line gives the name and the description.
    """
    root = find_root(path)
    rows = []
    for name in repos(root):
        try:
            config = workspace.load_repo_config(workspace.get_repo_path_in_workspace(root, name))
            rows.append((name, _out.one_line(config.description or "") if config is not None else ""))
        except GradientError as error:
            _out.note(f"warning: {name} can not be read: {error}")
            rows.append((name, ""))
    if as_json:
        fields = [
            {"name": name, "path": workspace.get_repo_path_in_workspace(root, name), "description": description}
            for name, description in rows
        ]
        _out.document("gradient.repo-list/1", {"path": root, "repos": fields})
    elif rows:
        _out.data(_out.table(rows))
    else:
        _out.note("no repositories yet")
        _out.hint("gradient repo init NAME")
