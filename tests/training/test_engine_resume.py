"""Restore: bit for bit, all or nothing, and what is said about what was left out."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gradient import (
    CorruptionError,
    GradientConfig,
    GradientEngine,
    InvalidInputError,
    NotFoundError,
    Repo,
    StateMismatchError,
)

pytestmark = pytest.mark.usefixtures("elsewhere")


def attach(run: Any, ws: Path, **options: Any) -> GradientEngine:
    return GradientEngine.attach(*run.parts, workspace=ws, repo="gpt", **options)


@pytest.fixture
def engine(run: Any, ws: Path) -> GradientEngine:
    return attach(run, ws)


def damage(ws: Path, wanted: bytes) -> None:
    """Flip a bit of a chunk on disk; it is one that is stored as it is."""
    for pack in sorted((ws / "gpt" / ".gradient-repo" / "packs").iterdir()):
        content = bytearray(pack.read_bytes())
        at = content.find(wanted)
        if at >= 0:
            content[at + len(wanted) // 2] ^= 1
            pack.chmod(0o644)
            pack.write_bytes(content)
            return
    raise AssertionError("these bytes are in no pack")


# Bit for bit


def test_a_resumed_run_goes_on_as_one_that_never_stopped(
    run: Any, new_run: Callable[..., Any], engine: GradientEngine, ws: Path
) -> None:
    run.train(3)
    engine.commit(3)
    losses = run.train(4)
    other = new_run(99)
    resumed = attach(other, ws, resume="main@3")
    assert resumed.current_step == 3
    assert other.train(4) == losses
    assert other.fingerprint() == run.fingerprint()


@pytest.mark.parametrize("steps_between", [0, 1])
def test_restoring_a_second_and_third_time_holds_too(run: Any, engine: GradientEngine, steps_between: int) -> None:
    run.train(2)
    engine.commit(2)
    kept = run.fingerprint()
    for _ in range(3):
        run.train(steps_between + 1)
        assert engine.resume("main@2") == 2
        assert run.fingerprint() == kept


def test_resume_returns_the_step_as_a_plain_number_and_sets_current_step(run: Any, engine: GradientEngine) -> None:
    engine.commit(4)
    run.train(1)
    engine.commit(6)
    assert engine.resume("main@4") + 1 == 5
    assert engine.current_step == 4
    assert engine.resume_latest() == 6
    assert (engine.current_step, type(engine.current_step)) == (6, int)


def test_latest_is_the_tip_and_not_the_highest_step(run: Any, engine: GradientEngine) -> None:
    engine.commit(5)
    run.train(1)
    engine.commit(100)
    engine.resume("main@5")
    run.train(1)
    engine.commit(6)
    assert engine.resume_latest() == 6
    assert engine.resume("latest") == 6


def test_a_step_that_left_the_line_is_still_found(run: Any, engine: GradientEngine) -> None:
    engine.commit(5)
    run.train(1)
    far, kept = engine.commit(100), run.fingerprint()
    engine.resume("main@5")
    run.train(1)
    assert engine.commit(6).displaced == "main.1"
    assert engine.resume("main@100") == 100
    assert run.fingerprint() == kept
    assert engine.resume(far.id) == 100


def test_what_another_engine_has_committed_since_is_restored(
    run: Any, new_run: Callable[..., Any], engine: GradientEngine, ws: Path
) -> None:
    engine.commit(1)
    other = new_run(5)
    second = attach(other, ws, resume="latest")
    other.train(1)
    second.commit(2)
    assert engine.resume_latest() == 2
    assert run.fingerprint() == other.fingerprint()
    other.train(1)
    second.commit(3)
    assert engine.resume("main@3") == 3


def test_a_branch_that_another_engine_began_is_restored(
    run: Any, new_run: Callable[..., Any], engine: GradientEngine, ws: Path
) -> None:
    attach(new_run(5), ws).commit(1)
    assert engine.resume_latest() == 1


def test_commits_go_on_from_what_was_restored(run: Any, engine: GradientEngine, ws: Path) -> None:
    first = engine.commit(1)
    run.train(1)
    engine.commit(2)
    engine.resume("main@1")
    run.train(3)
    handle = engine.commit(4)
    with Repo.open(ws / "gpt") as repo:
        assert repo.info(handle.id).parents == (first.id,)


@pytest.mark.parametrize("ref", ["main@99", "nain", "nothing@1", "0123abcd"])
def test_a_ref_that_means_nothing_is_not_found_and_nothing_is_touched(
    run: Any, engine: GradientEngine, ref: str
) -> None:
    engine.commit(98)
    run.train(1)
    kept = run.fingerprint()
    with pytest.raises(NotFoundError) as caught:
        engine.resume(ref)
    assert run.fingerprint() == kept
    if ref == "main@99":
        assert "main@98" in f"{caught.value} {caught.value.hint}"


# All or nothing


def test_a_model_that_does_not_fit_is_left_alone_and_all_differences_are_in_one_error(
    engine: GradientEngine, new_run: Callable[..., Any], ws: Path
) -> None:
    engine.commit(1)
    other = new_run(1, width=25)
    other.model.add_module("extra", nn.Linear(2, 2))
    other.optimizer = torch.optim.AdamW(other.model.parameters())
    other.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(other.optimizer)
    kept = other.fingerprint()
    with pytest.raises(StateMismatchError) as caught:
        attach(other, ws, resume="latest")
    assert other.fingerprint() == kept
    assert any("extra.weight" in name for name in caught.value.missing)
    assert any("0.weight" in text for text in caught.value.changed)


def test_a_part_can_be_restored_and_the_rest_is_named(
    run: Any, engine: GradientEngine, new_run: Callable[..., Any], ws: Path
) -> None:
    run.train(2)
    engine.commit(2)
    other = new_run(5)
    other.train(1)
    moments = {id(p): state["exp_avg"].clone() for p, state in other.optimizer.state.items()}
    random_state = random.getstate()
    step = attach(other, ws).resume("main@2", only=("model",), strict=False)
    assert step == 2
    assert "optim/main" in step.skipped
    assert torch.equal(other.model[0].weight, run.model[0].weight)
    assert all(torch.equal(state["exp_avg"], moments[id(p)]) for p, state in other.optimizer.state.items())
    assert random.getstate() == random_state


def test_what_only_one_side_has_can_be_skipped(run: Any, engine: GradientEngine, ws: Path) -> None:
    engine.commit(1)
    bare = GradientEngine.attach(
        run.model, run.optimizer, config=GradientConfig(ws, "gpt", strict_resume=False), resume="latest"
    )
    assert bare.current_step == 1
    with pytest.raises(StateMismatchError):
        bare.resume("main@1", strict=True)


@pytest.mark.parametrize("only", ["model", (), ("nothing",)], ids=str)
def test_what_names_no_part_is_refused(engine: GradientEngine, only: Any) -> None:
    engine.commit(1)
    with pytest.raises(InvalidInputError):
        engine.resume("main@1", only=only)


# Hyper-parameters


def test_the_commits_hyper_parameters_win_and_it_is_said(
    run: Any, engine: GradientEngine, new_run: Callable[..., Any], ws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine.commit(1)
    other = new_run(1, lr=0.5)
    attach(other, ws, resume="latest")
    assert other.optimizer.param_groups[0]["lr"] == 1e-2
    assert len([record for record in caplog.records if "0.5 -> 0.01" in record.getMessage()]) == 1


def test_the_scripts_hyper_parameters_are_kept_on_request(
    engine: GradientEngine, new_run: Callable[..., Any], ws: Path
) -> None:
    engine.commit(1)
    other = new_run(1, lr=0.5)
    attach(other, ws).resume("main@1", hyperparameters="script")
    assert other.optimizer.param_groups[0]["lr"] == 0.5
    with pytest.raises(InvalidInputError):
        attach(other, ws).resume("main@1", hyperparameters="mine")  # type: ignore[arg-type]


# State that is registered later


class Box:
    """A registered object, a registered value and a registered generator in one."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.set_to: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.set(state["value"])

    def set(self, value: Any) -> None:
        random.random()  # A setter that draws must not shift the run.
        self.value = value
        self.set_to.append(value)


