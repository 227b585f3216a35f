"""Hands over to a training script: the variables it finds, and becoming it."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, NoReturn

from gradient.cli import _exit, _out
from gradient.errors import InvalidInputError, NotFoundError
from gradient.handover import AUTOCOMMIT, VARIABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradient.handover import Handover


def hand_over(command: Sequence[str] | None, handover: Handover, doing: str) -> int:
    """Say what is being done, run a training script with the hand-over variables and return its exit code.

    Without a command the variables are printed, for a shell, and the code is that of wrong usage.

    On POSIX this process becomes the script: signals, the terminal and the exit code are the script's own, and nothing
    of ours stays in memory beside it. Windows has no such thing; there the script is a child.

    Raises:
        NotFoundError: There is no such program.
        InvalidInputError: It can not be run.
    """
    values = handover.to_environ()
    if command is None:
        _out.data("\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items()))
        _out.note("these variables would be set; no command was given")
        _out.hint("end with the training command: ... -- python train.py")
        return _exit.WRONG_INPUT
    check_program(command[0])
    _out.note(doing)
    # The interval of autocommit is the caller's; everything else is ours to say, so that no stale value gets through.
    environment = {name: value for name, value in os.environ.items() if name == AUTOCOMMIT or name not in VARIABLES}
    environment.update(values)
    _out.flush()
    try:
        if sys.platform == "win32":
            return _wait_for(command, environment)
        _become(command, environment)
    except FileNotFoundError:
        raise _no_program(command[0]) from None
    except PermissionError:
        raise _not_executable(command[0]) from None


def check_program(name: str) -> None:
    """Look whether a program can be run, before anything is said of running it.

    Raises:
        NotFoundError: There is no such program.
        InvalidInputError: It is a folder, or may not be run.
    """
    import shutil

    if shutil.which(name) is None:
        # A path is taken as it is; only a bare name is looked for.
        raise _not_executable(name) if os.path.dirname(name) and os.path.exists(name) else _no_program(name)


def _no_program(name: str) -> NotFoundError:
    hint = "name the program after --, for example: -- python train.py"
    return NotFoundError(f"there is no program {_out.one_line(name)}", code="no-program", hint=hint)


def _not_executable(name: str) -> InvalidInputError:
    message = f"{_out.one_line(name)} can not be run: permission denied"
    return InvalidInputError(message, code="not-executable", hint=f"-- python {name}")


def _become(command: Sequence[str], environment: dict[str, str]) -> NoReturn:
    import signal

    # Python ignores it, and what is ignored stays so in the program that we become.
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), environment)
    finally:
        signal.signal(signal.SIGPIPE, before)


def _wait_for(command: Sequence[str], environment: dict[str, str]) -> int:
    import subprocess

    with subprocess.Popen(list(command), env=environment) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                # The console sends it to the child too; what it does about it is its own business.
                continue
