"""What deltas save and what reading them costs: ratios of whole commits, headers and metadata counted.

`k` is the number of steps between a commit and the one its deltas are taken against.
"""

from __future__ import annotations

import copy
import pathlib
import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

import lab
from gradient import GradientConfig, GradientEngine
from harness import Sample, alternate, folder, table, trajectory
from train_gpt import WIDTH


@contextmanager
def attached(model: Any, optimizer: Any, *, grads: Any = "auto", **settings: Any) -> Iterator[GradientEngine]:
    with folder() as root:
        config = GradientConfig(**settings)
        engine = GradientEngine.attach(model, optimizer, workspace=root, repo="gpt", config=config, grads=grads)
        yield engine
        engine.close()


def ratios(states: pathlib.Path, steps: Iterable[int], **settings: Any) -> list[float]:
    """Raw bytes over stored bytes of each commit of a line."""
    found = []
    model, optimizer = lab.live(lab.load(states / f"s{next(iter(steps))}.pt"))
    raw = lab.raw_bytes(model, optimizer)
    with attached(model, optimizer, **settings) as engine:
        for step in steps:
            lab.put(model, optimizer, lab.load(states / f"s{step}.pt"))
            found.append(raw / engine.commit(step).added_bytes)
    return found


def full_state(states: pathlib.Path) -> None:
    print("\nratio of weights and both moments, fp32, AdamW, lr 6e-4 with cosine (raw over stored, whole commits)")
    snapshot, dense = ratios(states, [200, 220])
    print(f"  snapshot, no base                              {snapshot:.4f}")
    print(f"  k = 20, default settings                       {dense:.4f}")
    for name, deltas in (("default settings", "auto"), ("every delta that helps", "all")):
        pairs = [ratios(states, [step, step + 1], deltas=deltas)[1] for step in range(100, 105)]
        each = " ".join(f"{ratio:.3f}" for ratio in pairs)
        print(f"  k = 1, {name:24s}                {statistics.mean(pairs):.4f}  ({each})")


def line(states: pathlib.Path) -> None:
    """A line of commits at default settings: one step apart, then twenty; what each takes, and what restoring it."""
    steps = [*range(100, 106), *range(120, 221, 20)]
    model, optimizer = lab.live(lab.load(states / "s100.pt"))
    raw = lab.raw_bytes(model, optimizer)
    with attached(model, optimizer) as engine:
        stored = {}
        for step in steps:
            lab.put(model, optimizer, lab.load(states / f"s{step}.pt"))
            stored[step] = engine.commit(step).added_bytes
        seconds = alternate({f"main@{step}": resuming(engine, step) for step in steps})
    print("\na line of commits at default settings: ratio of each, and a restore of it, verified, files cached")
    print("(weights and both moments, fp32, AdamW, lr 6e-4 with cosine; chunks that change all over are coded against")
    print("their last anchor, however many steps ago that was)")
    times(seconds, raw, stored)


def sparse_line(states: pathlib.Path, *, moments: bool) -> None:
    """Chains of 1 to 16 deltas: one value in a thousand changes each time."""
    model, optimizer = lab.live(lab.load(states / "s100.pt"))
    raw = lab.raw_bytes(model, optimizer)
    with attached(model, optimizer, grads="never") as engine:
        stored = {}
        for step in range(17):
            stored[step] = engine.commit(step).added_bytes
            lab.change_some(model, optimizer if moments else None)
        chains = (0, 1, 2, 4, 8, 16)
        seconds = alternate({f"main@{step}": resuming(engine, step) for step in chains})
    what = "weights and of both moments" if moments else "weights"
    print(f"\nchains of so many deltas, one value in 1000 of the {what} changed in each (fp32, AdamW)")
    times(seconds, raw, stored)


def resuming(engine: GradientEngine, step: int) -> Sample:
    return lambda: lambda: engine.resume(f"main@{step}")


def times(seconds: dict[str, list[float]], raw: int, stored: dict[int, int]) -> None:
    """Print ratio and restore time of commits of a line; the first is an anchor."""
    print(f"  {'':12s} {'ratio':>9s} {'restore':>11s} {'min':>8s} {'max':>8s} {'times the first':>16s}")
    first = next(iter(seconds.values()))
    for name, own in seconds.items():
        ratio = raw / stored[int(name.partition("@")[2])]
        against = statistics.median(ours / anchor for ours, anchor in zip(own, first, strict=True))
        middle, low, high = (1e3 * value for value in (statistics.median(own), min(own), max(own)))
        print(f"  {name:12s} {ratio:9.3f} {middle:8.1f} ms {low:5.0f} ms {high:5.0f} ms {against:16.2f}")


