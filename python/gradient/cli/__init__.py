"""The command line: `gradient COMMAND`.

`COMMANDS` is the table of commands. A command is a plain function in a module of its own, imported when it is used;
its parameters are declared beside them (`_params.py`). Global options come before the command and are read here.
"""

import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gradient.cli import _exit, _out
from gradient.errors import GradientError, InvalidInputError, NotFoundError


class Command(NamedTuple):
    """Where a command lives, and what its line in the list of commands says."""

    module: str
    function: str
    summary: str
    takes_command: bool = False
    """Whether it runs another program, named after `--`."""


# In the order of `gradient --help`.
COMMANDS: dict[str, Command] = {
    "workspace init": Command("workspace", "init", "Make a folder a workspace"),
    "workspace status": Command("workspace", "status", "Show the repositories of a workspace"),
    "repo init": Command("repo", "init", "Make a repository in the workspace"),
    "repo list": Command("repo", "list_repos", "List the repositories of a workspace"),
    "status": Command("status", "status", "Show where HEAD stands and what the repository holds"),
    "resume": Command("resume", "resume", "Run a training script from a commit", takes_command=True),
    "fork": Command("fork", "fork", "Run a training script from a commit, on a new branch", takes_command=True),
    "log": Command("log", "log", "Show the commits that lead to a ref, newest first"),
    "show": Command("show", "show", "Show one commit: what it holds and where it comes from"),
    "diff": Command("diff", "diff", "Compare the state of two commits"),
    "branch": Command("branch", "branch", "List, make, rename or delete branches"),
    "checkout": Command("checkout", "checkout", "Move HEAD to a branch or a commit"),
    "tag": Command("tag", "tag", "List, make or delete tags"),
    "ops": Command("ops", "ops", "List what changed branches, tags and HEAD, newest first"),
    "undo": Command("undo", "undo", "Take back the last change of branches, tags or HEAD"),
    "redo": Command("redo", "redo", "Make again what was undone last"),
    "fsck": Command("fsck", "fsck", "Check a repository, changing nothing"),
    "repair": Command("repair", "repair", "Move aside what is damaged and can be done without"),
    "completion": Command("completion", "completion", "Print the completion script of a shell"),
}

GROUPS = {"workspace": "Make and look at workspaces", "repo": "Make and list repositories"}

