"""A model that is wrapped is the same state as a plain one: same root hash, and each resumes from the other."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from gradient.errors import InvalidInputError
from gradient.state import TrainState


@pytest.fixture(scope="module", autouse=True)
def one_rank(tmp_path_factory):
    store = dist.FileStore(str(tmp_path_factory.mktemp("rank") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def plain() -> nn.Module:
    made = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 2))
    made.register_buffer("count", torch.tensor(3), persistent=False)
    return made


def checkpointed(model: nn.Module) -> nn.Module:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model[0] = checkpoint_wrapper(model[0])
    return checkpoint_wrapper(model)


def ddp(model: nn.Module) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model)


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def fsdp(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    try:
        return FullyShardedDataParallel(model, use_orig_params=True, device_id=None)
    except RuntimeError as error:
        pytest.skip(f"this torch can not: {error}")


WRAPPERS = {
    "none": lambda model: model,
    "compiled": compiled,
    "DDP": ddp,
    "DataParallel": nn.DataParallel,
    "checkpointed": checkpointed,
    "compiled DDP": lambda model: compiled(ddp(model)),
    "DDP of a compiled one": lambda model: ddp(compiled(model)),
    "a compiled part": lambda model: nn.Sequential(compiled(model[0]), *list(model)[1:]),
    "FSDP": fsdp,
}


class Run:
    def __init__(self, wrapper: str, seed: int) -> None:
        torch.manual_seed(seed)
        model = plain()
        self.model = WRAPPERS[wrapper](model)
        if wrapper == "a compiled part":
            self.model.register_buffer("count", model.count, persistent=False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.state = TrainState()
        self.state.add_models({"main": self.model})
        self.state.add_optimizers({"main": self.optimizer})

    def train(self, *steps: int) -> None:
        for step in steps:
            torch.manual_seed(step)
            self.optimizer.zero_grad()
            self.model(torch.randn(6, 4)).square().sum().backward()
            self.optimizer.step()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("other", WRAPPERS)
@pytest.mark.parametrize("first", ["none", "compiled", "DDP"])
def test_a_run_goes_on_with_another_wrapper_as_one_that_never_stopped(first, other, carry, put_back):
    one = Run(first, 0)
    one.train(1, 2)
    carried = carry(one.state.capture())
    two = Run(other, 7)
    put_back(two.state, carried)
    assert carry(two.state.capture()).root == carried.root
    for run in (one, two):
        run.train(3, 4)
    assert carry(two.state.capture()).root == carry(one.state.capture()).root != carried.root


@pytest.mark.slow
def test_a_fully_sharded_model_is_refused_and_named():
    from torch.distributed.device_mesh import init_device_mesh

    fully_shard = pytest.importorskip("torch.distributed.fsdp").fully_shard
    model = plain()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    state = TrainState()
    state.add_models({"main": model})
    with pytest.raises(InvalidInputError, match=r"model/main/tensors/0\.weight.*DTensor"):
        state.capture()
