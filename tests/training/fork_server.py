"""Starts children that are killed, each its own process, forked from one that has imported torch.

Importing torch takes longer than all that a test does with a child, so a server imports it once and forks. It has one
thread and has opened no repository: a child starts as a fresh interpreter does after its imports. Some tests start
real interpreters too (`Child.start_command`), and all ends must be the same.

Server and client talk in lines over a socket; the child reports over a pipe of its own, which ends when it dies.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1] / "python"
SILENCE_MAX = 180.0
"""Seconds without a word after which a child counts as hung; cold starts on a busy machine need most of a minute."""

# One thread: no fork while another one holds a lock, and sums that do not depend on the number of cores.
SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def child_environment(variables: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: ours without what a run around this test may have set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRADIENT_")}
    path = os.pathsep.join([str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, **SINGLE_THREADED, "PYTHONPATH": path, **(variables or {})}


class Child:
    """One process under test: what it reports, line by line, and its death."""

    def __init__(self, pid: int, reports: int, log: Path, wait: Callable[[], int]) -> None:
        self.pid = pid
        self.reports = reports
        self.log = log
        self.heard: list[dict[str, Any]] = []
        self.status: int | None = None
        self._wait = wait
        self._rest = b""
        self._open = True

    @classmethod
    def start_command(cls, command: Sequence[str], *, cwd: Path, variables: dict[str, str] | None = None) -> Child:
        """Start a command in a new interpreter; `{fd}` in it becomes the number of the pipe to report on."""
        ours, theirs = os.pipe()
        log = cwd / "children.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [part.replace("{fd}", str(theirs)) for part in command],
                cwd=cwd,
                env=child_environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=[theirs],
            )
        os.close(theirs)
        return cls(process.pid, ours, log, process.wait)

    def listen(self) -> list[dict[str, Any]]:
        """Wait until the child says something and return it; nothing once it is dead."""
        if not self._open:
            return []
        while True:
            if not select.select([self.reports], [], [], SILENCE_MAX)[0]:
                self.kill()
                raise AssertionError(f"child {self.pid} said nothing for {SILENCE_MAX:.0f} s\n{self.last_words()}")
            got = os.read(self.reports, 1 << 16)
            if not got:
                self._open = False
                os.close(self.reports)
                self.status = self._wait()
                return []
            *lines, self._rest = (self._rest + got).split(b"\n")
            if lines:
                # A line that death cut off stays in `_rest`; it was never said.
                said = [json.loads(line) for line in lines]
                self.heard += said
                return said

    def hear(self) -> Iterator[dict[str, Any]]:
        """Everything it says from now on, until it dies."""
        while said := self.listen():
            yield from said

    def kill(self) -> None:
        """SIGKILL; nobody has waited for the process before its pipe ended, so that its number is still its own."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)

    def finish(self) -> list[dict[str, Any]]:
        """Wait for its end, which must be a good one; everything that it said."""
        for _ in self.hear():
            pass
        assert self.status == 0, f"child {self.pid} ended with {self.status}\n{self.last_words()}"
        return self.heard

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""


class ForkServer:
    """The client's side: starts the server, asks it for children."""

    def __init__(self, *modules: str) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        command = [sys.executable, __file__, str(theirs.fileno()), *modules]
        self._process = subprocess.Popen(command, env=child_environment(), pass_fds=[theirs.fileno()])
        theirs.close()
        self._lines = ours.makefile("r")
        self._answer()

    def start(
        self, module: str, arguments: Sequence[str] = (), *, cwd: Path, variables: dict[str, str] | None = None
    ) -> Child:
        """Fork a child that runs `module.main(arguments)`; `{fd}` in them becomes the pipe to report on."""
        ours, theirs = os.pipe()
        log = cwd / "children.log"
        request = {
            "module": module,
            "arguments": list(arguments),
            "cwd": str(cwd),
            "log": str(log),
            "variables": variables or {},
        }
        socket.send_fds(self._socket, [json.dumps(request).encode() + b"\n"], [theirs])
        os.close(theirs)
        pid = int(self._answer())
        return Child(pid, ours, log, lambda: self._status(pid))

    def close(self) -> None:
        """End the server; children that still run are nobody's."""
        self._socket.close()
        self._lines.close()
        self._process.wait(timeout=60)

    def _status(self, pid: int) -> int:
        self._socket.sendall(json.dumps({"wait": pid}).encode() + b"\n")
        return int(self._answer())

    def _answer(self) -> str:
        line = self._lines.readline()
        assert line, "the fork server is gone; its error is above"
        return line


# The server's side


def serve(link: socket.socket) -> None:
    """Fork a child for each request, wait for one when asked, until the client closes its end."""
    link.sendall(b"ready\n")
    while True:
        data, descriptors, _, _ = socket.recv_fds(link, 1 << 16, 4)
        if not data:
            return
        request = json.loads(data)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            link.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            continue
        assert len(os.listdir("/proc/self/task")) == 1, "a process of several threads is not forked here"
        pid = os.fork()
        if pid == 0:
            link.close()
            os._exit(_be_child(request, descriptors[0]))
        for descriptor in descriptors:
            os.close(descriptor)
        link.sendall(f"{pid}\n".encode())


def _be_child(request: dict[str, Any], reports: int) -> int:
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(request["cwd"])
        os.environ.update(request["variables"])
        module = importlib.import_module(request["module"])
        return int(module.main([argument.replace("{fd}", str(reports)) for argument in request["arguments"]]))
    except BaseException:
        traceback.print_exc()
        return 70
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()


def reporter(descriptor: int) -> Callable[..., None]:
    """For children: say something, in one write, so that a kill leaves whole lines but for the last."""

    def report(**said: Any) -> None:
        os.write(descriptor, json.dumps({**said, "at": time.monotonic()}).encode() + b"\n")

    return report


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name).warm_up()
    serve(socket.socket(fileno=int(sys.argv[1])))
