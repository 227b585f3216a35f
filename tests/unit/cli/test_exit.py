"""Exit codes: each error has one, and the docs name it."""

import re
from pathlib import Path

import pytest

from gradient import errors
from gradient.cli import _exit

DOCS = Path(__file__).resolve().parents[3] / "docs" / "command-line.md"


def every_error() -> list[type[errors.GradientError]]:
    found, queue = [], [errors.GradientError]
    while queue:
        kind = queue.pop()
        found.append(kind)
        queue.extend(kind.__subclasses__())
    return [kind for kind in found if kind.__module__ == "gradient.errors"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("GradientError", 1),
        ("InvalidInputError", 2),
        ("NotFoundError", 3),
        ("AlreadyExistsError", 4),
        ("ConflictError", 4),
        ("StateMismatchError", 4),
        ("CorruptionError", 5),
        ("FormatError", 5),
        ("StorageError", 6),
        ("InternalError", 70),
    ],
)
def test_a_failure_has_the_code_of_its_class(kind, code):
    assert _exit.exit_code(getattr(errors, kind)("what", code="a-code")) == code


def test_no_class_is_left_out():
    for kind in every_error():
        if kind is not errors.GradientError:
            assert _exit.exit_code(kind("what", code="a-code")) != 1, kind


def test_what_is_no_error_of_ours_has_a_code_too():
    assert _exit.exit_code(KeyboardInterrupt()) == 130
    assert _exit.exit_code(PermissionError(13, "denied")) == 6
    assert _exit.exit_code(ZeroDivisionError()) == 70


def test_the_docs_list_every_code():
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)}
    ours = {value for name, value in vars(_exit).items() if name.isupper() and isinstance(value, int)}
    assert listed == ours
