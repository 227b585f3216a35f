"""Train a small GPT on the sources of Python's standard library, committing the whole run as it goes.

An ordinary training script: the four lines that have to do with Gradient are marked. It is started by `run.py`, by
hand, or by `gradient resume latest -- python train.py`.

    python train.py --workspace demo --repo by_hand
"""

import argparse
import json
import math
import os
import random
import sys
import sysconfig
import time
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.nn import functional

from gradient import GradientEngine

WIDTH, LAYERS, HEADS, VOCAB, CONTEXT, BATCH = 384, 6, 6, 256, 128, 4
CORPUS_BYTES = 4_000_000


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and before dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_attention, self.norm_forward = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, length, 3, HEADS, WIDTH // HEADS)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH)))
        return x + self.dropout(self.down(functional.gelu(self.up(self.norm_forward(x)))))


class GPT(nn.Module):
    """10.8 million parameters on bytes; input and output embeddings are tied."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCAB, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.tokens.weight
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0.0, 0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def corpus() -> torch.Tensor:
    """Bytes of the standard library's sources (Python Software Foundation License), which every Python brings along."""
    text = bytearray()
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text += path.read_bytes()
    return torch.frombuffer(text[:CORPUS_BYTES], dtype=torch.uint8).long()


def batch(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw inputs and targets; the global generator's state is part of every commit."""
    starts = torch.randint(0, len(ids) - CONTEXT - 1, (BATCH,)).tolist()
    rows = torch.stack([ids[start : start + CONTEXT + 1] for start in starts])
    return rows[:, :-1], rows[:, 1:]


def save_with_torch(folder: Path, step: int, states: dict[str, object]) -> tuple[float, int]:
    """Do what one does without Gradient, durably: torch.save and fsync. Return seconds and bytes."""
    began = time.perf_counter()
    with open(folder / f"step_{step}.pt", "wb") as file:
        torch.save(states, file)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - began, (folder / f"step_{step}.pt").stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", default="demo")
    parser.add_argument("--repo", default="by_hand")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=10, help="commit every so many steps")
    parser.add_argument("--compare", type=Path, help="save each committed state with torch too, here, and time both")
    args = parser.parse_args()

    # Bit-equal continuation needs deterministic kernels and the same number of threads.
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    # A commit holds every generator, so two runs are equal only if all of them start equal, used or not.
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)

    ids = corpus()
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / (args.steps + 1)))
    )

    engine = GradientEngine.attach(model, optimizer, scheduler, workspace=args.workspace, repo=args.repo)  # 1
    engine.autocommit(every=args.every)  # 2
    start = engine.current_step  # 3

    for step in range(start + 1, args.steps + 1):
        print(f"begin {step}", flush=True)
        inputs, targets = batch(ids)
        loss = functional.cross_entropy(model(inputs).reshape(-1, VOCAB), targets.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        began = time.perf_counter()
        engine.maybe_commit(step)  # 4
        commit_seconds = time.perf_counter() - began
        print(f"end {step} {loss.item():.3f}", flush=True)

        if args.compare and step % args.every == 0:
            states = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "rng": torch.get_rng_state(),
            }
            seconds, num_bytes = save_with_torch(args.compare, step, states)
            row = {"step": step, "commit_s": commit_seconds, "torch_save_s": seconds, "torch_save_bytes": num_bytes}
            with open(args.compare / "times.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    sys.exit(main())
