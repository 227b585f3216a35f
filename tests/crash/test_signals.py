"""SIGTERM, Ctrl-C, SIGHUP, SIGSTOP and the end of the interpreter in the middle of a commit: reliability.md, row 25."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import Child, child_environment
from writer_child import contents, fill, state

from gradient import Repo, _core

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
HUNG_AFTER_S = 10.0
"""Nothing that a signal ends may take as long; on a free machine all of it takes milliseconds."""


def start(cwd: Path, *arguments: str, script: str = "signal_child.py") -> Child:
    return Child.start_command([sys.executable, str(HERE / script), "--reports", "{fd}", *arguments], cwd=cwd)


def check(path: Path, heard: list[dict[str, Any]]) -> None:
    """What was acknowledged is there bit for bit, nothing is damaged, and the next writer clears away what is left."""
    with Repo.open(path) as repo:
        for said in heard:
            if "commit" in said:
                tensors = repo.state(said["commit"])["model"]["main"]["tensors"]
                assert {name: tensors[name].bytes() for name in tensors} == contents(said["number"])
        tip = repo.branches().get("main")
        repo.core.commit("main", state(1), base=tip, first=True, step=1 << 30, message="1")
        assert os.listdir(path / ".gradient-repo" / "tmp") == []
        assert len(os.listdir(path / ".gradient-repo" / "leases")) == 1
    report = _core.fsck(str(path), level="full")
    assert report.clean and not report.lost, report.findings


def ended_by(child: Child, number: int, after: float) -> float:
    """Send a signal some time after the first commit; how long the process went on."""
    sent = 0.0
    for said in child.hear():
        if "commit" in said and not sent:
            time.sleep(after)
            sent = time.monotonic()
            os.kill(child.pid, number)
        if sent and time.monotonic() - sent > HUNG_AFTER_S:
            child.kill()
    return time.monotonic() - sent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_writer_ended_by_a_signal_loses_nothing(number: signal.Signals, tmp_path: Path) -> None:
    for _ in range(4):
        child = start(tmp_path)
        assert ended_by(child, number, random.uniform(0, 0.1)) < HUNG_AFTER_S
        # Python makes an exception of SIGINT, says so, and ends by the signal all the same.
        assert child.status == -number, child.last_words()
        check(tmp_path / "repo", child.heard)


def test_a_handler_that_ends_the_script_is_heard_in_the_middle_of_a_commit(tmp_path: Path) -> None:
    for _ in range(4):
        child = start(tmp_path, "--handler")
        assert ended_by(child, signal.SIGTERM, random.uniform(0, 0.1)) < HUNG_AFTER_S
        assert child.status == 3, child.last_words()
        # It came to its end in good order.
        assert os.listdir(tmp_path / "repo" / ".gradient-repo" / "tmp") == []
        check(tmp_path / "repo", child.heard)


def test_ctrl_c_stops_a_long_commit_and_the_next_one_works(tmp_path: Path) -> None:
    stopped = 0
    for delay in (0.005, 0.02, 0.08):
        folder = tmp_path / str(delay)
        folder.mkdir()
        child = start(folder, "--large")
        sent = 0.0
        for said in child.hear():
            if "committing" in said:
                time.sleep(delay)
                sent = time.monotonic()
                os.kill(child.pid, signal.SIGINT)
        assert child.status == 0, child.last_words()
        (interrupted,) = [said["interrupted"] for said in child.heard if "interrupted" in said]
        print(f"heard after {interrupted - sent:.2f} s")
        assert interrupted - sent < HUNG_AFTER_S
        with Repo.open(folder / "repo") as repo:
            # The disk may have been faster than the signal: then the commit is there, and `check` wants it whole.
            branches = set(repo.branches())
        assert branches in ({"after"}, {"after", "large"})
        stopped += "large" not in branches
        check(folder / "repo", child.heard)
    assert stopped > 0, "no commit was interrupted in its middle"


def test_a_script_that_was_interrupted_goes_on_where_it_stood(tmp_path: Path) -> None:
    child = start(tmp_path, "--interrupts", "40", script="interrupt_child.py")
    child.finish()
    handles = [said["handle"] for said in child.heard if "handle" in said]
    assert len(handles) == 40
    with Repo.open(tmp_path / "w" / "r") as repo:
        # Whether the commit under way was still made or not: the next one follows on the same branch, and conflicts
        # with nobody.
        assert list(repo.branches()) == ["main"]
        line = [info.id for info in repo.log()]
        assert [repo.resolve(handle).id for handle in reversed(handles)] == [
            commit_id for commit_id in line if commit_id in {said.get("id") for said in child.heard}
        ]
        print(f"{len(line) - 41} of 40 interrupted commits were durable")
    report = _core.fsck(str(tmp_path / "w" / "r"), level="full")
    assert report.clean, report.findings


def test_the_end_of_the_interpreter_is_no_crash_for_a_commit_in_another_thread(tmp_path: Path) -> None:
    cut_off = 0
    for delay in (0.0, 0.04, 0.3):
        child = start(tmp_path, "--daemon", str(delay))
        for _ in child.hear():
            pass
        assert (child.status, child.last_words()) == (0, "")
        check(tmp_path / "repo", child.heard)
        cut_off += "made" not in child.heard[-1]
    assert cut_off > 0, "every commit was done before the end came"


def test_the_command_line_ends_with_130(tmp_path: Path) -> None:
    core, _ = _core.Repository.init(str(tmp_path / "repo"), name="repo")
    data = random.randbytes(1 << 20)
    for step in range(48):
        big = b"".join(bytes([at, step]) + data[2:] for at in range(4))
        leaf = _core.TensorLeaf("uint8", [len(big)], big)
        core.commit(f"b{step}", {"model": {"main": {"w": leaf}}}, base=None, first=True, step=step)
    core.close()
    interrupted = 0
    # Into the check, which takes a tenth of a second or more: from its beginning on.
    for delay in (0.0, 0.01, 0.02, 0.04, 0.06, 0.08):
        process = subprocess.Popen(
            [sys.executable, "-c", SAYS_WHEN_IT_CHECKS, "-C", str(tmp_path / "repo"), "fsck", "--full"],
            env=child_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "checking\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        told, said = process.communicate(timeout=HUNG_AFTER_S)
        assert "Traceback" not in said, said
        if process.returncode == 130:
            interrupted += 1
        else:
            # A check may be faster than the signal: then it says that it is done. In the interpreter's last moments,
            # when its handlers are gone, the signal itself ends it (which a shell calls 130 too).
            assert process.returncode in (0, -signal.SIGINT), (process.returncode, told, said)
            assert "clean" in told, (process.returncode, told, said)
    assert interrupted > 0, "every check was done when the signal came"


# As `python -m gradient`, where whoever started the tests in the background had the signal ignored.
SAYS_WHEN_IT_CHECKS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import gradient.cli.fsck
from gradient import _core
from gradient.cli import main

check = _core.fsck

def fsck(*arguments, **options):
    print("checking", flush=True)
    return check(*arguments, **options)

_core.fsck = fsck
sys.exit(main())
"""


