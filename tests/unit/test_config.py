"""`gradient.config`: settings are checked when they are made."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from gradient import config
from gradient.config import GradientConfig
from gradient.errors import InvalidInputError


@pytest.fixture(autouse=True)
def _nothing_warned_yet() -> Iterator[None]:
    before = set(config._warned)
    config._warned.clear()
    yield
    config._warned.clear()
    config._warned.update(before)


def test_the_defaults_say_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = GradientConfig("./ws", "gpt")
    assert (made.branch, made.compression, made.repo_path) == (None, "auto", "./ws/gpt")


def test_positions_are_those_of_gradient_desc() -> None:
    made = GradientConfig("ws", "gpt", "exp", 10, True, 20, "off", None, False)
    assert (made.branch, made.checkpoint_every, made.reanchor_interval, made.compression, made.strict_resume) == (
        "exp",
        10,
        20,
        "off",
        False,
    )


def test_settings_can_not_be_changed_behind_an_engines_back() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GradientConfig("ws", "gpt").branch = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "bad",
    [
        {"compression": "max"},
        {"model_state": "some"},
        {"reanchor_interval": 0},
        {"reanchor_interval": True},
        {"checkpoint_every": -1},
        {"checkpoint_every": 1.5},
        {"branch": ""},
        {"repo_name": 3},
        {"reanchor_interval": 1 << 32},
        {"staging_bytes_max": -1},
        {"staging_bytes_max": "1GB"},
        {"staging_bytes_max": 1 << 63},
        {"max_restore_bytes": 10**30},
        {"deltas": "all", "compression": "off"},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        GradientConfig(**{"workspace_path": "ws", "repo_name": "gpt", **bad})
    assert next(iter(bad)) in str(caught.value)


@pytest.mark.parametrize(
    "asked", [{"delta_optimizer": False}, {"delta_threshold": 0.001}, {"compression": "aggressive"}], ids=str
)
def test_what_is_asked_for_and_not_given_warns_once_and_where_it_was_asked(asked: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        GradientConfig("ws", "gpt", **asked)
        GradientConfig("ws", "gpt", **asked)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_config_without_a_repository_has_no_repo_path() -> None:
    with pytest.raises(InvalidInputError):
        _ = GradientConfig(branch="exp").repo_path
