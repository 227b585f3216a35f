"""What must never be done to a stranger's repository, done: each of these must turn the tests of all others red."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import time

from gradient.cli import main

from .case import Case

BURNT_SECONDS = 1.5


def step(repo: pathlib.Path, what: str) -> str:
    """Do it, as if a command had."""
    workspace = repo.parent
    canary = workspace / "canary" / "secret"
    match what:
        case "writes elsewhere":
            (workspace.parent / "elsewhere").touch()
        case "reads what lies beside it":
            canary.read_bytes()
        case "changes what lies beside it":
            canary.write_bytes(b"")
        case "makes something beside it":
            (workspace / "made").touch()
        case "starts a program":
            subprocess.run(["true"], check=True)
        case "reaches a network":
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9))
        case "takes memory":
            len(b"x" * (300 << 20))
        case "takes time":
            until = time.process_time() + BURNT_SECONDS
            while time.process_time() < until:
                pass
        case "prints codes":
            print("\x1b[31m")
        case "aborts":
            os.abort()
        case "waits for ever":
            signal.alarm(1)
            os.read(os.pipe()[0], 1)
        case "raises what is no error of ours":
            raise KeyError(what)
        case "meets a bug of ours":
            return str(main(["-C", str(repo), "show", 3]))  # type: ignore[list-item]
    return "0"


SEEN = {
    "writes elsewhere": "reached out",
    "reads what lies beside it": "reached out",
    "changes what lies beside it": "lies beside it was changed",
    "makes something beside it": "made beside it",
    "starts a program": "reached out",
    "reaches a network": "reached out",
    "takes memory": "MiB more than a good one",
    "takes time": " s",
    "prints codes": "codes for the terminal",
    "aborts": "status 6",
    "waits for ever": "status 14",
    "raises what is no error of ours": "KeyError",
    "meets a bug of ours": "misuse: ",
}
"""What is said of each."""
MISUSES = [
    Case(f"misuse: {what}", lambda _: None, misuse=lambda repo, what=what: step(repo, what))  # type: ignore[misc]
    for what in SEEN
]
