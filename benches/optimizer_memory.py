"""What an 8-bit optimizer keeps in memory, and what a step needs beyond that, beside torch's own.

State is counted in bytes a parameter. What a step needs is measured: each row is a process of its own that makes
weights, gradients and optimizer, steps until all state is there, gives free memory back to the system, and steps on
with the kernel's peak of resident memory begun anew (`VmHWM` above `VmRSS`). "Kept" is what the process holds after
its first steps beyond weights, gradients and state. Both of an idle process are what the measure wanders by.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch.optim import SGD, AdamW, Optimizer, RAdam

from harness import ROOT, RUNS, forget_peak, resident
from stepper import Make, Shapes, Stepper, lab_gpt, num_elements, resnet50, squares, state_bytes, wrapped

MIB = 1 << 20
WARM_STEPS = 2
# Smaller tensors, and those of one dimension, stay in fp32.
QUANTIZED_ELEMENTS_MIN = 4096


class Idle(Optimizer):
    """Does nothing in a step."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Callable[[], float] | None = None) -> None:
        del closure


ROWS: dict[str, Make] = {
    "an idle process": Idle,
    "ours, AdamW": wrapped(AdamW),
    "ours, SGD, momentum 0.9": wrapped(lambda parameters: SGD(parameters, lr=1e-2, momentum=0.9)),
    "ours, RAdam, through torch's own step": wrapped(RAdam),
    "torch, AdamW, fused": lambda parameters: AdamW(parameters, fused=True),
    "torch, AdamW, foreach": lambda parameters: AdamW(parameters, foreach=True),
    "torch, AdamW, one at a time": lambda parameters: AdamW(parameters, foreach=False),
    "torch, RAdam, one at a time": lambda parameters: RAdam(parameters, foreach=False),
}
# Rows that are measured with one thread too: what a step needs may grow with their number.
BY_THREADS = ("ours, AdamW",)


@dataclass(frozen=True)
class Found:
    """Bytes."""

    state: int
    kept: int
    peaks: list[int]


def return_free_memory() -> None:
    """Give what `malloc` holds back to the system; without it, a step could use again what is already resident."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def child(row: str, count: int) -> Found:
    """Step; to be run in a process of its own."""
    torch.set_num_threads(count)
    # What torch imports in its first steps is not the optimizer's.
    for how in ({"fused": True}, {"foreach": True}):
        Stepper(squares(1), lambda parameters, how=how: AdamW(parameters, **how)).run(1)
    made: list[int] = []

    def make(parameters: list[torch.nn.Parameter]) -> Optimizer:
        return_free_memory()
        made.append(resident("VmRSS"))
        return ROWS[row](parameters)

    stepper = Stepper(squares(16), make)
    stepper.run(WARM_STEPS)
    return_free_memory()
    state = state_bytes(stepper.optimizer)
    kept = resident("VmRSS") - made[0] - state
    peaks = []
    for _ in range(RUNS):
        step = stepper.sample()
        return_free_memory()
        forget_peak()
        before = resident("VmRSS")
        step()
        peaks.append(resident("VmHWM") - before)
    return Found(state, kept, peaks)


def measure_steps() -> None:
    shapes = squares(16)
    largest = 4 * max(num_elements([shape]) for shape in shapes) / MIB
    print(
        f"\nmemory of a step, fp32, 16 matrices (67.1 M; each has {largest:.0f} MiB), MiB beyond weights and gradients"
    )
    print(f"  {'':44s} {'threads':>8s} {'state':>8s} {'kept':>8s} {'peak of a step':>15s} {'largest':>8s}")
    for row in ROWS:
        for count in (1, 2) if row in BY_THREADS else (2,):
            command = [sys.executable, __file__, row, str(count)]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
            found = Found(**json.loads(told.splitlines()[-1]))
            peaks = f"{statistics.median(found.peaks) / MIB:15.2f} {max(found.peaks) / MIB:8.2f}"
            print(f"  {row:44s} {count:8d} {found.state / MIB:8.1f} {found.kept / MIB:8.2f} {peaks}", flush=True)


def quantized(shapes: Shapes) -> Shapes:
    return [shape for shape in shapes if len(shape) > 1 and num_elements([shape]) >= QUANTIZED_ELEMENTS_MIN]


def measure_state() -> None:
    print("\nstate, bytes a parameter, scales included")
    print(f"  {'':44s} {'quantized':>10s} {'all state':>10s} {'torch':>8s} {'saved':>8s}")
    makes: dict[str, Make] = {"AdamW": AdamW, "SGD, momentum 0.9": lambda parameters: SGD(parameters, momentum=0.9)}
    for model, shapes in (("lab GPT (17.0 M)", lab_gpt()), ("ResNet-50 (25.6 M)", resnet50())):
        for name, make in makes.items():
            ours, all_ours = (kept(some, wrapped(make)) for some in (quantized(shapes), shapes))
            theirs = kept(shapes, make)
            columns = f"{ours:10.3f} {all_ours:10.3f} {theirs:8.3f} {100 * (1 - all_ours / theirs):6.1f} %"
            print(f"  {f'{name}, {model}':44s} {columns}", flush=True)


def kept(shapes: Shapes, make: Make) -> float:
    stepper = Stepper(shapes, make)
    stepper.run(1)
    return state_bytes(stepper.optimizer) / num_elements(shapes)


def main() -> None:
    measure_state()
    measure_steps()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(asdict(child(sys.argv[1], int(sys.argv[2])))))
    else:
        from harness import describe

        describe()
        main()
