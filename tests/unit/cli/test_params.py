"""Arguments are read in two ways, with and without typer; both give the same."""

import itertools
from typing import Any

import pytest

from gradient.cli import COMMANDS, _params, _typer, load
from gradient.cli._session import Session
from gradient.errors import InvalidInputError

REFUSED = object()


def by_typer(name: str, words: list[str]) -> Any:
    """What typer makes of `words`: the values that the function gets, or REFUSED."""
    found: dict[str, Any] = {}

    def record(_session: Session, **values: Any) -> None:
        found.update(values)

    function = load(COMMANDS[name])
    record.__annotations__ = function.__annotations__
    record.__defaults__ = function.__defaults__  # type: ignore[attr-defined]
    try:
        _typer.run(name, COMMANDS[name], record, words, Session())
    except InvalidInputError:
        return REFUSED
    return found


def lines_for(name: str) -> list[list[str]]:
    """Argument lines of every shape: each option with good, bad and missing values, among any number of arguments."""
    options: list[list[str]] = [[], ["--nonsense"], ["--"], ["-"], ["--json", "--json"]]
    for parameter in _params.parameters(load(COMMANDS[name])):
        if isinstance(parameter.declared, _params.Option):
            for option in parameter.declared.names:
                options += [[option]]
                if parameter.kind is not bool:
                    values = ["7", "007", "-1", "x", "", "1.5", "1_0", "99999999999999999999999", "-x"]
                    options += [[option, value] for value in values] + [[f"{option}=7"], [f"{option}7"]]
    arguments = [[], ["main@10"], ["a", "b"], ["a", ""], ["a", "b", "c"]]
    lines = []
    for option, words in itertools.product(options, arguments):
        lines += [option + words, words + option, words[:1] + option + words[1:]]
    return lines


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "completion"])
def test_both_ways_of_reading_agree(name: str) -> None:
    num_plain = 0
    for words in lines_for(name):
        plain = _params.read_plain(load(COMMANDS[name]), words)
        if plain is not None:
            num_plain += 1
            assert by_typer(name, words) == plain, words
    assert num_plain > 0


@pytest.mark.parametrize(
    ("name", "words", "values"),
    [
        ("log", ["-n", "3", "main", "--graph"], {"ref": "main", "limit": 3, "graph": True, "oneline": False}),
        ("log", ["--", "-odd"], {"ref": "-odd", "limit": None}),
        ("fork", ["a", "b", "--seed", "0"], {"from_ref": "a", "new_branch": "b", "seed": 0}),
        ("checkout", ["-b", "new"], {"ref": None, "new": "new"}),
    ],
)
def test_plain_lines_are_read_without_typer(name: str, words: list[str], values: dict[str, Any]) -> None:
    found = _params.read_plain(load(COMMANDS[name]), words)
    assert found is not None
    assert {key: found[key] for key in values} == values


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("log", ["--help"]),
        ("log", ["-n"]),
        ("log", ["-n", "-1"]),
        ("log", ["-n", "x"]),
        ("log", ["-n3"]),
        ("log", ["a", "b"]),
        ("fork", ["a"]),
        ("fork", ["a", "b", "--seed", "99999999999999999999"]),
    ],
)
def test_every_mistake_is_left_to_typer(name: str, words: list[str]) -> None:
    assert _params.read_plain(load(COMMANDS[name]), words) is None