def registered(run: Any, ws: Path) -> tuple[GradientEngine, np.random.Generator]:
    engine = attach(run, ws)
    generator = np.random.default_rng(5)
    engine.register_state("env", getter=lambda: {"level": 3, "seen": (1, 2)}, setter=lambda value: None)
    engine.register("curriculum", Box("hard"))
    engine.register_generator("sampler", generator)
    return engine, generator


def test_state_registered_after_the_restore_is_applied_at_once_and_then_the_generators_again(
    run: Any, new_run: Callable[..., Any], ws: Path
) -> None:
    engine, generator = registered(run, ws)
    run.train(2)
    engine.commit(2)
    kept, drawn = run.fingerprint(), generator.random(4).tolist()
    other = new_run(9)
    env, curriculum, sampler = Box(), Box(), np.random.default_rng(77)
    resumed = attach(other, ws, resume="latest")
    random.random()
    resumed.register_state("env", getter=lambda: env.value, setter=env.set)
    resumed.register("curriculum", curriculum)
    resumed.register_generator("sampler", sampler)
    assert env.set_to == [{"level": 3, "seen": (1, 2)}]
    assert curriculum.set_to == ["hard"]
    assert sampler.random(4).tolist() == drawn
    assert other.fingerprint() == kept
    assert resumed.commit(3).step == 3


