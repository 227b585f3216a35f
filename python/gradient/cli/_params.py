"""What a command takes, declared beside its parameters; and the quick way to read it.

A command is a function `(session, ...)` whose further parameters are `Annotated` with an `Argument` or an `Option`.
typer parses and explains them (`_typer.py`), but importing it takes longer than most commands do. So `read_plain` reads
what is plainly right (known options with good values, the right number of arguments) without it, and leaves everything
else, every mistake included, to typer. A test holds the two to the same reading.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args


class Argument(NamedTuple):
    """A positional argument."""

    metavar: str
    help: str
    hidden: bool = False


class Option(NamedTuple):
    """An option: `--long`, or `-s` and `--long`. Of type bool it is a flag, else `metavar` names its value."""

    names: tuple[str, ...]
    help: str
    metavar: str | None = None
    min: int | None = None
    max: int | None = None


class Parameter(NamedTuple):
    """A parameter of a command's function. `kind` is `bool`, `int`, `str` or `list`."""

    name: str
    kind: type
    declared: Argument | Option
    required: bool
    default: object


def flag(name: str, text: str) -> Option:
    """Declare an option without a value."""
    return Option((name,), text)


def parameters(function: Callable[..., Any]) -> list[Parameter]:
    """Return the parameters of a command's function, the session left out."""
    annotations = {name: hint for name, hint in function.__annotations__.items() if hasattr(hint, "__metadata__")}
    defaults: tuple[object, ...] = getattr(function, "__defaults__", None) or ()
    num_required = len(annotations) - len(defaults)
    found = []
    for position, (name, hint) in enumerate(annotations.items()):
        required = position < num_required
        default = None if required else defaults[position - num_required]
        found.append(Parameter(name, _kind(hint.__origin__), hint.__metadata__[0], required, default))
    return found


def read_plain(function: Callable[..., Any], words: Sequence[str]) -> dict[str, Any] | None:
    """Return the values that `words` give a command's parameters; None if that is not plain to see."""
    known = parameters(function)
    options = {name: one for one in known if isinstance(one.declared, Option) for name in one.declared.names}
    arguments = [one for one in known if isinstance(one.declared, Argument)]
    values: dict[str, Any] = {one.name: one.default for one in known}
    given: set[str] = set()
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            rest += queue
            break
        if not word.startswith("-"):
            rest.append(word)
            continue
        option = options.get(word)
        if option is None or option.name in given:
            return None
        given.add(option.name)
        value = True if option.kind is bool else _value(option, queue)
        if value is None:
            return None
        values[option.name] = value
    if any(one.kind is list for one in arguments) or len(rest) > len(arguments):
        return None
    values.update({one.name: text for one, text in zip(arguments, rest, strict=False)})
    return None if any(one.required for one in arguments[len(rest) :]) else values


def _value(option: Parameter, queue: list[str]) -> int | str | None:
    """Take an option's value off the queue; None if it is not plainly good."""
    text = queue.pop(0) if queue else "-"
    declared = option.declared
    if text.startswith("-") or not isinstance(declared, Option):
        return None
    if option.kind is str:
        return text
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    number = int(text)
    fits = (declared.min is None or number >= declared.min) and (declared.max is None or number <= declared.max)
    return number if fits else None


def _kind(hint: Any) -> type:
    # `int | None` is an int that may be left out.
    for one in (hint, *get_args(hint)):
        if one in (bool, int, str):
            return one  # type: ignore[no-any-return]
    return list
