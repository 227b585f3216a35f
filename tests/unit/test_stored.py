"""`gradient.stored`: tensors of a commit without torch; torch itself is the judge here."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import pytest
import torch

from gradient._core import Alias, Named
from gradient._small_floats import SMALL_FLOATS, table
from gradient.errors import InvalidInputError
from gradient.stored import StoredTensor, readable


class Held:
    """Stands in for `_core.StoredTensor`, which only a repository can make."""

    order = None
    digest = "00"

    def __init__(self, dtype: str, shape: tuple[int, ...], raw: bytes, *, numpy: bool = False) -> None:
        self.dtype, self.shape, self.raw, self.numpy = dtype, shape, raw, numpy
        self.nbytes = len(raw)

    def bytes(self) -> bytes:
        return self.raw


def held(tensor: torch.Tensor) -> StoredTensor:
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    name = str(tensor.dtype).removeprefix("torch.")
    return StoredTensor(Held(name, tuple(tensor.shape), raw))  # type: ignore[arg-type]


def every_code(dtype: torch.dtype) -> torch.Tensor:
    width = dtype.itemsize
    codes = torch.arange(1 << 8 * min(width, 2), dtype=torch.int32)
    return codes.to(torch.uint8 if width == 1 else torch.int16).view(dtype)


@pytest.mark.parametrize("name", ["float16", "bfloat16", *sorted(set(SMALL_FLOATS) - {"float4_e2m1fn_x2"})])
def test_every_code_of_every_small_float_means_what_torch_says(name: str) -> None:
    dtype = getattr(torch, name, None)
    if dtype is None:
        pytest.skip(f"this torch has no {name}: {torch.__version__}")
    tensor = every_code(dtype)
    ours, theirs = held(tensor).to_float32(), tensor.to(torch.float32).numpy()
    finite = ~np.isnan(theirs)
    assert np.array_equal(np.isnan(ours), ~finite)
    assert np.array_equal(ours[finite].view(np.uint32), theirs[finite].view(np.uint32))


def test_four_bit_floats_come_two_to_a_byte_the_low_half_first() -> None:
    assert [float(value) for value in table("float4_e2m1fn_x2")][:8] == [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    stored = StoredTensor(Held("float4_e2m1fn_x2", (1, 2), bytes([0x72, 0x9F])))  # type: ignore[arg-type]
    assert stored.to_float32().tolist() == [[1.0, 6.0, -6.0, -0.5]]


@pytest.mark.parametrize(
    "name", ["bool", "uint8", "int16", "int64", "float16", "float32", "float64", "complex64", "complex128"]
)
def test_what_numpy_knows_comes_back_in_its_own_dtype(name: str) -> None:
    tensor = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(getattr(torch, name))
    array = held(tensor).numpy()
    assert array.dtype == tensor.numpy().dtype
    assert np.array_equal(array, tensor.numpy())
    assert array.flags.writeable


def test_what_numpy_lacks_comes_as_unsigned_integers_of_the_same_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradient.stored._ml_dtype", lambda name: None)
    tensor = torch.tensor([1.0, -2.5, math.inf]).to(torch.bfloat16)
    stored = held(tensor)
    assert stored.dtype == "bfloat16"
    assert stored.numpy().dtype == np.uint16
    assert stored.numpy().tolist() == tensor.view(torch.uint16).tolist()


def test_arrays_keep_their_byte_order_though_their_bytes_are_little_endian() -> None:
    array = np.array([1, -2, 3], dtype=">i4")
    stored = StoredTensor(Held(">i4", (3,), array.astype("<i4").tobytes(), numpy=True))  # type: ignore[arg-type]
    assert stored.numpy().dtype == np.dtype(">i4")
    assert stored.numpy().tolist() == [1, -2, 3]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex32], ids=str)
def test_complex_numbers_do_not_silently_become_real(dtype: torch.dtype) -> None:
    stored = StoredTensor(Held(str(dtype).removeprefix("torch."), (1,), bytes(dtype.itemsize)))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        stored.to_float32()


def test_containers_of_the_closed_table_become_what_they_were() -> None:
    component: dict[Any, Any] = {
        "ordered": Named("ordered-dict", {"b": 1, "a": 2}),
        "milestones": Named("counter", {30: 1, 80: 2}),
        "lists": Named("default-dict", {"x": [1]}, "list"),
        "last": Named("deque", [1, 2], 3),
        "scalar": Named("numpy-scalar", b"\x00\x00\x80?", "<f4"),
        "plain": [1, (2, {"deep": None})],
    }
    value = readable(component)
    assert value["ordered"] == OrderedDict(b=1, a=2)
    assert value["milestones"] == Counter({30: 1, 80: 2})
    assert value["lists"] == defaultdict(list, x=[1])
    assert value["lists"].default_factory is list
    assert value["last"] == deque([1, 2], 3)
    assert value["last"].maxlen == 3
    assert value["scalar"] == np.float32(1.0)
    assert value["plain"] == [1, (2, {"deep": None})]


def test_aliases_become_the_same_value_wherever_they_stand() -> None:
    component = {"tensors": {"head": Alias(("box", 0, "w"))}, "box": [Named("ordered-dict", {"w": 7})]}
    assert readable(component)["tensors"]["head"] == 7
