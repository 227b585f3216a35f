"""An optimizer comes back so that the next steps are the same, bit for bit, though it had no state yet."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch import nn, optim

from gradient.errors import InvalidInputError, StateMismatchError
from gradient.state import TrainState, tensors

WITH = {
    "ASGD": [{"t0": 2.0}],
    "Adadelta": [{}],
    "Adafactor": [{}],
    "Adagrad": [{}, {"initial_accumulator_value": 0.1}],
    "Adam": [{}, {"amsgrad": True}, {"fused": True}, {"foreach": True}, {"lr": torch.tensor(0.01)}],
    "AdamW": [{}, {"fused": True, "amsgrad": True}],
    "Adamax": [{}],
    "LBFGS": [{"max_iter": 4}, {"line_search_fn": "strong_wolfe", "history_size": 2}],
    "Muon": [{}],
    "NAdam": [{"decoupled_weight_decay": True}],
    "RAdam": [{}],
    "RMSprop": [{"momentum": 0.5, "centered": True}],
    "Rprop": [{}],
    "SGD": [{"momentum": 0.9, "nesterov": True}, {}, {"momentum": 0.9, "fused": True}],
    "SparseAdam": [{}],
}
for _name, _options in WITH.items():
    # How a step is computed, where this torch can do it on the CPU: those that it refuses are left out below.
    _parameters = inspect.signature(getattr(optim, _name)).parameters
    _options += [{**_options[0], how: True} for how in ("foreach", "fused", "capturable") if how in _parameters]
CASES = [(name, number) for name, options in WITH.items() for number in range(len(options))]
REFUSALS = ("capturable", "fused", "not supported", "not implemented")
"""What torch says of a way to step that it has not on the CPU."""


def overridden(plan):
    """What the plan's one message says that the commit's hyper-parameters replace."""
    (message,) = plan.messages
    begin = "the commit's hyper-parameters replace the script's: "
    assert message.startswith(begin) and "\n" not in message
    return message.removeprefix(begin).split("; ")[0].split(", ")


def test_every_optimizer_of_this_torch_is_tested():
    kinds = {name for name in dir(optim) if isinstance(getattr(optim, name), type)} - {"Optimizer"}
    assert kinds == set(WITH)


def model_for(name, dtype=torch.float32):
    if name == "SparseAdam":
        return nn.Embedding(10, 4, sparse=True).to(dtype)
    if name == "Muon":
        return nn.Linear(6, 4, bias=False).to(dtype)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def train(model, optimizer, steps, *, start=0):
    for step in range(start, start + steps):
        torch.manual_seed(step)
        dtype = next(model.parameters()).dtype
        inputs = torch.randint(0, 10, (3,)) if isinstance(model, nn.Embedding) else torch.randn(5, 6).to(dtype)

        def closure(inputs=inputs):
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        optimizer.zero_grad()


def state_of(model, optimizer, **options):
    state = TrainState(**options)
    state.add_models({"main": model})
    state.add_optimizers({"main": optimizer})
    return state


def bits(model, optimizer):
    held = {name: bytes(tensors.raw(tensor)) for name, tensor in model.named_parameters()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            held[f"{name}/{key}"] = shown(value)
    for number, group in enumerate(optimizer.param_groups):
        held[number] = {key: shown(value) for key, value in group.items() if key != "params"}
    return held


def shown(value):
    if isinstance(value, torch.Tensor):
        return (value.dtype, tuple(value.shape), value.device, bytes(tensors.raw(value)))
    if isinstance(value, list):
        return [shown(item) for item in value]
    return repr(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("name", "number"), CASES)
def test_steps_after_a_restore_before_the_first_step_are_bit_equal(name, number, dtype, carry, put_back):
    def make():
        model = model_for(name, dtype)
        return model, getattr(optim, name)(model.parameters(), **copy.deepcopy(WITH[name][number]))

    try:
        model, optimizer = make()
        train(model, optimizer, 4)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        how = {"foreach", "fused", "capturable"}.intersection(WITH[name][number])
        assert how and any(word in str(error) for word in REFUSALS), error
        pytest.skip(f"this torch can not: {error}")
    carried = carry(state_of(model, optimizer).capture())
    other, resumed = make()
    put_back(state_of(other, resumed), carried)
    assert bits(other, resumed) == bits(model, optimizer)
    assert carry(state_of(other, resumed).capture()).root == carried.root
    for steps in (1, 2, 3):
        train(model, optimizer, 1, start=3 + steps)
        train(other, resumed, 1, start=3 + steps)
        assert bits(other, resumed) == bits(model, optimizer)
    uninterrupted, continued = (carry(state_of(*pair).capture()) for pair in ((model, optimizer), (other, resumed)))
    assert continued.root == uninterrupted.root != carried.root


@pytest.mark.parametrize("name", ["Adam", "LBFGS", "SGD"])
def test_going_back_in_one_process_writes_into_the_same_tensors(name, carry, put_back):
    model = model_for(name)
    optimizer = getattr(optim, name)(model.parameters(), **WITH[name][0])
    train(model, optimizer, 3)
    state = state_of(model, optimizer)
    carried, expected = carry(state.capture()), bits(model, optimizer)
    train(model, optimizer, 2, start=3)
    parameter = next(iter(optimizer.state))
    held = {key: value for key, value in optimizer.state[parameter].items() if isinstance(value, torch.Tensor)}
    put_back(state, carried)
    assert bits(model, optimizer) == expected
    if name == "Adam":
        assert held
        assert all(optimizer.state[parameter][key] is value for key, value in held.items())


def test_state_that_the_commit_has_not_is_removed(carry, put_back):
    model = model_for("Adam")
    optimizer = optim.Adam(model.parameters())
    state = state_of(model, optimizer)
    before = carry(state.capture())
    train(model, optimizer, 1)
    after = carry(state.capture())
    optimizer.state[model[0].weight]["max_exp_avg_sq"] = torch.zeros(1)
    put_back(state, after)
    assert list(optimizer.state[model[0].weight]) == ["step", "exp_avg", "exp_avg_sq"]
    put_back(state, before)
    assert not optimizer.state


def test_parameters_without_state_come_back_without_state(carry, put_back):
    def make():
        model = model_for("Adam")
        return model, optim.Adam(model.parameters())

    (model, optimizer), (other, resumed) = make(), make()
    model[0].requires_grad_(False)
    train(model, optimizer, 2)
    train(other, resumed, 1)
    put_back(state_of(other, resumed), carry(state_of(model, optimizer).capture()))
    assert {id(parameter) for parameter in resumed.state} == {id(other[2].weight), id(other[2].bias)}


def test_groups_are_matched_by_their_names_in_any_order(carry, put_back):
    def make(turned):
        model = model_for("Adam")
        groups = [
            {"params": list(model[0].parameters()), "lr": 0.1},
            {"params": list(model[2].parameters()), "lr": 0.2},
        ]
        if turned:
            groups = [{**groups[1], "params": groups[1]["params"][::-1]}, groups[0]]
        return model, optim.Adam(groups)

    model, optimizer = make(False)
    train(model, optimizer, 2)
    optimizer.param_groups[0]["lr"] = 0.5
    other, resumed = make(True)
    plan = put_back(state_of(other, resumed), carry(state_of(model, optimizer).capture()))
    assert [group["lr"] for group in resumed.param_groups] == [0.2, 0.5]
    assert overridden(plan) == ["lr 0.1 -> 0.5"]
    train(model, optimizer, 2, start=2)
    train(other, resumed, 2, start=2)
    for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert tensors.same_bits(mine, theirs)


def test_other_groups_are_a_mismatch_and_nothing_is_touched(carry, put_back):
    model, other = model_for("Adam"), model_for("Adam")
    optimizer = optim.Adam(model.parameters())
    resumed = optim.Adam([{"params": list(other[0].parameters())}, {"params": list(other[2].parameters())}])
    train(model, optimizer, 1)
    old = bits(other, resumed)
    with pytest.raises(StateMismatchError) as caught:
        put_back(state_of(other, resumed), carry(state_of(model, optimizer).capture()))
    assert caught.value.changed
    assert bits(other, resumed) == old


def test_a_parameter_that_the_commit_s_optimizer_did_not_have_is_missing(carry, put_back):
    model, other = model_for("Adam"), model_for("Adam")
    carried = carry(state_of(model, optim.Adam(model[0].parameters())).capture())
    with pytest.raises(StateMismatchError) as caught:
        put_back(state_of(other, optim.Adam(other.parameters())), carried)
    assert caught.value.missing == ["optim/main/2.bias", "optim/main/2.weight"]


def test_an_optimizer_of_another_class_is_a_mismatch(carry, put_back):
    model, other = model_for("SGD"), model_for("SGD")
    carried = carry(state_of(model, optim.SGD(model.parameters(), lr=0.1)).capture())
    with pytest.raises(StateMismatchError) as caught:
        put_back(state_of(other, optim.Adam(other.parameters())), carried)
    assert "optim/main/groups/0/betas" in caught.value.missing
    assert "optim/main/groups/0/momentum" in caught.value.unexpected


def test_a_hyper_parameter_that_the_commit_overrides_is_said_once(carry, put_back):
    def make(lr):
        model = model_for("Adam")
        return model, optim.Adam([{"params": [parameter]} for parameter in model.parameters()], lr=lr)

    model, optimizer = make(1e-3)
    other, resumed = make(5e-4)
    plan = put_back(state_of(other, resumed), carry(state_of(model, optimizer).capture()))
    assert overridden(plan) == ["lr 0.0005 -> 0.001"]
    assert {group["lr"] for group in resumed.param_groups} == {1e-3}


def test_one_line_says_all_that_is_overridden_and_how_to_keep_it(carry, put_back):
    model, other = model_for("Adam"), model_for("Adam")
    optimizer = optim.Adam(model.parameters(), lr=0.0075, weight_decay=0.5)
    plan = put_back(
        state_of(other, optim.Adam(other.parameters(), lr=0.003)), carry(state_of(model, optimizer).capture())
    )
    assert overridden(plan) == ["lr 0.003 -> 0.0075", "weight_decay 0 -> 0.5"]
    assert 'hyperparameters="script"' in plan.messages[0] and "--reset-optimizer" in plan.messages[0]


def test_the_script_s_hyper_parameters_stay_when_asked_for(carry, put_back):
    model, other = model_for("Adam"), model_for("Adam")
    optimizer, resumed = optim.Adam(model.parameters(), lr=1e-3), optim.Adam(other.parameters(), lr=5e-4)
    train(model, optimizer, 1)
    optimizer.param_groups[0]["note"] = "added later"
    plan = put_back(state_of(other, resumed), carry(state_of(model, optimizer).capture()), hyperparameters="script")
    assert resumed.param_groups[0]["lr"] == 5e-4
    assert resumed.param_groups[0]["note"] == "added later"
    assert plan.messages == []
    assert resumed.state[other[0].weight]["step"].item() == 1


def test_how_a_step_is_computed_stays_the_script_s_and_is_not_in_the_commit(carry, put_back):
    model, other = model_for("Adam"), model_for("Adam")
    optimizer = optim.Adam(model.named_parameters(), fused=True)
    resumed = optim.Adam(other.parameters(), foreach=True)
    train(model, optimizer, 2)
    captured = state_of(model, optimizer).capture()
    held = captured.sections["optim"]["main"]["groups"][0]
    assert not held.keys() & {"foreach", "fused", "capturable", "differentiable", "param_names"}
    assert "maximize" in held
    plan = put_back(state_of(other, resumed), carry(captured))
    assert plan.messages == []
    assert resumed.param_groups[0]["foreach"] is True
    assert not resumed.param_groups[0]["fused"]
    train(other, resumed, 1, start=2)


def test_a_tensor_learning_rate_stays_the_same_tensor(carry, put_back):
    def make(lr):
        model = model_for("Adam")
        return model, optim.Adam(model.parameters(), lr=torch.tensor(lr))

    model, optimizer = make(0.25)
    other, resumed = make(0.5)
    held = resumed.param_groups[0]["lr"]
    plan = put_back(state_of(other, resumed), carry(state_of(model, optimizer).capture()))
    assert resumed.param_groups[0]["lr"] is held
    assert held.item() == 0.25
    assert overridden(plan) == ["lr tensor(0.5) -> tensor(0.25)"]


def test_a_number_of_the_commit_goes_into_the_tensor_of_the_script(carry, put_back):
    model, other = model_for("Adam"), model_for("Adam")
    resumed = optim.Adam(other.parameters(), lr=torch.tensor(0.5))
    held = resumed.param_groups[0]["lr"]
    carried = carry(state_of(model, optim.Adam(model.parameters(), lr=0.25)).capture())
    put_back(state_of(other, resumed), carried)
    assert resumed.param_groups[0]["lr"] is held
    assert held.item() == 0.25


def test_two_numbers_never_go_into_one_tensor(carry, put_back):
    def make(lr, rates):
        model = model_for("Adam")
        groups = [{"params": list(model[0].parameters())}, {"params": list(model[2].parameters())}]
        for group, rate in zip(groups, rates, strict=False):
            group["lr"] = rate
        return model, optim.Adam(groups, lr=lr)

    (model, optimizer), (other, resumed) = make(0.5, (0.25, 0.125)), make(torch.tensor(0.5), ())
    assert resumed.param_groups[0]["lr"] is resumed.param_groups[1]["lr"]
    put_back(state_of(other, resumed), carry(state_of(model, optimizer).capture()))
    assert [group["lr"].item() for group in resumed.param_groups] == [0.25, 0.125]


def test_groups_that_share_a_tensor_learning_rate_share_it_again(carry, put_back):
    def make(lr, shared):
        model = model_for("Adam")
        groups = [{"params": list(model[0].parameters())}, {"params": list(model[2].parameters())}]
        if not shared:
            for index, group in enumerate(groups):
                group["lr"] = torch.tensor(lr + index)
        return model, optim.Adam(groups, lr=torch.tensor(lr))

    (model, optimizer), (other, resumed) = make(0.25, True), make(0.5, False)
    put_back(state_of(other, resumed), carry(state_of(model, optimizer).capture()))
    assert resumed.param_groups[0]["lr"] is resumed.param_groups[1]["lr"]
    (model, optimizer), (other, resumed) = make(0.25, False), make(0.5, True)
    put_back(state_of(other, resumed), carry(state_of(model, optimizer).capture()))
    assert [group["lr"].item() for group in resumed.param_groups] == [0.25, 1.25]


def test_a_step_counter_goes_where_fused_wants_it(carry, put_back):
    torch.set_default_dtype(torch.float64)
    model = model_for("Adam")
    optimizer = optim.Adam(model.parameters())
    train(model, optimizer, 2)
    assert optimizer.state[model[0].weight]["step"].dtype is torch.float64
    carried = carry(state_of(model, optimizer).capture())
    torch.set_default_dtype(torch.float32)
    other = model_for("Adam")
    resumed = optim.Adam(other.parameters(), fused=True)
    put_back(state_of(other, resumed), carried)
    assert resumed.state[other[0].weight]["step"].dtype is torch.float32
    assert resumed.state[other[0].weight]["step"].item() == 2
    train(other, resumed, 1)


def test_a_parameter_of_no_model_is_kept_with_the_optimizer(carry, put_back):
    def make():
        model, temperature = model_for("Adam"), nn.Parameter(torch.randn(3))
        return model, temperature, optim.Adam([{"params": list(model.parameters())}, {"params": [temperature]}])

    model, temperature, optimizer = make()
    temperature.grad = torch.ones(3)
    optimizer.step()
    state = state_of(model, optimizer)
    captured = (optimizer.zero_grad(), state.capture())[1]
    assert len([note for note in captured.notes if "main/1/0" in note]) == 1
    assert state.capture().notes == []
    other, mine, resumed = make()
    put_back(state_of(other, resumed), carry(captured))
    assert mine.equal(temperature)
    assert resumed.state[mine]["exp_avg"].equal(optimizer.state[temperature]["exp_avg"])


def test_state_is_in_the_order_of_the_parameters_whoever_was_stepped_first():
    model = model_for("Adam")
    optimizer = optim.Adam(model.parameters())
    model[2].weight.grad = torch.ones_like(model[2].weight)
    optimizer.step()
    train(model, optimizer, 1)
    optimizer.zero_grad()
    mapping = state_of(model, optimizer).capture().sections["optim"]["main"]
    assert list(mapping["state"]) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_state_that_no_parameter_has_is_refused():
    model = model_for("Adam")
    optimizer = optim.Adam(model.parameters())
    optimizer.state["shared"] = {"k": 1}
    with pytest.raises(InvalidInputError, match="optim/main/state: state for 'shared'"):
        state_of(model, optimizer).capture()


def test_state_that_is_the_parameter_itself_is_refused():
    model = model_for("Adam")
    optimizer = optim.Adam(model.parameters())
    optimizer.state[model[0].weight]["anchor"] = model[0].weight.detach()
    with pytest.raises(InvalidInputError, match=r"optim/main/state/0.weight/anchor: it shares its memory"):
        state_of(model, optimizer).capture()


def test_reset_gives_empty_state_and_the_script_s_hyper_parameters(carry, put_back):
    def make(lr):
        model = model_for("Adam")
        return model, optim.Adam(model.parameters(), lr=lr)

    model, optimizer = make(0.1)
    train(model, optimizer, 2)
    optimizer.param_groups[0]["note"] = 1
    other, resumed = make(0.3)
    state = state_of(other, resumed)
    put_back(state, carry(state_of(model, optimizer).capture()))
    state.reset_optimizers()
    assert not resumed.state
    assert resumed.param_groups[0]["lr"] == 0.3
    assert "note" not in resumed.param_groups[0]


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(InvalidInputError, match=r"no torch.optim.Optimizer"):
        TrainState().add_optimizers({"main": object()})


class CodedSGD(optim.SGD):
    """Keeps codes that torch's own load_state_dict would cast to the parameter's dtype."""

    loaded = 0

    def load_state_dict(self, state_dict):
        type(self).loaded += 1
        packed = {index: dict(values) for index, values in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": {}})
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, values in packed.items():
            self.state[parameters[index]] = values


def test_a_class_that_overrides_load_state_dict_is_restored_through_it(carry, put_back):
    def make(lr):
        model = model_for("SGD", torch.bfloat16)
        return model, CodedSGD(model.named_parameters(), lr=lr, foreach=True)

    model, optimizer = make(0.1)
    optimizer.state[model[0].weight]["codes"] = torch.arange(300, dtype=torch.int32)
    carried = carry(state_of(model, optimizer).capture())
    other, resumed = make(0.2)
    before = CodedSGD.loaded
    plan = put_back(state_of(other, resumed), carried)
    assert CodedSGD.loaded == before + 1
    assert resumed.state[other[0].weight]["codes"].equal(torch.arange(300, dtype=torch.int32))
    assert resumed.param_groups[0]["lr"] == 0.1
    assert resumed.param_groups[0]["foreach"] is True
    assert overridden(plan) == ["lr 0.2 -> 0.1"]
    other, resumed = make(0.2)
    put_back(state_of(other, resumed), carried, hyperparameters="script")
    assert resumed.param_groups[0]["lr"] == 0.2


def test_a_rate_shared_with_a_group_that_is_not_here_comes_back(carry, put_back):
    def make(count, rate):
        layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
        groups = [{"params": layer.parameters()} for layer in layers]
        optimizer = optim.Adam(groups[-count:], lr=torch.tensor(rate))
        state = TrainState()
        state.add_models({"main": layers})
        state.add_optimizers({"main": optimizer})
        return optimizer, state

    (_, state), (optimizer, other) = make(2, 0.25), make(1, 0.5)
    put_back(other, carry(state.capture()), strict=False)
    assert optimizer.param_groups[0]["lr"].item() == 0.25