def test_a_first_commit_with_unclaimed_state_is_refused_and_names_it(run: Any, ws: Path) -> None:
    engine, _ = registered(run, ws)
    engine.commit(2)
    resumed = attach(run, ws, resume="latest")
    resumed.register("curriculum", Box())
    with pytest.raises(StateMismatchError) as caught:
        resumed.commit(3)
    assert sorted(caught.value.unexpected) == ["extra/env", "rng/sampler"]
    resumed.drop_state("env")
    with pytest.raises(NotFoundError):
        resumed.drop_state("environment")
    resumed.drop_state("rng/sampler")
    assert resumed.commit(3).step == 3


@pytest.mark.parametrize("again", [False, True])
def test_state_that_was_dropped_is_not_applied_when_it_is_registered(run: Any, ws: Path, again: bool) -> None:
    engine, _ = registered(run, ws)
    engine.commit(2)
    resumed = attach(run, ws, resume="latest")
    resumed.drop_state("curriculum")
    if again:
        resumed.resume("main@2")
    before = random.getstate()
    random.random()
    box = Box("easy")
    resumed.register("curriculum", box)
    assert box.set_to == []
    assert random.getstate() != before


def test_state_registered_after_a_commit_is_new(run: Any, ws: Path) -> None:
    engine = attach(run, ws)
    engine.register("curriculum", Box("hard"))
    engine.commit(2)
    resumed = attach(run, ws, resume="latest")
    resumed.drop_state("curriculum")
    resumed.commit(3)
    assert resumed._session.plan is None
    assert resumed._session.pending() == []
    box = Box("easy")
    resumed.register("curriculum", box)
    assert box.set_to == []
    resumed.commit(4)
    box.value = "lost"
    resumed.resume("main@4")
    assert box.value == "easy"


def test_a_registration_that_fails_keeps_the_one_before(run: Any, ws: Path) -> None:
    engine, generator = registered(run, ws)
    with pytest.raises(InvalidInputError):
        engine.register_state("env", getter=3, setter=print)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        engine.register("curriculum", object())  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        engine.register_generator("sampler", object())
    handle = engine.commit(2)
    drawn = generator.random(4).tolist()
    with Repo.open(ws / "gpt") as repo:
        held = repo.core.components(handle.id)
    assert list(held["extra"]) == ["curriculum", "env"]
    assert "sampler" in held["rng"]
    engine.resume("main@2")
    assert generator.random(4).tolist() == drawn


def test_state_registered_before_the_restore_is_part_of_it(run: Any, ws: Path) -> None:
    engine, box = attach(run, ws), Box("hard")
    engine.register("curriculum", box)
    engine.commit(2)
    box.value = "easy"
    engine.resume("main@2")
    assert box.set_to == ["hard"]


