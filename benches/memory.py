"""What commits keep in memory and what they need while they are made, in states above what training has by itself.

Each row is a process of its own that makes the model and its optimizer, trains two steps, attaches, and trains a step
before each of its commits. Memory is what the kernel counts as resident (`VmRSS`, `VmHWM`); its peak is begun anew
before each commit, so that what training needs while it runs does not hide it. The row without an engine says how far
training wanders by itself.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from dataclasses import asdict, dataclass

import lab
from gradient import GradientConfig, GradientEngine
from harness import ROOT, folder, forget_peak, resident, trajectory

NUM_COMMITS = 4

Settings = dict[str, object]
# How the state changes between commits, and the settings of the engine; None for no engine.
ROWS: dict[str, tuple[str, Settings | None]] = {
    "no engine": ("training", None),
    'compression="off"': ("training", {"compression": "off"}),
    'deltas="off"': ("training", {"deltas": "off"}),
    "default settings": ("training", {}),
    "default settings, resumed first": ("resumed", {}),
    'deltas="all"': ("training", {"deltas": "all"}),
    "default settings, one value in 1000 changes": ("sparse", {}),
}


@dataclass(frozen=True)
class Found:
    """Bytes: of the state, and resident."""

    state: int
    training: int
    training_peak: int
    peaks: list[int]
    after: list[int]
    kinds: list[str]


def child(states: pathlib.Path, workspace: pathlib.Path, how: str, settings: Settings | None) -> Found:
    """Train and commit; to be run in a process of its own."""
    run = lab.Run(states, 100)
    run.step()
    forget_peak()
    run.step()
    if how == "sparse":  # There is no step after which gradients would count as used.
        run.optimizer.zero_grad()
    training, training_peak = resident("VmRSS"), resident("VmHWM")
    engine, first = None, 0
    if settings is not None:
        config = GradientConfig(workspace_path=workspace, repo_name="gpt", **settings)
        resume = "latest" if how == "resumed" else None
        engine = GradientEngine.attach(run.model, run.optimizer, config=config, resume=resume)
        first = engine.current_step + 1
    peaks, after, kinds = [], [], []
    for step in range(first, first + NUM_COMMITS):
        if how == "sparse":
            lab.change_some(run.model, run.optimizer)
        else:
            run.step()
        forget_peak()
        kinds.append(engine.commit(step).kind if engine else "-")
        peaks.append(resident("VmHWM"))
        after.append(resident("VmRSS"))
    if engine:
        engine.close()
    return Found(lab.raw_bytes(run.model, run.optimizer), training, training_peak, peaks, after, kinds)


def measure(states: pathlib.Path, how: str, settings: Settings | None) -> Found:
    with folder() as root:

        def run(how: str) -> Found:
            command = [sys.executable, __file__, str(states), str(root), how, json.dumps(settings)]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
            return Found(**json.loads(told))

        if how == "resumed":
            run("training")
        return run(how)


def main() -> None:
    states = trajectory()
    print(f"\nresident memory above training, in states (AdamW, fp32, k = 1 from s100; {NUM_COMMITS} commits)")
    print(f"  {'':44s} {'peak of the first':>18s} {'of the others':>14s} {'kept between':>13s}   kinds")
    for name, (how, settings) in ROWS.items():
        found = measure(states, how, settings)
        peaks, after = (
            [(num_bytes - found.training) / found.state for num_bytes in each] for each in (found.peaks, found.after)
        )
        print(f"  {name:44s} {peaks[0]:18.2f} {max(peaks[1:]):14.2f} {max(after):13.2f}   {' '.join(found.kinds)}")
    print(f"  a state is {found.state / 1e6:.0f} MB; while it runs, a step of training has", end=" ")
    print(f"{(found.training_peak - found.training) / found.state:.2f} states more than between steps")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        where, root, how, settings = sys.argv[1:]
        found = child(pathlib.Path(where), pathlib.Path(root), how, json.loads(settings))
        print(json.dumps(asdict(found)))
    else:
        from harness import describe

        describe()
        main()
