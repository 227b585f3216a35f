"""Killed at every tick, in every kind of run, it goes on as if nothing had been: reliability.md, row 27 and section 7.

One cell is a run with or without workers, scaler and averaged weights that commits in one kind of place: in the middle
of an epoch, at its end, or in the middle of an accumulation. It is killed by SIGKILL once in each of forty ticks. At
each tick of each child an SHA-256 that is computed without Gradient must be that of a run which was never killed, and
so must the root hash of each commit. `make resume-matrix` runs all 24 cells; `make test` the two that have most in
them.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import random
import secrets
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import Child, ForkServer
from matrix_child import TICKS
from recipe import PLACES

from gradient import Repo

pytestmark = pytest.mark.slow
WHOLE = "GRADIENT_RESUME_MATRIX"
"""Set, all cells are run."""

KILLS = range(TICKS - 39, TICKS + 1)
CELLS = list(itertools.product(PLACES, (0, 2), (False, True), (False, True)))
SOME = [("mid-accumulation", 2, True, True), ("boundary", 0, True, True)]


@functools.cache
def server() -> ForkServer:
    made = ForkServer("matrix_child")
    atexit.register(made.close)
    return made


class Cell:
    """One kind of run in a folder of its own."""

    def __init__(self, cwd: Path, place: str, workers: int, scaler: bool, ema: bool) -> None:
        self.cwd = cwd
        self.arguments = ["--reports", "{fd}", "--place", place, "--workers", str(workers)]
        self.arguments += ["--scaler"] * scaler + ["--ema"] * ema

    def start(self, cwd: Path, *more: str) -> Child:
        return server().start("matrix_child", [*self.arguments, *more], cwd=cwd)


class NeverKilled:
    """Digests, roots and the typical length of a tick of a run that went through."""

    def __init__(self, cell: Cell) -> None:
        cwd = cell.cwd / "never"
        cwd.mkdir()
        plain = {said["tick"]: said["digest"] for said in cell.start(cwd, "--plain").finish()}
        heard = cell.start(cwd).finish()
        self.digests = {said["tick"]: said["digest"] for said in heard if "tick" in said}
        self.roots = {said["committed"]: said["root"] for said in heard if "committed" in said}
        assert self.digests == plain, "training noticed that it was committed"
        assert list(plain) == list(range(1, TICKS + 1))
        self.seconds = statistics.median(after["at"] - before["at"] for before, after in itertools.pairwise(heard))

    def differences(self, heard: list[dict[str, Any]]) -> list[str]:
        """What a child said that this run did not."""
        found = []
        for said in heard:
            if "tick" in said and said["digest"] != self.digests[said["tick"]]:
                found.append(f"digest at tick {said['tick']}")
            if "committed" in said and said["root"] != self.roots[said["committed"]]:
                found.append(f"root at tick {said['committed']}")
        return found


@pytest.mark.parametrize(("place", "workers", "scaler", "ema"), CELLS if WHOLE in os.environ else SOME)
def test_a_run_killed_in_every_tick_ends_as_one_never_killed(
    place: str, workers: int, scaler: bool, ema: bool, tmp_path: Path
) -> None:
    seed = secrets.randbits(32)
    print(f"moments of the kills: seed {seed}")
    chance = random.Random(seed)
    cell = Cell(tmp_path, place, workers, scaler, ema)
    reference = NeverKilled(cell)
    cwd = tmp_path / "killed"
    cwd.mkdir()
    kills: Counter[str] = Counter()
    starts: set[int] = set()
    for tick in KILLS:
        child = cell.start(cwd, "--hold", str(tick))
        for said in child.hear():
            if tick - 1 in (said.get("tick"), said.get("start")):
                time.sleep(chance.uniform(0, 3 * reference.seconds))
                child.kill()
            elif said.get("start", 0) >= tick:
                # The commit of that tick was durable when its run was killed.
                child.kill()
        assert child.status == -9, child.last_words()
        assert reference.differences(child.heard) == []
        kills["in the tick" if tick not in (said.get("tick") for said in child.heard) else "at its end"] += 1
        starts.update(said["start"] for said in child.heard if "start" in said)
    last = cell.start(cwd).finish()
    assert reference.differences(last) == []
    assert kills.total() == 40
    with Repo.open(cwd / "ws" / "model") as repo:
        there = {info.step: info.root for info in repo.log(limit=None)}
    assert there == reference.roots
    # It was resumed from all kinds of places that it commits in.
    assert len(starts - {0}) >= len(reference.roots) // 3
    print(f"kills {dict(kills)}, resumed at {sorted(starts)}")
