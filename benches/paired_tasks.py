"""What `paired.py` trains: three small tasks, each made from its seed alone.

| task     | model                              | data                              | optimizer               |
|----------|------------------------------------|-----------------------------------|-------------------------|
| `lm`     | transformer over bytes, 0.98 M     | the standard library's sources    | AdamW, betas 0.9, 0.95  |
| `lm-999` | the same                           | the same                          | AdamW, betas 0.9, 0.999 |
| `digits` | convolutions with BatchNorm, 57 k  | the digits scikit-learn ships     | SGD, momentum 0.9       |
| `zipf`   | mean of 50,000 embeddings, 1.6 M   | words by lot, after Zipf's law    | AdamW, betas 0.9, 0.999 |
"""

from __future__ import annotations

import functools
import importlib.util
import math
import pathlib
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gradient.optim import Codec, SignedSqrtCodec
from user_codecs import LinearTensor, LinearUnsigned

BYTES = 256
CONTEXT, BATCH = 64, 8
WARMUP = 0.05  # Share of the steps.


@dataclass(frozen=True)
class Run:
    """A model, its data from the first batch on, and its validation loss."""

    model: nn.Module
    batch_loss: Callable[[], Tensor]
    """The loss on the next batch."""
    validation_loss: Callable[[], Tensor]


@dataclass(frozen=True)
class Task:
    """How a run is made and trained; `steps` are those of the published figures."""

    title: str
    steps: int
    make: Callable[[int], Run]
    """Makes the run of a seed; the caller has seeded torch with it."""
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    control: dict[str, Codec]
    """The codes that are meant to fail."""
    control_title: str
    widened: bool
    """Whether the noise of fp32 widens the margin."""
    must_fail: bool = True
    """Whether the control has to fail."""


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(self.ln1(x)).view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(functional.gelu(self.up(self.ln2(x))))


class ByteGPT(nn.Module):
    """A transformer over bytes."""

    def __init__(self, *, width: int, layers: int, heads: int, tied: bool) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(BYTES, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.ln = nn.LayerNorm(width)
        self.head = nn.Linear(width, BYTES, bias=False)
        if tied:
            self.head.weight = self.tokens.weight
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                # With 0.02, so narrow a model stays for hundreds of steps where it looks at single bytes, and any small
                # difference moves the step at which it leaves: 0.8 % of the loss for one seed, at step 500.
                nn.init.normal_(module.weight, 0, 0.05)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        logits: Tensor = self.head(self.ln(self.blocks(x)))
        return logits


@functools.cache
def text() -> tuple[Tensor, Tensor]:
    """Bytes of the standard library's sources, uint8: those to train on, and every tenth file to validate on."""
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    paths = sorted([*library.glob("*.py"), *library.glob("*/*.py")])
    files = [path.read_bytes() for path in paths if "site-packages" not in path.parts]
    kept = b"".join(files[9::10])
    del files[9::10]
    return as_bytes(b"".join(files)), as_bytes(kept)


def as_bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def windows(data: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bytes from `count` places drawn by lot, and the bytes that follow each."""
    starts = torch.randint(0, len(data) - CONTEXT - 1, (count, 1), generator=generator)
    found = data[starts + torch.arange(CONTEXT + 1)].long()
    return found[:, :-1], found[:, 1:]


def language(seed: int, *, width: int = 160, layers: int = 3, heads: int = 5, tied: bool = True) -> Run:
    model = ByteGPT(width=width, layers=layers, heads=heads, tied=tied)
    train, kept = text()
    generator = torch.Generator().manual_seed(seed)
    held_out = windows(kept, 128, torch.Generator().manual_seed(0))

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    return Run(model, lambda: loss(windows(train, BATCH, generator)), lambda: loss(held_out))


def find_digits() -> pathlib.Path | None:
    """The file of digits inside scikit-learn, which is not imported."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        return None
    path = pathlib.Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    return path if path.exists() else None


@functools.cache
def digits_table() -> Tensor:
    path = find_digits()
    if path is None:
        raise FileNotFoundError("the digits need scikit-learn: pip install scikit-learn")
    return torch.from_numpy(numpy.loadtxt(path, delimiter=",", dtype=numpy.float32))


def digits(seed: int) -> Run:
    """1,347 images to train on, moved by up to a pixel each way; 450 to validate on, the same for every seed."""
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(64, 10)),
    )
    table = digits_table()[torch.randperm(1797, generator=torch.Generator().manual_seed(0))]
    images, labels = table[:, :64].view(-1, 1, 8, 8) / 16, table[:, 64].long()
    held_out, generator = slice(1347, None), torch.Generator().manual_seed(seed)

    def batch_loss() -> Tensor:
        picked = torch.randint(0, 1347, (64,), generator=generator)
        right, down = torch.randint(-1, 2, (2,), generator=generator).tolist()
        moved = images[picked].roll((down, right), (2, 3))
        return functional.cross_entropy(model(moved), labels[picked], label_smoothing=0.1)

    return Run(
        model,
        batch_loss,
        lambda: functional.cross_entropy(model(images[held_out]), labels[held_out], label_smoothing=0.1),
    )