_GLOBAL_OPTIONS = (
    ("-C PATH", "Work as if started in PATH"),
    ("    --repo NAME", "Use this repository of the workspace"),
    ("    --version", "Show the version"),
    ("-h, --help", "Show this text"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with _out.streams():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in (words[: words.index("--")] if "--" in words else words)
    for stream in (sys.stdout, sys.stderr):
        # A message that the terminal's encoding lacks letters for is shown as far as it goes.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(words)
        _out.flush()
    except _out.ClosedPipe:
        return _exit.DONE
    except KeyboardInterrupt:
        return _exit.INTERRUPTED
    except GradientError as error:
        return _report(error, str(error), error.code, error.hint, as_json)
    except OSError as error:
        path = f" ({error.filename})" if error.filename else ""
        return _report(error, f"{error.strerror or error}{path}", "storage", None, as_json)
    except Exception as error:
        if os.environ.get("GRADIENT_TRACEBACK"):
            raise
        message = f"unexpected {type(error).__name__}: {error}"
        return _report(
            error, message, "internal", "this is a bug of gradient; GRADIENT_TRACEBACK=1 shows where", as_json
        )
    return code


def _run(words: list[str]) -> int:
    folder, repo, rest = _globals(words)
    if rest in (["--version"], ["-V"]):
        from gradient import _core

        _out.data(f"gradient {_core.__version__}")
        return _exit.DONE
    if rest in ([], ["--help"], ["-h"]):
        (_out.data if rest else _out.note)(overview())
        return _exit.DONE if rest else _exit.WRONG_INPUT
    name, arguments = _find_command(rest)
    if name in GROUPS:
        asked = arguments in (["--help"], ["-h"])
        (_out.data if asked else _out.note)(_group_overview(name))
        return _exit.DONE if asked else _exit.WRONG_INPUT
    if folder is not None:
        _change_folder(folder)
    from gradient.cli import _invoke

    return _invoke.run(name, COMMANDS[name], arguments, repo)


def load(command: Command) -> Callable[..., Any]:
    """Import a command's function."""
    module = importlib.import_module(f"gradient.cli.{command.module}")
    function: Callable[..., Any] = getattr(module, command.function)
    return function


def overview() -> str:
    """Return the text of `gradient --help`."""
    rows = [(name, command.summary) for name, command in COMMANDS.items()]
    lines = ["Version control for training: commit a whole run, come back bit for bit", ""]
    lines += [_out.table(rows, indent="  "), "", _out.table(_GLOBAL_OPTIONS, indent="  "), ""]
    return "\n".join([*lines, "gradient COMMAND --help says more about each."])


def _group_overview(group: str) -> str:
    rows = [(name, command.summary) for name, command in COMMANDS.items() if name.startswith(group + " ")]
    return f"{GROUPS[group]}\n\n{_out.table(rows, indent='  ')}"


def _globals(words: list[str]) -> tuple[str | None, str | None, list[str]]:
    """Take the options before the command off: the folder, the repository and the rest."""
    folder: str | None = None
    repo: str | None = None
    at = 0
    while at < len(words) and words[at].startswith("-"):
        word, has_value, value = words[at].partition("=") if words[at].startswith("--") else (words[at], "", "")
        if word in ("--version", "-V", "--help", "-h"):
            return folder, repo, [word]
        if word not in ("-C", "--repo"):
            raise InvalidInputError(f"no such option: {word}", code="usage", hint="gradient --help")
        if not has_value:
            at += 1
            if at == len(words):
                raise InvalidInputError(f"option {word} needs a value", code="usage", hint="gradient --help")
            value = words[at]
        if word == "-C":
            # Like git: a second -C counts from the first.
            folder = os.path.join(folder, value) if folder is not None else value
        else:
            repo = value
        at += 1
    return folder, repo, words[at:]


def _find_command(words: list[str]) -> tuple[str, list[str]]:
    """Find the command that `words` begin with: its name, or a group's, and its arguments."""
    if words[0] in COMMANDS:
        return words[0], words[1:]
    pair = " ".join(words[:2])
    if words[0] in GROUPS:
        if len(words) == 1 or words[1].startswith("-"):
            return words[0], words[1:]
        if pair in COMMANDS:
            return pair, words[2:]
    unknown = pair if words[0] in GROUPS else words[0]
    # Imported here: only mistakes need it.
    from difflib import get_close_matches

    near = get_close_matches(unknown, [*COMMANDS, *GROUPS], n=1)
    hint = f"did you mean: gradient {near[0]}" if near else "gradient --help"
    raise InvalidInputError(f"no such command: {_out.one_line(unknown)}", code="usage", hint=hint)


def _change_folder(folder: str) -> None:
    try:
        os.chdir(folder)
    except FileNotFoundError:
        hint = (
            f"-C PATH takes a folder that is there; to make a workspace: gradient workspace init {_out.quoted(folder)}"
        )
        raise NotFoundError(f"there is no folder {folder}", code="no-folder", hint=hint) from None
    except NotADirectoryError:
        hint = "-C PATH takes the folder of a workspace or of a repository"
        raise NotFoundError(f"{folder} is a file and no folder", code="no-folder", hint=hint) from None


def _report(error: Exception, message: str, code: str, hint: str | None, as_json: bool) -> int:
    number = _exit.exit_code(error)
    _out.error(
        message or type(error).__name__,
        code=code,
        hint_text=hint,
        exit_code=number,
        as_json=as_json,
        repository=error.repository if isinstance(error, GradientError) else None,
    )
    return number
