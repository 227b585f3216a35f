"""Commit: handles, steps, autocommit, conflicts, and calls at the wrong time or in the wrong process."""

from __future__ import annotations

import logging
import multiprocessing
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gradient
from gradient import ConflictError, GradientConfig, GradientEngine, InvalidInputError, Repo

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def engine(run: Any, ws: Path) -> GradientEngine:
    return GradientEngine.attach(*run.parts, workspace=ws, repo="gpt")


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Handles


def test_a_handle_says_where_the_commit_is(engine: GradientEngine, ws: Path) -> None:
    handle = engine.commit(100, "first", metrics={"loss": 0.25, "tokens": 7})
    assert str(handle) == "main@100"
    assert (handle.step, handle.branch, handle.kind) == (100, "main", "anchor")
    assert handle.done()
    assert handle.wait() is handle
    with Repo.open(ws / "gpt") as repo:
        info = repo.info("main@100")
        assert (info.id, info.root, info.message) == (handle.id, handle.root, "first")
        assert info.metrics == {"loss": 0.25, "tokens": 7}
    assert engine.current_step == 0


def test_equal_states_have_equal_roots_whatever_the_step_and_the_run(new_run: Callable[..., Any], ws: Path) -> None:
    handles = []
    for repo in ("a", "b"):
        run = new_run(3)
        run.train(3)
        handles.append(GradientEngine.attach(*run.parts, workspace=ws, repo=repo).commit(len(handles)))
    assert handles[0].root == handles[1].root
    assert handles[0].id != handles[1].id


def test_what_changes_after_commit_returns_is_not_in_it(engine: GradientEngine, run: Any) -> None:
    run.train(1)
    kept = run.fingerprint()
    engine.commit(1)
    for parameter in run.model.parameters():
        torch.nn.init.normal_(parameter)
    run.noise.zero_()
    engine.resume("main@1")
    assert run.fingerprint() == kept


def test_metrics_may_be_tensors_and_numpy_scalars(engine: GradientEngine, ws: Path) -> None:
    engine.commit(
        1, metrics={"loss": torch.tensor(0.5), "acc": np.float64(0.25), "n": np.int64(3), "nan": float("nan")}
    )
    with Repo.open(ws / "gpt") as repo:
        metrics = repo.info("main@1").metrics
    assert (metrics["loss"], metrics["acc"], metrics["n"]) == (0.5, 0.25, 3)
    assert metrics["nan"] != metrics["nan"]


