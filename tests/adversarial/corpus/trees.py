"""S1, S3, S5: trees that declare far more than they are, name what there is not, or would like to be classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import zstandard

from ..forge import CHUNK_BYTES, Entry, Pack, Raw, Repository, Tag, cbor, commit, head, identify, tensor
from .case import NAMES, Case

ZEROS = bytes(CHUNK_BYTES)
CHUNK = identify("chunk", ZEROS)
DTYPES = ("float7", "", "object", "x" * 1000, "\0", "../../x")
NUMPY_DTYPES = (
    "|O",
    "O",
    "|V8",
    "<U1000000000",
    "|S0",
    "<f2097152",
    "<f16",
    "m8[s]",
    "<M8[99999999999999999999s]",
    ">i4",
    "<U3,<i4",
    "__import__('os')",
)
NAMED: dict[str, list[object]] = {
    "an unknown name": ["os.system", {}, None],
    "a class": ["builtins.eval", "1", None],
    "a factory that is none": ["default-dict", {}, "eval"],
    "a factory that is a path": ["default-dict", {}, "os.system"],
    "a deque of length 2^62": ["deque", [], 1 << 62],
    "a deque of length -1": ["deque", [], -1],
    "a counter of texts": ["counter", {"a": "b"}, None],
    "a counter that is a list": ["counter", [1], None],
    "a sparse tensor": [
        "sparse-coo",
        {"indices": tensor("int64", [1, 1], bytes(8)), "values": tensor("float32", [1], bytes(4))},
        [[1 << 40], True],
    ],
    "a quantized tensor": ["quantized", {"x": tensor("int8", [1], b"a")}, {"scale": 1.0}],
    "a nested tensor": ["nested", {}, {}],
    "a conjugate of nothing": ["conjugate", None, None],
}


def component(name: str, value: object, *, section: str = "model", zeros: bool = False) -> Case:
    """A commit with one component; `zeros`: with a chunk of them."""

    def spoil(repo: Repository) -> None:
        entry = Entry(CHUNK, CHUNK_BYTES, zstandard.ZstdCompressor().compress(ZEROS), [(1, b"")])
        repo.publish_tree(cbor(value), pack=Pack(entries=[entry] if zeros else []), section=section)

    return Case(name, spoil)


def extra(name: str, value: object, *, zeros: bool = False) -> Case:
    """A commit with a registered value."""
    return component(name, {"value": value}, section="extra", zeros=zeros)


def model(name: str, value: object, *, zeros: bool = False) -> Case:
    """A commit of a model with one parameter."""
    return component(name, {"tensors": {"0.weight": value}}, zeros=zeros)


def tensors() -> Iterator[Case]:
    """Tensors of other lengths than they have."""
    tebi = tensor("uint8", [1 << 40], [CHUNK] * (1 << 20))
    yield model("S5 a tensor of 1 TiB of one chunk", tebi, zeros=True)
    yield extra("S5 a registered tensor of 1 TiB of one chunk", tebi, zeros=True)
    many = {f"t{i}": tensor("uint8", [1 << 36], [CHUNK] * (1 << 16)) for i in range(16)}
    yield extra("S5 sixteen registered tensors of 64 GiB", many, zeros=True)
    moments = {"0.weight": {"exp_avg": tebi, "exp_avg_sq": tebi, "step": 1.0}}
    optim = {"groups": [{"params": ["0.weight"], "lr": 1.0}], "state": moments}
    yield component("S5 moments of 1 TiB", optim, section="optim", zeros=True)
    for shape in ([1 << 63, 1 << 63], [1 << 62, 4, 0], [1] * 65, [1] * 64, [(1 << 64) - 1], [0, (1 << 64) - 1]):
        yield model(f"S5 a shape of {len(shape)} dimensions, the first {shape[0]}", tensor("float32", shape, b""))
    yield model("S5 more chunks than its shape", tensor("float32", [16, 32], [CHUNK] * 3), zeros=True)
    yield model("S5 a chunk that is nowhere", tensor("float32", [16, 32], [bytes(32)]))
    yield model("S5 an inlined tensor of another length", tensor("float32", [4], b"short"))


def classes() -> Iterator[Case]:
    """Dtypes and named values that no table has, or with parts that do not fit."""
    for dtype in DTYPES:
        yield model(f"S1 a tensor of dtype {dtype[:8]!r}", tensor(dtype, [1], b"abcd"))
    for dtype in NUMPY_DTYPES:
        yield extra(f"S1 an array of dtype {dtype[:14]!r}", tensor(dtype, [1], b"abcd", numpy=True))
        yield extra(f"S1 a scalar of dtype {dtype[:14]!r}", Tag(60009, ["numpy-scalar", b"abcd", dtype]))
    for name, value in NAMED.items():
        yield extra(f"S1 {name}", Tag(60009, value))


def names() -> Iterator[Case]:
    """Keys that would be paths, and aliases that lead nowhere."""
    for name, text in NAMES.items():
        yield component(f"S3 a parameter called {name}", {"tensors": {text: tensor("float32", [1], bytes(4))}})
        yield extra(f"S3 a value called {name}", {text: text, "in": [text]})

        def section(repo: Repository, text: str = text) -> None:
            pack = Pack()
            environment, subtree = pack.add("tree", cbor({})), pack.add("tree", cbor({"value": 1}))
            root = pack.add("tree", cbor({"extra": {text: Tag(60010, subtree)}}))
            repo.publish_commit(pack, commit(root, environment, message=text, branch=text))

        yield Case(f"S3 a component, a branch and a message called {name}", section)
    paths: dict[str, list[object]] = {
        "nothing": ["tensors", "nowhere"],
        "itself": ["tensors", "0.weight"],
        "a list": [0],
        "a deep place": ["tensors"] * 100,
        "no path": [],
    }
    for name, path in paths.items():
        yield model(f"S5 an alias of {name}", Tag(60008, path))
    two = {"0.weight": Tag(60008, ["tensors", "0.bias"]), "0.bias": Tag(60008, ["tensors", "0.weight"])}
    yield component("S5 aliases of each other", {"tensors": two})
    yield extra("S5 a subtree in a component", Tag(60010, bytes(32)))


def large_values() -> Iterator[Case]:
    """Values that are deep, many or long."""
    deep: object = 1
    for _ in range(126):
        deep = [deep]
    yield extra("S5 lists, 126 deep", deep)
    for depth in (129, 100_000):
        yield extra(f"S5 lists, {depth} deep", Raw(b"\x81" * depth + b"\x01"))
    yield extra("S5 a million lists", Raw(head(4, 1_000_000) + b"\x80" * 1_000_000))
    leaf = cbor(tensor("uint8", [1], b"a"))
    yield replace(extra("S5 300,000 tensors", Raw(head(4, 300_000) + leaf * 300_000)), more_mib=64)
    yield extra("S5 a text of 60 MiB", "a" * (60 << 20))
    yield extra("S5 an integer of a mebibyte", Raw(head(6, 2) + head(2, 1 << 20) + b"\xff" * (1 << 20)))
