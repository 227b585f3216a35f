"""What the system was asked for while a repository was used: the lines of strace between two marks."""

from __future__ import annotations

import functools
import pathlib
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable

import gradient

from .runner import BEGIN, END

CALLS = (
    "execve,execveat,%network,open,openat,openat2,creat,truncate,rename,renameat,renameat2,unlink,unlinkat,rmdir,"
    "link,linkat,symlink,symlinkat,mkdir,mkdirat,mknod,mknodat,chmod,fchmodat,chown,fchownat"
)
STARTING = re.compile(r"\b(execve|execveat)\(")
NETWORK = re.compile(r"\b(socket|connect|bind|listen|accept4?|sendto|sendmsg|sendmmsg)\(")
OPENING = re.compile(r"\bopen(at|at2)?\(")
WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
UNFINISHED = " <unfinished ...>"
RESUMED = re.compile(r" *<\.\.\. \w+ resumed> ?(.*)")
FAILED = re.compile(r"= -1 E")
NUMBERS = re.compile(r"\b(?:AT_FDCWD|\d+)<")
NAME = re.compile(r'(?:<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
OPENED = re.compile(r"= <([^>]*)>")

READABLE = tuple(
    pathlib.Path(place).resolve()
    for place in (
        *(sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), pathlib.Path(gradient.__file__).parent),
        *("/proc", "/sys/fs/cgroup", "/sys/devices/system", "/dev/null", "/dev/urandom"),
        *("/etc/localtime", "/usr/share/zoneinfo", "/etc/machine-id"),
    )
)


def command(output: pathlib.Path) -> list[str]:
    """Begins the command that is traced; empty where there is no strace."""
    found = shutil.which("strace")
    return (
        [found, "-f", "--seccomp-bpf", "-y", "-s", "1024", "-o", str(output), "-e", f"trace={CALLS}"] if found else []
    )


class Trace:
    """A trace that is being written."""

    def __init__(self, file: pathlib.Path) -> None:
        self.file = file
        self.offset = 0

    def take(self) -> list[str]:
        """The lines of the process that was marked last, without the marks."""
        with self.file.open("rb") as lines:
            lines.seek(self.offset)
            read = lines.read()
        self.offset += len(read)
        text = joined(read.decode(errors="replace").splitlines())
        begin = next(at for at, line in enumerate(text) if BEGIN in line)
        # One that was killed has no second mark.
        killed = re.compile(rf"{text[begin].split()[0]} +\+\+\+")
        end = next(at for at, line in enumerate(text) if at > begin and (END in line or killed.match(line)))
        return [line for line in text[begin + 1 : end] if re.match(r"\d+ +[a-z_0-9]+\(", line)]


def joined(lines: Iterable[str]) -> list[str]:
    """Each call in one line, where it began, also one during which another thread was seen; what never returned too."""
    whole: list[str] = []
    begun: dict[str, int] = {}
    for line in lines:
        process, _, rest = line.partition(" ")
        resumed = RESUMED.match(rest)
        if resumed and process in begun:
            whole[begun.pop(process)] += resumed[1]
            continue
        if line.endswith(UNFINISHED):
            begun[process] = len(whole)
        whole.append(line.removesuffix(UNFINISHED))
    return whole


def strays(lines: list[str], workspace: pathlib.Path) -> list[str]:
    """Calls that reach out of a repository, `gpt` in its workspace: starts, connections, writes, reads elsewhere."""
    return [line for line in lines if is_stray(line, workspace)]


def is_stray(line: str, workspace: pathlib.Path) -> bool:
    """The same for every process and number of a file: many calls are made again and again."""
    return is_stray_call(NUMBERS.sub("<", line.partition(" ")[2].strip()), workspace)


@functools.lru_cache(maxsize=1 << 16)
def is_stray_call(line: str, workspace: pathlib.Path) -> bool:
    """Whether a call starts a program, reaches a network, or opens or changes what is not the repository's."""
    if STARTING.search(line) or NETWORK.search(line):
        return True
    if FAILED.search(line):
        return False
    places = paths(line)
    if OPENING.search(line) and not WRITING.search(line):
        return not all(may_read(place, workspace) for place in places)
    return not places or not all(place.is_relative_to(workspace / "gpt") or is_null(place) for place in places)


def may_read(place: pathlib.Path, workspace: pathlib.Path) -> bool:
    """The repository and its workspace, but for what lies beside it; what Python itself is made of."""
    if place.is_relative_to(workspace):
        return not place.is_relative_to(workspace / "canary")
    return is_null(place) or place in workspace.parents or any(place.is_relative_to(one) for one in READABLE)


def is_null(place: pathlib.Path) -> bool:
    """Whether a path is that of a device that keeps nothing."""
    return str(place) in ("/dev/null", "/dev/tty")


def paths(line: str) -> list[pathlib.Path]:
    """All paths of a call, those that the kernel ended at too; one with `..` in it is nowhere."""
    call = line[line.index("(") + 1 :]
    found = [pathlib.Path(base or "/", name) for base, name in NAME.findall(call)]
    opened = OPENED.search(line)
    found += [pathlib.Path(opened[1])] if opened else []
    return [pathlib.Path("/nowhere") if ".." in place.parts else place for place in found]
