"""The `GRADIENT_*` variables: how the command line tells a training script what to do.

`gradient resume REF -- CMD` and `gradient fork REF BRANCH -- CMD` set them; the first attach that they are meant for
takes them out of `os.environ`, so that the script's own children do not inherit them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from gradient.errors import InvalidInputError

WORKSPACE = "GRADIENT_WORKSPACE"
REPO = "GRADIENT_REPO"
RESUME_REF = "GRADIENT_RESUME_REF"
BRANCH = "GRADIENT_BRANCH"
AUTOCOMMIT = "GRADIENT_AUTOCOMMIT"
RESET_OPTIMIZER = "GRADIENT_RESET_OPTIMIZER"
RESET_SCHEDULER = "GRADIENT_RESET_SCHEDULER"
RESET_SEED = "GRADIENT_RESET_SEED"

VARIABLES = (WORKSPACE, REPO, RESUME_REF, BRANCH, AUTOCOMMIT, RESET_OPTIMIZER, RESET_SCHEDULER, RESET_SEED)

SEED_MAX = (1 << 64) - 1

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


@dataclass(frozen=True)
class Handover:
    """What the environment asks of the next attach; everything unset is None or False.

    Args:
        workspace: The workspace's folder.
        repo: The repository's name in it.
        resume_ref: The ref to restore. `latest` of a branch without commits is an error here.
        branch: The branch to commit on; one that does not exist comes into being with the first commit.
        autocommit: Interval of `maybe_commit`; it wins over the script's own.
        reset_optimizer: After the restore, empty the optimizers and give them the script's hyper-parameters.
        reset_scheduler: After the restore, set the schedulers back to what they were at attach.
        reset_seed: After the restore, seed Python, NumPy and torch.
    """

    workspace: str | None = None
    repo: str | None = None
    resume_ref: str | None = None
    branch: str | None = None
    autocommit: int | None = None
    reset_optimizer: bool = False
    reset_scheduler: bool = False
    reset_seed: int | None = None

    @property
    def resets(self) -> bool:
        """Whether anything is to be reset."""
        return self.reset_optimizer or self.reset_scheduler or self.reset_seed is not None

    def to_environ(self) -> dict[str, str]:
        """The variables that say this, for the environment of a training script; only those that say something."""
        values = {
            WORKSPACE: self.workspace,
            REPO: self.repo,
            RESUME_REF: self.resume_ref,
            BRANCH: self.branch,
            AUTOCOMMIT: None if self.autocommit is None else str(self.autocommit),
            RESET_OPTIMIZER: "1" if self.reset_optimizer else None,
            RESET_SCHEDULER: "1" if self.reset_scheduler else None,
            RESET_SEED: None if self.reset_seed is None else str(self.reset_seed),
        }
        return {name: value for name, value in values.items() if value is not None}


def read_handover(environ: Mapping[str, str] | None = None) -> Handover:
    """Read the variables and leave them where they are. Empty ones count as unset.

    Raises:
        InvalidInputError: One of them can not be understood; it is named.
    """
    values = os.environ if environ is None else environ
    return Handover(
        workspace=values.get(WORKSPACE) or None,
        repo=values.get(REPO) or None,
        resume_ref=values.get(RESUME_REF) or None,
        branch=values.get(BRANCH) or None,
        autocommit=_number(values, AUTOCOMMIT, low=1, high=(1 << 63) - 1),
        reset_optimizer=_flag(values, RESET_OPTIMIZER),
        reset_scheduler=_flag(values, RESET_SCHEDULER),
        reset_seed=_number(values, RESET_SEED, low=0, high=SEED_MAX),
    )


def consume_handover(environ: MutableMapping[str, str] | None = None) -> None:
    """Remove the variables, so that no later attach and no child process acts on them."""
    values = os.environ if environ is None else environ
    for name in VARIABLES:
        values.pop(name, None)


def _number(values: Mapping[str, str], name: str, *, low: int, high: int) -> int | None:
    text = (values.get(name) or "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise InvalidInputError(
            f"{name}={text!r} is no whole number from {low}", code="bad-variable", hint=f"unset {name}"
        )
    return int(text)


def _flag(values: Mapping[str, str], name: str) -> bool:
    text = (values.get(name) or "").strip().lower()
    if not text or text in _FALSE:
        return False
    if text in _TRUE:
        return True
    raise InvalidInputError(f"{name}={text!r} is neither 1 nor 0", code="bad-variable", hint=f"unset {name}")
