"""What each kind of state costs to code, on one core: ratio, speed, and how often each codec and coder was chosen.

Writes the tensors of kept states, bf16 copies of the weights, and state that is no dense float into files of one kind
each, and has `rust/gradient-codec/benches/state.rs` measure them. Headers of entries are counted; trees, commits and
operations are not.
"""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterable

import torch
from torch import Tensor

import lab
from harness import ROOT, folder, trajectory
from train_gpt import CONTEXT, VOCAB, corpus

Kinds = Iterable[tuple[str, str, Tensor]]  # kind, name, tensor


def write(path: pathlib.Path, step: int, tensors: Kinds) -> None:
    """Write the tensors of each kind one after the other, and the index that says what they are."""
    path.mkdir(exist_ok=True)
    lines = []
    for kind, name, tensor in tensors:
        with open(path / f"{kind}{step}.bin", "ab") as file:
            file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        shape = "x".join(str(length) for length in tensor.shape)
        lines.append(f"{kind} {name} {shape} {tensor.dtype}\n")
    (path / f"index{step}.txt").write_text("".join(lines))


def full_state(state: lab.State) -> Kinds:
    """Weights once each, first and second moments."""
    yield from weights(state, torch.float32)
    for kind, key in (("m", "exp_avg"), ("v", "exp_avg_sq")):
        for number, values in state["optimizer"]["state"].items():
            yield kind, str(number), values[key]


def weights(state: lab.State, dtype: torch.dtype) -> Kinds:
    """The weights, but not the second name of the embedding."""
    return (("w", name, tensor.to(dtype)) for name, tensor in state["model"].items() if name != "head.weight")


def unchanging() -> Kinds:
    """Buffers of a model that never change: stored once, never coded against anything."""
    lengths = torch.randint(1, 1025, (1024, 1), generator=torch.Generator().manual_seed(3))
    source = b"".join(path.read_bytes() for path in sorted(pathlib.Path(torch.nn.__file__).parent.rglob("*.py")))
    yield "mask-causal", "mask", torch.ones(1024, 1024, dtype=torch.bool).tril()
    yield "mask-padding", "mask", torch.arange(1024) < lengths
    yield "positions", "ids", torch.arange(2**17).view(1, -1)
    yield "text", "bytes", torch.frombuffer(bytearray(source), dtype=torch.uint8)


def changing(states: pathlib.Path, now: bool) -> Kinds:
    """What counts and keeps what a run has seen, before and after 8,192 tokens more."""
    ids = corpus(states)
    seen = 2**20 + 8192 * now
    yield "mask-dropout", "mask", torch.rand(2**20, generator=torch.Generator().manual_seed(4 + now)) < 0.1
    yield "token-ids", "buffer", ids[seen - 2**18 : seen].view(-1, CONTEXT)
    yield "counters", "seen", torch.bincount(ids[:seen], minlength=VOCAB)
    yield "steps", "num_batches", torch.full((2**15,), seen // 2048)
    # Rows that were looked up since are another step's, all else is as it was: what sparse gradients do.
    before, after = (lab.load(states / f"s{step}.pt")["model"]["tokens.weight"] for step in (100, 101))
    looked_up = torch.zeros(VOCAB, dtype=torch.bool)
    looked_up[ids[2**20 : 2**20 + 8192]] = True
    yield "embedding", "rows", torch.where((looked_up & now)[:, None], after, before)


def measure(title: str, path: pathlib.Path, *arguments: str) -> None:
    print(f"\n{title}; one core", flush=True)
    command = ["cargo", "bench", "--quiet", "-p", "gradient-codec", "--bench", "state", "--", str(path), *arguments]
    subprocess.run(command, check=True, cwd=ROOT)


def main() -> None:
    states = trajectory()
    with folder() as root:
        rates = {}
        for step in (100, 101, 200, 220):
            state = lab.load(states / f"s{step}.pt")
            rates[step] = lab.learning_rate(state)
            write(root / "fp32", step, full_state(state))
            write(root / "bf16", step, weights(state, torch.bfloat16))
        write(root / "unchanging", 0, unchanging())
        write(root / "changing", 0, changing(states, now=False))
        write(root / "changing", 1, changing(states, now=True))
        for dtype, what in (("fp32", "weights and both moments, fp32"), ("bf16", "bf16 copy of the weights")):
            for title, arguments in {
                "s220, no base": ("220",),
                "k = 20 (s220 on s200), deltas that save a tenth": ("220", "200"),
                "k = 1 (s101 on s100), deltas that save a tenth": ("101", "100"),
                "k = 1 (s101 on s100), every delta that helps": ("101", "100", "any"),
            }.items():
                measure(f"{what}, AdamW, {rates[int(arguments[0])]}: {title}", root / dtype, *arguments)
        measure("buffers that do not change", root / "unchanging", "0")
        measure("state that is no dense float: no base", root / "changing", "1")
        measure("state that is no dense float: after 8,192 tokens more", root / "changing", "1", "0")


if __name__ == "__main__":
    from harness import describe

    describe()
    main()
