"""A process that signals are sent to: it commits, without torch, and says what happened to it.

What a commit holds follows from its message, as in `writer_child.py`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import reporter
from writer_child import state

from gradient import Repo, _core


def commit_for_ever(repo: Repo, branch: str, report: Callable[..., None]) -> None:
    base = repo.branches().get(branch)
    first = True
    step = 0 if base is None else repo.core.commit_info(base).step
    while True:
        number, step = random.getrandbits(60), step + 1
        result = repo.core.commit(branch, state(number), base=base, first=first, step=step, message=str(number))
        base, first = result.id, False
        report(commit=result.id, number=number, branch=result.branch, notices=result.notices)


def leave(number: int, _: object) -> None:
    raise SystemExit(3)


class Late:
    """What takes its time when modules are taken down: threads look up meanwhile."""

    def __del__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        sleep(0.3)


def long_state() -> dict[str, dict[str, object]]:
    """What takes long to commit, so that whatever comes meanwhile comes in the middle."""
    data = random.randbytes(1 << 20)
    chunks = b"".join(at.to_bytes(8, "little") + data[8:] for at in range(192))
    return {"model": {"main": {"w": _core.TensorLeaf("uint8", [len(chunks)], chunks)}}}


def leave_in_the_middle(repo: Repo, report: Callable[..., None], after: float) -> None:
    """End while a thread commits, before it looks up for the first time, which is after a tenth of a second."""
    made = long_state()

    def work() -> None:
        repo.core.commit("large", made, base=None, first=True, step=1, message="large")
        report(made=True)

    sys.modules["late"] = Late()  # type: ignore[assignment]
    report(committing=True)
    threading.Thread(target=work, daemon=True).start()
    time.sleep(after)


def interrupted(repo: Repo, report: Callable[..., None]) -> None:
    made = long_state()
    report(committing=True)
    try:
        repo.core.commit("large", made, base=None, first=True, step=1, message="large")
    except KeyboardInterrupt:
        report(interrupted=time.monotonic())
    number = 7
    result = repo.core.commit("after", state(number), base=None, first=True, step=1, message=str(number))
    report(commit=result.id, number=number, branch=result.branch, notices=result.notices)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reports", type=int, required=True)
    parser.add_argument("--handler", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--daemon", type=float)
    parser.add_argument("--branch", default="main")
    parser.add_argument("--wait", type=int)
    options = parser.parse_args()
    report = reporter(options.reports)
    # Whoever started the tests in the background, or with nohup, had these ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    core, _ = _core.Repository.init("repo", name="repo")
    core.close()
    repo = Repo.open("repo")
    if options.handler:
        signal.signal(signal.SIGTERM, leave)
    if options.large:
        interrupted(repo, report)
    elif options.daemon is not None:
        leave_in_the_middle(repo, report, options.daemon)
    else:
        if options.wait is not None:
            report(ready=True)
            os.read(options.wait, 1)
        commit_for_ever(repo, options.branch, report)


if __name__ == "__main__":
    main()