def test_a_name_that_is_registered_again_means_the_new_one_and_that_is_said(
    run: Any, ws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine, generator = registered(run, ws)
    engine.register_state("env", getter=lambda: 7, setter=print)
    engine.register("curriculum", Box("soft"))
    newer = np.random.default_rng(1)
    engine.register_generator("sampler", newer)
    said = [record.message for record in caplog.records if "is registered again" in record.message]
    assert [line.split()[0] for line in said] == ["extra/env", "extra/curriculum", "rng/sampler"]
    assert all("a name of its own" in line for line in said)
    engine.commit(1)
    drawn = newer.random(3).tolist()
    with Repo.open(ws / "gpt") as repo:
        assert repo.state("main@1")["extra"]["env"]["value"] == 7
    other = generator.random()
    engine.resume("main@1")
    assert newer.random(3).tolist() == drawn
    assert generator.random() != other


def test_the_same_one_registered_again_is_no_news(run: Any, ws: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine, box, generator = attach(run, ws), Box("hard"), np.random.default_rng(5)
    for _ in range(2):
        engine.register_state("env", getter=box.state_dict, setter=box.set)
        engine.register("curriculum", box)
        engine.register_generator("sampler", generator)
    assert not [record for record in caplog.records if "is registered again" in record.message]
    engine.register_state("env", getter=box.state_dict, setter=box.load_state_dict)
    engine.register_generator("sampler", np.random.default_rng(5))
    said = [record.message.split()[0] for record in caplog.records if "is registered again" in record.message]
    assert said == ["extra/env", "rng/sampler"]


def test_the_old_one_of_a_name_is_in_no_commit_although_it_is_alive(run: Any, ws: Path) -> None:
    engine, old, new = attach(run, ws), Box("old"), Box("new")
    engine.register("curriculum", old)
    engine.register("curriculum", new)
    engine.commit(1)
    old.value = new.value = None
    engine.resume("main@1")
    assert (old.set_to, new.set_to) == ([], ["new"])


def test_a_name_registered_again_while_the_run_goes_on_rolls_nothing_back(run: Any, ws: Path) -> None:
    engine, _ = registered(run, ws)
    engine.commit(2)
    resumed = attach(run, ws, resume="latest")
    first, sampler = Box(), np.random.default_rng(9)
    resumed.register_state("env", getter=lambda: first.value, setter=first.set)
    resumed.register_generator("sampler", sampler)
    assert first.set_to == [{"level": 3, "seen": (1, 2)}]
    # Nothing was committed since, but the run has gone on.
    torch.rand(3)
    sampler.random(3)
    before, drawn = torch.get_rng_state(), sampler.bit_generator.state
    second = Box("mine")
    resumed.register_state("env", getter=lambda: second.value, setter=second.set)
    resumed.register_generator("sampler", sampler)
    assert second.set_to == []
    assert torch.equal(torch.get_rng_state(), before)
    assert sampler.bit_generator.state == drawn
    resumed.drop_state("curriculum")
    resumed.commit(3)
    with Repo.open(ws / "gpt") as repo:
        assert repo.state("main@3")["extra"]["env"]["value"] == "mine"


def test_a_late_registration_whose_setter_fails_can_be_made_again(run: Any, ws: Path) -> None:
    engine, _ = registered(run, ws)
    engine.commit(2)
    resumed = attach(run, ws, resume="latest")
    with pytest.raises(ZeroDivisionError):
        resumed.register_state("env", getter=lambda: 0, setter=lambda value: 1 / 0)
    box = Box()
    resumed.register_state("env", getter=lambda: box.value, setter=box.set)
    assert box.set_to == [{"level": 3, "seen": (1, 2)}]


def test_a_setter_that_fails_blocks_commits_until_a_restore_succeeds(run: Any, ws: Path) -> None:
    engine = attach(run, ws)
    broken = [True]

    def setter(value: Any) -> None:
        if broken:
            raise RuntimeError("the environment is down")

    engine.register_state("env", getter=lambda: {"level": 3, "seen": (1, 2)}, setter=setter)
    engine.commit(2)
    with pytest.raises(RuntimeError, match="the environment is down"):
        engine.resume("main@2")
    with pytest.raises(InvalidInputError) as caught:
        engine.commit(3)
    assert caught.value.code == "restore-incomplete"
    broken.clear()
    assert engine.resume("main@2") == 2
    assert engine.commit(3).step == 3


# Damage


def test_a_damaged_commit_is_refused_and_the_newest_whole_one_is_named_and_taken_on_request(
    run: Any, new_run: Callable[..., Any], ws: Path
) -> None:
    engine = attach(run, ws)
    for step in (1, 2, 3):
        run.train(1)
        engine.commit(step)
        if step == 2:
            kept = run.fingerprint()
    engine.close()
    damage(ws, run.noise.numpy().tobytes())
    other = new_run(8)
    resumed = attach(other, ws)
    with pytest.raises(CorruptionError) as caught:
        resumed.resume_latest()
    assert "main@2" in (caught.value.hint or "")
    assert "skip_damaged=True" in (caught.value.hint or "")
    if caught.value.partial:
        with pytest.raises(InvalidInputError) as refused:
            resumed.commit(9)
        assert refused.value.code == "restore-incomplete"
    assert resumed.resume_latest(skip_damaged=True) == 2
    assert other.fingerprint() == kept
    other.train(1)
    assert resumed.commit(3).displaced == "main.1"


def test_with_no_whole_commit_the_error_says_so(run: Any, ws: Path) -> None:
    engine = attach(run, ws)
    engine.commit(1)
    engine.close()
    damage(ws, run.noise.numpy().tobytes())
    with pytest.raises(CorruptionError) as caught:
        attach(run, ws).resume_latest(skip_damaged=True)
    assert "engine.resume(ref)" in (caught.value.hint or "")
    assert "fsck" not in (caught.value.hint or ""), "there is no such command"


# In a new process


@pytest.mark.slow
def test_a_new_process_resumes_what_the_old_one_committed(ws: Path) -> None:
    script = f"""
import random, sys
import numpy, torch
from gradient import GradientEngine
for seed in (random.seed, numpy.random.seed, torch.manual_seed):
    seed(int(sys.argv[1]))
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
engine = GradientEngine.attach(model, optimizer, workspace={str(ws)!r}, repo="gpt", resume="latest")
for step in range(engine.current_step + 1, int(sys.argv[2]) + 1):
    model(torch.randn(8, 4)).pow(2).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
print(engine.commit(step).root)
"""

    def train(seed: int, steps: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script, str(seed), str(steps)], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    train(0, 3)
    resumed = train(1, 6)
    (ws / "gpt").rename(ws / "kept")
    assert train(0, 6) == resumed


def test_what_is_said_at_a_restore_is_one_line_each(
    run: Any, engine: GradientEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.commit(1)
    caplog.clear()
    for _ in range(2):
        engine.resume("main@1")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
