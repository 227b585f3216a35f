"""The parts together: what is claimed, missing, pending, skipped; what a failure leaves; what a capture costs."""

from __future__ import annotations

import gc
import random
import time
import weakref

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from gradient.errors import AlreadyExistsError, CorruptionError, InvalidInputError, StateMismatchError
from gradient.state import TrainState, restore


class Run:
    def __init__(self, *, scheduler=True, seed=0):
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.optimizer = optim.AdamW(self.model.parameters(), lr=0.01)
        self.state = TrainState()
        self.state.add_models({"main": self.model})
        self.state.add_optimizers({"main": self.optimizer})
        if scheduler:
            self.scheduler = lr_scheduler.CosineAnnealingLR(self.optimizer, 20)
            self.state.add_schedulers({"main": self.scheduler})

    def step(self):
        self.optimizer.zero_grad()
        loss = self.model(torch.randn(6, 4) + random.random()).square().mean()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()


def test_a_resumed_run_has_the_losses_of_one_that_never_stopped(carry, put_back):
    run = Run()
    for _ in range(3):
        run.step()
    carried = carry(run.state.capture())
    expected = [run.step() for _ in range(6)]
    other = Run(seed=99)
    put_back(other.state, carried)
    assert [other.step() for _ in range(6)] == expected
    put_back(other.state, carried)
    assert [other.step() for _ in range(6)] == expected


def test_equal_states_give_equal_nodes_in_equal_order(carry, put_back):
    def shape(node):
        if isinstance(node, dict):
            return [(key, shape(value)) for key, value in node.items()]
        if isinstance(node, list | tuple):
            return [shape(value) for value in node]
        return getattr(node, "digest", repr(node))

    run, other = Run(), Run(seed=5)
    for _ in range(2):
        run.step()
    carried = carry(run.state.capture())
    put_back(other.state, carried)
    again = carry(other.state.capture())
    assert again.available == carried.available
    for section, names in carried.available.items():
        for name in names:
            assert shape(again.component(section, name)) == shape(carried.component(section, name))


def test_what_the_commit_lacks_is_missing_and_what_nobody_claims_is_unexpected(carry, put_back):
    with pytest.raises(StateMismatchError) as caught:
        put_back(Run().state, carry(Run(scheduler=False).state.capture()))
    assert caught.value.missing[0] == "scheduler/main"
    with pytest.raises(StateMismatchError) as caught:
        put_back(Run(scheduler=False).state, carry(Run().state.capture()))
    assert caught.value.unexpected == ["scheduler/main"]


def test_state_that_is_registered_late_is_applied_and_random_numbers_set_again(carry, put_back):
    run, got = Run(), []
    generator = random.Random(1)
    run.state.add_external("env", lambda: {"t": torch.arange(99.0)}, got.append)
    run.state.add_generator("mine", generator)
    carried = carry(run.state.capture())
    expected = (random.random(), generator.random(), torch.rand(2).tolist())

    other = Run()
    plan = put_back(other.state, carried)
    assert plan.pending == [("rng", "mine"), ("extra", "env")]
    late = random.Random(2)
    torch.rand(7)
    other.state.add_external("env", lambda: None, lambda value: (got.append(value), random.random()))
    other.state.apply_late(plan, "extra", "env", carried.component("extra", "env"), carried.read_into)
    assert got[0]["t"].equal(torch.arange(99.0))
    assert plan.pending == [("rng", "mine")]
    other.state.add_generator("mine", late)
    other.state.apply_late(plan, "rng", "mine", carried.component("rng", "mine"), carried.read_into)
    assert plan.pending == []
    assert (random.random(), late.random(), torch.rand(2).tolist()) == expected


