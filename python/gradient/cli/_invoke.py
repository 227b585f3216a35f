"""Runs one command: reads its arguments, calls its function, returns the exit code."""

from gradient.cli import Command, _exit, load
from gradient.cli._params import read_plain
from gradient.cli._session import Session


def run(name: str, command: Command, arguments: list[str], repo: str | None) -> int:
    """Run a command and return its exit code.

    Raises:
        InvalidInputError: The arguments do not fit the command.
    """
    child = None
    if command.takes_command and "--" in arguments:
        at = arguments.index("--")
        arguments, child = arguments[:at], arguments[at + 1 :]
    session = Session(repo_name=repo, child=child or None)
    function = load(command)
    values = read_plain(function, arguments)
    if values is None and command.takes_command:
        from gradient.cli._form import check_form

        check_form(name, function, arguments, child)
    if values is not None:
        code = function(session, **values)
    else:
        from gradient.cli import _typer

        code = _typer.run(name, command, function, arguments, session)
    return code if isinstance(code, int) else _exit.DONE
