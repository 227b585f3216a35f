"""Parses a command's arguments with typer, and explains them: everything that `_params.read_plain` leaves."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from gradient.cli import Command, _out
from gradient.cli._form import usage
from gradient.cli._params import Argument, Option, Parameter, parameters
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


def run(name: str, command: Command, function: Callable[..., Any], arguments: list[str], session: Session) -> Any:
    """Parse the arguments and call the command's function; or print its help.

    Raises:
        InvalidInputError: The arguments do not fit the command.
    """
    parser = build(name, command, function)
    try:
        return parser.main(arguments, prog_name=f"gradient {name}", standalone_mode=False, obj=session)
    except Exception as error:
        # Wrong arguments. Its class has moved between versions of typer, its method has not.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        text = _out.one_line(message()).rstrip(".")
        # typer names its own types.
        text = text.replace("is not a valid int range", "is no whole number").replace(
            "is not a valid int", "is no whole number"
        )
        raise InvalidInputError(text[:1].lower() + text[1:], code="usage", hint=f"gradient {name} --help") from None


def build(name: str, command: Command, function: Callable[..., Any]) -> Any:
    """Return typer's object for a command."""

    def body(ctx: typer.Context, **values: Any) -> Any:
        return function(ctx.obj, **values)

    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    signature = inspect.Signature([context, *(_declared(one, function) for one in parameters(function))])
    body.__signature__ = signature  # type: ignore[attr-defined]
    body.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
    # The first line of a docstring is for readers of the code; the summary in the table takes its place.
    text = inspect.cleandoc(function.__doc__ or "").partition("\n")[2].strip()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    settings = {"help_option_names": ["--help", "-h"]}
    explained = f"{command.summary}\n\nusage: {usage(name, command, function)}\n\n{text}"
    app.command(name, cls=HelpfulCommand, help=explained, context_settings=settings)(body)
    return get_command(app)


def _declared(parameter: Parameter, function: Callable[..., Any]) -> inspect.Parameter:
    hint = function.__annotations__[parameter.name].__origin__
    declared = parameter.declared
    annotation: Any
    if isinstance(declared, Argument):
        details = typer.Argument(
            metavar=declared.metavar, help=declared.help, hidden=declared.hidden, show_default=False
        )
        annotation = Annotated[hint, details]
    else:
        annotation = Annotated[hint, _option(declared)]
    default = inspect.Parameter.empty if parameter.required else parameter.default
    return inspect.Parameter(
        parameter.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation
    )


def _option(declared: Option) -> Any:
    return typer.Option(
        *declared.names,
        metavar=declared.metavar,
        help=declared.help,
        min=declared.min,
        max=declared.max,
        show_default=False,
    )