@pytest.mark.parametrize("metrics", [{"loss": "low"}, {"loss": torch.zeros(2)}, {3: 1.0}, [("loss", 1.0)]], ids=str)
def test_metrics_that_are_no_numbers_are_refused(engine: GradientEngine, metrics: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        engine.commit(1, metrics=metrics)
    assert caught.value.code == "bad-metric"


# Steps


@pytest.mark.parametrize("step", [-1, 1.0, "1", None, True, 1 << 63])
def test_what_is_no_step_is_refused(engine: GradientEngine, step: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        engine.commit(step)
    assert caught.value.code == "bad-step"


def test_numpy_integers_are_steps(engine: GradientEngine) -> None:
    assert str(engine.commit(np.int64(5))) == "main@5"


def test_steps_do_not_go_backwards_and_nothing_is_committed(engine: GradientEngine, run: Any, ws: Path) -> None:
    engine.commit(10)
    run.train(1)
    with pytest.raises(InvalidInputError) as caught:
        engine.commit(9)
    assert caught.value.code == "step-backwards"
    assert "engine.resume(" not in (caught.value.hint or ""), "there is no such commit"
    with Repo.open(ws / "gpt") as repo:
        assert [info.step for info in repo.log()] == [10]


def test_a_step_that_goes_backwards_to_a_commit_is_told_how_to_go_there(engine: GradientEngine, run: Any) -> None:
    for step in (5, 10):
        run.train(1)
        engine.commit(step)
    with pytest.raises(InvalidInputError) as caught:
        engine.commit(5)
    assert "engine.resume('main@5')" in (caught.value.hint or "")


def test_a_restore_allows_earlier_steps_again(engine: GradientEngine, run: Any) -> None:
    engine.commit(5)
    run.train(1)
    engine.commit(10)
    engine.resume("main@5")
    run.train(2)
    assert str(engine.commit(6)) == "main@6"


def test_the_same_step_with_the_same_state_is_the_existing_commit(engine: GradientEngine, ws: Path) -> None:
    first, again = engine.commit(5), engine.commit(5)
    assert (again.id, again.existing, first.existing) == (first.id, True, False)
    with Repo.open(ws / "gpt") as repo:
        assert len(repo.log()) == 1


def test_the_same_step_with_another_state_is_a_new_commit_which_the_ref_then_names(
    engine: GradientEngine, run: Any, ws: Path
) -> None:
    first = engine.commit(5)
    run.train(1)
    second = engine.commit(5)
    assert second.id != first.id
    with Repo.open(ws / "gpt") as repo:
        assert repo.resolve("main@5").id == second.id
        assert repo.info(second.id).parents == (first.id,)


# Autocommit


def test_autocommit_commits_every_so_many_steps(engine: GradientEngine) -> None:
    assert engine.maybe_commit(5) is None
    engine.autocommit(every=5)
    made = [engine.maybe_commit(step) for step in range(1, 11)]
    assert [str(handle) for handle in made if handle is not None] == ["main@5", "main@10"]
    engine.autocommit(every=None)
    assert engine.maybe_commit(15) is None


def test_maybe_commit_without_an_interval_says_once_that_it_commits_nothing(
    run: Any, engine: GradientEngine, ws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert [engine.maybe_commit(step) for step in range(1, 4)] == [None, None, None]
    assert len(messages(caplog)) == 1
    assert "autocommit(every=...)" in messages(caplog)[0]
    other = GradientEngine.attach(*run.parts, workspace=ws, repo="another")
    other.maybe_commit(1)
    assert len([line for line in messages(caplog) if "autocommit(every=...)" in line]) == 2, "once for each engine"


def test_who_stopped_autocommit_is_not_told_to_start_it(
    engine: GradientEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.autocommit(every=None)
    assert engine.maybe_commit(5) is None
    engine.autocommit(every=7)
    assert engine.maybe_commit(5) is None
    assert messages(caplog) == []


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_an_interval_is_a_whole_number_from_one(engine: GradientEngine, every: Any) -> None:
    with pytest.raises(InvalidInputError):
        engine.autocommit(every=every)


def test_checkpoint_every_of_the_config_is_the_interval(run: Any, ws: Path) -> None:
    engine = GradientEngine.attach(*run.parts, config=GradientConfig(ws, "gpt", checkpoint_every=2))
    assert [engine.maybe_commit(step) is not None for step in (1, 2, 3, 4)] == [False, True, False, True]


# Several lines on one branch


def test_a_fresh_line_keeps_the_old_tip_and_says_so_in_one_line(
    run: Any, engine: GradientEngine, ws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = engine.commit(50)
    engine.close()
    run.train(1)
    engine = GradientEngine.attach(*run.parts, workspace=ws, repo="gpt")
    caplog.clear()
    handle = engine.commit(1)
    assert (str(handle), handle.displaced) == ("main@1", "main.1")
    assert len([line for line in messages(caplog) if "main.1" in line]) == 1
    run.train(1)
    assert engine.commit(2).displaced is None
    with Repo.open(ws / "gpt") as repo:
        assert repo.branches()["main.1"] == old.id
        assert repo.info(handle.id).parents == ()
        assert [info.step for info in repo.log("main")] == [2, 1]


def test_the_loser_of_a_race_keeps_its_commit_and_goes_on_beside(
    run: Any, new_run: Callable[..., Any], ws: Path
) -> None:
    rival = new_run(1)
    loser = GradientEngine.attach(*run.parts, workspace=ws, repo="gpt")
    base = loser.commit(1)
    winner = GradientEngine.attach(*rival.parts, workspace=ws, repo="gpt", resume="latest")
    rival.train(1)
    theirs = winner.commit(2)
    run.train(1)
    with pytest.raises(ConflictError) as caught:
        loser.commit(2)
    error = caught.value
    assert (error.expected, error.actual, error.branch) == (base.id, theirs.id, "main.1")
    assert "main.1" in str(error)
    with Repo.open(ws / "gpt") as repo:
        assert repo.info("main.1").parents == (base.id,)
        assert repo.resolve("main").id == theirs.id
    run.train(1)
    rival.train(1)
    assert loser.branch == "main.1"
    assert [str(loser.commit(3)), str(winner.commit(3))] == ["main.1@3", "main@3"]


def interrupted_commit(engine: GradientEngine, step: int) -> str:
    """Commit as `GradientEngine.commit` does, up to where Ctrl-C takes the call away once the commit is durable."""
    session = engine._session
    sections = session.state.capture().sections
    result = session.repo.core.commit("main", sections, base=session.line.base, first=session.line.first, step=step)
    return str(result.id)


def test_a_conflict_of_a_commit_whose_call_was_interrupted_is_raised_by_the_next_one(
    run: Any, new_run: Callable[..., Any], ws: Path
) -> None:
    rival = new_run(1)
    loser = GradientEngine.attach(*run.parts, workspace=ws, repo="gpt")
    base = loser.commit(1)
    winner = GradientEngine.attach(*rival.parts, workspace=ws, repo="gpt", resume="latest")
    rival.train(1)
    theirs = winner.commit(2)
    run.train(1)
    beside = interrupted_commit(loser, 2)
    run.train(1)
    # A call that commits nothing leaves it to be told.
    with pytest.raises(InvalidInputError):
        loser.commit(1)
    with pytest.raises(ConflictError) as caught:
        loser.commit(3)
    error = caught.value
    assert (error.expected, error.actual, error.branch, error.commit) == (base.id, theirs.id, "main.1", beside)
    with Repo.open(ws / "gpt") as repo:
        assert repo.info("main.1@3").parents == (beside,), "the call's own commit is durable all the same"
        assert repo.info(beside).parents == (base.id,)
        assert repo.resolve("main").id == theirs.id
    run.train(1)
    assert str(loser.commit(4)) == "main.1@4"


def test_an_interrupted_commit_that_met_nobody_is_the_next_one_s_parent(run: Any, ws: Path) -> None:
    engine = GradientEngine.attach(*run.parts, workspace=ws, repo="gpt")
    engine.commit(1)
    run.train(1)
    beside = interrupted_commit(engine, 2)
    run.train(1)
    assert str(engine.commit(3)) == "main@3"
    with Repo.open(ws / "gpt") as repo:
        assert repo.info("main@3").parents == (beside,)


# At the wrong time


def test_a_closed_engine_refuses_everything_and_closing_twice_is_fine(engine: GradientEngine) -> None:
    engine.close()
    engine.close()
    for call in (lambda: engine.commit(1), engine.resume_latest, engine.flush):
        with pytest.raises(InvalidInputError) as caught:
            call()
        assert caught.value.code == "closed"


def test_a_context_manager_closes_also_when_the_body_fails(run: Any, ws: Path) -> None:
    engine = GradientEngine.attach(*run.parts, workspace=ws, repo="gpt")
    with pytest.raises(ZeroDivisionError), engine:
        engine.commit(1 // 0)
    with pytest.raises(InvalidInputError):
        engine.commit(2)


def _in_child(work: Callable[[], str]) -> str:
    """Fork, do the work in the child, and give what it returned."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = work()
        except BaseException:
            answer = traceback.format_exc()
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def test_a_forked_child_is_refused_and_the_parent_goes_on(engine: GradientEngine, run: Any) -> None:
    engine.commit(1)

    def work() -> str:
        codes = []
        for call in (lambda: engine.commit(2), lambda: engine.resume("main@1"), engine.flush):
            try:
                call()
            except InvalidInputError as error:
                codes.append(error.code)
        engine.close()
        return " ".join(codes)

    assert _in_child(work) == "forked forked forked"
    run.train(1)
    assert str(engine.commit(2)) == "main@2"


def test_a_forked_child_that_attaches_for_itself_commits_on_its_own_branch(
    engine: GradientEngine, run: Any, ws: Path
) -> None:
    first = engine.commit(1)

    def work() -> str:
        with GradientEngine.attach(*run.parts, config=GradientConfig(ws, "gpt", branch="child")) as own:
            return f"{own.commit(7)} {own.resume('child@7')}"

    assert _in_child(work) == "child@7 7"
    engine.resume(str(first))
    with Repo.open(ws / "gpt") as repo:
        assert repo.resolve("child").step == 7


def test_forked_dataloader_workers_do_not_disturb_the_engine(engine: GradientEngine, run: Any) -> None:
    loader = torch.utils.data.DataLoader(
        list(range(8)), num_workers=2, multiprocessing_context=multiprocessing.get_context("fork")
    )
    for step, _ in enumerate(loader, 1):
        engine.commit(step)
    assert engine.commit(9).step == 9


# What can not be stored


def test_a_function_in_the_state_is_refused_with_its_path_and_nothing_is_committed(
    engine: GradientEngine, ws: Path
) -> None:
    engine.register_state("env", getter=lambda: {"policy": [1, lambda x: x]}, setter=lambda value: None)
    with pytest.raises(InvalidInputError, match="policy"):
        engine.commit(1)
    with Repo.open(ws / "gpt") as repo:
        assert repo.branches() == {}


def test_nan_and_infinities_are_fine(engine: GradientEngine, run: Any) -> None:
    with torch.no_grad():
        run.model[0].weight.view(torch.int32)[0, :4] = torch.tensor(
            [0x7FC00001, -0x003FFFFF, 0x7F800000, 1], dtype=torch.int32
        )
    bits = run.model[0].weight.view(torch.int32).clone()
    engine.commit(1)
    torch.nn.init.zeros_(run.model[0].weight)
    engine.resume("main@1")
    assert torch.equal(run.model[0].weight.view(torch.int32), bits)


def test_without_a_loader_the_first_commit_says_that_the_data_position_is_not_captured(
    engine: GradientEngine, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine.commit(1)
    run.train(1)
    engine.commit(2)
    assert messages(caplog).count("data position: not captured") == 1


def test_an_engine_that_nobody_holds_any_more_lets_go_of_its_repository(run: Any, ws: Path) -> None:
    GradientEngine.attach(*run.parts, workspace=ws, repo="gpt").commit(1)
    assert all(session.closed for session in gradient.engine.session.open_sessions)


# Memory for deltas


def test_what_an_engine_may_keep_in_memory_is_set_once_and_not_by_what_it_keeps(
    new_run: Callable[..., Any], ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(width=4096)
    left = iter([1 << 40, 0, 0])
    monkeypatch.setattr("gradient.engine.committing.available_bytes", lambda: next(left))
    engine = GradientEngine.attach(*run.parts, workspace=ws, repo="gpt")
    kinds = []
    for step in range(3):
        # To weights that have moved by so little, a delta saves more than a tenth.
        with torch.no_grad():
            run.model[0].weight.add_(1e-6)
        kinds.append(engine.commit(step).kind)
    assert kinds == ["anchor", "delta", "delta"]
