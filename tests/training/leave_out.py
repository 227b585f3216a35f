"""Faults for canaries: a commit that lacks one captured item, in a child that does not notice.

Each one takes the item out of what is captured, as if nobody had thought of it; where a restore would refuse such a
commit, it is also told not to miss the item, which then stays as the script made it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from gradient.state import TrainState
from gradient.state.optimizer import OptimizerPart
from gradient.state.plan import Phase


def _without(change: Callable[[dict[str, Any]], object], then: Callable[[TrainState], object] | None = None) -> None:
    """Have `change` take something out of every capture, have no restore miss it, and do `then` after a restore."""
    capture, plan = TrainState.capture, TrainState.plan

    @functools.wraps(capture)
    def poorer(self: TrainState) -> Any:
        captured = capture(self)
        change(captured.sections)
        return captured

    @functools.wraps(plan)
    def lenient(self: TrainState, *arguments: Any, **options: Any) -> Any:
        made = plan(self, *arguments, **{**options, "strict": False})
        if then is not None:
            made.then(Phase.DONE, functools.partial(then, self))
        return made

    TrainState.capture = poorer  # type: ignore[method-assign]
    TrainState.plan = lenient  # type: ignore[method-assign]


def _component(section: str, name: str) -> None:
    def drop(sections: dict[str, Any]) -> None:
        del sections[section][name]
        if not sections[section]:
            del sections[section]

    _without(drop)


def _model_tensors(*, parameters: bool) -> None:
    buffers = ("running_mean", "running_var", "num_batches_tracked")

    def drop(sections: dict[str, Any]) -> None:
        tensors = sections["model"]["main"]["tensors"]
        left = [name for name in tensors if name.endswith(buffers) is not parameters]
        assert left
        for name in left:
            del tensors[name]

    _without(drop)


def _optimizer_state(key: str) -> None:
    def drop(sections: dict[str, Any]) -> None:
        for values in sections["optim"]["main"]["state"].values():
            del values[key]

    def start_anew(state: TrainState) -> None:
        optimizer = next(part.optimizer for part in state.owner().values() if isinstance(part, OptimizerPart))
        for parameter, values in optimizer.state.items():
            # As AdamW makes them at its first step.
            values[key] = torch.tensor(0.0) if key == "step" else torch.zeros_like(parameter)

    _without(drop, start_anew)


def _learning_rate() -> None:
    def drop(sections: dict[str, Any]) -> None:
        for group in sections["optim"]["main"]["groups"]:
            del group["lr"]

    _without(drop)


FAULTS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "weights": lambda: _model_tensors(parameters=True),
    "buffers": lambda: _model_tensors(parameters=False),
    "exp_avg": lambda: _optimizer_state("exp_avg"),
    "exp_avg_sq": lambda: _optimizer_state("exp_avg_sq"),
    "step": lambda: _optimizer_state("step"),
    "lr": _learning_rate,
    "scheduler": lambda: _component("scheduler", "main"),
    "python": lambda: _component("rng", "python"),
    "numpy": lambda: _component("rng", "numpy"),
    "torch": lambda: _component("rng", "torch.cpu"),
    "own": lambda: _component("rng", "own"),
    "data": lambda: _component("extra", "data"),
}


def leave_out(name: str) -> None:
    """Leave one item of `FAULTS` out of every commit of this process."""
    FAULTS[name]()
