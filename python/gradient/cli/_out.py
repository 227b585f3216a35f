"""The only place that prints.

Results go to stdout, all talk to stderr. A closed pipe ends the command quietly; colours, relative times and the pager
are for terminals.
"""

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"

# Stands for the beginning of a colour of ours until it is printed. No repository knows it.
_MARK = f"\x1b{os.urandom(8).hex()}:"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# What a stranger's repository holds may be as long as it likes: lines are cut, texts are looked through in pieces.
_LINE_MAX = 4096
_PIECE = 1 << 16
# Largest first: (seconds, name).
_SPANS = (
    (31_557_600, "year"),
    (2_629_800, "month"),
    (604_800, "week"),
    (86_400, "day"),
    (3_600, "hour"),
    (60, "minute"),
)


COLUMN_LEN_MAX = 40
"""Widest column of a table."""


class ClosedPipe(Exception):  # noqa: N818 - no error: the reader has seen enough.
    """Nobody reads what we print any more."""


class _Closed(io.TextIOBase):
    """Stands for a standard output that was closed before we began."""

    def write(self, text: str) -> int:
        """Fail as a write to the closed file would."""
        raise OSError(errno.EBADF, f"standard output could not be written: {os.strerror(errno.EBADF)}")


class _Nowhere(io.TextIOBase):
    """Stands for a standard error that was closed before we began: talk is lost, results and exit codes are not."""

    def write(self, text: str) -> int:
        """Take the text and do nothing."""
        return len(text)


@contextmanager
def streams() -> Iterator[None]:
    """Have something where Python has None, because a standard stream is closed."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = sys.stdout or _Closed(), sys.stderr or _Nowhere()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def data(text: str, *, as_is: bool = False) -> None:
    """Print a result; control characters in it are written out, but for our own colours.

    Args:
        text: What to print.
        as_is: It is JSON, which writes them out its own way.
    """
    if not as_is:
        text = safe(text, painted=colored())
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    except OSError as error:
        _give_up(error)


def document(schema: str, fields: Mapping[str, object]) -> None:
    """Print one JSON document; `schema` names its keys, which are an interface.

    It is printed piece by piece: in one text a check that finds much would take several times its memory.
    """
    import itertools
    import json

    pieces = json.JSONEncoder(indent=2).iterencode({"schema": schema, **fields})
    try:
        while text := "".join(itertools.islice(pieces, 4096)):
            sys.stdout.write(text)
        sys.stdout.write("\n")
    except OSError as error:
        _give_up(error)


def paged(text: str) -> None:
    """Print a result that may be long: on a terminal through the pager if it does not fit.

    `GRADIENT_PAGER` names the pager, `less` is the default; empty or `cat` means none.
    """
    # Imported here, as elsewhere in this file: what few commands need must not slow down all.
    import shutil

    if not on_terminal() or text.count("\n") < shutil.get_terminal_size().lines:
        data(text)
        return
    command = os.environ.get("GRADIENT_PAGER")
    if command is None:
        command = "less -FRX" if shutil.which("less") else ""
    if command.strip() in ("", "cat"):
        data(text)
        return
    import subprocess

    text = safe(text, painted=colored())
    flush()
    try:
        # A shell, because the variable holds a command line, as PAGER does.
        with subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, text=True) as pager:
            try:
                pager.communicate(text)
            except BrokenPipeError:
                pass
            except KeyboardInterrupt:
                # Ctrl-C belongs to the pager; the terminal is its own until it ends.
                pager.wait()
            failed = pager.returncode == 127
    except OSError:
        failed = True
    if failed:
        data(text)


def note(text: str) -> None:
    """Say something that is no result."""
    _talk(text)


def hint(text: str) -> None:
    """Name what to do next; `text` is a command or a sentence."""
    _talk(f"{paint('hint:', CYAN, error=True)} {text}")


def error(
    message: str,
    *,
    code: str,
    hint_text: str | None,
    exit_code: int,
    as_json: bool,
    repository: str | None = None,
) -> None:
    """Print an error: one line, the repository if it is to be looked at, and a hint; or one JSON object."""
    if as_json:
        import json

        fields = {
            "code": code,
            "message": message,
            "hint": hint_text,
            "repository": repository,
            "exit_code": exit_code,
        }
        _talk(json.dumps({"schema": "gradient.error/1", **fields}, ensure_ascii=True))
        return
    _talk(f"{paint('error:', RED, error=True)} {one_line(message)}")
    if repository:
        _talk(f"{paint('repository:', CYAN, error=True)} {one_line(repository)}")
    if hint_text:
        hint(one_line(hint_text))


def confirm(question: str) -> bool:
    """Ask on the terminal; anything but yes is no."""
    _talk(f"{question} [y/N] ", end="")
    answer = sys.stdin.readline()
    return answer.strip().lower() in ("y", "yes")


def can_ask() -> bool:
    """Whether somebody sits there who can answer."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def on_terminal() -> bool:
    """Whether results go to a terminal."""
    return sys.stdout.isatty()


