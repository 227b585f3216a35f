"""Tensors made of others are restored in place: compared whole before a byte changes, and autograd is told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradient._core import Alias, Named
from gradient.errors import CorruptionError, StateMismatchError
from gradient.state import TrainState, inplace, tensors
from gradient.state.flatten import Flattener

pytestmark = pytest.mark.filterwarnings("ignore")


class Holder(nn.Module):
    def __init__(self, **held):
        super().__init__()
        for name, tensor in held.items():
            self.register_buffer(name, tensor)


def attached(module, **options):
    state = TrainState(**options)
    state.add_models({"main": module})
    return state


def per_tensor():
    return torch.quantize_per_tensor(torch.randn(4, 3), 0.1, 3, torch.qint8)


def per_channel(dtype=torch.qint8):
    scales, zeros = torch.linspace(0.1, 0.4, 4), torch.arange(4.0)
    if dtype is torch.qint8:
        scales, zeros = scales.double(), zeros.long()
    return torch.quantize_per_channel(torch.randn(4, 3), scales, zeros, 0, dtype)


def jagged(values=None, offsets=(0, 2, 6)):
    values = torch.randn(6, 3) if values is None else values
    return torch.nested.nested_tensor_from_jagged(values, torch.tensor(offsets))


def coo(size=4, values=None):
    values = torch.randn(3) if values is None else values
    return torch.sparse_coo_tensor(torch.tensor([[0, 1, 2]]), values, (size,), is_coalesced=True)


class Keep(torch.autograd.Function):
    """Saves a tensor for the backward pass, as every product does."""

    @staticmethod
    def forward(ctx, through, kept):
        ctx.save_for_backward(kept)
        return through * 2

    @staticmethod
    def backward(ctx, grad):
        _ = ctx.saved_tensors
        return grad * 2, None


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(per_tensor, id="per tensor"),
        pytest.param(per_channel, id="per channel"),
        pytest.param(lambda: per_channel(torch.quint8), id="per channel, float parameters"),
        pytest.param(coo, id="sparse"),
        pytest.param(lambda: torch.randn(3, 3).to_sparse_csr(), id="compressed"),
        pytest.param(lambda: torch.randn(3, 2, dtype=torch.complex64).conj(), id="conjugated"),
        pytest.param(lambda: torch.randn(3).to_mkldnn(), id="oneDNN"),
    ],
)
def test_a_backward_pass_over_what_a_restore_wrote_fails_as_after_copy(make, carry, put_back):
    model = Holder(it=make())
    other = make()
    carried = carry(attached(Holder(it=other)).capture())
    state = attached(model)
    for write in (lambda: model.it.copy_(other), lambda: put_back(state, carried)):
        leaf = torch.ones(2, requires_grad=True)
        loss = Keep.apply(leaf, model.it).sum()
        write()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize("make", [jagged, lambda: per_channel(torch.quint4x2)])
def test_a_restore_counts_a_version_of_what_torch_has_no_copy_for(make, carry, put_back):
    model = Holder(it=make())
    views = [model.it.detach(), model.it]
    before = [view._version for view in views]
    put_back(attached(model), carry(attached(Holder(it=make())).capture()))
    assert all(view._version > version for view, version in zip(views, before, strict=True))


@pytest.mark.parametrize(
    "live",
    [
        pytest.param(torch.randn(3, 4), id="shape"),
        pytest.param(torch.randn(4, 3).double(), id="dtype"),
        pytest.param(torch.randn(4, 3).to_sparse(), id="layout"),
        pytest.param(torch._neg_view(torch.randn(4, 3)), id="bit"),
    ],
)
def test_a_frozen_tensor_that_can_not_be_the_commit_s_is_not_read(live, carry, put_back, monkeypatch):
    check_unread(torch.randn(4, 3), live, carry, put_back, monkeypatch)


@pytest.mark.parametrize(
    ("stored", "live"),
    [
        pytest.param(coo(4), coo(5), id="shape of a sparse one"),
        pytest.param(coo(4), torch.ones(4).to_sparse(), id="elements of a sparse one"),
        pytest.param(coo(4), coo(4).double(), id="dtype of a sparse one"),
        pytest.param(per_tensor(), per_channel(), id="scheme"),
        pytest.param(jagged(), jagged(torch.randn(6, 3).double()), id="dtype of a jagged one"),
    ],
)
def test_a_frozen_composite_that_can_not_be_the_commit_s_is_not_read(stored, live, carry, put_back, monkeypatch):
    check_unread(stored, live, carry, put_back, monkeypatch)


def check_unread(stored, live, carry, put_back, monkeypatch):
    def state(tensor):
        module = nn.Module()
        module.it = nn.Parameter(tensor, requires_grad=False)
        return attached(module, model_state="trainable")

    carried = carry(state(stored).capture())
    read = []
    monkeypatch.setattr(inplace, "to_torch", read.append)
    with pytest.raises(StateMismatchError, match="frozen"):
        put_back(state(live), carried)
    assert read == []


def with_part(carried, key, change):
    """The components of a commit of one buffer `it`, with one of its parts changed."""

    def component(section, name):
        mapping = carried.component(section, name)
        if section == "model":
            node = mapping["tensors"]["it"]
            mapping["tensors"]["it"] = Named(node.name, {**node.value, key: change(node.value[key])}, node.extra)
        return mapping

    return component


@pytest.mark.parametrize("bit", ["conjugate", "negative"])
def test_a_part_with_a_bit_is_compared_by_its_shape_too(bit, carry):
    before = coo(4, torch.ones(3, dtype=torch.complex64))
    other = Holder(it=before.clone())
    for wider in (coo(5, torch.zeros(3, dtype=torch.complex64)), coo(4, torch.zeros(3, dtype=torch.complex128))):
        carried = carry(attached(Holder(it=wider)).capture())
        component = with_part(carried, "values", lambda part: Named(bit, part))
        with pytest.raises(StateMismatchError, match="main/it: complex"):
            attached(other).plan(component, carried.available)
    assert torch.equal(other.it.to_dense(), before.to_dense())


@pytest.mark.parametrize("bit", ["conjugate", "negative"])
def test_a_part_with_a_bit_goes_into_one_that_has_it(bit, carry, put_back):
    def view(seed):
        torch.manual_seed(seed)
        values = torch.randn(6, 3, dtype=torch.complex64)
        return values.conj() if bit == "conjugate" else torch._neg_view(values)

    first, other = Holder(it=jagged(view(0))), Holder(it=jagged(view(1)))
    lies = other.it._values
    carried = carry(attached(first).capture())
    put_back(attached(other), carried)
    assert other.it._values is lies
    assert lies.is_conj() == (bit == "conjugate")
    assert lies.is_neg() == (bit == "negative")
    assert torch.equal(lies.resolve_conj().resolve_neg(), view(0).resolve_conj().resolve_neg())
    plain = Holder(it=jagged(torch.randn(6, 3, dtype=torch.complex64)))
    with pytest.raises(StateMismatchError, match="other shapes, dtypes or bits"):
        put_back(attached(plain), carried)


def test_a_part_that_is_the_memory_of_a_conjugated_buffer_has_its_elements(carry, put_back):
    def make(values, count):
        memory = torch.tensor(values, dtype=torch.complex64)
        return Holder(flipped=memory.conj(), it=coo(4, memory) if count == 3 else torch.ones(4).cfloat().to_sparse())

    first, other = make([1 + 2j, 3j, -4j], 3), make([0, 0, 0], 4)
    put_back(attached(other), carry(attached(first).capture()))
    assert torch.equal(other.it.to_dense(), first.it.to_dense())
    assert torch.equal(other.flipped.resolve_conj(), first.flipped.resolve_conj())


def test_a_bit_of_itself_is_damage_and_no_endless_loop(carry):
    first = Holder(it=torch.randn(3, dtype=torch.complex64).conj())
    carried = carry(attached(first).capture())

    def component(section, name):
        mapping = carried.component(section, name)
        if section == "model":
            mapping["tensors"]["it"] = Named("conjugate", Alias(("tensors", "it")))
        return mapping

    with pytest.raises(CorruptionError, match="alias"):
        attached(first).plan(component, carried.available)


@pytest.mark.parametrize("bit", ["conjugate", "negative"])
@pytest.mark.parametrize(("part", "tensor"), [("values", coo()), ("values", torch.eye(3).to_sparse_csr())])
def test_what_torch_copies_before_it_was_read_is_refused(bit, part, tensor, carry, put_back):
    # Of a view with a bit torch makes values of their own, which nobody would read into.
    node = Flattener("extra", "it").value(tensor.to(torch.complex64), ("value",))
    changed = Named(node.name, {**node.value, part: Named(bit, node.value[part])}, node.extra)
    carried = carry({"extra": {"it": {"value": changed}}})
    state, got = TrainState(), []
    state.add_external("it", lambda: None, got.append)
    with pytest.raises(CorruptionError, match=f"{part} that torch takes as they are"):
        put_back(state, carried, only=["extra"])
    assert not got


def test_a_torch_that_copies_parts_is_found_out(carry, round_trip, monkeypatch):
    make = torch.sparse_coo_tensor
    tensor = coo()
    monkeypatch.setattr(
        torch, "sparse_coo_tensor", lambda indices, values, *rest, **more: make(indices, values.clone(), *rest, **more)
    )
    with pytest.raises(CorruptionError, match="values that torch takes as they are"):
        round_trip(tensor)


@pytest.mark.parametrize("make", [per_tensor, per_channel, lambda: per_channel(torch.quint4x2)])
def test_codes_that_lie_nowhere_are_damage(make, carry, put_back):
    tensor = make()
    node = Flattener("extra", "it").value(tensor, ("value",))
    codes = node.value["codes"] if isinstance(node.value, dict) else node.value
    zero = Named("zero", codes.dtype, [list(codes.shape), None])
    carried = carry({"extra": {"it": {"value": Named(node.name, {**node.value, "codes": zero}, node.extra)}}})
    state, got = TrainState(), []
    state.add_external("it", lambda: None, got.append)
    with pytest.raises(CorruptionError, match="codes that lie in memory"):
        put_back(state, carried, only=["extra"])
    assert not got


def test_codes_that_lie_nowhere_do_not_go_into_a_live_tensor(carry):
    first = Holder(it=per_tensor(), other=torch.ones(2))
    carried = carry(attached(first).capture())
    zero = with_part(carried, "codes", lambda part: Named("zero", part.dtype, [list(part.shape), None]))
    before = bytes(tensors.raw(first.it.int_repr()))
    with pytest.raises(CorruptionError, match="codes that lie in memory"):
        attached(first).plan(zero, carried.available)
    assert bytes(tensors.raw(first.it.int_repr())) == before
