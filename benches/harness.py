"""What every bench shares: alternating samples, medians with their spread, the machine, the data.

A sample is a call that sets up what is not timed and returns the timed call. Ours and the peer's alternate, so that a
machine whose speed drifts slows both.
"""

from __future__ import annotations

import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = pathlib.Path(os.environ.get("GRADIENT_BENCH_DATA", ROOT / "bench-data"))
RUNS = int(os.environ.get("GRADIENT_BENCH_RUNS", "9"))

Sample = Callable[[], Callable[[], object]]


def alternate(samples: dict[str, Sample], runs: int = RUNS) -> dict[str, list[float]]:
    """Seconds of each sample, `runs` of each in turn after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in samples}
    for run in range(runs + 1):
        for name, sample in samples.items():
            timed = sample()
            start = time.perf_counter()
            timed()
            elapsed = time.perf_counter() - start
            if run:
                seconds[name].append(elapsed)
    return seconds


def table(title: str, seconds: dict[str, list[float]], peer: str, raw_bytes: int | None = None) -> None:
    """Print medians, spread, throughput, and how many times as fast as the peer, pair by pair."""
    print(f"\n{title}")
    print(f"  {'':44s} {'median':>10s} {'min':>9s} {'max':>9s} {'GB/s':>7s} {'times as fast':>14s}")
    for name, own in seconds.items():
        ratio = statistics.median(theirs / ours for ours, theirs in zip(own, seconds[peer], strict=True))
        speed = f"{raw_bytes / 1e9 / statistics.median(own):7.2f}" if raw_bytes else ""
        fast = "(peer)" if name == peer else f"{ratio:.2f}"
        middle, low, high = (1e3 * value for value in (statistics.median(own), min(own), max(own)))
        print(f"  {name:44s} {middle:7.1f} ms {low:6.1f} ms {high:6.1f} ms {speed:>7s} {fast:>14s}")


@contextmanager
def folder() -> Iterator[pathlib.Path]:
    """A new folder on the disk that the data lies on."""
    DATA.mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(tempfile.mkdtemp(dir=DATA, prefix="run-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sync(path: pathlib.Path) -> None:
    """Sync a file to disk, as a durable `torch.save` has to."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def describe() -> None:
    """Print what the figures were measured on."""
    DATA.mkdir(parents=True, exist_ok=True)
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(DATA)], check=False, capture_output=True, text=True
    ).stdout.strip()
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.platform()}, {model}, {cores} cores, {kind} at {DATA}")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads")


def resident(field: str) -> int:
    """Bytes that the kernel counts for this process: `VmRSS`, `VmHWM`."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def forget_peak() -> None:
    """Begin `VmHWM` anew."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def watch_others() -> Callable[[], float]:
    """Begin to count the cores that other processes keep busy; of more than 0.1, two threads tell little."""
    start, before = time.perf_counter(), _others_seconds()
    return lambda: max(0.0, (_others_seconds() - before) / (time.perf_counter() - start))


def _others_seconds() -> float:
    """Processor time of all processes but this one and its children that ended, and what the host took away."""
    user, nice, system, _idle, _wait, irq, soft_irq, steal, *_ = map(int, _lines("/proc/stat")[0].split()[1:])
    return (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def _lines(path: str) -> list[str]:
    try:
        return pathlib.Path(path).read_text().splitlines()
    except OSError:
        return []


def trajectory() -> pathlib.Path:
    """The folder with the states of `train_gpt.py`, made if it is not there (about 10 minutes on two cores)."""
    states = DATA / "traj"
    if not (states / "s220.pt").exists():
        print("making the trajectory first: about 6 minutes on two cores", file=sys.stderr)
        command = [sys.executable, str(ROOT / "benches" / "train_gpt.py"), "--out", str(states), "--until", "220"]
        subprocess.run(command, check=True)
    return states
