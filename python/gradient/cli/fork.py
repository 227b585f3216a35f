"""`gradient fork FROM NEW -- CMD`."""

from typing import Annotated

from gradient import _core
from gradient.cli._child import hand_over
from gradient.cli._params import Argument, Option, flag
from gradient.cli._session import Session, say_notices
from gradient.errors import AlreadyExistsError
from gradient.handover import SEED_MAX, Handover
from gradient.refs import short_id


def fork(
    session: Session,
    from_ref: Annotated[str, Argument("FROM", "The commit to start from")],
    new_branch: Annotated[str, Argument("NEW", "The new branch")],
    reset_optimizer: Annotated[bool, flag("--reset-optimizer", "Start with an empty optimizer")] = False,
    reset_scheduler: Annotated[bool, flag("--reset-scheduler", "Start the scheduler anew")] = False,
    seed: Annotated[int | None, Option(("--seed",), "Seed Python, NumPy and torch", "N", min=0, max=SEED_MAX)] = None,
) -> int:
    """Fork a run.

    The script restores FROM and commits on NEW, which comes into being with its first commit:

      gradient fork main@100 hot --reset-optimizer -- python train.py --lr 1e-3

    The exit code is the script's. Without a command the variables that would be set are printed.
    """
    location = session.locate()
    with session.open() as repo:
        resolved = repo.resolve(from_ref)
        _core.check_name(new_branch)
        kind = "branch" if new_branch in repo.branches() else "tag" if new_branch in repo.tags() else None
    if kind is not None:
        raise AlreadyExistsError(
            f"{kind} {new_branch} exists already",
            code=f"{kind}-exists",
            hint=f"gradient resume {new_branch} -- ..." if kind == "branch" else "choose another name",
        )
    say_notices(resolved.notices)
    handover = Handover(
        workspace=location.workspace_path,
        repo=location.repo_name,
        # The id: on the new branch, `latest` and a step would mean something else, and other writers may move refs.
        resume_ref=resolved.id,
        branch=new_branch,
        reset_optimizer=reset_optimizer,
        reset_scheduler=reset_scheduler,
        reset_seed=seed,
    )
    return hand_over(session.child, handover, f"forking {new_branch} from {resolved.name} ({short_id(resolved.id)})")
