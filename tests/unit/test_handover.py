"""`gradient.handover`: the variables between the command line and a training script."""

from __future__ import annotations

import pytest

from gradient.errors import InvalidInputError
from gradient.handover import VARIABLES, Handover, consume_handover, read_handover

FULL = Handover(
    workspace="/ws",
    repo="gpt",
    resume_ref="main@100",
    branch="exp",
    autocommit=5,
    reset_optimizer=True,
    reset_scheduler=True,
    reset_seed=0,
)


def test_what_is_handed_over_arrives() -> None:
    assert read_handover(FULL.to_environ()) == FULL
    assert sorted(FULL.to_environ()) == sorted(VARIABLES)


def test_nothing_handed_over_sets_nothing() -> None:
    assert Handover().to_environ() == {}
    assert read_handover({}) == Handover()
    assert read_handover(dict.fromkeys(VARIABLES, "")) == Handover()


def test_a_seed_of_zero_is_a_seed() -> None:
    assert Handover(reset_seed=0).resets
    assert not Handover().resets


def test_consuming_removes_our_variables_and_no_others() -> None:
    environ = {**FULL.to_environ(), "GRADIENT_PAGER": "less", "HOME": "/root"}
    consume_handover(environ)
    assert environ == {"GRADIENT_PAGER": "less", "HOME": "/root"}


@pytest.mark.parametrize("text", ["1", "true", "YES", "on"])
def test_flags_can_be_set_in_words(text: str) -> None:
    assert read_handover({"GRADIENT_RESET_OPTIMIZER": text}).reset_optimizer


@pytest.mark.parametrize("text", ["0", "false", "No", "off"])
def test_flags_can_be_unset_in_words(text: str) -> None:
    assert not read_handover({"GRADIENT_RESET_SCHEDULER": text}).reset_scheduler


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("GRADIENT_AUTOCOMMIT", "0"),
        ("GRADIENT_AUTOCOMMIT", "ten"),
        ("GRADIENT_RESET_SEED", "-1"),
        ("GRADIENT_RESET_SEED", str(1 << 64)),
        ("GRADIENT_RESET_OPTIMIZER", "maybe"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(name: str, text: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        read_handover({name: text})
