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
from torch.nn import functional

import lab
from gradient import GradientConfig, GradientEngine
from harness import alternate, folder, table, trajectory
from train_gpt import BATCH, CONTEXT, WIDTH, corpus


@contextmanager
def attached(model: Any, optimizer: Any, **settings: Any) -> Iterator[GradientEngine]:
    with folder() as root:
        engine = GradientEngine.attach(
            model, optimizer, workspace=root, repo="gpt", config=GradientConfig(**settings), resume=None
        )
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


def low_precision(states: pathlib.Path) -> None:
    """bf16 copies of fp32 weights that train on at a small learning rate."""
    model, optimizer = lab.live(lab.load(states / "s220.pt"))
    for group in optimizer.param_groups:
        group["lr"] = 3e-6
    ids = corpus(states)
    generator = torch.Generator().manual_seed(2)
    kept = copy.deepcopy(model).bfloat16()
    raw = sum(tensor.nbytes for tensor in {id(t): t for t in kept.parameters()}.values())
    lines = {}
    kept_tenth = copy.deepcopy(kept)
    with attached(kept, None) as every, attached(kept_tenth, None) as tenth:
        first = every.commit(0).added_bytes
        tenth.commit(0)
        for step in range(1, 11):
            starts = torch.randint(0, len(ids) - CONTEXT - 1, (BATCH,), generator=generator).tolist()
            inputs = torch.stack([ids[s : s + CONTEXT] for s in starts])
            targets = torch.stack([ids[s + 1 : s + CONTEXT + 1] for s in starts])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(inputs)
            optimizer.zero_grad()
            functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            for copied in (kept, kept_tenth):
                copied.load_state_dict({name: t.bfloat16() for name, t in model.state_dict().items()})
            lines[step] = every.commit(step).added_bytes
        ten = tenth.commit(10).added_bytes
    print("\nratio of a bf16 copy of the weights, trained on at lr 3e-6")
    print(f"  snapshot                                       {raw / first:.3f}")
    print(f"  k = 1, median of ten                           {raw / statistics.median(lines.values()):.1f}")
    print(f"  k = 10                                         {raw / ten:.1f}")


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


def restores(states: pathlib.Path) -> None:
    model, optimizer = lab.live(lab.load(states / "s100.pt"))
    raw = lab.raw_bytes(model, optimizer)
    sparse, of_sparse = lab.live(lab.load(states / "s100.pt"))
    with attached(model, optimizer) as dense, attached(sparse, of_sparse) as chain:
        dense.commit(100)
        lab.put(model, optimizer, lab.load(states / "s101.pt"))
        dense.commit(101)
        for step in range(100, 117):
            chain.commit(step)
            with torch.no_grad():
                for parameter in sparse.parameters():
                    flat = parameter.view(-1)
                    flat[torch.randint(0, flat.numel(), (flat.numel() // 1000 + 1,))] *= 1.001
        samples = {
            "resume an anchor": lambda: lambda: dense.resume("main@100"),
            "resume a dense delta": lambda: lambda: dense.resume("main@101"),
            "resume a chain of 16, one weight in 1000 each": lambda: lambda: chain.resume("main@116"),
        }
        table("restore, verified, files cached (AdamW, fp32)", alternate(samples), "resume an anchor", raw)


def main() -> None:
    states = trajectory()
    full_state(states)
    low_precision(states)
    forks(states)
    restores(states)


if __name__ == "__main__":
    from harness import describe

    describe()
    main()
