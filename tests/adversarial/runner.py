"""Uses hostile repositories, each in a process of its own: `python -m adversarial.runner MADE WORK`.

Reads names of cases from its input and writes what came of each as one line of JSON. It imports everything once and
forks twice for each case: one process makes the repository, another one uses it, so that the memory of making it does
not count. In a trace of system calls what is done to the repository stands between two openings of `BEGIN` and `END`,
files that are not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable

from gradient.errors import GradientError, InternalError

from .corpus import Case, find
from .forge import Repository
from .usage import steps, warm

BEGIN, END = "/gradient-begins-here", "/gradient-ends-here"
ADDRESS_SPACE = 24 << 30
WALL_SECONDS = 60
"""Of one step. It ends what waits for ever; how much work a step may do is held to in processor time."""


def run_case(case: Case, made: pathlib.Path, folder: pathlib.Path) -> dict[str, object]:
    """Make a repository, use it, and tell what came of it."""
    repo = prepare(made, folder)
    making, told, output = (folder.with_suffix(end) for end in (".making", ".told", ".output"))
    told.touch()
    made_status, _ = forked(lambda: case.spoil(repo), making)
    before, beside = snapshot(folder / "canary"), sorted(path.name for path in folder.iterdir())
    status, peak_kib = forked(lambda: use(repo.path, told, case), output)
    said = output.read_bytes().decode(errors="replace")
    result = {
        "name": case.name,
        "folder": str(folder),
        "made": made_status == 0,
        "making": making.read_text()[-2000:],
        "status": status,
        "peak_kib": peak_kib,
        "canary": snapshot(folder / "canary") == before,
        "beside": sorted(path.name for path in folder.iterdir()) == beside,
        "steps": [json.loads(line) for line in told.read_text().splitlines()],
        "output": said[-3000:],
        "raw_codes": any(ord(c) < 32 and c not in "\n\t" for c in said),
    }
    shutil.rmtree(folder)
    for file in (making, told, output):
        file.unlink()
    return result


def prepare(made: pathlib.Path, folder: pathlib.Path) -> Repository:
    """Copy the valid repository, with a canary beside it."""
    shutil.copytree(made, folder)
    (folder / "canary").mkdir()
    (folder / "canary" / "secret").write_bytes(b"the canary\n")
    return Repository(folder / "gpt")


def use(repo: pathlib.Path, told: pathlib.Path, case: Case) -> None:
    """Take each step and write what came of it, a line each: an exit code, a typed error, or what must not be."""
    # What asks for too much is refused and seen, and does not take the machine along.
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    misuse = case.misuse
    misused = [] if misuse is None else [("misuse", lambda: misuse(repo))]
    with told.open("a") as lines:
        mark(BEGIN)
        for name, step in itertools.chain(misused, steps(repo)):
            # Nobody handles it: it ends the process.
            signal.alarm(WALL_SECONDS)
            began = time.process_time()
            outcome, wrong = attempt(step)
            done = {"step": name, "outcome": outcome, "wrong": wrong, "seconds": time.process_time() - began}
            peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            lines.write(json.dumps({**done, "peak_kib": peak_kib}) + "\n")
            lines.flush()
        mark(END)


def attempt(step: Callable[[], str]) -> tuple[str, str]:
    """What came of a step; and why that must not be, if it must not."""
    try:
        return step(), ""
    except InternalError:
        return "InternalError", traceback.format_exc()
    except GradientError as error:
        return f"{type(error).__name__} {error.code}", ""
    except BaseException as error:
        return type(error).__name__, traceback.format_exc()


def mark(name: str) -> None:
    """Leave a mark in a trace of system calls."""
    with contextlib.suppress(FileNotFoundError):
        os.close(os.open(name, os.O_RDONLY))


def forked(work: Callable[[], object], output: pathlib.Path) -> tuple[int, int]:
    """Run something in a process of its own; give its status and the most memory it had, in KiB."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(target, 1)
            os.dup2(target, 2)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    return status, usage.ru_maxrss


def snapshot(folder: pathlib.Path) -> dict[str, str]:
    """What lies in a folder: kinds, bytes and times of everything."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() and not path.is_symlink() and status.st_size < 1 << 20 else b""
        digest = hashlib.sha256(data).hexdigest()[:16]
        found[str(path.relative_to(folder))] = f"{status.st_mode:o} {status.st_size} {status.st_mtime_ns} {digest}"
    return found


def serve(made: pathlib.Path, work: pathlib.Path) -> None:
    """Run the cases whose names come in."""
    import torch

    torch.set_num_threads(1)
    warm()
    for number, line in enumerate(sys.stdin):
        result = run_case(find(line.rstrip("\n")), made, work / str(number))
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    serve(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
