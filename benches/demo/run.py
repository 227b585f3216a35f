"""The demonstration: a run killed in the middle of a step comes back and ends bit for bit like one that never stopped.

`make demo` starts it. It works in `demo/` at the root of the checkout, which it empties first. Three programs run:

1. `train.py`, uninterrupted; it also saves every committed state with torch.save and fsync, for the table.
2. `train.py` on a repository of its own; it is killed with SIGKILL half way through a step.
3. `gradient resume latest -- python train.py`, which finishes the second run.

The exit code is 0 only if both runs hold the same root hash at every commit.
"""

import json
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gradient import Repo

ROOT = Path(__file__).resolve().parents[2]
TRAIN = str(Path(__file__).with_name("train.py"))
GRADIENT = str(Path(sysconfig.get_path("scripts")) / "gradient")
STEPS, EVERY, KILL_AT = 60, 10, 47


def main() -> int:
    began = time.perf_counter()
    demo = ROOT / "demo"
    shutil.rmtree(demo, ignore_errors=True)
    saved = demo / "torch_save"
    saved.mkdir(parents=True)
    train = [sys.executable, TRAIN, "--workspace", str(demo), "--steps", str(STEPS), "--every", str(EVERY)]

    say(f"A GPT of 10.8 M parameters, {STEPS} steps, a commit every {EVERY}; work in {demo}")
    heading("1. A run that is never interrupted")
    follow(start([*train, "--repo", "uninterrupted", "--compare", str(saved)]))

    heading(f"2. The same run again, killed with SIGKILL in the middle of step {KILL_AT}")
    child = start([*train, "--repo", "killed"])
    last = follow(child, kill_at=KILL_AT)
    if child.returncode != -9 or last >= KILL_AT:
        fail(f"the run ended with {child.returncode} after step {last}, it was not killed in step {KILL_AT}")
    say(f"killed: step {last} was the last one to end, step {last - last % EVERY} the last one to be committed")

    heading("3. gradient resume latest -- python train.py")
    follow(start([GRADIENT, "-C", str(demo), "--repo", "killed", "resume", "latest", "--", *train, "--repo", "killed"]))

    heading("4. gradient log")
    subprocess.run([GRADIENT, "-C", str(demo), "--repo", "killed", "log", "--oneline"], check=True)

    heading("5. Root hashes: what a whole training state is, in 32 bytes")
    equal = compare(demo)
    heading("6. These commits against torch.save + fsync of the same states")
    table(demo / "uninterrupted", saved)
    say(f"\n{'Bit for bit the same.' if equal else 'THE RUNS DIFFER.'} ({time.perf_counter() - began:.0f} s)")
    return 0 if equal else 1


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a training run whose lines we read."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def follow(child: subprocess.Popen[str], *, kill_at: int | None = None) -> int:
    """Show a run's progress until it ends, and return its last finished step; or kill it half way through a step."""
    last, began, seconds_a_step, waited = 0, 0.0, 0.0, time.perf_counter()
    for word, step, rest in events(child):
        if word == "begin":
            began = time.perf_counter()
            if step == kill_at:
                time.sleep(seconds_a_step / 2)
                child.kill()
        else:
            last, seconds_a_step = step, time.perf_counter() - began
            progress(step, rest, time.perf_counter() - waited)
    child.wait()
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if kill_at is None and child.returncode != 0:
        fail(f"the run ended with exit code {child.returncode}")
    return last


def events(child: subprocess.Popen[str]) -> Iterator[tuple[str, int, str]]:
    """Read `begin STEP` and `end STEP LOSS`; other lines are shown as they are."""
    assert child.stdout is not None
    for line in child.stdout:
        word, _, rest = line.strip().partition(" ")
        step, _, rest = rest.partition(" ")
        if word in ("begin", "end") and step.isdigit():
            yield word, int(step), rest
        else:
            say(line.rstrip())


def progress(step: int, loss: str, seconds: float) -> None:
    """Show how far a run is: in place on a terminal, now and then elsewhere."""
    line = f"step {step:3} of {STEPS}  loss {loss}  {seconds:4.0f} s"
    if sys.stderr.isatty():
        print(f"\r{line}", end="", flush=True, file=sys.stderr)
    elif step % EVERY == 0:
        print(line, flush=True, file=sys.stderr)


def compare(demo: Path) -> bool:
    """Print the root hashes of both runs, and return whether they are the same at every commit."""
    roots = []
    for name in ("uninterrupted", "killed"):
        with Repo.open(demo / name) as repo:
            roots.append({info.step: info.root for info in repo.log()})
    for step in sorted(roots[0]):
        same = "same" if roots[0][step] == roots[1].get(step) else "DIFFERS"
        say(f"step {step:3}  {roots[0][step][:16]}...  {roots[1].get(step, 'no commit')[:16]}...  {same}")
    say(f"last root, uninterrupted      {roots[0][STEPS]}")
    say(f"last root, killed and resumed {roots[1].get(STEPS, 'no commit')}")
    return roots[0] == roots[1] and len(roots[0]) == STEPS // EVERY


def table(path: Path, saved: Path) -> None:
    """Print bytes and seconds of each commit beside those of torch.save."""
    with Repo.open(path) as repo:
        added = {info.step: info.added_bytes for info in repo.log()}
        disk_bytes = repo.disk_bytes()
    rows = [json.loads(line) for line in (saved / "times.jsonl").read_text(encoding="utf-8").splitlines()]
    say(f"{'step':>6}{'commit':>14}{'':>10}{'torch.save + fsync':>24}")
    for row in rows:
        ours, theirs = mib(added[row["step"]]), mib(row["torch_save_bytes"])
        say(f"{row['step']:>6}{ours:>14}{row['commit_s']:>8.2f} s{theirs:>14}{row['torch_save_s']:>8.2f} s")
    theirs_bytes = sum(row["torch_save_bytes"] for row in rows)
    theirs_s, ours_s = sum(row["torch_save_s"] for row in rows), sum(row["commit_s"] for row in rows)
    say(f"{'sum':>6}{mib(disk_bytes):>14}{ours_s:>8.2f} s{mib(theirs_bytes):>14}{theirs_s:>8.2f} s")
    say(f"One sample each, on {platform.machine()} with Python {platform.python_version()}; the sum of the commits is")
    say("the whole repository on disk. `make bench` measures properly.")


def mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):,.1f} MiB"


def heading(text: str) -> None:
    say(f"\n== {text}")


def say(text: str) -> None:
    print(text, flush=True)


def fail(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
