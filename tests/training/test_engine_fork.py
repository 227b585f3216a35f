"""Fork: a new branch from any commit, with or without resets, by call and by environment."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradient import (
    AlreadyExistsError,
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
    engine = attach(run, ws)
    for step in range(1, 5):
        run.train(1)
        engine.commit(step)
    return engine


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_fork_is_a_commit_on_a_new_branch_where_the_engine_goes_on(
    run: Any, engine: GradientEngine, ws: Path
) -> None:
    handle = engine.fork(from_ref="main@2", new_branch="experiment", message="try")
    assert (str(handle), engine.branch, engine.current_step) == ("experiment@2", "experiment", 2)
    run.train(1)
    assert str(engine.commit(3)) == "experiment@3"
    with Repo.open(ws / "gpt") as repo:
        assert [info.step for info in repo.log("experiment")][-2:] == [2, 1]
        assert repo.resolve("main").step == 4
        assert repo.info("experiment@2").root == repo.info("main@2").root


def test_a_fork_goes_on_as_the_original_did(run: Any, new_run: Callable[..., Any], engine: GradientEngine) -> None:
    kept = run.fingerprint()
    engine.fork(from_ref="main@2", new_branch="experiment")
    run.train(2)
    assert run.fingerprint() == kept


@pytest.mark.parametrize("taken", ["main", "v1"])
def test_a_name_that_is_taken_is_refused_and_nothing_is_touched(
    run: Any, engine: GradientEngine, ws: Path, taken: str
) -> None:
    with Repo.open(ws / "gpt") as repo:
        repo.create_tag("v1", "main@1")
    kept = run.fingerprint()
    with pytest.raises(AlreadyExistsError):
        engine.fork(from_ref="main@2", new_branch=taken)
    assert (run.fingerprint(), engine.branch) == (kept, "main")


def test_bad_names_and_refs_touch_nothing(run: Any, engine: GradientEngine) -> None:
    kept = run.fingerprint()
    with pytest.raises(InvalidInputError):
        engine.fork(from_ref="main@2", new_branch="a@b")
    with pytest.raises(NotFoundError):
        engine.fork(from_ref="main@77", new_branch="b")
    assert (run.fingerprint(), engine.branch) == (kept, "main")
    run.train(1)
    assert engine.commit(5).step == 5


def test_unclaimed_state_refuses_the_fork_before_anything_is_touched(
    run: Any, engine: GradientEngine, ws: Path
) -> None:
    engine.register_state("env", getter=lambda: 1, setter=lambda value: None)
    engine.commit(5)
    run.train(1)
    other = attach(run, ws)
    kept = run.fingerprint()
    with pytest.raises(StateMismatchError) as caught:
        other.fork(from_ref="main@5", new_branch="b")
    assert caught.value.unexpected == ["extra/env"]
    assert run.fingerprint() == kept
    other.drop_state("env")
    assert str(other.fork(from_ref="main@5", new_branch="b")) == "b@5"


def test_a_reset_optimizer_is_empty_and_has_the_scripts_hyper_parameters(run: Any, engine: GradientEngine) -> None:
    for group in run.optimizer.param_groups:
        group["lr"] = 0.3
    run.train(1)
    engine.commit(5)
    engine.fork(from_ref="main@5", new_branch="b", reset_optimizer=True)
    assert len(run.optimizer.state) == 0
    assert run.optimizer.param_groups[0]["lr"] == 1e-2
    run.train(1)
    assert engine.commit(6).branch == "b"


def test_a_reset_scheduler_is_as_it_was_at_attach(run: Any, engine: GradientEngine) -> None:
    assert run.scheduler.last_epoch == 4
    for group in run.optimizer.param_groups:
        group["lr"] = 1e-4
    engine.commit(4)
    engine.fork(from_ref="main@4", new_branch="b", reset_scheduler=True)
    assert run.scheduler.last_epoch == 0
    assert run.optimizer.param_groups[0]["lr"] == 1e-2
    engine.fork(from_ref="main@4", new_branch="c")
    assert run.scheduler.last_epoch == 4


def test_a_seed_replaces_the_commits_generators(run: Any, engine: GradientEngine) -> None:
    drawn = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8), ("d", None)):
        engine.fork(from_ref="main@2", new_branch=name, reset_rng_seed=seed)
        drawn.append(draws())
    assert drawn[0] == drawn[1]
    assert all(x != y for x, y in zip(drawn[0], drawn[2], strict=True))
    assert all(x != y for x, y in zip(drawn[0], drawn[3], strict=True))
    random.seed(7)
    torch.manual_seed(7)
    assert drawn[0][::2] == (random.random(), float(torch.rand(())))


def hand_over(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"GRADIENT_{name}", value)


def test_the_environment_forks_with_resets(
    new_run: Callable[..., Any], engine: GradientEngine, ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(
        monkeypatch,
        RESUME_REF="main@3",
        BRANCH="experiment",
        RESET_OPTIMIZER="1",
        RESET_SCHEDULER="1",
        RESET_SEED="7",
    )
    other = new_run(5, lr=0.2)
    forked = attach(other, ws)
    assert (forked.branch, forked.current_step) == ("experiment", 3)
    assert (len(other.optimizer.state), other.optimizer.param_groups[0]["lr"]) == (0, 0.2)
    assert other.scheduler.last_epoch == 0
    first = draws()
    assert str(forked.commit(4)) == "experiment@4"
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    assert first == draws()
    with Repo.open(ws / "gpt") as repo:
        assert repo.info("experiment@4").parents == (repo.resolve("main@3").id,)


def test_the_seed_of_the_environment_stays_when_state_is_registered_later(
    run: Any, engine: GradientEngine, ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.register_state("env", getter=lambda: 1, setter=lambda value: None)
    engine.commit(5)
    hand_over(monkeypatch, RESUME_REF="main@5", BRANCH="b", RESET_SEED="7")
    forked = attach(run, ws)
    forked.register_state("env", getter=lambda: 1, setter=lambda value: None)
    first = draws()
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    assert first == draws()


def test_latest_of_a_branch_that_is_to_be_made_is_that_of_head(
    run: Any, engine: GradientEngine, ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(monkeypatch, RESUME_REF="latest", BRANCH="b")
    assert attach(run, ws).current_step == 4


def test_a_seed_alone_seeds_a_fresh_run(run: Any, ws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_over(monkeypatch, RESET_SEED="3")
    attach(run, ws)
    first = draws()
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    assert first == draws()
