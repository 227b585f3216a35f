"""Every scheduler of torch goes on as if it had never stopped, and moves no learning rate when it comes back."""

from __future__ import annotations

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from gradient.errors import InvalidInputError, StateMismatchError
from gradient.state import TrainState


class Decay:
    """A callable with state, which torch stores."""

    def __init__(self):
        self.calls = 0

    def __call__(self, epoch):
        self.calls += 1
        return 0.9**epoch


def sequential(optimizer):
    first = lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 4)
    return lr_scheduler.SequentialLR(optimizer, [first, lr_scheduler.CosineAnnealingLR(optimizer, 10)], [4])


def chained(optimizer):
    return lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer, 0.5, 3), lr_scheduler.ExponentialLR(optimizer, 0.9)], optimizer
    )


KINDS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.95**epoch),
    "LambdaLR of an object": lambda o: lr_scheduler.LambdaLR(o, Decay()),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.95),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 2, 5], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 7),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "SequentialLR": sequential,
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 10, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "ChainedScheduler": chained,
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, mode="exp_range", gamma=0.9),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20, three_phase=True),
    "SWALR": lambda o: optim.swa_utils.SWALR(o, 0.05, 5),
}


def test_every_scheduler_of_this_torch_is_tested():
    base = lr_scheduler.LRScheduler
    kinds = {
        name
        for name, kind in vars(lr_scheduler).items()
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base and not name.startswith("_")
    }
    assert kinds <= set(KINDS)


class Run:
    def __init__(self, kind, *, lr=0.1, tensor_lr=False):
        self.model = nn.Linear(3, 1)
        self.optimizer = optim.SGD(self.model.parameters(), lr=torch.tensor(lr) if tensor_lr else lr, momentum=0.9)
        self.scheduler = KINDS[kind](self.optimizer)
        self.state = TrainState()
        self.state.add_models({"main": self.model})
        self.state.add_optimizers({"main": self.optimizer})
        self.state.add_schedulers({"main": self.scheduler})

    def step(self, number):
        self.optimizer.step()
        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step([3.0, 2.0, 2.5, 2.5, 2.5, 1.0, 1.0, 1.0, 1.0, 1.0][number % 10])
        else:
            self.scheduler.step()
        group = self.optimizer.param_groups[0]
        return [str(group["lr"]), group["momentum"], [str(lr) for lr in self.scheduler.get_last_lr()]]


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_learning_rates_after_a_restore_are_those_of_a_run_that_went_on(kind, tensor_lr, carry, put_back):
    run = Run(kind, tensor_lr=tensor_lr)
    for number in range(4):
        run.step(number)
    carried = carry(run.state.capture())
    rates = str(run.optimizer.param_groups[0]["lr"])
    other = Run(kind, tensor_lr=tensor_lr)
    plan = put_back(other.state, carried)
    assert str(other.optimizer.param_groups[0]["lr"]) == rates
    # ReduceLROnPlateau leaves no initial_lr behind, so nothing tells its work from another learning rate.
    assert len(plan.messages) == (kind == "ReduceLROnPlateau")
    assert [other.step(number) for number in range(4, 10)] == [run.step(number) for number in range(4, 10)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_scheduler_gives_the_state_that_was_committed(kind, carry, put_back):
    run, other = Run(kind), Run(kind)
    for number in range(3):
        run.step(number)
    put_back(other.state, carry(run.state.capture()))
    mine, theirs = other.scheduler.state_dict(), run.scheduler.state_dict()
    assert repr(sorted(mine.items())) == repr(sorted(theirs.items()))
    assert [type(mine[key]) for key in sorted(mine)] == [type(theirs[key]) for key in sorted(theirs)]


def test_a_scheduler_of_another_class_is_a_mismatch_and_nothing_is_touched(carry, put_back):
    carried = carry(Run("StepLR").state.capture())
    other = Run("CosineAnnealingLR")
    before = other.scheduler.state_dict()
    with pytest.raises(StateMismatchError) as caught:
        put_back(other.state, carried)
    assert caught.value.missing == ["scheduler/main/T_max", "scheduler/main/eta_min"]
    assert caught.value.unexpected == ["scheduler/main/step_size", "scheduler/main/gamma"]
    assert other.scheduler.state_dict() == before


def test_other_numbers_of_nested_schedulers_are_a_mismatch(carry, put_back):
    run, other = Run("ChainedScheduler"), Run("ChainedScheduler")
    other.scheduler._schedulers = other.scheduler._schedulers[:1]
    with pytest.raises(StateMismatchError, match="_schedulers: 2 in the commit, 1 here"):
        put_back(other.state, carry(run.state.capture()))


def test_a_function_where_the_commit_has_an_object_is_a_mismatch(carry, put_back):
    carried = carry(Run("LambdaLR of an object").state.capture())
    with pytest.raises(StateMismatchError, match="lr_lambdas/0: an object with state in the commit, a function"):
        put_back(Run("LambdaLR").state, carried)


def test_a_scheduler_that_keeps_a_function_is_refused_with_its_path():
    run = Run("StepLR")
    run.scheduler.policy = {"anneal": lambda x: x}
    with pytest.raises(InvalidInputError, match="scheduler/main/value/policy/anneal"):
        run.state.capture()


def test_a_load_state_dict_that_sets_learning_rates_does_not_win(carry, put_back):
    class Meddling(lr_scheduler.StepLR):
        def load_state_dict(self, state_dict):
            super().load_state_dict(state_dict)
            self.optimizer.param_groups[0]["lr"] = 99.0

    KINDS["Meddling"] = lambda o: Meddling(o, 2)
    try:
        run, other = Run("Meddling"), Run("Meddling")
    finally:
        del KINDS["Meddling"]
    put_back(other.state, carry(run.state.capture()))
    assert other.optimizer.param_groups[0]["lr"] == 0.1


def test_reset_goes_back_to_the_state_at_attach(carry, put_back):
    run, other = Run("SequentialLR"), Run("SequentialLR")
    before = repr(other.scheduler.state_dict())
    rate = other.optimizer.param_groups[0]["lr"]
    for number in range(5):
        run.step(number)
    put_back(other.state, carry(run.state.capture()))
    assert repr(other.scheduler.state_dict()) != before
    other.state.reset_schedulers()
    assert repr(other.scheduler.state_dict()) == before
    assert other.optimizer.param_groups[0]["lr"] == rate


@pytest.mark.parametrize("kind", ["StepLR", "OneCycleLR", "CyclicLR"])
def test_after_a_reset_the_learning_rates_are_those_of_a_new_run(kind, carry, put_back):
    fresh, run, other = Run(kind), Run(kind), Run(kind)
    for number in range(5):
        run.step(number)
    put_back(other.state, carry(run.state.capture()))
    other.state.reset_schedulers()
    for number in range(6):
        ours, theirs = other.optimizer.param_groups[0], fresh.optimizer.param_groups[0]
        assert [ours.get(key) for key in ("lr", "initial_lr", "max_lr", "betas", "momentum")] == [
            theirs.get(key) for key in ("lr", "initial_lr", "max_lr", "betas", "momentum")
        ]
        other.step(number)
        fresh.step(number)


def test_another_learning_rate_of_the_script_is_said_though_there_is_a_scheduler(carry, put_back):
    plan = put_back(Run("StepLR", lr=0.2).state, carry(Run("StepLR", lr=0.1).state.capture()))
    assert len(plan.messages) == 1 and "lr 0.2 -> 0.1" in plan.messages[0]


def test_what_has_no_state_dict_is_refused():
    with pytest.raises(InvalidInputError, match="without state_dict"):
        TrainState().add_schedulers({"main": object()})
