"""Values come back exactly, and what can not is refused with its path."""

from __future__ import annotations

import collections
import datetime
import enum
import math
import pathlib
import struct
from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import pytest
import torch

from gradient.errors import InvalidInputError
from gradient.state.flatten import Flattener


def same(left, right):
    assert type(left) is type(right)
    if isinstance(left, float):
        assert struct.pack("<d", left) == struct.pack("<d", right)
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert left.stride() == right.stride() or not left.is_contiguous()
        assert (
            left.detach()
            .contiguous()
            .reshape(-1)
            .view(torch.uint8)
            .equal(right.detach().contiguous().reshape(-1).view(torch.uint8))
        )
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert left.tobytes() == right.tobytes()
    elif isinstance(left, dict):
        assert list(left) == list(right)
        assert [type(key) for key in left] == [type(key) for key in right]
        for key in left:
            same(left[key], right[key])
    elif isinstance(left, list | tuple | deque):
        assert len(left) == len(right)
        for mine, other in zip(left, right, strict=True):
            same(mine, other)
    else:
        assert left == right


NAN = struct.unpack("<d", bytes.fromhex("0100000000fcf7ff"))[0]

VALUES = {
    "none": None,
    "bools": [True, False],
    "integers": [0, -1, 2**63, -(2**64) - 5, 2**200, -(2**200)],
    "floats": [0.0, -0.0, math.inf, -math.inf, NAN, 5e-324],
    "complex": complex(-0.0, 2.5),
    "text": ["", "plain", "na\u00efve \u2603 \U0001f600", "\x00"],
    "bytes": [b"", b"\x00\xff" * 200],
    "nested": {"a": [1, (2, [3, {"b": None}])], "c": ()},
    "sets": [set(), {1, "a", None, (1, 2)}, frozenset({b"x", 2.5}), {frozenset({1})}],
    "keys": {None: 1, True: 2, 7: 3, 2.5: 4, 1j: 5, "s": 6, b"b": 7, (1, ("x", None)): 8},
    "order": {"z": 1, "a": 2, "m": 3},
    "ordered": OrderedDict([("z", 1), ("a", OrderedDict())]),
    "counter": Counter({30: 1, 80: 2}),
    "default": [defaultdict(list, {"a": [1]}), defaultdict(None, {"b": 2}), defaultdict(int)],
    "deque": [deque([1, 2, 3], maxlen=5), deque()],
    "scalars": [np.float32(1.5), np.int8(-3), np.bool_(True), np.str_("abc"), np.datetime64(5, "ns"), np.complex64(1j)],
    "arrays": [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.array(2.5),
        np.zeros((0, 4), np.float16),
        np.array(["a", "bcd"]),
        np.array([b"x", b"yz"]),
        np.arange(400.0),
        np.array([1, 2], "M8[s]"),
    ],
    "fortran": np.asfortranarray(np.arange(600, dtype=np.int64).reshape(20, 30)),
    "strided": np.arange(600)[::3],
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_exactly(name, round_trip):
    same(VALUES[name], round_trip(VALUES[name]))


def test_a_fortran_array_keeps_its_memory_order(round_trip):
    assert round_trip(VALUES["fortran"]).flags.f_contiguous


@pytest.mark.parametrize("bits", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_a_bit_generator_state_comes_back_exactly(bits, round_trip):
    generator = np.random.Generator(getattr(np.random, bits)(3))
    generator.random(5)
    state = generator.bit_generator.state
    other = np.random.Generator(getattr(np.random, bits)(4))
    other.bit_generator.state = round_trip(state)
    assert generator.random(9).tobytes() == other.random(9).tobytes()


def test_a_counter_keeps_zero_and_negative_counts(round_trip):
    same(Counter({"a": 0, "b": -2}), round_trip(Counter({"a": 0, "b": -2})))


def test_one_tensor_at_two_places_comes_back_as_one(round_trip):
    tensor = torch.arange(100.0)
    made = round_trip({"a": tensor, "b": [tensor, tensor.clone()], "c": tensor[:50]})
    assert made["a"] is made["b"][0]
    assert made["b"][1] is not made["a"]
    assert made["c"].shape == (50,)
    assert made["c"].untyped_storage().nbytes() == 200


def test_one_array_at_two_places_comes_back_as_one(round_trip):
    array = np.arange(100)
    made = round_trip([array, {"again": array}, array.copy()])
    assert made[0] is made[1]["again"]
    assert made[2] is not made[0]


def test_a_tensor_inside_an_ordered_dict_can_be_the_target_of_an_alias(round_trip):
    tensor = torch.ones(3)
    made = round_trip([OrderedDict(a=tensor), tensor])
    assert made[0]["a"] is made[1]


class Colour(int):
    pass


Point = collections.namedtuple("Point", "x y")


class Shade(enum.Enum):
    DARK = object()


REFUSED = {
    "function": lambda: 1,
    "class": int,
    "int subclass": Colour(3),
    "named tuple": Point(1, 2),
    "object": object(),
    "bytearray": bytearray(b"x"),
    "torch size": torch.Size([1]),
    "torch dtype": torch.float32,
    "object array": np.array([None]),
    "structured array": np.zeros(2, dtype=[("a", "i4")]),
    "long double": np.longdouble(1),
    "set of tensors": {torch.ones(1)},
    "numpy key": {np.int64(1): 2},
    "defaultdict of a lambda": defaultdict(lambda: 0),
    "lone surrogate": "\ud800",
    "surrogate key": {"\ud800": 1},
}

REFUSED_TENSORS = {
    "subclass": lambda: torch.nn.Parameter(torch.ones(1)).as_subclass(type("Mine", (torch.Tensor,), {})),
    "meta": lambda: torch.empty(2, device="meta"),
}


def refused(value):
    with pytest.raises(InvalidInputError, match=r"extra/it/value/here/2"):
        Flattener("extra", "it").value({"here": [1, 2, value]}, ("value",))


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_stored_is_refused_with_its_path(name):
    refused(REFUSED[name])


INSTEAD = {
    "named tuple": (Point(1, 2), "_asdict"),
    "torch size": (torch.Size([1]), "tuple"),
    "torch dtype": (torch.float32, "str"),
    "torch device": (torch.device("cpu"), "str"),
    "path": (pathlib.PurePosixPath("a"), "str"),
    "date": (datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "isoformat"),
    "duration": (datetime.timedelta(1), "total_seconds"),
    "enum": (Shade.DARK, "name"),
    "range": (range(3), "list"),
}


@pytest.mark.parametrize("name", INSTEAD)
def test_the_hint_says_what_to_keep_in_the_place_of_a_common_value(name):
    value, instead = INSTEAD[name]
    with pytest.raises(InvalidInputError) as caught:
        Flattener("extra", "it").value(value, ("value",))
    assert instead in str(caught.value.hint)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED_TENSORS)
def test_a_tensor_that_can_not_be_stored_yet_is_refused_with_its_path(name):
    refused(REFUSED_TENSORS[name]())


def test_a_container_that_contains_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(InvalidInputError, match="nested deeper"):
        Flattener("extra", "it").value(endless, ("value",))


def test_the_deepest_value_that_is_taken_comes_back(round_trip):
    deep = 1
    for _ in range(118):
        deep = [deep]
    same(deep, round_trip(deep))


def test_the_state_dict_of_a_module_is_taken_as_it_is(round_trip):
    module = torch.nn.BatchNorm1d(4)
    other = torch.nn.BatchNorm1d(4)
    other.running_mean.fill_(3)
    module.load_state_dict(round_trip(other.state_dict()))
    assert module.running_mean.eq(3).all()


def test_an_ordered_dict_with_attributes_is_refused():
    value = OrderedDict(a=1)
    value.note = "lost"
    with pytest.raises(InvalidInputError, match="note"):
        Flattener("extra", "it").value(value, ("value",))
