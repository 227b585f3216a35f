"""`gradient resume REF -- CMD`."""

from typing import Annotated

from gradient.cli._child import hand_over
from gradient.cli._params import Argument
from gradient.cli._session import Session, say_notices
from gradient.handover import Handover
from gradient.refs import parse_ref, short_id


def resume(
    session: Session,
    ref: Annotated[str, Argument("REF", "The commit to go on from")],
) -> int:
    """Resume a run.

    The script's GradientEngine.attach restores the commit and goes on from its step:

      gradient resume latest -- python train.py

    A ref that names a branch (main, main@100) goes on there; otherwise the script's branch, or HEAD's, is taken.
    The exit code is the script's. Without a command the variables that would be set are printed.
    """
    location = session.locate()
    with session.open() as repo:
        resolved = repo.resolve(ref)
        name = parse_ref(ref).name
        branch = name if name in repo.branches() else None
    say_notices(resolved.notices)
    handover = Handover(
        workspace=location.workspace_path, repo=location.repo_name, resume_ref=ref.strip(), branch=branch
    )
    return hand_over(session.child, handover, f"resuming {resolved.name} ({short_id(resolved.id)})")
