"""The tensor zoo: everything torch makes on the CPU comes back, wherever it was kept, or is refused with its place.

`docs/state.md` has the table; it and the cases here are held to each other.
"""

from __future__ import annotations

import pathlib
import re
import tempfile

import pytest
import torch
from torch import nn

from gradient.errors import CorruptionError, InvalidInputError, StateMismatchError
from gradient.state import TrainState, tensors, to_torch
from gradient.state.flatten import Flattener
from gradient.state.plan import RestorePlan
from gradient.stored import readable

PAGE = (pathlib.Path(__file__).parents[3] / "docs/state.md").read_text()
ODD = [0x7FC00001, 0xFFC12345, 0x7F800001, 0x80000000, 0x00000001, 0x807FFFFF, 0x7F800000, 0x3F800000]

pytestmark = pytest.mark.filterwarnings("ignore")


def odd() -> torch.Tensor:
    return torch.tensor(ODD, dtype=torch.int64).to(torch.int32).view(torch.float32)


def complex_pair() -> torch.Tensor:
    return torch.randn(3, 4, dtype=torch.complex64)


def scales(count: int) -> torch.Tensor:
    return torch.rand(count, dtype=torch.float64) + 0.1


def per_tensor(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.randn(shape), float(torch.rand(())) + 0.1, 3, dtype)


def jagged(**options) -> torch.Tensor:
    return torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)], layout=torch.jagged, **options)


def coo(*, coalesced: bool) -> torch.Tensor:
    indices = torch.tensor([[0, 2, 1, 0], [1, 0, 2, 1]])
    made = torch.sparse_coo_tensor(indices, torch.randn(4), (3, 4))
    return made.coalesce() if coalesced else made


def product() -> torch.Tensor:
    one = torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 1.0]]) * torch.randn(())
    return one.to_sparse_csr() @ one.to_sparse_csr()


def mapped() -> torch.Tensor:
    # Mapped memory outlives its file's name.
    with tempfile.NamedTemporaryFile() as file:
        made = torch.from_file(file.name, shared=True, size=50)
    return made.copy_(torch.randn(50))


