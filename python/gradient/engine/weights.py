"""`gradient.load`: the weights of a commit into a module, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gradient._types import PathLike
from gradient.engine.attaching import named
from gradient.engine.handle import RestoredStep
from gradient.errors import InvalidInputError
from gradient.handover import read_handover
from gradient.progress import progress
from gradient.state import TrainState, restore
from gradient.workspace import open_repo

if TYPE_CHECKING:
    from torch import nn


def load(
    ref: str,
    model: nn.Module | Mapping[str, nn.Module],
    *,
    workspace: PathLike | None = None,
    repo: str | None = None,
    strict: bool = True,
) -> RestoredStep:
    """Read the weights and buffers of a commit into a model. Nothing is written, and no generator is touched.

    Args:
        ref: `branch@step`, a branch, a tag, `latest`, `HEAD` or an id prefix.
        model: The module, or modules by name as they were attached.
        workspace: The workspace's folder; None looks from the current folder upwards. `GRADIENT_WORKSPACE` wins.
        repo: The repository's name; None is the one that is meant where there is only one. `GRADIENT_REPO` wins.
        strict: False skips what only the commit or only the model has.

    Returns:
        The commit's step; `.skipped` names what was left out.

    Raises:
        NotFoundError: There is no such repository or ref; the nearest are suggested.
        StateMismatchError: Model and commit differ; all differences are listed and nothing was touched.
        CorruptionError: The commit is damaged; with `partial=True` some weights were already written.
    """
    models = named(model)
    if not models:
        raise InvalidInputError("there is no model to load into", code="no-model")
    handover = read_handover()
    state = TrainState(grads="never")
    state.add_models(models)
    with open_repo(workspace=handover.workspace or workspace, repo=handover.repo or repo) as opened:
        core = opened.core
        resolved = opened.resolve(ref)
        plan = state.plan(
            lambda section, name: core.component(resolved.id, section, name),
            core.components(resolved.id),
            only=["model"],
            strict=strict,
        )
        with progress(f"loading {resolved.name}") as show:
            restore(plan, lambda jobs: core.read_into(jobs, progress=show))
        return RestoredStep(resolved.step, id=resolved.id, name=resolved.name, skipped=tuple(plan.skipped))
