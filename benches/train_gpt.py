"""Train a small GPT on the Python standard library and keep its whole training state as it goes.

A real trajectory to measure codecs and commits on: needs torch and tokenizers, no network, 10 minutes on two cores.

    python train_gpt.py --out traj                    # states at 100..105 and every 20 steps to 400, about 204 MB each
    python train_gpt.py --out traj --steps 120        # shorter
    from train_gpt import GPT                         # the model alone, to load a state into
"""

import argparse
import math
import pathlib
import sysconfig
import time

import torch
from torch import nn
from torch.nn import functional

WIDTH, LAYERS, HEADS, VOCAB, CONTEXT, BATCH = 384, 6, 6, 16384, 256, 8


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(batch, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(functional.gelu(self.up(self.ln2(x))))


class GPT(nn.Module):
    """17.0 M parameters, input and output embeddings tied."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCAB, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.tokens.weight
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0, 0.02)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x))


def corpus(folder):
    """Token ids, int64 [N], of the standard library's sources; cached in `folder`."""
    cached = folder / "ids.pt"
    if not cached.exists():
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        library = pathlib.Path(sysconfig.get_paths()["stdlib"])
        sources = sorted([*library.glob("*.py"), *library.glob("*/*.py")])
        sources = [path for path in sources if "site-packages" not in path.parts]
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in sources]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        tokenizer.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=["<end>"], show_progress=False)
        )
        ids = [token for text in texts for token in [*tokenizer.encode(text).ids, 0]]
        torch.save(torch.tensor(ids, dtype=torch.int32), cached)
    return torch.load(cached, weights_only=True).long()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("traj"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--until", type=int, help="stop after this step of the schedule")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    ids = corpus(args.out)
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.1, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1, (s + 1) / 50) * 0.5 * (1 + math.cos(math.pi * min(1, s / (args.steps + 1)))) + 0.05
    )
    generator = torch.Generator().manual_seed(1)
    keep = set(range(100, 106)) | set(range(100, args.steps + 1, 20))
    started = time.perf_counter()
    for step in range(1, args.steps + 1):
        starts = torch.randint(0, len(ids) - CONTEXT - 1, (BATCH,), generator=generator).tolist()
        inputs = torch.stack([ids[s : s + CONTEXT] for s in starts])
        targets = torch.stack([ids[s + 1 : s + CONTEXT + 1] for s in starts])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(inputs)
        loss = functional.cross_entropy(logits.float().view(-1, VOCAB), targets.view(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            print(f"step {step}  loss {loss.item():.3f}  {time.perf_counter() - started:.0f} s", flush=True)
        if step in keep:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, args.out / f"s{step}.pt")
        if step == args.until:
            break


if __name__ == "__main__":
    main()
