"""A model comes back bit for bit and in place, tied as it was, or nothing of it is touched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradient.errors import InvalidInputError, StateMismatchError
from gradient.state import TrainState, tensors


class Net(nn.Module):
    def __init__(self, width=8, tied=True, extra=True):
        super().__init__()
        self.embed = nn.Embedding(5, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 5, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.randn(3), persistent=False)
        self.count = 0
        if not extra:
            del type(self).get_extra_state

    def get_extra_state(self):
        return {"count": self.count, "scale": torch.tensor([1.5, float("nan")])}

    def set_extra_state(self, state):
        self.count = state["count"]
        self.scale = state["scale"]


def state_of(model, **options):
    state = TrainState(**options)
    state.add_models({"main": model})
    return state


def bits(model):
    return {name: bytes(tensors.raw(tensor)) for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def test_a_model_comes_back_bit_for_bit_into_the_same_tensors(carry, put_back):
    model, other = Net(), Net()
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
        model.norm.bias[1] = -0.0
    model.count = 3
    held = dict(other.named_parameters())
    put_back(state_of(other), carry(state_of(model).capture()))
    assert bits(other) == bits(model)
    assert other.count == 3
    assert other.scale[1].isnan()
    assert all(held[name] is parameter for name, parameter in other.named_parameters())
    assert other.head.weight is other.embed.weight


def test_a_commit_of_a_compiled_model_equals_that_of_the_plain_one(carry):
    model = Net()
    plain, compiled = state_of(model).capture(), state_of(torch.compile(model)).capture()
    left, right = carry(plain), carry(compiled)
    mine, other = left.component("model", "main"), right.component("model", "main")
    assert list(mine["tensors"]) == list(other["tensors"])
    assert [getattr(node, "digest", None) for node in mine["tensors"].values()] == [
        getattr(node, "digest", None) for node in other["tensors"].values()
    ]


def test_a_tied_parameter_is_stored_once():
    from gradient._core import Alias

    mapping = state_of(Net()).capture().sections["model"]["main"]["tensors"]
    assert isinstance(mapping["head.weight"], Alias)
    assert mapping["head.weight"].path == ("tensors", "embed.weight")


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_a_model_that_is_tied_otherwise_does_not_fit(before, after, carry, put_back):
    carried = carry(state_of(Net(tied=before)).capture())
    other = Net(tied=after)
    old = bits(other)
    with pytest.raises(StateMismatchError) as caught:
        put_back(state_of(other), carried)
    assert len(caught.value.changed) == 1
    assert "head.weight" in caught.value.changed[0]
    assert bits(other) == old


def test_every_difference_is_in_one_error_and_nothing_is_touched(carry, put_back):
    carried = carry(state_of(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))).capture())
    other = nn.Sequential(nn.Linear(3, 5), nn.Linear(4, 4, dtype=torch.float64), nn.ReLU(), nn.Linear(4, 4))
    old = bits(other)
    with pytest.raises(StateMismatchError) as caught:
        put_back(state_of(other), carried)
    error = caught.value
    assert error.missing == ["model/main/3.weight", "model/main/3.bias"]
    assert error.unexpected == [
        f"model/main/2.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    ]
    assert [line.split(":")[0] for line in error.changed] == [
        "model/main/0.weight",
        "model/main/0.bias",
        "model/main/1.weight",
        "model/main/1.bias",
    ]
    assert "float32 [4, 3] in the commit, float32 [5, 3] here" in str(error)
    assert bits(other) == old


def test_expanded_and_inference_tensors_are_mismatches_and_nothing_is_touched(carry, put_back):
    def make():
        module = nn.Module()
        module.plain = nn.Parameter(torch.randn(4))
        module.register_buffer("wide", torch.randn(4, 4))
        module.register_buffer("still", torch.randn(4))
        return module

    carried = carry(state_of(make()).capture())
    other = make()
    other.wide = torch.randn(4, 1).expand(4, 4)
    with torch.inference_mode():
        other.still = torch.randn(4)
    old = bits(other)
    with pytest.raises(StateMismatchError) as caught:
        put_back(state_of(other), carried)
    assert [line.split(":")[0] for line in caught.value.changed] == ["model/main/wide", "model/main/still"]
    assert bits(other) == old


def test_a_restore_between_forward_and_backward_is_noticed_by_autograd(carry, put_back):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    carried = carry(state_of(model).capture())
    loss = model(torch.randn(2, 3)).sum()
    put_back(state_of(model), carried)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("layout", ["channels last", "transposed", "strided"])
def test_a_tensor_that_is_not_contiguous_is_written_in_place(layout, carry, put_back):
    def make():
        module = nn.Module()
        if layout == "channels last":
            tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
        else:
            tensor = torch.randn(5, 6).t() if layout == "transposed" else torch.randn(9, 9)[::2, ::2]
        module.weight = nn.Parameter(tensor)
        return module

    model, other = make(), make()
    strides, version = other.weight.stride(), other.weight._version
    put_back(state_of(other), carry(state_of(model).capture()))
    assert other.weight.equal(model.weight)
    assert other.weight.stride() == strides
    assert other.weight._version > version


def test_another_memory_format_stays_the_script_s_and_is_said(carry, put_back):
    model, other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    plan = put_back(state_of(other), carry(state_of(model).capture()))
    assert other.weight.equal(model.weight)
    assert any("memory format" in message for message in plan.messages)


def test_tensors_that_overlap_here_but_held_other_values_do_not_fit(carry, put_back):
    def make(overlapping):
        module = nn.Module()
        base = torch.randn(6)
        module.register_buffer("low", base[:4])
        module.register_buffer("high", base[2:] if overlapping else base[2:].clone() + 1)
        return module

    apart, together = carry(state_of(make(False)).capture()), carry(state_of(make(True)).capture())
    with pytest.raises(StateMismatchError, match="shares memory"):
        put_back(state_of(make(True)), apart)
    put_back(state_of(make(True)), together)


def test_frozen_parameters_are_compared_and_not_written_when_only_trainable_ones_are_asked_for(carry, put_back):
    def make(bias):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
        nn.init.constant_(model[0].weight, 0.5)
        nn.init.constant_(model[0].bias, bias)
        model[0].requires_grad_(False)
        return model

    model = make(1.0)
    carried = carry(state_of(model, model_state="trainable").capture())
    same, other = make(1.0), make(2.0)
    version = same[0].weight._version
    put_back(state_of(same, model_state="trainable"), carried)
    assert same[1].weight.equal(model[1].weight)
    assert same[0].weight._version == version
    with pytest.raises(StateMismatchError) as caught:
        put_back(state_of(other, model_state="trainable"), carried)
    assert [line.split(":")[0] for line in caught.value.changed] == ["model/main/0.bias"]
    put_back(state_of(other), carried)
    assert other[0].bias.eq(1.0).all()


def test_requires_grad_and_training_are_no_state(carry, put_back):
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    model.requires_grad_(False).eval()
    left, right = state_of(model).capture(), state_of(nn.Linear(2, 2)).capture()
    assert left.environment["model.main.frozen"] == "all"
    assert left.environment["model.main.training"] == "none"
    assert right.environment["model.main.frozen"] == ""
    put_back(state_of(other), carry(left))
    assert other.weight.requires_grad
    assert other.training


def test_an_uninitialised_parameter_is_refused_with_its_name():
    with pytest.raises(InvalidInputError, match=r"model/main/tensors/weight"):
        state_of(nn.LazyLinear(3)).capture()


def test_a_model_that_was_not_yet_initialised_does_not_fit_a_commit(carry, put_back):
    carried = carry(state_of(nn.Linear(2, 3)).capture())
    with pytest.raises(StateMismatchError) as caught:
        put_back(state_of(nn.LazyLinear(3)), carried)
    assert len(caught.value.changed) == 2
    assert "before its first forward pass" in caught.value.changed[0]


def test_what_is_no_module_is_refused():
    with pytest.raises(InvalidInputError, match="model/main is dict"):
        state_of({"weight": torch.ones(1)})


def test_extra_state_that_is_a_parameter_again_comes_back_as_a_copy(carry, put_back):
    class Echo(nn.Linear):
        def get_extra_state(self):
            return self.weight

        def set_extra_state(self, state):
            self.seen = state

    model, other = Echo(2, 2), Echo(2, 2)
    put_back(state_of(other), carry(state_of(model).capture()))
    assert other.seen.equal(model.weight)
    assert other.seen is not other.weight


def test_two_models_that_share_a_module_come_back_together(carry, put_back):
    def make():
        shared = nn.Linear(3, 3)
        state = TrainState()
        state.add_models(
            {"actor": nn.Sequential(shared, nn.Linear(3, 1)), "critic": nn.Sequential(shared, nn.Linear(3, 2))}
        )
        return state, shared

    (state, shared), (other, mine) = make(), make()
    put_back(other, carry(state.capture()))
    assert mine.weight.equal(shared.weight)


class Saving(nn.Linear):
    """Keeps a number where only its own pair of methods finds it, as torch's quantized modules do."""

    scale = 3.0

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "scale"] = torch.tensor(self.scale)


def test_a_module_that_saves_what_a_commit_would_lose_is_refused_by_name():
    with pytest.raises(InvalidInputError, match="model/main/1: Saving saves scale, which are no param") as caught:
        state_of(nn.Sequential(nn.Linear(2, 2), Saving(2, 2))).capture()
    assert "get_extra_state" in caught.value.hint


def test_a_module_that_only_saves_less_or_in_another_way_is_kept(carry, put_back):
    class Less(Saving):
        scale = None

        def _save_to_state_dict(self, destination, prefix, keep_vars):
            nn.Linear._save_to_state_dict(self, destination, prefix, keep_vars=False)
            destination[prefix + "nothing"] = None
            del destination[prefix + "bias"]

    model, other = Less(2, 2), Less(2, 2)
    put_back(state_of(other), carry(state_of(model).capture()))
    assert bits(other) == bits(model)
