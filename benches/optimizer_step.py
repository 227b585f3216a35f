"""What a step of an 8-bit optimizer costs, beside torch's fused optimizers in fp32 and other 8-bit optimizers.

A sample is one step; ours and the peer's alternate, with gradients that differ in every step. Steps are counted in
nanoseconds a parameter; the ratio is the median over pairs, and below 1 ours is faster.

"Others" are the cores that other processes kept busy: threads of torch that wait for one another lose far more
by them than ours do. On two threads both sides are stepped by torch's own, which are awake after the other's step, as
they are after a backward pass.

Where there is AVX-512, the steps of AdamW are measured once more with both sides held to AVX2. `--peers` adds
bitsandbytes and torchao where they are installed (3 minutes more).
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch

import gradient
from gradient.optim import Lion
from harness import ROOT, RUNS, alternate, watch_others
from stepper import (
    Make,
    Shapes,
    Stepper,
    check_agreement,
    lab_gpt,
    num_elements,
    squares,
    state_bytes,
    threads,
    wrapped,
)

NUM_THREADS = (1, 2)
NUM_FIRST_STEPS = 7
FAST_BETAS = (0.9, 0.95)
SLOW_BETAS = (0.9, 0.999)
# What inductor starts in the background still takes a core when the first step has been compiled.
SECONDS_TO_SETTLE = 6.0
PEERS = {"bitsandbytes": "bitsandbytes.optim", "torchao": "torchao.optim"}
OURS, TORCH = "ours", "torch fused"


def adamw(betas: tuple[float, float] = SLOW_BETAS, **how: bool) -> Make:
    return lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, betas=betas, **how)


def adam(**how: bool) -> Make:
    return lambda parameters: torch.optim.Adam(parameters, lr=1e-3, weight_decay=0.01, **how)


def sgd(**how: bool) -> Make:
    return lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, **how)


def lion(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return gradient.wrap(Lion(parameters, lr=1e-4))


def peer_adamw(package: str) -> Make:
    """AdamW with states in 8 bits of another package."""
    return lambda parameters: importlib.import_module(PEERS[package]).AdamW8bit(parameters, lr=1e-3, weight_decay=0.01)


def head(title: str, peer: str) -> None:
    columns = "".join(f"{name:>12s}{'min':>7s}{'max':>7s}" for name in ("ours", peer))
    print(f"\n{title}, ns a parameter\n  {'':44s}{columns}{'ours / peer':>13s}{'others':>8s}")


def measure(name: str, shapes: Shapes, ours: Make, peer: Make | None, dtype: torch.dtype = torch.float32) -> None:
    """Print a row for each number of threads."""
    steppers = {OURS: Stepper(shapes, ours, dtype=dtype)}
    if peer:
        steppers["peer"] = Stepper(shapes, peer, dtype=dtype)
    # Small models make short samples, and need more of them.
    runs = RUNS if num_elements(shapes) > 50_000_000 else 3 * RUNS
    for count in NUM_THREADS:
        others = watch_others()
        with threads(count):
            seconds = alternate({key: stepper.sample for key, stepper in steppers.items()}, runs)
        columns = "".join(nanoseconds(own, shapes) for own in seconds.values())
        columns += f"{ratio(seconds[OURS], seconds['peer']):13.2f}" if peer else " " * 39
        print(f"  {name + f', {count} thread' + 's' * (count > 1):44s}{columns}{others():8.2f}", flush=True)
    if peer:
        check_agreement(steppers[OURS], steppers["peer"])


def ratio(own: list[float], theirs: list[float]) -> float:
    """Median over pairs."""
    return statistics.median(one / other for one, other in zip(own, theirs, strict=True))


def nanoseconds(seconds: list[float], shapes: Shapes) -> str:
    """Median, least and most."""
    middle, low, high = (
        1e9 * value / num_elements(shapes) for value in (statistics.median(seconds), min(seconds), max(seconds))
    )
    return f"{middle:12.2f}{low:7.2f}{high:7.2f}"


def measure_adamw() -> None:
    """AdamW in fp32; in a process of its own where it is held to an instruction set."""
    capability = torch.backends.cpu.get_cpu_capability()
    held = os.environ.get("GRADIENT_CPU_CAPABILITY")
    head(f"AdamW, fp32, torch with {capability}, ours {f'held to {held}' if held else 'as it chooses'}", "torch fused")
    for name, shapes in (("lab GPT (17.0 M)", lab_gpt()), ("16 matrices (67.1 M)", squares(16))):
        for betas in (FAST_BETAS, SLOW_BETAS):
            ours, peer = wrapped(adamw(betas)), adamw(betas, fused=True)
            measure(f"{name}, beta2 {betas[1]}", shapes, ours, peer)


def measure_others() -> None:
    head("others, 16 matrices (67.1 M)", TORCH)
    shapes = squares(16)
    measure("SGD, momentum 0.9", shapes, wrapped(sgd()), sgd(fused=True))
    measure("Adam, coupled decay, beta2 0.999", shapes, wrapped(adam()), adam(fused=True))
    measure("Lion (torch has none)", shapes, lion, None)
    measure("AdamW, bf16 weights, beta2 0.999", shapes, wrapped(adamw()), adamw(fused=True), torch.bfloat16)


def installed_peers() -> dict[str, str]:
    """Packages and their versions."""
    found = {}
    for package in PEERS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def measure_peers(count: int) -> None:
    """Other ways to step AdamW; in a process of its own, as compiled code keeps the number of threads it began with."""
    shapes = squares(4)
    makes = {
        OURS: wrapped(adamw()),
        TORCH: adamw(fused=True),
        "torch foreach": adamw(foreach=True),
        "torch, one at a time": adamw(foreach=False),
    } | {f"{package} {number}, AdamW8bit": peer_adamw(package) for package, number in installed_peers().items()}
    torch.set_num_threads(count)
    steppers = {name: Stepper(shapes, make) for name, make in makes.items()}
    for stepper in steppers.values():
        stepper.run(1)
    time.sleep(SECONDS_TO_SETTLE)
    others = watch_others()
    seconds = alternate({name: stepper.sample for name, stepper in steppers.items()})
    busy = others()
    print(f"\nAdamW, fp32, beta2 0.999, 4 matrices (16.8 M), {count} thread{'s' * (count > 1)}, ns a parameter")
    print(f"  {'':44s}{'median':>12s}{'min':>7s}{'max':>7s}{'ours is times as fast':>23s}{'state B/param':>15s}")
    for name, own in seconds.items():
        kept = state_bytes(steppers[name].optimizer) / num_elements(shapes)
        fast = "" if name == OURS else f"{ratio(own, seconds[OURS]):.2f}"
        print(f"  {name:44s}{nanoseconds(own, shapes)}{fast:>23s}{kept:15.3f}")
    print(f"  others kept {busy:.2f} cores busy")


def first_step(name: str) -> float:
    """Seconds, `wrap` included; in a process of its own."""
    stepper = Stepper(lab_gpt(), peer_adamw(name) if name in PEERS else adamw(fused=name == TORCH))
    step = stepper.sample()
    start = time.perf_counter()
    if name == OURS:
        step = gradient.wrap(stepper.optimizer).step
    step()
    return time.perf_counter() - start


def measure_first_steps(peers: Iterable[str]) -> None:
    names = [OURS, TORCH, *peers]
    taken: dict[str, list[float]] = {name: [] for name in names}
    others = watch_others()
    for run in range(NUM_FIRST_STEPS):
        for name in names:
            if name == "torchao" and run:  # It compiles for so long that once says enough.
                continue
            with tempfile.TemporaryDirectory() as cache:
                told = child("first", name, {"TORCHINDUCTOR_CACHE_DIR": cache}, stdout=subprocess.PIPE)
            taken[name].append(1e3 * float(told.splitlines()[-1]))
    busy = others()
    print(f"\nfirst step of AdamW, lab GPT (17.0 M), in new processes, {torch.get_num_threads()} threads")
    print(f"  {'':44s} {'median':>10s} {'min':>9s} {'max':>9s} {'above torch':>14s}")
    for name, own in taken.items():
        middle = statistics.median(own)
        above = "" if name == TORCH else f"{middle - statistics.median(taken[TORCH]):.1f} ms"
        what = f"{name}, once, nothing cached" if len(own) == 1 else name
        print(f"  {what:44s} {middle:7.1f} ms {min(own):6.1f} ms {max(own):6.1f} ms {above:>14s}")
    print(f"  others kept {busy:.2f} cores busy")


def child(what: str, argument: str = "", environment: dict[str, str] | None = None, stdout: int | None = None) -> str:
    """Measure one thing in a process of its own."""
    sys.stdout.flush()
    command = [sys.executable, __file__, what, *([argument] if argument else [])]
    told = subprocess.run(
        command, check=True, stdout=stdout, text=True, cwd=ROOT, env=os.environ | (environment or {})
    ).stdout
    return told or ""


def main(*, peers: bool = False) -> None:
    measure_adamw()
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        child("adamw", environment={"ATEN_CPU_CAPABILITY": "avx2", "GRADIENT_CPU_CAPABILITY": "avx2"})
    measure_others()
    if not peers:
        print("\nother 8-bit optimizers: python benches/optimizer_step.py --peers")
        measure_first_steps([])
        return
    found = installed_peers()
    for package in PEERS.keys() - found:
        print(f"\n{package} is not installed: pip install {package} in this environment adds it")
    for count in NUM_THREADS:
        with tempfile.TemporaryDirectory() as cache:
            child("peers", str(count), {"TORCHINDUCTOR_CACHE_DIR": cache})
    measure_first_steps(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="measure bitsandbytes and torchao too")
    parser.add_argument("what", nargs="?", choices=["adamw", "peers", "first"], help="one part alone")
    parser.add_argument("argument", nargs="?", help="of `peers` the threads, of `first` whose step")
    asked = parser.parse_args()
    if asked.what == "adamw":
        measure_adamw()
    elif asked.what == "peers":
        measure_peers(int(asked.argument or max(NUM_THREADS)))
    elif asked.what == "first":
        print(first_step(asked.argument or OURS))
    else:
        from harness import describe

        describe()
        main(peers=asked.peers)
