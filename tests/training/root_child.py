"""Commits a state that owes nothing to its process, and prints the root hash. Run by `test_root_hash.py`."""

from __future__ import annotations

import collections
import json
import random
import sys
import tempfile

import numpy as np
import torch
from torch import nn

import gradient

DTYPES = ("bool", "uint8", "int16", "int64", "float16", "bfloat16", "float64", "complex64", "float8_e4m3fn", "uint32")
WORDS = ["apple", "pear", "plum", "cherry", "fig", "quince", "medlar", "sloe"]


def filled(dtype: str, *shape: int) -> torch.Tensor:
    """Bytes 0, 1, 2 ...: no generator and no arithmetic of any version has a say in them."""
    made = torch.empty(shape, dtype=getattr(torch, dtype))
    flat = (torch.arange(made.numel() * made.element_size()) % (2 if dtype == "bool" else 120)).to(torch.uint8)
    return flat.view(made.dtype).reshape(shape)


def model() -> nn.Module:
    """Parameters of two kinds, a tied one, buffers of many dtypes, layouts and kinds."""
    made = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8), nn.BatchNorm1d(8))
    made[1].weight = made[0].weight
    for name, parameter in made.named_parameters():
        parameter.data = filled("int32", *parameter.shape).float() / (3 + len(name))
    for dtype in DTYPES:
        made.register_buffer(f"as_{dtype}", filled(dtype, 7, 9), persistent=dtype != "bool")
    made.register_buffer("channels", filled("float32", 2, 3, 4, 5).contiguous(memory_format=torch.channels_last))
    made.register_buffer("long", filled("float32", 300, 1000))
    made.register_buffer("sparse", torch.eye(5).to_sparse())
    made.register_buffer("rows", torch.eye(5).to_sparse_csr())
    made.register_buffer("conjugated", filled("complex64", 4).conj())
    made.register_buffer("codes", torch.quantize_per_tensor(torch.arange(6.0), 0.5, 3, torch.qint8))
    return made


def values() -> object:
    """Values whose order in memory depends on the process: sets, and mappings filled from them."""
    words = set(WORDS)
    return {
        "words": words,
        "frozen": {frozenset({word, len(word)}) for word in words},
        "order": {word: index for index, word in enumerate(WORDS)},
        "counted": collections.Counter("".join(WORDS)),
        "array": np.arange(12, dtype=">i4").reshape(3, 4).T,
        "numbers": [1.5, -0.0, 2**80, None, True, 3 + 1j, b"bytes"],
    }


def main() -> None:
    """Train nothing, commit once, print what was committed and by whom."""
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    made = model()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9)
    for group in optimizer.param_groups:
        # What newer versions added would be a difference of the state itself.
        for key in group.keys() - {"params", "lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"}:
            del group[key]
    for parameter in made.parameters():
        optimizer.state[parameter]["momentum_buffer"] = parameter.detach() * 2
    with tempfile.TemporaryDirectory() as workspace:
        engine = gradient.GradientEngine.attach(made, optimizer, workspace=workspace, repo="one")
        with engine:
            engine.register_state("values", getter=values, setter=print)
            engine.register_generator("own", np.random.default_rng(4))
            root = engine.commit(1).root
    versions = {"torch": torch.__version__, "python": sys.version.split()[0], "numpy": np.__version__}
    print(json.dumps({"root": root, **versions}))


if __name__ == "__main__":
    main()
