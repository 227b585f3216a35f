"""When an engine must not be used: after a fork, after its end, in a process group of several ranks."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from typing import Any

import torch

from gradient._types import Metrics
from gradient.errors import InvalidInputError
from gradient.refs import STEP_MAX


def check_process(owner_pid: int) -> None:
    """Refuse to work in a child that was forked after attach.

    Raises:
        InvalidInputError: This is such a child (`forked`).
    """
    if os.getpid() != owner_pid:
        raise InvalidInputError(
            "this engine was attached before the process was forked and can not be used in the child",
            code="forked",
            hint="commit from the process that attached",
        )


def check_single_process() -> None:
    """Refuse a process group of more than one rank.

    Raises:
        InvalidInputError: There is one (`process-group`); the hint says what works today.
    """
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return
    num_ranks = distributed.get_world_size()
    if num_ranks > 1:
        raise InvalidInputError(
            f"the process group has {num_ranks} ranks, and a commit holds the state of one process only",
            code="process-group",
            hint="what works today: training in one process, or a process group of one rank; "
            "a commit of a DDP or compiled model resumes into the plain one and back",
        )


def checked_step(step: object) -> int:
    """Accept what counts as a step: a whole number from 0.

    Raises:
        InvalidInputError: It is anything else (`bad-step`).
    """
    if isinstance(step, bool):
        raise InvalidInputError(f"a step is a whole number from 0, not {step!r}", code="bad-step")
    try:
        number = operator.index(step)  # type: ignore[arg-type]  # That is what is asked here.
    except TypeError:
        raise InvalidInputError(f"a step is a whole number from 0, not {step!r}", code="bad-step") from None
    if not 0 <= number <= STEP_MAX:
        raise InvalidInputError(f"a step is a whole number from 0 to {STEP_MAX}, not {number}", code="bad-step")
    return number


def checked_metrics(metrics: Metrics | None) -> dict[str, int | float]:
    """Make plain numbers of metrics; zero-dimensional tensors and NumPy scalars count as numbers.

    Raises:
        InvalidInputError: A name is no text or a value no number (`bad-metric`); it is named.
    """
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise InvalidInputError("metrics are a mapping of names to numbers", code="bad-metric")
    return {_metric_name(name): _metric(name, value) for name, value in metrics.items()}


def _metric_name(name: object) -> str:
    if not isinstance(name, str):
        raise InvalidInputError(f"the name of a metric is a text, not {name!r}", code="bad-metric")
    check_text(name, "the name of a metric", code="bad-metric")
    return name


def check_text(text: str, what: str, *, code: str) -> None:
    """Refuse a text that UTF-8 can not write.

    Raises:
        InvalidInputError: It holds half of a surrogate pair; `what` it is is said.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"{what} is no text: {text!r} has a lone surrogate",
            code=code,
            hint="text.encode(errors='replace').decode() is a text",
        ) from None


def _metric(name: str, value: Any) -> int | float:
    try:
        item = value.item() if hasattr(value, "item") else value
        return int(item) if isinstance(item, int) else float(item)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InvalidInputError(f"metric {name!r} is no number: {value!r}", code="bad-metric") from None
