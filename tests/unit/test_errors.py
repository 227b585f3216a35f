"""`gradient.errors`: classes by what a caller would do next."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle
import traceback

import pytest

from gradient import errors

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.GradientError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_text_of_an_error_is_its_message_alone(kind: type[errors.GradientError]) -> None:
    error = kind("object 3fa9c1d2 is damaged", code="some-code", hint="gradient fsck --full")
    assert str(error) == "object 3fa9c1d2 is damaged"
    assert (error.code, error.hint) == ("some-code", "gradient fsck --full")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_has_a_code_of_its_own_and_no_fact_is_required(kind: type[errors.GradientError]) -> None:
    assert kind("x").code == kind.default_code
    assert [other for other in CLASSES if other.default_code == kind.default_code] == [kind]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_errors_survive_a_process_boundary_with_their_facts(kind: type[errors.GradientError]) -> None:
    error = kind("x", code="c", hint="h")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (kind, "x", vars(error))


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.NotFoundError, LookupError),
        (errors.InvalidInputError, ValueError),
        (errors.StorageError, OSError),
    ],
)
def test_errors_are_also_the_builtin_that_fits(kind: type[errors.GradientError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin):
        raise kind("x")


def test_a_storage_error_keeps_the_systems_number_and_still_says_only_its_message() -> None:
    error = errors.StorageError("no room", errno=errno.ENOSPC, path="/x")
    assert (error.errno, error.path, str(error)) == (errno.ENOSPC, "/x", "no room")


def test_a_mismatch_holds_plain_lists() -> None:
    error = errors.StateMismatchError("x", missing=("a",), unexpected=(), changed=("b", "c"))
    assert (error.missing, error.unexpected, error.changed) == (["a"], [], ["b", "c"])


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_traceback_ends_with_the_hint(kind: type[errors.GradientError]) -> None:
    lines = "".join(traceback.format_exception(kind("it broke", hint="gradient log"))).splitlines()
    assert lines[-2].endswith("it broke")
    assert lines[-1] == "hint: gradient log"


def test_a_hint_that_comes_later_takes_the_place_of_the_first() -> None:
    error = errors.CorruptionError("x", hint="first")
    error.add_note("said by the caller")
    error.hint = "second"
    assert traceback.format_exception_only(error)[1:] == ["said by the caller\n", "hint: second\n"]
    error.hint = None
    assert traceback.format_exception_only(error)[1:] == ["said by the caller\n"]


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_a_copy_has_the_hint_once_and_another_hint_there_is_its_own(again: object) -> None:
    error = errors.NotFoundError("x", hint="first")
    other = again(error)  # type: ignore[operator]
    assert (other.hint, other.__notes__) == ("first", ["hint: first"])
    other.hint = "second"
    assert (error.__notes__, other.__notes__) == (["hint: first"], ["hint: second"])


def test_an_error_without_a_hint_has_no_note() -> None:
    assert traceback.format_exception_only(errors.NotFoundError("x")) == ["gradient.errors.NotFoundError: x\n"]
