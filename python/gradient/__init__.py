"""Version control for training: a run commits its whole state, and any commit comes back bit for bit.

    engine = GradientEngine.attach(model, optimizer, workspace="./my_workspace", repo="my_model")

Names load on first use: neither torch nor NumPy is imported before an engine is touched.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

try:
    from gradient import _core
except ImportError as error:
    from gradient import _installation

    _installation.explain(error)
else:
    if _core.DEBUG_BUILD:
        warnings.warn("gradient runs on a debug build of its compiled module: many times slower", stacklevel=2)

if TYPE_CHECKING:
    from gradient import errors, optim, state
    from gradient._core import __version__
    from gradient.config import GradientConfig
    from gradient.engine import CommitHandle, GradientEngine, load
    from gradient.errors import (
        AlreadyExistsError,
        ConflictError,
        CorruptionError,
        FormatError,
        GradientError,
        InternalError,
        InvalidInputError,
        NotFoundError,
        StateMismatchError,
        StorageError,
    )
    from gradient.optim import auto_wrap, wrap
    from gradient.repo import Repo
    from gradient.state import resumable
    from gradient.stored import StoredTensor
    from gradient.workspace import (
        RepoConfig,
        WorkspaceConfig,
        find_repo,
        find_workspace,
        init_repo,
        init_workspace,
        resolve_context,
    )

__all__ = [
    "AlreadyExistsError",
    "CommitHandle",
    "ConflictError",
    "CorruptionError",
    "FormatError",
    "GradientConfig",
    "GradientEngine",
    "GradientError",
    "InternalError",
    "InvalidInputError",
    "NotFoundError",
    "Repo",
    "RepoConfig",
    "StateMismatchError",
    "StorageError",
    "StoredTensor",
    "WorkspaceConfig",
    "__version__",
    "auto_wrap",
    "errors",
    "find_repo",
    "find_workspace",
    "init_repo",
    "init_workspace",
    "load",
    "optim",
    "resolve_context",
    "resumable",
    "state",
    "wrap",
]

_HOME = {
    "GradientConfig": "config",
    "GradientEngine": "engine",
    "CommitHandle": "engine",
    "load": "engine",
    "Repo": "repo",
    "auto_wrap": "optim",
    "wrap": "optim",
    "resumable": "state",
    "StoredTensor": "stored",
    "__version__": "_core",
    **dict.fromkeys(
        [
            "AlreadyExistsError",
            "ConflictError",
            "CorruptionError",
            "FormatError",
            "GradientError",
            "InternalError",
            "InvalidInputError",
            "NotFoundError",
            "StateMismatchError",
            "StorageError",
        ],
        "errors",
    ),
    **dict.fromkeys(
        [
            "RepoConfig",
            "WorkspaceConfig",
            "find_repo",
            "find_workspace",
            "init_repo",
            "init_workspace",
            "resolve_context",
        ],
        "workspace",
    ),
}
"""Public names and the modules that they live in; `errors`, `optim` and `state` are modules themselves."""


def __getattr__(name: str) -> Any:
    if name in ("errors", "optim", "state"):
        return importlib.import_module(f"gradient.{name}")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'gradient' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"gradient.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
