"""Refs as people write them: `branch@step`, a branch, a tag, `latest`, `HEAD`, an id prefix, and ranges `A..B`.

Only the grammar lives here; what a ref *means* is decided by `_core.Repository.resolve`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gradient.errors import InvalidInputError

LATEST = "latest"
HEAD = "HEAD"

STEP_MAX = (1 << 63) - 1
_ID_PREFIX = re.compile(r"[0-9a-f]{4,64}")
_STEP = re.compile(r"[0-9]{1,19}")


class Ref(NamedTuple):
    """A ref in its parts: `main@100` is `("main", 100)`; anything else has no step."""

    name: str
    step: int | None = None

    def __str__(self) -> str:
        return self.name if self.step is None else f"{self.name}@{self.step}"


def parse_ref(ref: str) -> Ref:
    """Take a ref apart without looking anything up.

    Raises:
        InvalidInputError: It is empty, or what follows the last `@` is no step.
    """
    if not isinstance(ref, str) or not ref.strip():  # type: ignore[redundant-expr]
        raise InvalidInputError("a ref is a text that is not empty", code="bad-ref", hint="for example main@100")
    ref = ref.strip()
    if "@" not in ref:
        return Ref(ref)
    name, _, step = ref.rpartition("@")
    if not name or not _STEP.fullmatch(step) or int(step) > STEP_MAX:
        message = f"{ref!r} is no ref: after the @ comes a step, and a step is a whole number from 0 to {STEP_MAX}"
        raise InvalidInputError(message, code="bad-ref", hint="for example main@100")
    return Ref(name, int(step))


def parse_range(text: str) -> tuple[str | None, str]:
    """Split `A..B` into what to leave out and where to start; without `..` nothing is left out.

    An end that is missing is `HEAD`, as git has it: `main..` is `main..HEAD`.

    Raises:
        InvalidInputError: It has three dots or more than one `..`.
    """
    if ".." not in text:
        return None, text
    parts = text.split("..")
    if len(parts) != 2 or "..." in text:
        hint = "write A..B: what leads to B but not to A"
        raise InvalidInputError(f"{text!r} is no range", code="bad-range", hint=hint)
    return parts[0] or HEAD, parts[1] or HEAD


def is_id_prefix(text: str) -> bool:
    """Tell whether a text could be the beginning of an id: four or more hexadecimal digits."""
    return _ID_PREFIX.fullmatch(text) is not None


def short_id(commit_id: str) -> str:
    """Shorten an id for people: its first eight digits."""
    return commit_id[:8]