def quantized_like(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(memory_format=torch.channels_last)


def kept_inference() -> torch.Tensor:
    with torch.inference_mode():
        return torch.randn(3)


KEPT = {
    "no dimensions": {"float": lambda: torch.randn(()), "int": lambda: torch.randint(9, ())},
    "no elements": {"one": lambda: torch.empty(0), "between": lambda: torch.empty(3, 0, 2)},
    "every bit pattern": {"float32": odd, "float64": lambda: torch.tensor([-0.0, 5e-324, float("nan")]).double()},
    "transposed": {"matrix": lambda: torch.randn(6, 7).t(), "permuted": lambda: torch.randn(3, 4, 5).permute(1, 2, 0)},
    "channels last": {
        "2d": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "3d": lambda: torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
    },
    "strided": {"both": lambda: torch.randn(8, 9)[::2, 1::3]},
    "expanded": {"row": lambda: torch.randn(3, 1).expand(3, 4)},
    "part of a larger storage": {"middle": lambda: torch.randn(100)[20:30]},
    "parameter": {"plain": lambda: nn.Parameter(torch.randn(3)), "view": lambda: nn.Parameter(torch.randn(4, 3).t())},
    "registered buffer": {"plain": lambda: nn.Buffer(torch.randn(3))},
    "inference tensor": {"plain": kept_inference},
    "memory-mapped, shared memory": {"mapped": mapped, "shared": lambda: torch.randn(5).share_memory_()},
    "conjugated view": {
        "whole": lambda: complex_pair().conj(),
        "transposed": lambda: complex_pair().mH,
        "half": lambda: complex_pair().to(torch.complex32).conj(),
    },
    "negated view": {"imaginary": lambda: complex_pair().conj().imag, "real": lambda: torch._neg_view(torch.randn(3))},
    "conjugated and negated view": {"both": lambda: torch._neg_view(complex_pair().conj())},
    "ZeroTensor": {
        "plain": lambda: torch._efficientzerotensor((2, 3)),
        "transposed": lambda: torch._efficientzerotensor((2, 3)).t(),
        "conjugated": lambda: torch._efficientzerotensor((2, 3), dtype=torch.complex64).conj(),
        "both": lambda: torch._neg_view(torch._efficientzerotensor((2,), dtype=torch.complex128).conj()),
    },
    "sparse COO": {
        "coalesced": lambda: coo(coalesced=True),
        "not coalesced": lambda: coo(coalesced=False),
        "hybrid": lambda: torch.randn(5, 6).to_sparse(1),
        "empty": lambda: torch.sparse_coo_tensor(torch.empty(2, 0, dtype=torch.int64), torch.empty(0), (3, 4)),
        "random": lambda: torch.randn(9, 9).relu().to_sparse(),
        "bfloat16": lambda: torch.eye(3, dtype=torch.bfloat16).to_sparse(),
        "expanded values": lambda: torch.sparse_coo_tensor(torch.tensor([[0, 1]]), torch.randn(1).expand(2), (3,)),
        "flag set by hand": lambda: torch.sparse_coo_tensor(
            torch.tensor([[1, 0]]), torch.randn(2), (3,), is_coalesced=True
        ),
    },
    "sparse CSR": {
        "plain": lambda: torch.randn(4, 5).relu().to_sparse_csr(),
        "int32": lambda: torch.sparse_csr_tensor(
            torch.tensor([0, 1, 1], dtype=torch.int32), torch.tensor([2], dtype=torch.int32), torch.randn(1), (2, 3)
        ),
        "batch": lambda: torch.randn(2, 3, 4).to_sparse_csr(),
        "dense dimension": lambda: torch.randn(3, 4, 2).to_sparse_csr(dense_dim=1),
        "complex": lambda: complex_pair().to_sparse_csr(),
        "a product, columns not sorted": product,
    },
    "sparse CSC": {"plain": lambda: torch.randn(4, 5).relu().to_sparse_csc()},
    "sparse BSR": {
        "plain": lambda: torch.randn(4, 6).to_sparse_bsr((2, 3)),
        "dense dimension": lambda: torch.randn(4, 4, 3).to_sparse_bsr((2, 2), dense_dim=1),
    },
    "sparse BSC": {"plain": lambda: torch.randn(4, 6).to_sparse_bsc((2, 3))},
    "quantized per tensor": {
        "qint8": lambda: per_tensor(torch.qint8, 3, 4),
        "quint8": lambda: per_tensor(torch.quint8, 300, 4),
        "qint32": lambda: per_tensor(torch.qint32, 3, 4),
        "channels last": lambda: quantized_like(per_tensor(torch.qint8, 2, 3, 4, 5)),
        "part": lambda: per_tensor(torch.qint8, 6, 4)[2:4],
        "empty": lambda: per_tensor(torch.qint8, 0, 4),
    },
    "quantized per channel": {
        "qint8": lambda: torch.quantize_per_channel(torch.randn(4, 3), scales(3), torch.arange(3), 1, torch.qint8),
        "qint32": lambda: torch.quantize_per_channel(torch.randn(4, 3), scales(4), torch.arange(4), 0, torch.qint32),
    },
    "quantized per channel, float parameters": {
        "quint8": lambda: torch.quantize_per_channel(torch.randn(4, 3), torch.rand(4), torch.rand(4), 0, torch.quint8),
    },
    "quantized in 4 and 2 bits": {
        "quint4x2": lambda: torch.quantize_per_channel(
            torch.randn(5, 3), torch.rand(5), torch.rand(5), 0, torch.quint4x2
        ),
        "quint4x2 per tensor": lambda: per_tensor(torch.quint4x2, 3, 4),
        "quint2x4": lambda: per_tensor(torch.quint2x4, 5, 3),
    },
    "nested, strided": {
        "plain": lambda: torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)]),
        "transposed": lambda: torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)]).transpose(1, 2),
        "scalars": lambda: torch.nested.nested_tensor([torch.randn(()), torch.randn(())]),
        "empty": lambda: torch.nested.nested_tensor([]),
        "an empty one inside": lambda: torch.nested.nested_tensor([torch.randn(0, 3), torch.randn(2, 3)]),
    },
    "nested, jagged": {
        "plain": jagged,
        "transposed": lambda: jagged().transpose(1, 2),
        "lengths": lambda: torch.nested.narrow(
            torch.randn(3, 5, 2), 1, torch.tensor([0, 1, 2]), torch.tensor([2, 1, 3]), layout=torch.jagged
        ),
        "grad": lambda: jagged(requires_grad=True),
    },
    "oneDNN": {
        "plain": lambda: torch.randn(2, 3).to_mkldnn(),
        "bfloat16": lambda: torch.randn(2).bfloat16().to_mkldnn(),
    },
}  # fmt: skip

