"""Runs one command through typer: arguments in, exit code out; and help in our words."""

from collections.abc import Callable
from typing import Any, cast

import typer
from typer.core import TyperCommand
from typer.main import get_command

from gradient.cli import Command, _exit, _out, load
from gradient.cli._session import Session
from gradient.errors import InvalidInputError


class HelpfulCommand(TyperCommand):
    """A command whose help is a summary, a text and one list of arguments and options."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write what `--help` shows; long options without a short one are indented."""
        rows = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and "--help" not in parameter.opts:
                name = "    " + record[0] if record[0].startswith("--") else record[0]
                rows.append((name, getattr(parameter, "help", None) or ""))
        formatter.write(f"{(self.help or '').strip()}\n\n{_out.table(rows, indent='  ')}".rstrip() + "\n")


def build(name: str, command: Command) -> Any:
    """Return the command as typer's object, which knows its parameters."""
    function = cast(Callable[..., Any], load(command))
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    text = f"{command.summary}\n\n{_dedented(function.__doc__ or '')}"
    app.command(name, cls=HelpfulCommand, help=text, context_settings={"help_option_names": ["--help", "-h"]})(function)
    return get_command(app)


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
    try:
        code = build(name, command).main(arguments, prog_name=f"gradient {name}", standalone_mode=False, obj=session)
    except typer.Abort:
        return _exit.INTERRUPTED
    except Exception as error:
        # Wrong arguments. Its class has moved between versions of typer, its method has not.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        text = _out.one_line(message()).rstrip(".")
        raise InvalidInputError(text[:1].lower() + text[1:], code="usage", hint=f"gradient {name} --help") from None
    return code if isinstance(code, int) else _exit.DONE


def _dedented(docstring: str) -> str:
    # The first line of a docstring is for readers of the code; the summary in the table takes its place.
    from inspect import cleandoc

    return cleandoc(docstring).partition("\n")[2].strip()