def colored(*, error: bool = False) -> bool:
    """Whether colours are wanted, on stdout or on stderr."""
    stream = sys.stderr if error else sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, *codes: str, error: bool = False) -> str:
    """Return `text` in colour, if colours are wanted: with marks that become colours when it is printed."""
    return f"{_MARK}{';'.join(codes)}m{text}{_MARK}0m" if colored(error=error) else text


def painted_by_core(text: str) -> str:
    """Mark the colours of a text that the core has painted, with no control character of data in it, as ours."""
    return text.replace("\x1b[", _MARK)


def width() -> int:
    """Columns of the terminal; 100 where there is none."""
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


def flush() -> None:
    """Push out what was printed; a closed pipe ends quietly.

    Raises:
        OSError: It could not be written; the message says that it was standard output.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        _give_up(error)


def quoted(text: str) -> str:
    """Return a path or a name as a shell takes it, for hints that are commands."""
    import shlex

    return shlex.quote(text)


def one_line(text: str) -> str:
    """Return `text` as one line that can not move a terminal's cursor; a very long one is cut."""
    line = " ".join(printable(text[:_LINE_MAX]).split())
    return line if len(text) <= _LINE_MAX else f"{line} ... ({count(len(text) - _LINE_MAX, 'more character')})"


def first_lines(text: str) -> list[str]:
    """Return the printable lines of a text; of a very long one the first, and a line that says so."""
    lines = printable(text[:_PIECE]).splitlines()
    return lines if len(text) <= _PIECE else [*lines, f"... ({count(len(text) - _PIECE, 'more character')})"]


def printable(text: str) -> str:
    """Return `text` with control characters written out; names and messages may come from a stranger's repository."""
    if len(text) > _PIECE:
        return "".join(printable(text[at : at + _PIECE]) for at in range(0, len(text), _PIECE))
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def safe(text: str, *, painted: bool) -> str:
    """Return `text` with control characters written out and, if it is `painted`, our marks as colours.

    The last look before anything is printed: names of branches, components and metrics come from repositories too.
    Those can hold colours, but no mark.
    """
    if not painted or _MARK not in text:
        return printable(text)
    import re

    parts = re.split(rf"{_MARK}([0-9;]*m)", text)
    return "".join(f"\x1b[{part}" if at % 2 else printable(part) for at, part in enumerate(parts))


def size(num_bytes: int) -> str:
    """Return a number of bytes as `1.3 GiB`."""
    value, unit = float(num_bytes), 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{num_bytes} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return `1 commit`, `2 commits`, `10,000 commits`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def iso(time_ns: int) -> str:
    """Return a time for programs: ISO 8601 in UTC, with milliseconds."""
    return f"{_second(time_ns)}.{time_ns // 1_000_000 % 1000:03}Z"


def clock(time_ns: int) -> str:
    """Return a time for people: ISO 8601 in UTC, to the second."""
    return _second(time_ns) + "Z"


def when(time_ns: int) -> str:
    """Return a time for people: relative on a terminal, ISO 8601 elsewhere."""
    return ago(time_ns, now()) if on_terminal() else clock(time_ns)


def now() -> int:
    """Return the time in nanoseconds since 1970."""
    import time

    return time.time_ns()


def ago(time_ns: int, now_ns: int) -> str:
    """Return how long before `now_ns` a time was: `3 minutes ago`."""
    seconds = (now_ns - time_ns) // 1_000_000_000
    if seconds < 0:
        return "in the future"
    for span, name in _SPANS:
        if seconds >= span:
            return f"{count(seconds // span, name)} ago"
    return f"{count(seconds, 'second')} ago"


def table(rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), indent: str = "") -> str:
    """Return rows as columns two blanks apart; the columns in `right` are aligned to the right.

    Cells may be painted: widths count what is seen.
    """
    rows = [list(row) for row in rows]
    if not rows:
        return ""
    # A cell that is longer than that makes its own line long, and no other.
    lens = [[_seen(cell) for cell in column] for column in zip(*rows, strict=True)]
    widths = [max((one for one in column if one <= COLUMN_LEN_MAX), default=0) for column in lens]
    lines = []
    for row in rows:
        cells = []
        for column, (cell, wide) in enumerate(zip(row, widths, strict=True)):
            blank = " " * (wide - _seen(cell))
            cells.append(blank + cell if column in right else cell + blank)
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def _second(time_ns: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _seen(cell: str) -> int:
    if _MARK in cell:
        import re

        cell = re.sub(rf"{_MARK}[0-9;]*m", "", cell)
    return len(printable(cell))


def _talk(text: str, end: str = "\n") -> None:
    # What talk refers to may still sit in stdout's buffer.
    flush()
    try:
        sys.stderr.write(safe(text, painted=colored(error=True)) + end)
        sys.stderr.flush()
    except BrokenPipeError:
        pass


def _give_up(error: OSError) -> NoReturn:
    if isinstance(sys.stdout, _Closed):
        raise error
    # What is left in the buffer is flushed once more, before talk and when the interpreter ends, and would fail again.
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError):
        pass
    finally:
        os.close(null)
    if isinstance(error, BrokenPipeError):
        raise ClosedPipe from None
    raise OSError(error.errno, f"standard output could not be written: {error.strerror}") from None