def test_late_state_that_fails_to_be_set_leaves_a_mark(carry, put_back):
    run = Run()
    run.state.add_external("env", lambda: 1, print)
    carried = carry(run.state.capture())
    other = Run()
    plan = put_back(other.state, carried)
    other.state.add_external("env", lambda: 1, lambda value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        other.state.apply_late(plan, "extra", "env", carried.component("extra", "env"), carried.read_into)
    assert plan.partial
    assert plan.pending == [("extra", "env")]


def test_dropped_state_is_neither_restored_nor_pending(carry, put_back):
    run = Run()
    run.state.add_external("env", lambda: 1, print)
    carried = carry(run.state.capture())
    assert put_back(Run().state, carried, skip=[("extra", "env")]).pending == []


def test_a_part_alone_is_restored_and_the_rest_is_named(carry, put_back):
    run, other = Run(), Run(seed=3)
    run.step()
    carried = carry(run.state.capture())
    torch.manual_seed(11)
    before = torch.get_rng_state()
    plan = put_back(other.state, carried, only=("model",), strict=False)
    assert plan.skipped == ["optim/main", "scheduler/main", "rng/numpy", "rng/python", "rng/torch.cpu"]
    assert other.model[0].weight.equal(run.model[0].weight)
    assert not other.optimizer.state
    assert torch.get_rng_state().equal(before)


def test_state_of_parameters_that_a_partial_commit_lacks_stays(carry, put_back):
    run, other = Run(), Run()
    run.step()
    other.step()
    mapping = dict(run.state.capture().sections["optim"]["main"])
    assert list(mapping["state"]) == [name for name, _ in run.model.named_parameters()]
    extra = nn.Parameter(torch.ones(2))
    extra.grad = torch.ones(2)
    other.optimizer.add_param_group({"params": [extra]})
    other.optimizer.step()
    put_back(other.state, carry(run.state.capture()), strict=False)
    assert "exp_avg" in other.optimizer.state[extra]
    assert other.optimizer.state[other.model[0].weight]["exp_avg"].equal(
        run.optimizer.state[run.model[0].weight]["exp_avg"]
    )


def test_one_component_can_be_named_alone(carry, put_back):
    run, other = Run(), Run()
    run.step()
    put_back(other.state, carry(run.state.capture()), only=("optim/main",))
    assert other.optimizer.state
    assert not other.model[0].weight.equal(run.model[0].weight)


@pytest.mark.parametrize("only", [("modell",), ("model/other",)])
def test_a_part_that_there_is_not_is_refused(only, carry, put_back):
    with pytest.raises(InvalidInputError, match="only="):
        put_back(Run().state, carry(Run().state.capture()), only=only)


def test_not_strict_skips_what_one_side_has_and_still_refuses_what_does_not_fit(carry, put_back):
    def state_of(model):
        state = TrainState()
        state.add_models({"main": model})
        return state

    carried = carry(state_of(nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})).capture())
    other = nn.ModuleDict({"a": nn.Linear(2, 2), "c": nn.Linear(2, 2)})
    plan = put_back(state_of(other), carried, strict=False)
    assert sorted(plan.skipped) == [f"model/main/{name}" for name in ("b.bias", "b.weight", "c.bias", "c.weight")]
    with pytest.raises(StateMismatchError) as caught:
        put_back(state_of(nn.ModuleDict({"a": nn.Linear(3, 2)})), carried, strict=False)
    assert caught.value.unexpected == []
    assert len(caught.value.changed) == 1


def test_the_error_s_text_is_cut_and_its_lists_are_not(carry, put_back):
    def state_of(count):
        state = TrainState()
        state.add_models({"main": nn.ParameterList([torch.zeros(1) for _ in range(count)])})
        return state

    with pytest.raises(StateMismatchError) as caught:
        put_back(state_of(60), carry(state_of(1).capture()))
    assert len(caught.value.missing) == 59
    assert "... and 39 more" in str(caught.value)


def test_damage_before_the_first_byte_leaves_no_mark(carry):
    run = Run()
    carried = carry(run.state.capture())
    plan = run.state.plan(carried.component, carried.available)

    def read_into(jobs):
        raise CorruptionError("damaged", partial=False)

    with pytest.raises(CorruptionError):
        restore(plan, read_into)
    assert not plan.partial


