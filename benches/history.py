"""A long history: what commit 10,000 costs beside commit 10, `gradient log`, attach, a new branch.

The state is 1 MB in eight tensors; each commit changes all of them. fsyncs are kept apart by counting them where they
cost nothing, in memory: `GRADIENT_BENCH_MEMORY` names a tmpfs (default /dev/shm). Commits of 128 KiB (one tensor
changes) are measured there, commits of the whole megabyte on the disk, fsyncs included.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from gradient import _core
from harness import DATA, RUNS, alternate

COMMITS = int(os.environ.get("GRADIENT_BENCH_COMMITS", "10000"))
TENSORS, BYTES = 8, 128 * 1024


def leaves(data: list[Any]) -> dict[str, Any]:
    tensors = {f"layer{i}.weight": _core.TensorLeaf("float32", [BYTES // 4], part) for i, part in enumerate(data)}
    return {"model": {"main": {"tensors": tensors, "extra": {}}}}


def grow(path: pathlib.Path, changed: int) -> tuple[_core.Repository, list[float]]:
    """A repository of `COMMITS` commits, and the seconds of each."""
    repo, _ = _core.Repository.init(str(path), name="long")
    rng = np.random.default_rng(0)
    data = [rng.bytes(BYTES) for _ in range(TENSORS)]
    base, seconds = None, []
    for step in range(1, COMMITS + 1):
        for at in range(changed):
            data[(step + at) % TENSORS] = rng.bytes(BYTES)
        state = leaves(data)
        start = time.perf_counter()
        result = repo.commit("main", state, base=base, first=base is None, step=step, message=f"step {step}")
        seconds.append(time.perf_counter() - start)
        base = result.id
    return repo, seconds


def around(seconds: list[float], at: int, count: int = 200) -> list[float]:
    return seconds[max(0, at - count) : at]


def report(title: str, seconds: list[float]) -> None:
    early, late = statistics.median(seconds[2:202]), statistics.median(around(seconds, COMMITS))
    mean_early, mean_late = statistics.fmean(seconds[2:1002]), statistics.fmean(around(seconds, COMMITS, 1000))
    print(f"\n{title}")
    print(f"  median of commits 3 to 202   {1e3 * early:8.2f} ms")
    print(f"  median of the last 200       {1e3 * late:8.2f} ms   {late / early:.2f} times")
    print(f"  mean of commits 3 to 1,002   {1e3 * mean_early:8.2f} ms")
    print(
        f"  mean of the last 1,000       {1e3 * mean_late:8.2f} ms   {mean_late / mean_early:.2f} times (with upkeep)"
    )
    print(f"  longest                      {1e3 * max(seconds):8.2f} ms")


def commands(repo_path: pathlib.Path) -> None:
    python = [sys.executable, "-m", "gradient", "-C", str(repo_path)]
    # As installed: the first call compiles the modules, even where the environment forbids that.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def call(*arguments: str) -> Any:
        command = [*python, *arguments]
        return lambda: lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)

    call("log")()()
    seconds = alternate(
        {
            "gradient --version": call("--version"),
            "gradient log": call("log"),
            "gradient log --json": call("log", "--json"),
        }
    )
    print(f"\ncold processes, {COMMITS:,} commits")
    for name, values in seconds.items():
        print(f"  {name:24s} {1e3 * statistics.median(values):7.1f} ms (max {1e3 * max(values):.1f})")


def opening(path: pathlib.Path) -> None:
    import torch

    from gradient import GradientEngine

    model = torch.nn.Linear(4, 1)

    def attach() -> float:
        start = time.perf_counter()
        engine = GradientEngine.attach(model, workspace=path.parent, repo=path.name)
        elapsed = time.perf_counter() - start
        engine.close()
        return elapsed

    attach()
    cached = [attach() for _ in range(RUNS)]
    without = []
    for _ in range(RUNS):
        shutil.rmtree(path / ".gradient-repo" / "cache")
        (path / ".gradient-repo" / "cache").mkdir()
        without.append(attach())
    print(f"  attach, caches there     {1e3 * statistics.median(cached):7.1f} ms (max {1e3 * max(cached):.1f})")
    print(f"  attach, caches deleted   {1e3 * statistics.median(without):7.1f} ms (max {1e3 * max(without):.1f})")


def branching(path: pathlib.Path) -> None:
    repo = _core.Repository.open(str(path))
    tip = repo.resolve("main").id
    ops = path / ".gradient-repo"

    def size() -> int:
        return sum(file.stat().st_size for folder in ("ops", "packs") for file in (ops / folder).iterdir())

    seconds, added = [], []
    for at in range(50):
        before = size()
        start = time.perf_counter()
        repo.create_branch(f"branch-{at}", tip)
        seconds.append(time.perf_counter() - start)
        added.append(size() - before)
    print(f"  new branch               {1e3 * statistics.median(seconds):7.2f} ms, at most {max(added):,} bytes")
    repo.close()


def main() -> None:
    memory = pathlib.Path(os.environ.get("GRADIENT_BENCH_MEMORY", "/dev/shm"))
    root = pathlib.Path(tempfile.mkdtemp(dir=memory, prefix="gradient-bench-"))
    try:
        path = root / "long"
        repo, seconds = grow(path, changed=1)
        report(f"1 MB state, 128 KiB of it new, no fsync costs (tmpfs at {memory})", seconds)
        repo.close()
        branching(path)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    DATA.mkdir(parents=True, exist_ok=True)
    root = pathlib.Path(tempfile.mkdtemp(dir=DATA, prefix="run-"))
    try:
        path = root / "long"
        repo, seconds = grow(path, changed=TENSORS)
        report("1 MB state, all of it new, fsyncs included (disk)", seconds)
        repo.close()
        commands(path)
        opening(path)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    from harness import describe

    describe()
    main()