@pytest.fixture(scope="module")
def many_packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with so many small packs that upkeep merges them."""
    path = tmp_path_factory.mktemp("many") / "repo"
    fill(path, 1001)
    return path


def test_a_writer_that_is_stopped_for_longer_than_its_lease_looks_again(many_packs: Path, tmp_path: Path) -> None:
    """What it relied on is merged, condemned and deleted meanwhile: rule G3."""
    merged = 0
    for attempt in range(6):
        cwd = tmp_path / str(attempt)
        shutil.copytree(many_packs, cwd / "repo")
        ours, theirs = os.pipe()
        child = _start_waiting(cwd, ours)
        for said in child.hear():
            if "ready" in said:
                os.write(theirs, b"x")
                time.sleep(random.uniform(0, 0.02))
                _stop(child.pid)
                merged += _merge(cwd / "repo")
                os.kill(child.pid, signal.SIGCONT)
            elif "commit" in said and sum("commit" in said for said in child.heard) > 3:
                child.kill()
        os.close(ours)
        os.close(theirs)
        assert child.status == -9, child.last_words()
        check(cwd / "repo", child.heard)
    assert merged > 0


def _start_waiting(cwd: Path, wait: int) -> Child:
    os.set_inheritable(wait, True)
    reports, theirs = os.pipe()
    log = cwd / "children.log"
    command = [sys.executable, str(HERE / "signal_child.py"), "--reports", str(theirs), "--wait", str(wait)]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=cwd, env=child_environment(), stdout=out, stderr=out, pass_fds=[theirs, wait]
        )
    os.close(theirs)
    return Child(process.pid, reports, log, process.wait)


def _stop(pid: int) -> None:
    """Stop a process, and come back when it stands: a call that is under way ends first, and may make a lease."""
    os.kill(pid, signal.SIGSTOP)
    for _ in range(1000):
        threads = Path(f"/proc/{pid}/task").glob("*/stat")
        if all(thread.read_text().rpartition(")")[2].split()[0] == "T" for thread in threads):
            return
        time.sleep(0.01)
    raise AssertionError("it goes on for ten seconds after SIGSTOP")


def _merge(path: Path) -> bool:
    """Do what a watcher does once the lease of the stopped writer has been silent for too long, and then upkeep."""
    folder = path / ".gradient-repo"
    for lease in (folder / "leases").iterdir():
        lease.unlink()
    with Repo.open(path) as repo:
        before = len(os.listdir(folder / "packs"))
        repo.core.maintain()
        assert os.listdir(folder / "trash") == []
        return len(os.listdir(folder / "packs")) < before