TOGETHER = ("one tensor in two places", "tensors that overlap")
"""Rows about several tensors, which tests of their own are for."""


class Mine(torch.Tensor):
    pass


def sharded() -> object:
    from torch.distributed._shard import sharded_tensor
    from torch.distributed._shard.sharding_spec import ChunkShardingSpec

    return sharded_tensor.zeros(ChunkShardingSpec(dim=0, placements=["rank:0/cpu"]), 4, 2)


def distributed() -> object:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    return distribute_tensor(torch.ones(2), init_device_mesh("cpu", (1,)), [Shard(0)])


def fake() -> object:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(2)


def transformed() -> object:
    found: list[torch.Tensor] = []

    def look(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        with pytest.raises(InvalidInputError, match=r"torch\.func"):
            Flattener("extra", "it").value(tensor, ("value",))
        return tensor.sum()

    torch.func.grad(look)(torch.ones(2))
    return None


def named() -> object:
    if not hasattr(torch.Tensor, "has_names"):
        return None
    return torch.ones(2, names=("a",))


REFUSED = {
    "meta": lambda: torch.empty(2, device="meta"),
    "fake": fake,
    "functional": lambda: torch._to_functional_tensor(torch.ones(2)),
    "inside torch.func": transformed,
    "DTensor": distributed,
    "ShardedTensor": sharded,
    "masked": lambda: torch.masked.masked_tensor(torch.ones(2), torch.tensor([True, False])),
    "unknown subclass": lambda: torch.ones(1).as_subclass(Mine),
    "lazy, uninitialised": lambda: nn.LazyLinear(3).weight,
    "quantized without a quantizer": lambda: torch.empty(3, dtype=torch.qint8),
    "sparse, indices out of range": lambda: torch.sparse_coo_tensor(
        torch.tensor([[9]]), torch.ones(1), (3,), check_invariants=False
    ),
    "conjugated or negated view of a composite": lambda: torch._neg_view(per_tensor(torch.qint8, 3)),
    "named dimensions": named,
}

CASES = [(kind, case) for kind, cases in KEPT.items() for case in cases]
WRITABLE = [(kind, case) for kind, case in CASES if kind not in ("expanded", "inference tensor")]


def make(kind: str, case: str, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return KEPT[kind][case]()


def words(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """Strides if the elements fill their memory; else those of the row-major order in which they come back."""
    used = 1 + sum((length - 1) * step for length, step in zip(tensor.shape, tensor.stride(), strict=True))
    dense = used == tensor.numel() and 0 not in tensor.stride()
    found = tensor.stride() if dense else torch.empty(tensor.shape, device="meta").stride()
    return tuple(step for length, step in zip(tensor.shape, found, strict=True) if length != 1)


def told(tensor: torch.Tensor) -> object:
    """Tell everything about a tensor, by torch's own words and none of ours."""
    tensor = tensor.detach()
    head = [str(tensor.dtype), str(tensor.layout), type(tensor).__name__]
    if tensor.layout is torch.jagged:
        lengths = tensor.lengths()
        rows = [told(row) for row in tensor.unbind()]
        ragged = [tensor._ragged_idx, tensor._maybe_min_seqlen, tensor._maybe_max_seqlen]
        return [*head, rows, told(tensor.offsets()), None if lengths is None else told(lengths), ragged]
    if tensor.is_nested:
        where = [tensor._nested_tensor_strides().tolist(), tensor._nested_tensor_storage_offsets().tolist()]
        return [*head, [told(row) for row in tensor.unbind()], where]
    head.append(tuple(tensor.shape))
    if tensor.layout is torch.sparse_coo:
        return [*head, told(tensor._indices()), told(tensor._values()), tensor.is_coalesced()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [*head, told(tensor.crow_indices()), told(tensor.col_indices()), told(tensor.values())]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [*head, told(tensor.ccol_indices()), told(tensor.row_indices()), told(tensor.values())]
    if tensor.is_mkldnn:
        return [*head, told(tensor.to_dense())]
    if tensor.is_quantized:
        scheme = str(tensor.qscheme())
        if "channel" in scheme:
            facts = [tensor.q_per_channel_axis(), told(tensor.q_per_channel_scales())]
            facts.append(told(tensor.q_per_channel_zero_points()))
        else:
            facts = [tensor.q_scale(), tensor.q_zero_point()]
        return [*head, scheme, facts, words(tensor.int_repr()), tensor.stride()]
    bits = [tensor.is_conj(), tensor.is_neg(), tensor._is_zerotensor()]
    if bits[2]:
        return [*head, bits, tensor.stride()]
    lies = torch._neg_view(tensor) if bits[1] else tensor
    lies = lies.conj() if bits[0] else lies
    if not tensor.numel():
        return [*head, bits]
    return [*head, bits, strides(tensor), words(lies)]


def plain(facts: list[object]) -> object:
    """Leave out what only the class says: parameters come back as tensors in registered state."""
    return [fact for fact in facts if fact != "Parameter" and fact != "Tensor"]


def test_the_page_has_a_row_for_every_case_and_no_other():
    table = PAGE[PAGE.index("| kind |") :]
    rows = re.findall(r"^\| ([^|]+) \| (kept|refused) \|", table, flags=re.MULTILINE)
    assert len(rows) == len({name for name, _ in rows})
    assert {name for name, verdict in rows if verdict == "kept"} == {*KEPT, *TOGETHER}
    assert {name for name, verdict in rows if verdict == "refused"} == set(REFUSED)


def test_the_page_has_every_dtype_of_this_torch_once():
    table = PAGE[PAGE.index("| dtypes |") : PAGE.index("## Kinds")]
    listed = [
        name for row in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE) for name in row.replace("`", "").split()
    ]
    assert len(listed) == len(set(listed))
    found = {str(value).removeprefix("torch.") for value in vars(torch).values() if isinstance(value, torch.dtype)}
    # An older torch lacks some of the newest.
    assert found <= set(listed)
    assert {name for name in listed if hasattr(torch, name)} == found
    assert set(tensors.NAMES.values()) == found


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_it_comes_back_in_registered_state(kind, case, round_trip):
    tensor = make(kind, case)
    made = round_trip({"here": [tensor]})["here"][0]
    assert plain(told(made)) == plain(told(tensor))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "case"), CASES)
def test_it_is_read_without_a_model(kind, case, carry):
    tensor = make(kind, case)
    carried = carry({"extra": {"it": {"value": Flattener("extra", "it").value([tensor], ("value",))}}})
    leaf = readable(carried.component("extra", "it"))["value"][0]
    assert plain(told(to_torch(leaf))) == plain(told(tensor))


class Holder(nn.Module):
    def __init__(self, tensor: torch.Tensor, *, parameter: bool) -> None:
        super().__init__()
        if parameter:
            self.it = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
        else:
            self.register_buffer("it", tensor.detach() if isinstance(tensor, nn.Parameter) else tensor)


def attached(module: nn.Module) -> TrainState:
    state = TrainState()
    state.add_models({"main": module})
    return state


@pytest.mark.slow
@pytest.mark.parametrize("parameter", [False, True], ids=["buffer", "parameter"])
@pytest.mark.parametrize(("kind", "case"), WRITABLE)
def test_it_comes_back_in_a_model_in_place(kind, case, parameter, carry, put_back):
    tensor = make(kind, case)
    expected = told(tensor)
    carried = carry(attached(Holder(tensor, parameter=parameter)).capture())
    other = Holder(make(kind, case, seed=1), parameter=parameter)
    before = other.it
    state = attached(other)
    put_back(state, carried)
    assert other.it is before
    assert plain(told(other.it)) == plain(expected)
    again = carry(state.capture())
    if hasattr(again, "root"):
        assert again.root == carried.root


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "case"), CASES)
def test_it_comes_back_in_the_state_of_an_optimizer(kind, case, carry, put_back):
    def made(seed):
        model = nn.Linear(2, 2, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if seed is not None:
            optimizer.state[model.weight]["it"] = make(kind, case, seed)
        state = attached(model)
        state.add_optimizers({"main": optimizer})
        return model, optimizer, state

    model, optimizer, state = made(0)
    expected = plain(told(optimizer.state[model.weight]["it"]))
    carried = carry(state.capture())
    for seed in (None, 1):
        model, optimizer, state = made(seed)
        put_back(state, carried)
        assert plain(told(optimizer.state[model.weight]["it"])) == expected


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    import torch.distributed as dist

    store = dist.FileStore(str(tmp_path_factory.mktemp("rank") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_with_its_place(kind, one_rank):
    tensor = REFUSED[kind]()
    if kind == "named dimensions" and tensor is None:
        pytest.skip("this torch has no named dimensions")
    if tensor is None:
        return
    with pytest.raises(InvalidInputError, match="extra/it/value/here/2"):
        Flattener("extra", "it").value({"here": [1, 2, tensor]}, ("value",))
    module = nn.Module()
    module._buffers["it"] = tensor
    with pytest.raises(InvalidInputError, match="model/main/tensors/it"):
        attached(module).capture()


# Several together


def test_a_view_and_what_it_is_a_view_of_still_share_their_memory(round_trip):
    base = complex_pair()
    for first, second in ((base, base.conj()), (base.conj(), base), (torch._neg_view(base), base.conj())):
        one, two, three, four = round_trip([first, second, first, second])
        assert one is three
        assert two is four
        assert told(one) == told(first)
        assert told(two) == told(second)
        one.fill_(2 + 3j)
        first.fill_(2 + 3j)
        assert told(two) == told(second)


def test_tensors_that_overlap_in_a_model_still_do(carry, put_back):
    def module(seed):
        torch.manual_seed(seed)
        made = nn.Module()
        memory = torch.randn(10)
        for name, part in (("one", memory[:6]), ("two", memory[4:]), ("odd", memory[1::2])):
            made.register_buffer(name, part)
        return made

    first, other = module(0), module(1)
    carried = carry(attached(first).capture())
    put_back(attached(other), carried)
    assert all(told(tensor) == told(getattr(first, name)) for name, tensor in other.named_buffers())
    other.one[5] = 7
    assert other.two[1] == other.odd[2] == 7


def test_the_parts_of_a_sparse_tensor_can_be_shared_with_others(round_trip):
    indices, values = torch.tensor([[0, 2]]), torch.randn(2)
    one = torch.sparse_coo_tensor(indices, values, (3,), is_coalesced=True)
    two = torch.sparse_coo_tensor(indices, torch.randn(2), (4,), is_coalesced=True)
    made = round_trip([one, {"values": values, "two": two}, one])
    assert made[0] is made[2]
    made[1]["values"].fill_(7)
    assert made[0].to_dense().tolist() == [7, 0, 7]
    assert made[0]._indices().data_ptr() == made[1]["two"]._indices().data_ptr()


def test_jagged_tensors_that_share_their_offsets_can_still_be_added(round_trip):
    one = jagged()
    two = torch.nested.nested_tensor_from_jagged(torch.randn(6, 3), one.offsets())
    first, second = round_trip([one, two])
    assert told(first + second) == told(one + two)


@pytest.mark.parametrize("known", [{}, {"max_seqlen": 6}, {"min_seqlen": 1, "max_seqlen": 5}])
@pytest.mark.parametrize("here", [{}, {"min_seqlen": 0, "max_seqlen": 4}])
def test_longest_and_shortest_row_are_what_they_were_in_the_commit(known, here, carry, put_back):
    def holder(options):
        offsets = torch.tensor([0, 2, 6])
        return Holder(torch.nested.nested_tensor_from_jagged(torch.randn(6, 3), offsets, **options), parameter=False)

    other = holder(here)
    put_back(attached(other), carry(attached(holder(known)).capture()))
    assert other.it._maybe_max_seqlen == known.get("max_seqlen")
    assert other.it._maybe_min_seqlen == known.get("min_seqlen")


@pytest.mark.parametrize("wrong", [{"max_seqlen": 3}, {"max_seqlen": 7}, {"min_seqlen": 3}])
def test_longest_and_shortest_row_that_can_not_be_are_refused_by_name(wrong):
    tensor = torch.nested.nested_tensor_from_jagged(torch.randn(6, 3), torch.tensor([0, 2, 6]), **wrong)
    with pytest.raises(InvalidInputError, match=r"tensors/it: it can not be stored: a (longest|shortest) row"):
        attached(Holder(tensor, parameter=False)).capture()


def test_a_sparse_buffer_with_other_elements_gets_those_of_the_commit(carry, put_back):
    few, many = torch.eye(3).to_sparse_csr(), torch.ones(3, 3).to_sparse_csr()
    blocks = torch.ones(4, 4).to_sparse_bsr((2, 2)), torch.zeros(4, 4).to_sparse_bsr((4, 2))
    for one, two in ((few, many), (many, few), (few.to_sparse_coo(), many.to_sparse_coo()), blocks):
        carried = carry(attached(Holder(one.clone(), parameter=True)).capture())
        other = Holder(two.clone(), parameter=True)
        version = other.it._version
        put_back(attached(other), carried)
        assert plain(told(other.it)) == plain(told(one))
        assert other.it._version > version


def int32_csr() -> torch.Tensor:
    rows, columns = torch.arange(4, dtype=torch.int32), torch.arange(3, dtype=torch.int32)
    return torch.sparse_csr_tensor(rows, columns, torch.ones(3), (3, 3))


@pytest.mark.parametrize(
    ("live", "message"),
    [
        (lambda: torch.zeros(3, 3), "sparse-csr in the commit, float32 \\[3, 3\\] here"),
        (lambda: torch.eye(3).to_sparse(), "sparse-csr in the commit, sparse_coo float32 \\[3, 3\\] here"),
        (lambda: torch.eye(4).to_sparse_csr(), "float32 \\[3, 3\\] in the commit, sparse_csr float32 \\[4, 4\\]"),
        (lambda: torch.eye(3).double().to_sparse_csr(), "float32 \\[3, 3\\] in the commit"),
        (int32_csr, "int64 crow_indices and int64 col_indices in the commit"),
        (lambda: torch.eye(3, dtype=torch.complex64).conj(), "plain in the commit, conjugate here"),
    ],
)
def test_another_kind_is_a_mismatch_and_nothing_is_touched(live, message, carry, put_back):
    carried = carry(attached(Holder(torch.eye(3).to_sparse_csr(), parameter=False)).capture())
    other = Holder(live(), parameter=False)
    before = told(other.it)
    with pytest.raises(StateMismatchError, match=message):
        put_back(attached(other), carried)
    assert told(other.it) == before


def two_by_two(*, ragged: int) -> torch.Tensor:
    offsets = torch.tensor([0, 2, 4])
    return torch.nested.nested_tensor_from_jagged(torch.randn(4, 4), offsets, jagged_dim=ragged)


def components(*shapes: tuple[int, ...]) -> torch.Tensor:
    return torch.nested.nested_tensor([torch.randn(shape) for shape in shapes])


@pytest.mark.parametrize(
    ("stored", "live", "message"),
    [
        (two_by_two(ragged=1), two_by_two(ragged=2), "ragged in dimension 1 and not 2"),
        (components((2, 3), (4, 3)), components((2, 3)), "2 tensors of 2 dimensions"),
        (components((2, 3), (4, 3)), components((2,), (4,)), "2 tensors of 2 dimensions"),
    ],
)
def test_a_nested_tensor_of_another_structure_is_a_mismatch(stored, live, message, carry, put_back):
    carried = carry(attached(Holder(stored, parameter=False)).capture())
    other = Holder(live, parameter=False)
    before = told(other.it)
    with pytest.raises(StateMismatchError, match=message):
        put_back(attached(other), carried)
    assert told(other.it) == before


@pytest.mark.parametrize(
    "kind", ["sparse COO", "sparse CSR", "quantized per tensor", "quantized per channel", "nested, strided"]
)
def test_a_live_one_made_in_inference_mode_is_a_mismatch_and_nothing_is_touched(kind, carry, put_back):
    case = next(iter(KEPT[kind]))
    first = Holder(make(kind, case), parameter=False)
    first.register_buffer("another", torch.ones(2))
    carried = carry(attached(first).capture())
    with torch.inference_mode():
        other = Holder(make(kind, case, seed=1), parameter=False)
    other.register_buffer("another", torch.zeros(2))
    before = told(other.it)
    with pytest.raises(StateMismatchError, match="main/it: an inference tensor can not be written"):
        put_back(attached(other), carried)
    assert told(other.it) == before
    assert not other.another.any()


def test_a_composite_does_not_go_into_a_plain_tensor_of_a_registered_module(carry, put_back):
    def registered(module):
        state = TrainState()
        state.add_object("it", module)
        return state

    carried = carry(registered(Holder(torch.eye(3).to_sparse(), parameter=False)).capture())
    other = Holder(torch.zeros(3, 3), parameter=False)
    with pytest.raises(StateMismatchError, match="extra/it/it: sparse-coo in the commit, float32"):
        put_back(registered(other), carried)
    assert not other.it.any()


def test_a_plain_tensor_does_not_go_into_a_sparse_or_conjugated_one(carry, put_back):
    carried = carry(attached(Holder(torch.zeros(3, 3, dtype=torch.complex64), parameter=False)).capture())
    for live in (torch.eye(3, dtype=torch.complex64).to_sparse(), torch.zeros(3, 3, dtype=torch.complex64).conj()):
        with pytest.raises(StateMismatchError):
            put_back(attached(Holder(live, parameter=False)), carried)


def test_a_tied_sparse_parameter_stays_tied(carry, put_back):
    class Tied(nn.Module):
        def __init__(self, value, *, tie=True):
            super().__init__()
            self.one = nn.Parameter((torch.eye(3) * value).to_sparse(), requires_grad=False)
            self.two = self.one if tie else nn.Parameter(self.one.detach().clone(), requires_grad=False)

    carried = carry(attached(Tied(2.0)).capture())
    other = Tied(1.0)
    put_back(attached(other), carried)
    assert other.two.to_dense()[0, 0] == 2
    with pytest.raises(StateMismatchError, match="tied"):
        put_back(attached(Tied(1.0, tie=False)), carried)


def test_frozen_sparse_and_quantized_tensors_are_compared_bit_for_bit(carry, put_back):
    def state(tensor):
        made = TrainState(model_state="trainable")
        made.add_models({"main": Holder(tensor, parameter=True)})
        return made

    for one, two in (
        (coo(coalesced=True), coo(coalesced=True)),
        (per_tensor(torch.qint8, 3), per_tensor(torch.qint8, 3)),
    ):
        carried = carry(state(one).capture())
        put_back(state(one.clone()), carried)
        with pytest.raises(StateMismatchError, match="frozen"):
            put_back(state(two), carried)


def test_a_sparse_gradient_in_flight_comes_back(carry, put_back):
    torch.manual_seed(0)
    model = nn.Embedding(6, 2, sparse=True)
    model(torch.tensor([1, 1, 4])).sum().backward()
    carried = carry(attached(model).capture())
    other = nn.Embedding(6, 2, sparse=True)
    put_back(attached(other), carried)
    assert told(other.weight.grad) == told(model.weight.grad)


# What comes from a stranger


def damaged(change, tensor, carry):
    """A commit of a tensor whose parts were changed behind the checks."""
    node = Flattener("extra", "it").value(tensor, ("value",))
    return carry({"extra": {"it": {"value": change(node)}}})


@pytest.mark.parametrize(
    ("tensor", "part", "value"),
    [
        (lambda: coo(coalesced=True), "indices", torch.full((2, 3), 99)),
        (lambda: torch.eye(3).to_sparse_csr(), "crow_indices", torch.tensor([0, 1, 2, 77])),
        (lambda: torch.eye(3).to_sparse_csr(), "col_indices", torch.tensor([0, 1, -1])),
        (lambda: torch.eye(3).to_sparse_csr(), "col_indices", torch.tensor([0, 1, 3])),
        (lambda: torch.eye(3).to_sparse_csr(), "col_indices", torch.tensor([0, 1])),
        (lambda: torch.eye(3).to_sparse_csr(), "col_indices", torch.tensor([0, 1, 2], dtype=torch.int32)),
        (lambda: torch.eye(3).to_sparse_csr(), "crow_indices", torch.tensor([1, 1, 2, 3])),
        (lambda: torch.eye(3).to_sparse_csr(), "crow_indices", torch.tensor([0, 2, 1, 3])),
        (lambda: torch.eye(3).to_sparse_csr(), "crow_indices", torch.tensor([0, 1, 3])),
        (lambda: torch.eye(3).to_sparse_csr(), "values", torch.ones(2)),
        (lambda: torch.ones(4, 6).to_sparse_bsc((2, 3)), "row_indices", torch.tensor([0, 1, 0, 2])),
        (lambda: torch.ones(4, 6).to_sparse_bsc((2, 3)), "values", torch.ones(4, 3, 2)),
        (jagged, "offsets", torch.tensor([0, 2, 999])),
        (jagged, "offsets", torch.tensor([0, 7, 6])),
        (lambda: coo(coalesced=True), "indices", torch.zeros((2, 3), dtype=torch.int32)),
        (lambda: make("quantized per channel", "qint8"), "zero_points", torch.arange(3, dtype=torch.int32)),
        (lambda: make("quantized per channel", "qint8"), "scales", torch.ones(3)),
        (
            lambda: make("quantized per channel, float parameters", "quint8"),
            "zero_points",
            torch.arange(4, dtype=torch.int64),
        ),
        (lambda: per_tensor(torch.quint4x2, 3, 4), "codes", torch.zeros(2, dtype=torch.uint8)),
        (lambda: per_tensor(torch.qint8, 3), "codes", torch.zeros(3)),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "values", torch.zeros(4)),
    ],
)
def test_parts_that_would_lead_torch_outside_its_memory_are_refused(tensor, part, value, carry, put_back):
    from gradient._core import Named

    def change(node):
        return Named(node.name, {**node.value, part: tensors.leaf(value)}, node.extra)

    carried = damaged(change, tensor(), carry)
    with pytest.raises(CorruptionError):
        to_torch(readable(carried.component("extra", "it"))["value"])
    state, got = TrainState(), []
    state.add_external("it", lambda: None, got.append)
    with pytest.raises(CorruptionError):
        put_back(state, carried, only=["extra"])
    assert not got


@pytest.mark.parametrize("change", [{"longest": 3 * 10**12}, {"longest": 1}, {"shortest": 3}, {"shortest": -1}])
def test_rows_longer_or_shorter_than_the_offsets_say_are_refused(change, carry):
    from gradient._core import Named

    def changed(node):
        return Named(node.name, node.value, {**node.extra, **change})

    carried = damaged(changed, jagged(), carry)
    with pytest.raises(CorruptionError, match="make no tensor"):
        to_torch(readable(carried.component("extra", "it"))["value"])


def test_new_parts_are_made_on_the_device_of_the_live_tensor(carry, put_back, monkeypatch):
    few, many = torch.eye(3).to_sparse(), torch.ones(3, 3).to_sparse()
    carried = carry(attached(Holder(many, parameter=False)).capture())
    placed = []
    make_on = RestorePlan.make_on

    def noted(self, stored, device, *rest, **options):
        placed.append(device)
        return make_on(self, stored, device, *rest, **options)

    monkeypatch.setattr(RestorePlan, "make_on", noted)
    other = Holder(few, parameter=False)
    put_back(attached(other), carried)
    assert told(other.it) == told(many)
    assert placed == [few.device, few.device]
