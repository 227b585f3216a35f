"""Wrapped optimizers in the engine: the same bits after any interruption, codes in the commit, and both ways out."""

from __future__ import annotations

import functools
import logging
import os
import random
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gradient import GradientEngine, wrap
from gradient.coded import Coded
from gradient.optim import WarmupPolicy

sys.path.insert(0, str(Path(__file__).resolve().parent))

from wrapped_child import KINDS, digest, made, train_once, trained

STEPS = 200
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)

pytestmark = pytest.mark.usefixtures("elsewhere")


@functools.cache
def reference(kind: str) -> str:
    return trained(kind, STEPS)


# The same bits


@EVERY_KIND
@pytest.mark.parametrize("threads", [2, 8])
def test_200_steps_give_the_same_bits_for_any_number_of_threads(kind: str, threads: int) -> None:
    assert trained(kind, STEPS, threads=threads) == reference(kind)


@EVERY_KIND
def test_200_steps_give_the_same_bits_after_a_save_and_a_load(kind: str) -> None:
    assert trained(kind, STEPS, saved_at=117) == reference(kind)


def test_200_steps_give_the_same_bits_when_killed_and_resumed_in_new_processes(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print(f"steps of the kills: seed {seed}")
    chance = random.Random(seed)
    command = [sys.executable, str(Path(__file__).with_name("wrapped_child.py")), str(tmp_path / "ws"), str(STEPS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    starts = []
    for victim in (chance.randint(15, 90), chance.randint(100, 190), None):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout is not None
            said: dict[str, str] = {}
            for line in child.stdout:
                key, _, value = line.strip().partition(" ")
                said[key] = value
                if key == "step" and victim is not None and int(value) >= victim:
                    child.send_signal(signal.SIGKILL)
                    break
        starts.append(int(said["from"]))
        assert victim is None or child.returncode == -signal.SIGKILL
    assert starts[0] == 0 and 0 < starts[1] < starts[2]
    assert {kind: said.get(kind) for kind in KINDS} == {kind: reference(kind) for kind in KINDS}


# What a commit holds


class Trainer:
    """One model with its optimizer and engine."""

    def __init__(
        self, ws: Path, kind: str = "adamw-stochastic", wrapped: str | None = "before", **options: Any
    ) -> None:
        policy = options.pop("policy", None)
        self.model, self.optimizer = made(kind)
        if wrapped == "before":
            wrap(self.optimizer, policy)
        self.engine = GradientEngine.attach(self.model, self.optimizer, workspace=ws, repo="gpt", **options)
        if wrapped == "after":
            wrap(self.optimizer, policy)
        self.at = self.engine.current_step

    def train(self, steps: int) -> Trainer:
        for _ in range(steps):
            self.at += 1
            train_once(self.model, self.optimizer, self.at)
        return self

    def commit(self) -> Any:
        return self.engine.commit(self.at)

    @property
    def weights(self) -> str:
        return digest(self.model)

    def kinds(self, number: int = 0) -> dict[str, str]:
        entry = self.optimizer.store.entries[self.optimizer.param_groups[0]["params"][number]]
        return {key: getattr(value, "kind", "in full") for key, value in entry.items() if key != "step"}


EIGHT_BITS = {"exp_avg": "signed-sqrt", "exp_avg_sq": "fourth-root"}


def test_a_commit_holds_codes_and_the_same_state_the_same_objects(ws: Path) -> None:
    trainer = Trainer(ws).train(3)
    first, second = trainer.commit(), trainer.commit()
    assert first.root == second.root
    sizes = sum(path.stat().st_size for path in (ws / "gpt").rglob("*") if path.is_file())
    numel = sum(param.numel() for param in trainer.model.parameters())
    # Weights, two bytes of codes, and what is around them; in full it is 12 bytes a parameter.
    assert sizes < 7 * numel


@pytest.mark.parametrize("wrapped", ["before", "after"])
@EVERY_KIND
def test_a_run_goes_on_with_the_same_bits_whether_it_was_wrapped_before_or_after_attach(
    kind: str, wrapped: str, ws: Path
) -> None:
    trainer = Trainer(ws, kind, wrapped).train(12)
    trainer.commit()
    expected = trainer.train(12).weights
    trainer.engine.close()
    other = Trainer(ws, kind, "before", resume="latest")
    assert other.at == 12
    assert other.train(12).weights == expected


def test_a_checkout_in_the_same_process_goes_back_to_the_same_bits(ws: Path) -> None:
    trainer = Trainer(ws).train(5)
    trainer.commit()
    expected = trainer.train(5).weights
    trainer.engine.resume_latest()
    trainer.at = 5
    assert trainer.train(5).weights == expected


def test_a_parameter_that_is_first_trained_after_a_resume_draws_as_without(ws: Path) -> None:
    trainer = Trainer(ws)
    late = trainer.model[2].weight
    late.requires_grad_(False)
    trainer.train(4)
    trainer.commit()
    late.requires_grad_(True)
    expected = trainer.train(4).weights
    trainer.engine.resume_latest()
    trainer.at = 4
    assert trainer.train(4).weights == expected
    trainer.engine.close()
    other = Trainer(ws, resume="latest")
    assert other.train(4).weights == expected


@pytest.mark.parametrize("kind", ["adamw-stochastic", "sgd"])
def test_a_warm_up_ends_after_a_resume_when_it_would_have(kind: str, ws: Path) -> None:
    policy = WarmupPolicy(6)
    trainer = Trainer(ws, kind, policy=policy).train(4)
    trainer.commit()
    expected = trainer.train(6).weights
    trainer.engine.close()
    other = Trainer(ws, kind, policy=WarmupPolicy(6), resume="latest")
    key = "momentum_buffer" if kind == "sgd" else "exp_avg"
    seen = [other.train(1).kinds()[key] for _ in range(3)]
    assert seen == ["in full", "signed-sqrt", "signed-sqrt"]
    assert other.train(3).weights == expected


def test_a_scheduler_and_a_scaler_beside_it_go_on(ws: Path) -> None:
    def begun(resume: str | None) -> tuple[Any, ...]:
        model, optimizer = made("adamw-nearest")
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        wrap(optimizer)
        engine = GradientEngine.attach(
            model, optimizer, scheduler, scaler=scaler, workspace=ws, repo="gpt", resume=resume
        )
        return model, optimizer, scheduler, scaler, engine

    def train(parts: tuple[Any, ...], steps: range) -> None:
        model, optimizer, scheduler, scaler, _ = parts
        for step in steps:
            inputs = torch.randn(8, 130, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            loss = model(inputs).square().mean() * (float("inf") if step == 4 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()

    parts = begun(None)
    train(parts, range(1, 8))
    parts[4].commit(7)
    train(parts, range(8, 16))
    expected = digest(parts[0]), parts[2].get_last_lr(), parts[3].get_scale()
    parts[4].close()
    other = begun("latest")
    assert other[4].current_step == 7
    train(other, range(8, 16))
    assert (digest(other[0]), other[2].get_last_lr(), other[3].get_scale()) == expected


# Into an optimizer that is not wrapped, and out of one


def test_a_commit_of_a_wrapped_run_goes_on_unwrapped_and_says_what_was_lost(
    ws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(ws).train(5)
    trainer.commit()
    expected = {key: value.clone() for key, value in trainer.optimizer.state[trainer.model[0].weight].items()}
    trainer.engine.close()
    with caplog.at_level(logging.WARNING, "gradient"):
        other = Trainer(ws, wrapped=None, resume="latest")
    assert sum("wrapped optimizer, in fewer bits" in record.getMessage() for record in caplog.records) == 1
    state = other.optimizer.state[other.model[0].weight]
    assert list(state) == list(expected) and all(state[key].equal(value) for key, value in expected.items())
    before = other.weights
    assert other.train(2).weights != before


def test_a_commit_of_a_run_in_full_goes_on_wrapped_and_says_what_is_lost(
    ws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(ws, wrapped=None).train(5)
    trainer.commit()
    expected = trainer.optimizer.state[trainer.model[0].weight]["exp_avg"]
    trainer.engine.close()
    with caplog.at_level(logging.WARNING, "gradient"):
        other = Trainer(ws, resume="latest")
    assert sum("more bits than the policy" in record.getMessage() for record in caplog.records) == 1
    assert other.kinds() == EIGHT_BITS
    found = other.optimizer.state[other.model[0].weight]["exp_avg"]
    assert 0 < (found - expected).norm() / expected.norm() < 0.02
    other.train(2)


def test_small_state_of_a_wrapped_run_is_exact_either_way(ws: Path) -> None:
    trainer = Trainer(ws).train(3)
    trainer.commit()
    bias = trainer.optimizer.state[trainer.model[0].bias]["exp_avg"].clone()
    trainer.engine.close()
    other = Trainer(ws, wrapped=None, resume="latest")
    assert other.optimizer.state[other.model[0].bias]["exp_avg"].equal(bias)
    assert not any(
        isinstance(value, Coded) for value in trainer.optimizer.store.entries[trainer.model[0].bias].values()
    )
