"""Names are canonical: the same parameter has one name, whatever its module is wrapped in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradient.errors import InvalidInputError
from gradient.state.names import ModelNames, module_tensors


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 2)))


def names_of(model):
    return list(module_tensors(model).tensors)


def checkpointed():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = net()
    model[2] = checkpoint_wrapper(model[2])
    return model


def inner_compiled():
    model = net()
    model[2][0] = torch.compile(model[2][0])
    return model


WRAPPED = {
    "compiled": lambda: torch.compile(net()),
    "data parallel": lambda: nn.DataParallel(net()),
    "compiled data parallel": lambda: torch.compile(nn.DataParallel(net())),
    "inner module compiled": inner_compiled,
    "activation checkpoint": checkpointed,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapper_does_not_show_in_names(name):
    assert names_of(WRAPPED[name]()) == names_of(net())


def test_ddp_does_not_show_in_names(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert names_of(nn.parallel.DistributedDataParallel(net())) == names_of(net())
    finally:
        torch.distributed.destroy_process_group()


def test_an_attribute_that_is_called_like_a_wrapper_s_keeps_its_name():
    holder = nn.Module()
    holder.module = nn.Linear(2, 2)
    holder._orig_mod = nn.Linear(2, 2)
    assert names_of(holder) == ["module.weight", "module.bias", "_orig_mod.weight", "_orig_mod.bias"]


def test_an_averaged_model_is_no_wrapper():
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    assert names_of(averaged) == ["n_averaged", "module.weight", "module.bias"]


def test_buffers_that_are_not_persistent_are_named_too():
    module = nn.Module()
    module.register_buffer("kept", torch.ones(1))
    module.register_buffer("mask", torch.ones(1), persistent=False)
    module.register_buffer("absent", None)
    module.register_parameter("missing", None)
    assert names_of(module) == ["kept", "mask"]


def test_a_module_at_two_places_is_named_at_both():
    shared = nn.Linear(2, 2, bias=False)
    assert names_of(nn.ModuleDict({"a": shared, "b": shared})) == ["a.weight", "b.weight"]


def test_a_module_that_contains_itself_is_refused():
    module = nn.Module()
    inner = nn.Module()
    module.inner = inner
    inner._modules["outer"] = module
    with pytest.raises(InvalidInputError, match="contains itself"):
        module_tensors(module)


def test_parameters_are_named_by_identity_whatever_the_optimizer_calls_them():
    model = net()
    groups = [{"params": list(model.parameters()), "param_names": [f"x{i}" for i in range(6)]}]
    named, loose = ModelNames({"main": torch.compile(model)}).groups("main", groups)
    assert named == [[name for name, _ in model.named_parameters()]]
    assert loose == []


def test_a_parameter_of_no_model_has_its_own_name_or_its_place():
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    names = ModelNames({"main": model})
    groups = [{"params": list(model.parameters())}, {"params": list(other.parameters())}]
    assert names.groups("adam", groups) == ([["weight", "bias"], ["adam/1/0", "adam/1/1"]], ["adam/1/0", "adam/1/1"])
    groups[1]["param_names"] = ["temperature", "bias"]
    assert names.groups("adam", groups)[1] == ["temperature", "adam/1/1"]


def test_two_models_of_one_optimizer_get_their_names_in_front_only_where_they_would_collide():
    actor, critic = nn.Linear(2, 2), nn.Linear(2, 2)
    names = ModelNames({"actor": actor, "critic": critic})
    alone = [{"params": list(critic.parameters())}]
    both = [{"params": [*actor.parameters(), *critic.parameters()]}]
    assert names.groups("main", alone)[0] == [["weight", "bias"]]
    assert names.groups("main", both)[0] == [["actor/weight", "actor/bias", "critic/weight", "critic/bias"]]
