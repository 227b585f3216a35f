"""Repositories by lot: one to three things spoilt, each drawn from a grammar of what its file may nearly hold.

The number of a case is its seed, so that one that was refused wrongly can be made again.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

from blake3 import blake3

from ..forge import CHUNK_BYTES, Entry, Pack, Raw, Repository, Tag, bomb, cbor, commit, head, identify, tensor
from .case import FILES, NAMES, Case, tip

PREFIX = "by lot "
NUMBERS = (-(1 << 63), -1, 0, 1, 2, 63, 64, 65, 255, 256, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 32, (1 << 63) - 1)
TEXTS = (*NAMES.values(), "main", "exp", "v1", "0.weight", "model", "os.system", "|O", "float32", "uint8")
KEYS = ("tensors", "value", "groups", "state", "params", "extra", "0.weight", "0.bias", "exp_avg", "lr", "step")
SECTIONS = ("model", "optim", "scheduler", "scaler", "rng", "data", "grads", "extra", "warp")
COMPONENTS = ("main", "python", "numpy", "torch.cpu", "torch.cuda.7", "loader")
NAMED = ("ordered-dict", "counter", "default-dict", "deque", "numpy-scalar", "sparse-coo", "sparse-csr", "quantized")
NAMED_TOO = ("nested", "conjugate", "negative", "zero", "mkldnn", "coded", "os.system")
DTYPES = ("float32", "uint8", "bool", "bfloat16", "int3", "complex128", "<f4", "|b1", "<U3", "|O", "<M8[ns]")


def generated(number: int) -> Case:
    """The case of that number."""

    def spoil(repo: Repository) -> None:
        lot = random.Random(number)
        tip(repo)  # Known before anything is spoilt.
        # What is written comes before what is spoilt: the writer reads what is there.
        for one in sorted(lot.sample(WAYS, lot.choice((1, 1, 2, 3))), key=WAYS.index):
            one(repo, lot)

    return Case(f"{PREFIX}{number}", spoil)


def value(lot: random.Random, depth: int = 0) -> Any:
    """What a tree may nearly hold."""
    kinds = ("number", "text", "float", "constant", "bytes", "tensor", "alias", "raw")
    kind = lot.choice(kinds if depth > 5 else (*kinds, "list", "map", "tag", "named", "map"))
    if kind in ("list", "map", "tag", "named"):
        return container(lot, kind, depth)
    if kind == "tensor":
        return some_tensor(lot)
    if kind == "raw":
        return Raw(bytes([lot.randrange(256)]) + lot.randbytes(lot.randrange(4)))
    return {
        "number": lambda: lot.choice(NUMBERS),
        "text": lambda: lot.choice(TEXTS),
        "float": lambda: struct.unpack("<d", lot.randbytes(8))[0],
        "constant": lambda: lot.choice((None, True, False)),
        "bytes": lambda: lot.randbytes(lot.choice((0, 16, 31, 32, 33))),
        "alias": lambda: Tag(60008, [lot.choice(KEYS) for _ in range(lot.randrange(4))]),
    }[kind]()


def container(lot: random.Random, kind: str, depth: int) -> Any:
    """Some values in a larger one."""
    items = [value(lot, depth + 1) for _ in range(lot.randrange(4))]
    if kind == "list":
        return items
    if kind == "map":
        return {lot.choice(KEYS): item for item in items}
    if kind == "tag":
        return Tag(lot.choice((2, 3, 60001, 60002, 60003, 60004, 60005, 60007, 60010, 60011)), lot.choice((items, b"")))
    extras = (None, None, lot.choice(NUMBERS), lot.choice(TEXTS), [[lot.choice(NUMBERS)], True], {"scale": 1.0})
    inner = lot.choice((items, {lot.choice(KEYS): item for item in items}, some_tensor(lot)))
    return Tag(60009, [lot.choice(NAMED + NAMED_TOO), inner, lot.choice(extras)])


def some_tensor(lot: random.Random) -> Tag:
    """A tensor whose parts may not fit each other."""
    shape = [abs(lot.choice((*NUMBERS, 3, 4))) for _ in range(lot.randrange(4))]
    data = lot.choice((b"", lot.randbytes(lot.randrange(300)), [bytes(32)] * lot.randrange(5)))
    order = lot.choice((None, None, list(range(len(shape))), [1, 0], [7]))
    return tensor(lot.choice(DTYPES), shape, data, order, numpy=lot.random() < 0.3)


def some_tree(repo: Repository, lot: random.Random) -> None:
    """A commit with components of anything."""
    pack = some_pack(lot)
    root: dict[str, dict[str, Tag]] = {}
    for _ in range(lot.randrange(1, 4)):
        top = lot.choice(("tensors", "value", "groups", "state"))
        subtree = pack.add("tree", cbor({top: value(lot), lot.choice(KEYS): value(lot)}))
        root.setdefault(lot.choice(SECTIONS), {})[lot.choice(COMPONENTS)] = Tag(60010, subtree)
    environment = pack.add("tree", cbor(lot.choice(({}, {"value": value(lot)}))))
    repo.publish_commit(pack, commit(pack.add("tree", cbor(root)), environment))


def some_commit(repo: Repository, lot: random.Random) -> None:
    """A commit with fields of anything."""
    pack = some_pack(lot)
    tree = pack.add("tree", cbor({}))
    names = lot.sample(("branch", "error", "kind", "message", "metrics", "mode", "parents", "step", "time"), 2)
    plausible = {"parents": [tip(repo)] * lot.randrange(3), "step": lot.choice(NUMBERS), "time": lot.choice(NUMBERS)}
    fields = {name: lot.choice((plausible.get(name, lot.choice(TEXTS)), value(lot))) for name in names}
    repo.publish_commit(pack, commit(tree, tree, **fields))


def some_operation(repo: Repository, lot: random.Random) -> None:
    """Operations with fields of anything."""
    kinds = ("init", "commit", "branch", "rename", "delete", "tag", "checkout", "undo", "redo", "condemn", "repair")
    for _ in range(lot.randrange(1, 4)):
        target = lot.choice((tip(repo), bytes(32), lot.randbytes(31)))
        table = {lot.choice(TEXTS): lot.choice((["branch", target], ["tag", target], None)) for _ in range(3)}
        refs = lot.choice((["whole", table], ["changes", abs(lot.choice(NUMBERS)), table], value(lot)))
        fields = {
            "kind": lot.choice(kinds),
            "subject": lot.choice((None, lot.choice(TEXTS), lot.choice(NUMBERS))),
            "head": lot.choice((["branch", lot.choice(TEXTS)], ["commit", target], value(lot))),
            "condemned": lot.choice(([], [lot.randbytes(16)], value(lot))),
            "time": lot.choice(NUMBERS),
        }
        names = lot.sample(sorted(fields), lot.randrange(3))
        repo.publish(refs, **{name: fields[name] for name in names})


def some_pack(lot: random.Random) -> Pack:
    """A pack that may lie."""
    raw = bytes(CHUNK_BYTES)
    entry = Entry(
        lot.choice((identify("chunk", raw), bytes(32))),
        lot.choice((CHUNK_BYTES, 0, 2048, (1 << 32) - 1)),
        lot.choice((bomb(CHUNK_BYTES), bomb(1 << 30, claimed=CHUNK_BYTES), b"", b"x")),
        [(lot.choice((0, 1, 1, 1, 2, 250)), lot.randbytes(lot.choice((0, 0, 3))))] * lot.choice((1, 1, 2)),
        lot.choice(([], [], [bytes(32)], [identify("chunk", raw)] * 8)),
    )
    pack = Pack(id=lot.randbytes(16), entries=lot.choice(([], [entry])))
    if lot.random() < 0.3:
        name = lot.choice(("offset", "raw_len", "encoded_len", "crc", "block", "header_len", "kind", "codec", "bases"))
        most = {"kind": 255, "codec": 255, "bases": 255, "header_len": 65535}.get(name, (1 << 32) - 1)
        pack.rows[entry.id] = {name: min(abs(lot.choice(NUMBERS)), most)}
    if lot.random() < 0.3:
        name = lot.choice(("first_block", "index", "objects", "bases", "blocks", "commits", "len"))
        pack.footer[name] = min(abs(lot.choice(NUMBERS)), (1 << 32) - 1)
    if lot.random() < 0.2:
        pack.frames[0] = (lot.choice((bomb(64 << 20), bomb(1 << 30, claimed=9), b"zeros")), lot.choice((9, 64 << 20)))
    return pack


def other_bytes(repo: Repository, lot: random.Random) -> None:
    """Some bytes of a file changed, its checksum right if it is a small one."""
    file = repo.folder / lot.choice(list(FILES.values()))(repo)
    data = bytearray(file.read_bytes() if file.is_file() else b"")
    for _ in range(lot.randrange(1, 6) if len(data) > 80 else 0):
        at = lot.randrange(4, len(data) - 32)
        some = lot.choice((lot.randbytes(1), lot.randbytes(4), b"\xff" * 8, bytes(8), head(4, 1 << 40)))
        data[at : at + len(some)] = some
    body = bytes(data[:-32])
    repo.write(str(file.relative_to(repo.folder)), body + blake3(body).digest())


def other_length(repo: Repository, lot: random.Random) -> None:
    """A file cut, or longer."""
    file = repo.folder / lot.choice(list(FILES.values()))(repo)
    data = file.read_bytes() if file.is_file() else lot.randbytes(100)
    cut = data[: lot.randrange(len(data) + 1)]
    repo.write(str(file.relative_to(repo.folder)), cut + lot.randbytes(lot.choice((0, 0, 1, 5000))))


WAYS: tuple[Callable[[Repository, random.Random], None], ...] = (
    *(some_tree, some_tree, some_commit, some_operation),
    *(other_bytes, other_bytes, other_length),
)
