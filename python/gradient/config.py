"""Settings of a run, checked when they are made."""

from __future__ import annotations

import os
import warnings
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

from gradient._types import Compression, Deltas, ModelState, PathLike
from gradient.errors import InvalidInputError

_COMPRESSION = ("off", "auto", "aggressive")
_DELTAS = ("off", "auto", "all")
_MODEL_STATE = ("all", "trainable")
_INTERVAL_MAX = (1 << 32) - 1
_BYTES_MAX = (1 << 63) - 1

_warned: set[str] = set()


def warn_once(key: str, message: str, *, stacklevel: int = 3) -> None:
    """Warn about something that a caller asked for and does not get, once in a process for each `key`."""
    if key not in _warned:
        _warned.add(key)
        warnings.warn(message, UserWarning, stacklevel=stacklevel + 1)


@dataclass(frozen=True)
class GradientConfig:
    """Where a run is kept and how it is stored.

    Args:
        workspace_path: The workspace's folder; None leaves it to the arguments of `attach` and to discovery.
        repo_name: The repository's folder in the workspace; None likewise.
        branch: The branch to commit on; None is the branch that HEAD stands on.
        checkpoint_every: Interval of `maybe_commit`, as `engine.autocommit(every=...)` sets it.
        delta_optimizer: Of gradient-desc; has no meaning here and warns when it is False.
        reanchor_interval: At most so many commits with deltas after one without: with 8, every ninth commit stands by
            itself. Counted anew after each restore; None for no limit. What a commit costs to read is bounded without
            it (at most 64 chunks for one, and 1.25 times its bytes), this buys faster restores with bytes.
        compression: `"off"` stores tensors as they are, `"auto"` codes what pays. `"aggressive"` stores exactly too,
            as `"auto"` does, and says so once.
        delta_threshold: Of gradient-desc; has no meaning here, since nothing is rounded, and warns when it is set.
        strict_resume: False restores what fits and says what it left out, as `resume(..., strict=False)`.
        model_state: `"trainable"` stores what is frozen once and checks it by hash at resume.
        deltas: `"auto"` stores a tensor's chunk as the difference to an earlier commit's where that saves a tenth at
            least, `"all"` wherever it saves anything, `"off"` never. With `compression="off"` there are none, and
            `"all"` is an error.
        staging_bytes_max: Bytes of earlier commits kept in memory to take differences to; None is a quarter of what is
            available at an engine's first commit, at most twice the state. Where it is too little, commits go without
            deltas.
        max_restore_bytes: A restore makes at most so many bytes of tensors that the script does not have yet
            (optimizer state, registered values); None is the memory that is available.

    Raises:
        InvalidInputError: A value is out of its range.
    """

    workspace_path: PathLike | None = None
    repo_name: str | None = None
    branch: str | None = None
    checkpoint_every: int | None = None
    delta_optimizer: bool = True
    reanchor_interval: int | None = None
    compression: Compression = "auto"
    delta_threshold: float | None = None
    strict_resume: bool = True
    _: KW_ONLY
    model_state: ModelState = "all"
    deltas: Deltas = "auto"
    staging_bytes_max: int | None = None
    max_restore_bytes: int | None = None

    def __post_init__(self) -> None:
        self._choice("compression", _COMPRESSION)
        self._choice("model_state", _MODEL_STATE)
        self._choice("deltas", _DELTAS)
        check_interval("checkpoint_every", self.checkpoint_every)
        check_interval("reanchor_interval", self.reanchor_interval)
        _check_whole("staging_bytes_max", self.staging_bytes_max, "number of bytes", 0, _BYTES_MAX)
        _check_whole("max_restore_bytes", self.max_restore_bytes, "number of bytes", 0, _BYTES_MAX)
        if self.compression == "off" and self.deltas == "all":
            raise InvalidInputError(
                'deltas="all" needs a compression: compression="off" stores every tensor as it is', code="bad-option"
            )
        for name in ("repo_name", "branch"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise InvalidInputError(f"{name} is a text that is not empty, or None", code="bad-option")
        if not self.delta_optimizer:
            warn_once("delta_optimizer", "delta_optimizer has no meaning any more: what pays is stored as a delta")
        if self.delta_threshold:
            warn_once("delta_threshold", "delta_threshold has no meaning any more: every commit is stored exactly")
        if self.compression == "aggressive":
            warn_once(
                "aggressive",
                'compression="aggressive" stores exactly, as "auto" does, until lossy commits exist',
            )

    def _choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            listed = ", ".join(repr(choice) for choice in choices)
            raise InvalidInputError(f"{name} is one of {listed}, not {value!r}", code="bad-option")

    @property
    def repo_path(self) -> str:
        """The repository's folder.

        Raises:
            InvalidInputError: The config names no workspace or no repository.
        """
        if self.workspace_path is None or self.repo_name is None:
            raise InvalidInputError("this config names no workspace and repository", code="bad-option")
        return os.path.join(os.fspath(self.workspace_path), self.repo_name)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.workspace_path is not None:
            values["workspace_path"] = os.fspath(self.workspace_path)
        return values


def check_interval(name: str, value: object) -> None:
    """Accept None or a whole number from 1.

    Raises:
        InvalidInputError: It is anything else.
    """
    _check_whole(name, value, "whole number", 1, _INTERVAL_MAX)


def _check_whole(name: str, value: object, kind: str, least: int, most: int) -> None:
    """Accept None or a number from `least` to `most`."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidInputError(
            f"{name} is a {kind} from {least} to {most:,}, or None, not {value!r}", code="bad-option"
        )