def consecutive(states: pathlib.Path) -> None:
    """Twenty commits in a row, one after each step of training from s100 on."""
    before, after = (lab.load(states / f"s{step}.pt") for step in (100, 120))
    first, last = (state["optimizer"]["param_groups"][0]["lr"] for state in (before, after))
    run = lab.Run(states, 100)
    raw = lab.raw_bytes(run.model, run.optimizer)
    with attached(run.model, run.optimizer) as engine:
        anchor = engine.commit(100).added_bytes
        added = []
        for step in range(1, 21):
            # The schedule's own rate, but for what a cosine bends within so few steps.
            run.set_lr(first + (last - first) * (step - 1) / 20)
            run.step()
            added.append(engine.commit(100 + step).added_bytes)
    print(f"\n20 consecutive commits, k = 1 each, default settings (s101 to s120, lr {first:.2e} to {last:.2e})")
    print(f"  {sum(added):,} bytes for {20 * raw:,} of raw state: ratio {20 * raw / sum(added):.4f}")
    print(f"  with the anchor before them, {anchor:,} bytes: {21 * raw / (anchor + sum(added)):.4f}")
    print("  each: " + " ".join(f"{raw / one:.3f}" for one in added))


def low_precision(states: pathlib.Path) -> None:
    """bf16 copies of fp32 weights that train on at a small learning rate, from the last state there is."""
    last = max(int(path.stem[1:]) for path in states.glob("s*.pt"))
    run = lab.Run(states, last, lr=3e-6, seed=2)
    kept = copy.deepcopy(run.model).bfloat16()
    raw = sum(tensor.nbytes for tensor in {id(t): t for t in kept.parameters()}.values())
    kept_tenth = copy.deepcopy(kept)
    pairs, line, shares = [], [], []
    with attached(kept, None) as every, attached(kept_tenth, None) as tenth:
        snapshot = every.commit(0).added_bytes
        tenth.commit(0)
        for step in range(1, 11):
            run.step()
            with attached(kept, None) as pair:
                pair.commit(0)
                shares.append(take_over(kept, run.model))
                pairs.append(pair.commit(1).added_bytes)
            line.append(every.commit(step).added_bytes)
        share_of_ten = take_over(kept_tenth, run.model)
        ten = tenth.commit(10).added_bytes
        seconds = alternate(
            {
                "the anchor": resuming(every, 0),
                "k = 1": resuming(every, 1),
                "k = 10": resuming(tenth, 10),
                "the last of a line of ten": resuming(every, 10),
            }
        )
    print(f"\nratio of a bf16 copy of the weights, trained on at lr 3e-6 from s{last} (whole commits)")
    print(f"  snapshot                                       {raw / snapshot:.3f}")
    of_one = statistics.median(shares)
    for k, one, share in (
        ("1, ten pairs, median", statistics.median(pairs), of_one),
        ("1, a line of ten, median", statistics.median(line), of_one),
        ("10", ten, share_of_ten),
    ):
        print(f"  k = {k:24s}                   {raw / one:.1f}  ({100 * share:.2f} % of the values change)")
    table("restores of these, verified, files cached", seconds, "the anchor", raw)


def take_over(copied: nn.Module, model: nn.Module) -> float:
    """Put the weights into a copy of less precision; gives the share of the copy's values that change."""
    num_changed = num_values = 0
    with torch.no_grad():
        for old, new in zip(copied.parameters(), model.parameters(), strict=True):
            rounded = new.to(old.dtype)
            num_changed += int((old != rounded).sum())
            num_values += rounded.numel()
            old.copy_(rounded)
    return num_changed / num_values


def forks(states: pathlib.Path) -> None:
    """A frozen model and a small head: eight forks of ten commits."""
    body, _ = lab.live(lab.load(states / "s220.pt"))
    body.requires_grad_(False)
    head = nn.Linear(WIDTH, 10)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    models = {"body": body, "head": head}
    saved = stored = 0
    with attached(models, optimizer) as engine:
        stored += engine.commit(0).added_bytes
        for fork in range(8):
            engine.fork("main@0", f"fork-{fork}")
            for step in range(1, 11):
                optimizer.zero_grad()
                head(torch.randn(32, WIDTH)).square().mean().backward()
                optimizer.step()
                stored += engine.commit(step).added_bytes
                saved += sum(t.nbytes for model in models.values() for t in model.state_dict().values())
                saved += sum(t.nbytes for values in optimizer.state.values() for t in values.values())
    smaller = saved / stored
    print(f"\nfrozen model, trained head: 8 forks of 10 commits are {smaller:.1f} times smaller than 80 checkpoints")


def main() -> None:
    states = trajectory()
    full_state(states)
    consecutive(states)
    low_precision(states)
    forks(states)
    line(states)
    sparse_line(states, moments=False)
    sparse_line(states, moments=True)


if __name__ == "__main__":
    from harness import describe

    describe()
    main()