def test_damage_after_the_first_byte_leaves_a_mark_and_a_note(carry):
    run = Run()
    carried = carry(run.state.capture())
    plan = run.state.plan(carried.component, carried.available)

    def read_into(jobs):
        carried.read_into(jobs[:2])
        raise CorruptionError("damaged", partial=True)

    with pytest.raises(CorruptionError) as caught:
        restore(plan, read_into)
    assert plan.partial
    assert "while it read tensors" in caught.value.__notes__[0]


def test_a_setter_that_fails_leaves_a_mark_and_a_note(carry, put_back):
    run = Run()
    run.state.add_external("env", lambda: 1, lambda value: 1 / 0)
    carried = carry(run.state.capture())
    plan = run.state.plan(carried.component, carried.available)
    with pytest.raises(ZeroDivisionError) as caught:
        restore(plan, carried.read_into)
    assert plan.partial
    assert "after all tensors were written" in caught.value.__notes__[0]


def test_a_plan_that_is_never_carried_out_touches_nothing(carry):
    run, other = Run(), Run(seed=3)
    run.step()
    carried = carry(run.state.capture())
    old = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
    generator = torch.get_rng_state()
    other.state.plan(carried.component, carried.available)
    assert all(old[name].equal(tensor) for name, tensor in other.model.state_dict().items())
    assert not other.optimizer.state
    assert other.scheduler.last_epoch == 0
    assert torch.get_rng_state().equal(generator)


def test_two_claims_can_not_have_one_name():
    run = Run()
    with pytest.raises(AlreadyExistsError, match="model/main"):
        run.state.add_models({"main": nn.Linear(1, 1)})
    assert set(run.state.owner()) == {("model", "main"), ("optim", "main"), ("scheduler", "main")}
    run.state.take_back("model", "main", None)
    run.state.add_models({"main": run.model})


@pytest.mark.parametrize("options", [{"grads": "sometimes"}, {"model_state": "some"}])
def test_an_unknown_option_is_refused(options):
    with pytest.raises(InvalidInputError, match="unknown"):
        TrainState(**options)


def test_unknown_hyperparameters_are_refused(carry):
    carried = carry(Run().state.capture())
    with pytest.raises(InvalidInputError, match="hyperparameters"):
        Run().state.plan(carried.component, carried.available, hyperparameters="both")


def test_tensor_bytes_are_those_of_the_distinct_tensors():
    model = nn.Linear(10, 10, bias=False)
    holder = nn.ModuleDict({"a": model, "b": model})
    state = TrainState()
    state.add_models({"main": holder})
    rng_bytes = TrainState().capture().tensor_bytes
    assert state.capture().tensor_bytes == 400 + rng_bytes


def test_a_capture_looks_at_live_memory_until_the_commit(carry):
    model = nn.Linear(10, 10)
    state = TrainState()
    state.add_models({"main": model})
    captured = state.capture()
    with torch.no_grad():
        model.weight.zero_()
    assert not any(carry(captured).component("model", "main")["tensors"]["weight"].bytes())


def test_a_capture_of_many_tensors_takes_milliseconds():
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(40)])
    optimizer = optim.Adam(model.parameters())
    state = TrainState()
    state.add_models({"main": model})
    state.add_optimizers({"main": optimizer})
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    gc.disable()
    try:
        best = min(_timed(state.capture) for _ in range(20))
    finally:
        gc.enable()
    # 320 tensors; about 3 ms on one slow core. A bound that only a copy or a quadratic walk would break.
    assert best < 0.05


def _timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def test_a_plan_that_was_carried_out_keeps_no_copy_of_a_tensor(carry, put_back):
    run, given = Run(), []
    run.state.add_external("buffer", lambda: torch.arange(512.0), lambda value: given.append(weakref.ref(value)))
    plan = put_back(run.state, carry(run.state.capture()))
    gc.collect()
    assert given[0]() is None
    assert plan.jobs == []
    random_before = torch.get_rng_state()
    torch.rand(3)
    plan.repeat(type(plan)())
    assert torch.equal(torch.get_rng_state(), random_before), "the generators can be set again"
