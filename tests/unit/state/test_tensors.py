"""Tensors come back bit for bit: every dtype a commit can hold, every shape and memory order."""

from __future__ import annotations

import pytest
import torch

from gradient.state import tensors, to_torch

SHAPES = [(), (1,), (0,), (3, 0, 2), (5, 7), (2, 3, 4, 5)]


def random_bits(shape, dtype):
    made = torch.empty(shape, dtype=dtype)
    data = torch.randint(0, 256, (made.numel() * made.element_size(),), dtype=torch.uint8)
    if dtype is torch.bool:
        data &= 1
    return data.view(dtype).reshape(shape) if made.numel() else made


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("dtype", list(tensors.DTYPES), ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_bit_of_every_dtype_comes_back(dtype, shape, round_trip):
    tensor = random_bits(shape, dtype)
    made = round_trip([tensor])[0]
    assert made.dtype == dtype
    assert made.shape == tensor.shape
    assert tensors.same_bits(made, tensor)


def test_the_table_of_dtypes_has_every_one_of_the_format_that_this_torch_knows():
    import pathlib
    import re

    page = (pathlib.Path(__file__).parents[3] / "docs/format/objects.md").read_text()
    table = page[page.index("| dtype | width in bytes |") : page.index("**Named** values")]
    named = set(re.findall(r"`([a-z0-9_]+)`", table)) - {"dtype"}
    assert {name for name in named if hasattr(torch, name)} == set(tensors.DTYPES.values())


VIEWS = {
    "transposed": lambda: torch.randn(6, 7).t(),
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "channels last 3d": lambda: torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
    "permuted": lambda: torch.randn(3, 4, 5).permute(1, 2, 0),
    "strided": lambda: torch.randn(8, 9)[::2, 1::3],
    "expanded": lambda: torch.randn(3, 1).expand(3, 4),
    "complex transposed": lambda: torch.randn(6, 7, dtype=torch.complex128).t(),
    "with offset": lambda: torch.randn(100)[50:],
    "grad": lambda: torch.randn(4, requires_grad=True),
    "parameter": lambda: torch.nn.Parameter(torch.randn(4, 4)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_comes_back_with_its_elements_alone(name, round_trip):
    tensor = VIEWS[name]()
    made = round_trip([tensor])[0]
    assert tensors.same_bits(made, tensor)
    assert made.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


@pytest.mark.parametrize("name", ["transposed", "channels last", "channels last 3d", "permuted", "complex transposed"])
def test_a_dense_tensor_keeps_its_strides(name, round_trip):
    tensor = VIEWS[name]()
    assert round_trip([tensor])[0].stride() == tensor.stride()


def test_a_contiguous_tensor_is_not_copied_for_a_commit():
    tensor = torch.zeros(4)
    view = tensors.raw(tensor)
    tensor.fill_(1)
    assert view.any()


def test_to_torch_makes_new_memory_in_the_stored_order(carry):
    from gradient.state.flatten import Flattener

    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    carried = carry({"extra": {"it": {"value": Flattener("extra", "it").value(tensor, ("value",))}}})
    made = to_torch(carried.component("extra", "it")["value"])
    assert made.stride() == tensor.stride()
    assert made.equal(tensor)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.zeros(3, 1).expand(3, 4), True),
        (torch.zeros(10).as_strided((4, 4), (2, 1)), True),
        (torch.zeros(8, 9)[::2, 1::3], False),
        (torch.zeros(4, 4).t(), False),
        (torch.zeros(1, 1).expand(1, 1), False),
        (torch.zeros(0, 3).expand(5, 0, 3), False),
    ],
)
def test_tensors_whose_elements_share_memory_are_found(tensor, expected):
    assert tensors.overlaps_itself(tensor) is expected
