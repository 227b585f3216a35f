"""Runs a function in a forked child: without root's powers, with a limit of time, its outcome told in words.

Importing torch, or an interpreter, takes longer than all that these tests do with a repository; so they fork. The child
is another process with nothing open of ours, and whatever it does to itself is gone with it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any

from gradient import cli
from gradient.errors import GradientError

NOBODY = 65534
HUNG_AFTER_S = 10.0


class HungError(AssertionError):
    """It did not come back."""


def confined(work: Callable[[], Any], *, as_nobody: bool = False) -> Any:
    """Run `work` in a child and return what it returned, as JSON takes it; what it raised fails the test."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            if as_nobody and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            told = {"returned": work()}
        except BaseException:
            told = {"raised": traceback.format_exc()}
        with contextlib.suppress(BaseException), os.fdopen(write, "w") as pipe:
            json.dump(told, pipe)
        os._exit(0)
    os.close(write)
    heard = b""
    ends = time.monotonic() + HUNG_AFTER_S
    try:
        while select.select([read], [], [], max(0.0, ends - time.monotonic()))[0]:
            got = os.read(read, 1 << 16)
            if not got:
                break
            heard += got
        else:
            raise HungError(f"nothing came back for {HUNG_AFTER_S:.0f} s")
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    assert heard, f"the child died: {os.waitstatus_to_exitcode(status)}"
    told = json.loads(heard)
    assert "raised" not in told, told["raised"]
    return told["returned"]


def outcome(work: Callable[[], object]) -> dict[str, Any]:
    """What came of a call: nothing but success and our own errors is allowed, and none of them our bug."""
    try:
        work()
    except GradientError as error:
        assert error.code != "internal", error
        facts = {name: getattr(error, name, None) for name in ("code", "hint", "errno", "path")}
        return {"error": type(error).__name__, "told": str(error), **facts}
    return {"error": None}


def gradient(*words: str) -> dict[str, Any]:
    """The command line in this process: its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    # `-C` goes to another folder, which a test removes in the end.
    with contextlib.chdir("."), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(words)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}
