"""The form of a command: its usage line, and what a call that runs another program lacks of it."""

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from gradient.cli import Command
from gradient.cli._params import Argument, Option, Parameter, parameters
from gradient.errors import InvalidInputError


def usage(name: str, command: Command, function: Callable[..., Any]) -> str:
    """Return how a command is called, in one line: `gradient fork FROM NEW [OPTIONS] -- CMD`."""
    words = [f"gradient {name}"]
    known = parameters(function)
    for parameter, declared in _arguments(known):
        words.append(declared.metavar if parameter.required else f"[{declared.metavar}]")
    if any(isinstance(one.declared, Option) for one in known):
        words.append("[OPTIONS]")
    return " ".join(words) + (" -- CMD" if command.takes_command else "")


def check_form(name: str, function: Callable[..., Any], words: Sequence[str], child: Sequence[str] | None) -> None:
    """Look whether the words before `--` are what a command that runs another program takes, and no more.

    Only what can not be mistaken is refused here; everything else is left to the parser.

    Raises:
        InvalidInputError: The program stands there without `--`, or an argument is missing; the hint is the whole
            call as it should be.
    """
    if any(word in ("--help", "-h") for word in words):
        return
    known = parameters(function)
    arguments = _arguments(known)
    at = _positions(known, words)
    if at is None:
        return
    if child is None and len(at) > len(arguments):
        start = at[len(arguments)]
        call = shlex.join(["gradient", name, *words[:start], "--", *words[start:]])
        raise InvalidInputError("put -- before the command that is to be run", code="usage", hint=call)
    lacking = [declared for _, declared in arguments[len(at) :]]
    if lacking:
        call = shlex.join(["gradient", name, *words, *(one.metavar for one in lacking), "--", *(child or ["CMD"])])
        message = f"{lacking[0].metavar} is missing: {lacking[0].help.lower()}"
        raise InvalidInputError(message, code="usage", hint=call)


def _arguments(known: Sequence[Parameter]) -> list[tuple[Parameter, Argument]]:
    return [(one, one.declared) for one in known if isinstance(one.declared, Argument) and not one.declared.hidden]


def _positions(known: Sequence[Parameter], words: Sequence[str]) -> list[int] | None:
    """Return where the positional words stand, as far as the arguments go and one more; None if that is unclear."""
    options = {name: one for one in known if isinstance(one.declared, Option) for name in one.declared.names}
    number = len(_arguments(known))
    found: list[int] = []
    at = 0
    while at < len(words) and len(found) <= number:
        if not words[at].startswith("-"):
            found.append(at)
        elif words[at] not in options:
            return None
        elif options[words[at]].kind is not bool:
            at += 1
        at += 1
    return found
