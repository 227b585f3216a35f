"""Data loaders: their position comes with a later release; until then none is taken, so that none is lost silently."""

from __future__ import annotations

from typing import NoReturn

from gradient.errors import InvalidInputError


def refuse(name: str, loader: object) -> NoReturn:
    """Refuse a data loader.

    Raises:
        InvalidInputError: Always; the hint says what works today.
    """
    raise InvalidInputError(
        f"data/{name}: the position of a {type(loader).__name__} can not be committed yet; dataloader= and "
        "gradient.resumable come with a later release",
        code="dataloader-unsupported",
        hint="attach without dataloader=; register('loader', loader) keeps one that has a state_dict. Else draw the "
        "data from the step number, or from a generator given to register_generator",
    )
