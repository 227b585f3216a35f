"""Commit and restore of one state against `torch.save` and `torch.load`: speed, bytes, bytes of metadata."""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

import lab
from gradient import GradientConfig, GradientEngine
from harness import ROOT, Sample, alternate, folder, sync, table, trajectory


def attach(
    model: lab.GPT,
    optimizer: torch.optim.AdamW,
    workspace: pathlib.Path,
    *,
    resume: str | None = None,
    **settings: Any,
) -> GradientEngine:
    config = GradientConfig(workspace_path=workspace, repo_name="gpt", **settings)
    return GradientEngine.attach(model, optimizer, config=config, resume=resume)


def tree_bytes(path: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def metadata_bytes(pack: pathlib.Path) -> tuple[int, int]:
    """(bytes of the pack that are no chunk payload, payload bytes), read as `docs/format/pack.md` says."""
    data = pack.read_bytes()
    index, num_objects = struct.unpack_from("<QI", data, len(data) - 128 + 8)
    payload = 0
    for row in range(num_objects):
        at = index + 64 * row
        if data[at + 58] == 1:
            payload += struct.unpack_from("<I", data, at + 44)[0]
    return len(data) - payload, payload


@dataclass(frozen=True)
class Kind:
    """How a commit of s220 comes to be, and with which settings."""

    name: str
    after: Literal["nothing", "a commit of s200", "a resume of s200"] = "nothing"
    settings: dict[str, Any] = field(default_factory=dict)


KINDS = (
    Kind("anchor, first of a repository"),
    Kind('anchor, first of a repository, deltas="off"', settings={"deltas": "off"}),
    Kind('anchor, steady state, deltas="off"', "a commit of s200", {"deltas": "off"}),
    Kind("k = 20, steady state", "a commit of s200"),
    Kind("k = 20, first of a process that resumed", "a resume of s200"),
)


class Commits:
    """Commits of s220 in new repositories; what each stored is looked at before the next one is made."""

    def __init__(self, states: pathlib.Path, root: pathlib.Path) -> None:
        self.before, self.now = lab.load(states / "s200.pt"), lab.load(states / "s220.pt")
        self.model, self.optimizer = lab.live(self.now)
        self.stored: dict[str, tuple[int, int, int]] = {}
        self._states, self._root = states, root
        self._settle: list[Callable[[], None]] = []

    def settle(self) -> None:
        """Look at what the last sample stored, take it away, and let the disk come to rest."""
        while self._settle:
            self._settle.pop()()
        os.sync()

    def peer(self, *, over_last: bool = False) -> Callable[[], object]:
        """Save to a new file, or over that of the last sample, as runs do that keep one."""
        self.settle()
        lab.put(self.model, self.optimizer, self.now)
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        path = self._root / ("last.pt" if over_last else "state.pt")
        if not over_last:
            self._settle.append(path.unlink)

        def save() -> None:
            torch.save(state, path)
            sync(path)

        return save

    def ours(self, kind: Kind) -> Callable[[], object]:
        self.settle()
        workspace = self._root / "workspace"
        lab.put(self.model, self.optimizer, self.now if kind.after == "nothing" else self.before)
        engine = attach(self.model, self.optimizer, workspace, **kind.settings)
        commit, close = (lambda: engine.commit(220)), engine.close
        if kind.after != "nothing":
            engine.commit(200)
            lab.put(self.model, self.optimizer, self.now)
        if kind.after == "a resume of s200":
            engine.close()
            commit, close = in_new_process("commit", self._states, workspace)
        size, packs = tree_bytes(workspace), set(workspace.rglob("*.pack"))

        def look() -> None:
            (pack,) = set(workspace.rglob("*.pack")) - packs
            self.stored[kind.name] = tree_bytes(workspace) - size, *metadata_bytes(pack)
            close()
            shutil.rmtree(workspace)

        self._settle.append(look)
        return commit


def in_new_process(job: str, states: pathlib.Path, at: pathlib.Path) -> tuple[Callable[[], object], Callable[[], None]]:
    """A process that is ready for one of `JOBS`: (have it do that, let it end)."""
    command = [sys.executable, __file__, job, str(states), str(at)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)

    def wait() -> None:
        if not child.stdout or not child.stdout.readline():
            raise RuntimeError(f"the process that was to {job} has failed")

    def do() -> None:
        if child.stdin:
            child.stdin.write(b"go\n")
            child.stdin.flush()
        wait()

    def close() -> None:
        child.communicate()

    wait()
    return do, close


@contextmanager
def commit_after_resume(states: pathlib.Path, workspace: pathlib.Path) -> Iterator[Callable[[], object]]:
    """Resume s200, to commit s220."""
    now = lab.load(states / "s220.pt")
    model, optimizer = lab.live(now)
    engine = attach(model, optimizer, workspace, resume="latest")
    lab.put(model, optimizer, now)
    yield lambda: engine.commit(220)
    engine.close()


@contextmanager
def resume(states: pathlib.Path, workspace: pathlib.Path) -> Iterator[Callable[[], object]]:
    """Attach, to resume an anchor."""
    model, optimizer = lab.live(lab.load(states / "s200.pt"))
    engine = attach(model, optimizer, workspace)
    yield lambda: engine.resume("main@200")
    engine.close()


@contextmanager
def load(states: pathlib.Path, path: pathlib.Path) -> Iterator[Callable[[], object]]:
    """What a process does that resumes with torch alone."""
    model, optimizer = lab.live(lab.load(states / "s200.pt"))

    def restore() -> None:
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    yield restore


JOBS = {"commit": commit_after_resume, "resume": resume, "load": load}


def do_as_told(job: str, states: pathlib.Path, at: pathlib.Path) -> None:
    """What `in_new_process` runs: says a line when it is ready, and one when it has done what it is told to."""
    with JOBS[job](states, at) as do:
        print("ready", flush=True)
        sys.stdin.readline()
        do()
        print("done", flush=True)
        sys.stdin.read()


def commits(states: pathlib.Path) -> None:
    with folder() as root:
        made = Commits(states, root)
        raw = lab.raw_bytes(made.model, made.optimizer)
        samples: dict[str, Sample] = {
            "torch.save + fsync": made.peer,
            "torch.save over the last + fsync": functools.partial(made.peer, over_last=True),
        }
        samples |= {kind.name: functools.partial(made.ours, kind) for kind in KINDS}
        seconds = alternate(samples)
        made.settle()
    run = f"AdamW, fp32, {lab.learning_rate(made.now)}"
    table(f"durable commit of s220, verified ({run}; k = 20: s220 on s200)", seconds, "torch.save + fsync", raw)
    for name, (added, other, payload) in made.stored.items():
        print(
            f"  {name:44s} ratio {raw / added:.4f}: {added:,} bytes, of the pack {payload:,} payload, {other:,} other"
        )


def restores(states: pathlib.Path) -> None:
    before, now = lab.load(states / "s200.pt"), lab.load(states / "s220.pt")
    model, optimizer = lab.live(before)
    raw = lab.raw_bytes(model, optimizer)
    with folder() as root:
        engine = attach(model, optimizer, root / "workspace")
        engine.commit(200)
        lab.put(model, optimizer, now)
        engine.commit(220)
        path = root / "state.pt"
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)

        def live_load(mmap: bool) -> Sample:
            # Objects of its own: the optimizer goes on with the very tensors that were loaded, mapped or not, and
            # whoever restores into those next would pay for it.
            own_model, own_optimizer = lab.live(before)

            def timed() -> None:
                state = torch.load(path, weights_only=True, mmap=mmap)
                own_model.load_state_dict(state["model"])
                own_optimizer.load_state_dict(state["optimizer"])

            return lambda: timed

        seconds = alternate(
            {
                "torch.load + load_state_dict": live_load(mmap=False),
                "torch.load(mmap=True) + load_state_dict": live_load(mmap=True),
                "resume an anchor, verified": lambda: lambda: engine.resume("main@200"),
                "resume a delta, k = 20, verified": lambda: lambda: engine.resume("main@220"),
            }
        )
        table("restore into the live model and optimizer, files cached", seconds, "torch.load + load_state_dict", raw)
        engine.close()
        first_restores(states, root, raw)


def first_restores(states: pathlib.Path, root: pathlib.Path, raw: int) -> None:
    """Restores as runs need them: once, in a process that has just made its model and nothing else."""
    closes: list[Callable[[], None]] = []

    def sample(job: str, at: pathlib.Path) -> Callable[[], object]:
        while closes:
            closes.pop()()
        do, close = in_new_process(job, states, at)
        closes.append(close)
        return do

    seconds = alternate(
        {
            "torch.load + load_state_dict": lambda: sample("load", root / "state.pt"),
            "resume an anchor, verified": lambda: sample("resume", root / "workspace"),
        }
    )
    while closes:
        closes.pop()()
    table("the same, once, by a process that has its model", seconds, "torch.load + load_state_dict", raw)


def main() -> None:
    states = trajectory()
    commits(states)
    restores(states)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        do_as_told(sys.argv[1], *(pathlib.Path(argument) for argument in sys.argv[2:]))
    else:
        from harness import describe

        describe()
        main()
