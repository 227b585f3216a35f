"""Paired training: does training go as well with moments in eight bits as with fp32? `make paired`.

Each task of `paired_tasks.py` is trained with each arm from the same seeds, with the same first weights and the same
batches in the same order:

| arm       | optimizer                                                                          |
|-----------|------------------------------------------------------------------------------------|
| `fp32`    | torch's own                                                                        |
| `ours`    | the same after `gradient.wrap`                                                     |
| `linear`  | the same with linear bytes, a user's codec: the control, which must fail with AdamW |
| `nudged`  | torch's own with one weight moved by 1e-6: what chance alone does                  |

The figure of a run is the mean of its last ten validation losses. A line of JSON for each finished run goes to the file
of runs, and a run that is there is not repeated: what was stopped goes on. `--report` prints the report of the file.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import math
import multiprocessing
import os
import pathlib
import platform
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

import gradient
import paired_report
from gradient.optim import ConfigurablePolicy, Rule, SelectivePolicy
from harness import DATA, ROOT, describe
from paired_report import ARMS, Record
from paired_tasks import TASKS, Run, Task, cosine, find_digits

EVALUATIONS = 30
LAST = 10
Key = tuple[str, str, int, int]


def key(record: Record) -> Key:
    """What makes a run the same run."""
    return record["task"], record["arm"], record["seed"], record["steps"]


def equip(arm: str, task: Task, optimizer: Optimizer) -> Optimizer:
    """Give the optimizer of an arm."""
    if arm == "ours":
        return gradient.wrap(optimizer)
    if arm == "linear":
        # Of the same tensors as ours: all others are kept in full by both.
        large = Rule(ConfigurablePolicy(task.control), shape=lambda shape: len(shape) >= 2 and shape.numel() >= 4096)
        return gradient.wrap(optimizer, policy=SelectivePolicy([large]))
    return optimizer


def nudge(model: nn.Module) -> None:
    """Move one weight of the last matrix by 1e-6."""
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    with torch.no_grad():
        matrices[-1].view(-1)[0] += 1e-6


def train(name: str, arm: str, seed: int, steps: int) -> Record:
    """Train one run to its end, or until its loss is no number."""
    torch.set_num_threads(1)
    task = TASKS[name]
    started = time.perf_counter()
    torch.manual_seed(seed)
    run = task.make(seed)
    if arm == "nudged":
        nudge(run.model)
    optimizer = equip(arm, task, task.optimizer(run.model.parameters()))
    schedule = cosine(optimizer, steps)
    every = max(1, steps // EVALUATIONS)
    evaluations: list[tuple[int, float | None]] = []
    for step in range(1, steps + 1):
        loss = run.batch_loss()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (steps - step) % every == 0:
            found = validate(run)
            evaluations.append((step, found if math.isfinite(found) else None))
            if not math.isfinite(found):
                break
    losses = [found for _, found in evaluations[-LAST:] if found is not None]
    return {
        "task": name,
        "arm": arm,
        "seed": seed,
        "steps": steps,
        "loss": None if evaluations[-1][1] is None else sum(losses) / len(losses),
        "evaluations": evaluations,
        "seconds": round(time.perf_counter() - started, 2),
        "versions": versions(),
    }


def validate(run: Run) -> float:
    run.model.eval()
    with torch.no_grad():
        loss = run.validation_loss().item()
    run.model.train()
    return loss


@functools.cache
def versions() -> dict[str, str]:
    """What a run was made with; runs of several versions are not repeated, but the report names all."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    return {
        "gradient": importlib.metadata.version("gradient-store"),
        "commit": found.stdout.strip() or "unknown",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def load(path: pathlib.Path) -> list[Record]:
    """The runs of a file; a last line that was cut off while it was written is none."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line]


def append(path: pathlib.Path, record: Record) -> None:
    """Add a run, on disk before this returns."""
    line = json.dumps(record, allow_nan=False) + "\n"
    with open(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        if file.read(1) not in (b"", b"\n"):
            # A line that was cut off: drop it, as `load` does.
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def missing(args: argparse.Namespace) -> list[Key]:
    """The runs that were asked for and are not in the file, a seed of all tasks and arms at a time."""
    there = {key(record) for record in load(args.out)}
    wanted = [
        (task, arm, seed, args.steps or TASKS[task].steps)
        for seed in range(args.seeds)
        for task in args.tasks
        for arm in args.arms
    ]
    return [one for one in wanted if one not in there]


def run_all(args: argparse.Namespace) -> None:
    """Train what is missing, `--jobs` runs at a time with one thread each."""
    todo = missing(args)
    started = time.perf_counter()
    # The threads of a library are counted when it is loaded.
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        futures = [pool.submit(train, *one) for one in todo]
        try:
            for number, future in enumerate(as_completed(futures), 1):
                record = future.result()
                append(args.out, record)
                what = f"{record['task']} {record['arm']} seed {record['seed']}"
                loss = "diverged" if record["loss"] is None else f"loss {record['loss']:.4f}"
                left = (time.perf_counter() - started) / number * (len(todo) - number) / 60
                times = f"{record['seconds']:.0f} s; {number} of {len(todo)}, about {left:.0f} minutes left"
                print(f"{what}: {loss}, {times}", file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = [name for name in TASKS if name != "lm-999"]
    add: Any = parser.add_argument
    add("--tasks", nargs="+", choices=list(TASKS), default=default, help="default: all but lm-999")
    add("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    add("--seeds", type=int, default=10, help="so many, from 0 on")
    add("--steps", type=int, help="steps of every run; default: those of the task")
    add("--out", type=pathlib.Path, default=DATA / "paired.jsonl", help="the file of runs")
    add("--jobs", type=int, default=2, help="processes, of one thread each")
    add("--report", action="store_true", help="train nothing, report what the file has")
    add("--plots", type=pathlib.Path, help="folder; default: docs/plots for runs of full length, none for others")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not args.report:
        if "digits" in args.tasks and find_digits() is None:
            print("digits left out: it needs scikit-learn, which is not installed", file=sys.stderr)
            args.tasks.remove("digits")
        describe()
        run_all(args)
    passed = True
    records = [record for record in load(args.out) if record["task"] in args.tasks]
    for task, steps in dict.fromkeys((record["task"], record["steps"]) for record in records):
        if args.steps not in (None, steps):
            continue
        runs = [record for record in records if (record["task"], record["steps"]) == (task, steps)]
        passed &= paired_report.show(TASKS[task], runs)
        folder = args.plots or (ROOT / "docs" / "plots" if steps == TASKS[task].steps else None)
        if folder:
            paired_report.draw(folder / f"paired-{task}.svg", TASKS[task], runs)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
