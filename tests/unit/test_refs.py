"""`gradient.refs`: the grammar of refs."""

from __future__ import annotations

import pytest

from gradient.errors import InvalidInputError
from gradient.refs import Ref, is_id_prefix, parse_range, parse_ref


@pytest.mark.parametrize(
    ("text", "name", "step"),
    [
        ("main@100", "main", 100),
        ("team/exp-2@0", "team/exp-2", 0),
        ("latest", "latest", None),
        ("3fa9c1d2", "3fa9c1d2", None),
        ("main@9223372036854775807", "main", 9223372036854775807),
    ],
)
def test_a_ref_comes_apart_and_together_again(text: str, name: str, step: int | None) -> None:
    assert parse_ref(text) == (name, step)
    assert str(Ref(name, step)) == text


@pytest.mark.parametrize("text", ["", "  ", "@5", "main@", "main@x", "main@-1", "main@1_0", "main@9223372036854775808"])
def test_what_is_no_ref_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_ref(text)
    assert caught.value.code == "bad-ref"
    assert "@" not in text or "a step is a whole number" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "ends"),
    [("main", (None, "main")), ("a..b", ("a", "b")), ("main..", ("main", "HEAD")), ("..exp", ("HEAD", "exp"))],
)
def test_a_range_leaves_out_what_leads_to_its_first_end(text: str, ends: tuple[str | None, str]) -> None:
    assert parse_range(text) == ends


@pytest.mark.parametrize("text", ["a...b", "a..b..c"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_range(text)


def test_an_id_prefix_has_four_digits_or_more() -> None:
    assert [is_id_prefix(text) for text in ("3fa", "3fa9", "3FA9", "3fa9" * 16, "3fa9" * 17)] == [
        False,
        True,
        False,
        True,
        False,
    ]