class Words:
    """Documents of 32 words, drawn by lot.

    A word has one of 16 labels, the document's for three words in ten and any for the others. The n-th word of a label
    is drawn in proportion to 1/n.
    """

    LABELS, LENGTH = 16, 32

    def __init__(self, rows: int, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._reach = (1 / torch.arange(1, rows // self.LABELS + 1, dtype=torch.float64)).cumsum(0)
        # Frequent words lie among rare ones.
        self._places = torch.randperm(rows, generator=torch.Generator().manual_seed(0))

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Words, int64 [count, 32], and labels, int64 [count]."""
        shape, generator = (count, self.LENGTH), self._generator
        labels = torch.randint(0, self.LABELS, (count,), generator=generator)
        drawn = torch.rand(shape, generator=generator, dtype=torch.float64) * self._reach[-1]
        ranks = torch.searchsorted(self._reach, drawn)
        telling = torch.rand(shape, generator=generator) < 0.3
        of_words = torch.where(telling, labels[:, None], torch.randint(0, self.LABELS, shape, generator=generator))
        return self._places[ranks * self.LABELS + of_words], labels


def zipf(seed: int, *, rows: int = 50_000, width: int = 32) -> Run:
    model = nn.Sequential(nn.EmbeddingBag(rows, width, mode="mean"), nn.Linear(width, Words.LABELS))
    words, held_out = Words(rows, seed + 1), Words(rows, 0).draw(2048)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1])

    return Run(model, lambda: loss(words.draw(128)), lambda: loss(held_out))


def adamw(lr: float, beta2: float, weight_decay: float) -> Callable[[Iterable[nn.Parameter]], Optimizer]:
    return functools.partial(AdamW, lr=lr, betas=(0.9, beta2), weight_decay=weight_decay, fused=True)


def cosine(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Warm-up, then half a cosine that ends at a fiftieth."""
    warmup = max(1, round(WARMUP * steps))
    return LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / warmup) * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1, step / steps)))),
    )


LINEAR_V: dict[str, Codec] = {"exp_avg": SignedSqrtCodec(), "exp_avg_sq": LinearUnsigned()}
LINEAR_V_TITLE = "second moments in linear bytes, blocks of 64; first moments as ours"
LINEAR_M: dict[str, Codec] = {"momentum_buffer": LinearTensor()}
LINEAR_M_TITLE = "momentum in linear bytes, one scale a tensor: the nearest there is, SGD has no second moment"

TASKS = {
    "lm": Task(
        "language model over bytes, AdamW, beta2 0.95",
        steps=1500,
        make=language,
        optimizer=adamw(2e-3, 0.95, 0.1),
        control=LINEAR_V,
        control_title=LINEAR_V_TITLE,
        widened=False,
    ),
    "lm-999": Task(
        "language model over bytes, AdamW, beta2 0.999",
        steps=1500,
        make=language,
        optimizer=adamw(2e-3, 0.999, 0.1),
        control=LINEAR_V,
        control_title=LINEAR_V_TITLE,
        widened=False,
    ),
    "digits": Task(
        "digits, convolutions with BatchNorm, SGD with momentum",
        steps=1000,
        make=digits,
        optimizer=functools.partial(SGD, lr=0.05, momentum=0.9, weight_decay=5e-4),
        control=LINEAR_M,
        control_title=LINEAR_M_TITLE,
        widened=True,
        must_fail=False,
    ),
    "zipf": Task(
        "50,000 embeddings, words after Zipf's law, AdamW, beta2 0.999",
        steps=1000,
        make=zipf,
        optimizer=adamw(3e-3, 0.999, 0.0),
        control=LINEAR_V,
        control_title=LINEAR_V_TITLE,
        widened=True,
    ),
}
