"""A clock that is wrong or jumps: reliability.md, row 17. Nothing that must hold depends on what time it is.

A shim under the extension and Python moves what the system says, by as many seconds as stand in a file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import Child
from writer_child import contents, state

from gradient import Repo, _core

pytestmark = pytest.mark.slow

SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long shift(void) {
    char text[32] = {0};
    int file = open(getenv("CLOCK_SHIFT"), O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    if (read(file, text, sizeof text - 1) < 0) text[0] = 0;
    close(file);
    return atoll(text);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = (int)syscall(SYS_clock_gettime, clock, at);
    if (!failed && clock == CLOCK_REALTIME) at->tv_sec += shift();
    return failed;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""
DAY = 86_400
NOW = int(time.time())


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("cc is missing")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", "shim.so", "shim.c"], cwd=folder, check=True)
    return folder / "shim.so"


CLOCKS = {
    "a month behind": [-30 * DAY],
    "a month ahead": [30 * DAY],
    "1970": [100 - NOW],
    "before 1970": [-NOW - 10 * 365 * DAY],
    "after 2038": [2_200_000_000 - NOW],
    "back while it works": [0, -30 * DAY, -60 * DAY],
    "to and fro while it works": [3600, -3600, 30 * DAY, 100 - NOW, 0],
}


@pytest.mark.parametrize("name", CLOCKS)
def test_a_wrong_clock_loses_nothing_and_puts_nothing_in_a_wrong_order(name: str, shim: Path, tmp_path: Path) -> None:
    path = tmp_path / "repo"
    folder = path / ".gradient-repo"
    core, _ = _core.Repository.init(str(path), name="repo")
    # A writer with the right clock, at work beside the other: what it makes must be spared.
    core.commit("main", state(1), base=None, first=True, step=1, message="1")
    (lease,) = os.listdir(folder / "leases")
    shift = tmp_path / "shift"
    shift.write_text("0\n")
    child = Child.start_command(
        [
            sys.executable,
            str(Path(__file__).with_name("clock_child.py")),
            "--reports",
            "{fd}",
            "--shift",
            str(shift),
            "--",
            *map(str, CLOCKS[name]),
        ],
        cwd=tmp_path,
        variables={"LD_PRELOAD": str(shim), "CLOCK_SHIFT": str(shift)},
    )
    child.finish()
    jumps = [said["jumped"] for said in child.heard if "jumped" in said]
    wanted = [after - before for before, after in zip([0, *CLOCKS[name]], CLOCKS[name], strict=False)]
    assert [round(jump / 60) for jump in jumps] == [round(jump / 60) for jump in wanted], "the shim moves no clock"
    commits = [said for said in child.heard if "commit" in said]
    assert len(commits) == 2 * len(CLOCKS[name])
    # A commit holds no time before 1970.
    wanted_at = max(time.time() + CLOCKS[name][-1], 0)
    assert abs(commits[-1]["time_ns"] / 1e9 - wanted_at) < 120, "the extension has another clock"
    assert lease in os.listdir(folder / "leases"), "a live writer was taken for dead"
    core.refresh()
    tip = core.branches()["main"]
    step = core.commit_info(tip).step + 1
    result = core.commit("main", state(step), base=tip, first=True, step=step, message=str(step))
    core.close()
    with Repo.open(path) as repo:
        order = [info.id for info in repo.log()]
        assert order[0] == result.id
        assert order[1:-1] == [said["commit"] for said in reversed(commits)], "parents stand before their children"
        assert [info.step for info in repo.log()] == list(range(step, 0, -1))
        for info in repo.log():
            tensors = repo.state(info.id)["model"]["main"]["tensors"]
            assert {name: tensors[name].bytes() for name in tensors} == contents(int(info.message))
        assert len(repo.tags()) == len(set(CLOCKS[name]))
        numbers = [operation.number for operation in repo.operations()]
        assert numbers == sorted(numbers, reverse=True)
    report = _core.fsck(str(path), level="full")
    assert report.clean and not report.lost, report.findings
