"""Forked children and threads: reliability.md, row 25 and rule G12.

A child of a fork has the memory of its parent and none of its threads: what it finds locked stays so. Whatever was
opened before is refused there, at once, and its end does nothing to the repository.
"""

from __future__ import annotations

import inspect
import os
import random
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from confined import confined, outcome
from writer_child import contents, state

import gradient
from gradient import Repo, _core

pytestmark = pytest.mark.slow

FORKS = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "repo"
    core, _ = _core.Repository.init(str(path), name="repo")
    core.commit("main", state(3), base=None, first=True, step=1, message="3")
    core.close()
    return path


def files(path: Path) -> dict[str, bytes]:
    return {str(at.relative_to(path)): at.read_bytes() for at in path.rglob("*") if at.is_file()}


def end_of_the_interpreter() -> None:
    """What engines leave for the end."""
    end: Callable[[], None] = weakref.finalize._exitfunc  # type: ignore[attr-defined]
    end()


ARGUMENTS: dict[str, Any] = {
    "at": "0" * 64,
    "branch": "main",
    "state": {},
    "base": None,
    "first": True,
    "step": 1,
    "name": "x",
    "old": "x",
    "new": "y",
    "id": "0" * 64,
    "ref": "main",
    "start": [],
    "jobs": [],
    "section": "model",
    "ancestor": "0" * 64,
    "descendant": "0" * 64,
}


def test_every_call_of_a_repository_is_refused_in_a_forked_child(path: Path) -> None:
    with Repo.open(path) as repo:
        core = repo.core
        opened = repo.state()["model"]["main"]
        tensor = opened["tensors"]["shared"]
        names = [name for name in dir(core) if not name.startswith("_")]
        # They say what was known when it was opened; the end of a copy is no end.
        names = [name for name in names if name not in ("id", "config", "init", "open", "close")]

        def call(name: str) -> Callable[[], object]:
            method = getattr(type(core), name)
            if not callable(method):
                return lambda: getattr(core, name)
            wanted = inspect.signature(method).parameters.values()
            required = [one for one in wanted if one.default is one.empty and one.name != "self"]
            positional = [ARGUMENTS[one.name] for one in required if one.kind is not one.KEYWORD_ONLY]
            named = {one.name: ARGUMENTS[one.name] for one in required if one.kind is one.KEYWORD_ONLY}
            return lambda: method(core, *positional, **named)

        def work() -> dict[str, Any]:
            told = {name: outcome(call(name)) for name in names}
            told["a tensor"] = outcome(tensor.bytes)
            told["a state"] = outcome(repo.state)
            told["another component"] = outcome(lambda: opened.keys() and repo.core)
            repo.close()
            return told

        told = confined(work)
        assert len(names) >= 25
        for name, ended in told.items():
            assert (ended["error"], ended["code"]) == ("InvalidInputError", "forked"), (name, ended)
            assert ended["hint"], name
        assert tensor.bytes() == contents(3)["shared"], "the parent goes on"


def test_a_fork_in_the_middle_of_a_commit_disturbs_nobody(path: Path) -> None:
    """The child finds whatever lock the commit held; it is refused all the same, and its exit does nothing."""
    acknowledged: list[tuple[str, int]] = []
    stop = threading.Event()
    failed: list[BaseException] = []

    def commit_for_ever(repo: Repo) -> None:
        base, step = repo.branches()["main"], 1
        try:
            while not stop.is_set():
                number, step = random.getrandbits(60), step + 1
                result = repo.core.commit("main", state(number), base=base, first=False, step=step, message=str(number))
                base = result.id
                acknowledged.append((base, number))
        except BaseException as error:
            failed.append(error)

    with Repo.open(path) as repo:
        repo.core.commit("side", state(1), base=None, first=True, step=1)
        thread = threading.Thread(target=commit_for_ever, args=[repo])
        thread.start()

        def work() -> dict[str, Any]:
            told = outcome(lambda: repo.core.commit("main", state(2), base=None, first=True, step=1))
            reading = outcome(repo.log)
            # A child that opens it for itself works like any other process.
            with Repo.open(path) as own:
                tip = own.branches().get("child")
                step = 1 if tip is None else own.core.commit_info(tip).step + 1
                own.core.commit("child", state(step), base=tip, first=True, step=step, message=str(step))
            end_of_the_interpreter()
            return {"commit": told["code"], "log": reading["code"]}

        try:
            for _ in range(FORKS):
                before = len(acknowledged)
                assert confined(work) == {"commit": "forked", "log": "forked"}
                while len(acknowledged) == before and not failed:
                    stop.wait(0.005)
        finally:
            stop.set()
            thread.join()
        assert not failed, failed
        leases = os.listdir(path / ".gradient-repo" / "leases")
        assert len(leases) == 1, "the end of a child ended the lease of its parent"
        for commit_id, number in acknowledged:
            tensors = repo.state(commit_id)["model"]["main"]["tensors"]
            assert {name: tensors[name].bytes() for name in tensors} == contents(number)
        assert repo.info("child").step == FORKS
        assert {info.id for info in repo.log("main")} >= {commit_id for commit_id, _ in acknowledged}
    report = _core.fsck(str(path), level="full")
    assert report.clean and not report.lost, report.findings


def test_the_exit_of_a_forked_child_publishes_nothing_of_an_engine(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(4, 4)
    with gradient.GradientEngine.attach(model, workspace=tmp_path / "w", repo="r") as engine:
        engine.commit(1)
        engine.commit(2)
        before = files(tmp_path)

        def work() -> list[str]:
            told = [outcome(call)["code"] for call in (lambda: engine.commit(3), engine.flush)]
            engine.close()
            end_of_the_interpreter()
            return told

        assert confined(work) == ["forked", "forked"]
        assert files(tmp_path) == before, "the manifest or the lease was touched"
        engine.commit(3)


def test_data_loader_workers_may_not_use_the_engine_and_end_without_a_trace(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(4, 4)
    engine = gradient.GradientEngine.attach(model, workspace=tmp_path / "w", repo="r")

    class Data(torch.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 8

        def __getitem__(self, at: int) -> str:
            return str(outcome(lambda: engine.commit(100 + at))["code"])

    step = 0
    for _ in range(2):
        loader = torch.utils.data.DataLoader(Data(), num_workers=2, batch_size=2, multiprocessing_context="fork")
        for batch in loader:
            assert set(batch) == {"forked"}
            step += 1
            engine.commit(step)
    assert len(os.listdir(tmp_path / "w" / "r" / ".gradient-repo" / "leases")) == 1
    engine.close()
    with Repo.open(tmp_path / "w" / "r") as repo:
        assert [info.step for info in repo.log()] == list(range(step, 0, -1))
        assert _core.fsck(repo.path, level="full").clean


def test_threads_that_commit_through_one_repository_lose_nothing(path: Path) -> None:
    told: dict[str, list[tuple[str, int]]] = {f"line{at}": [] for at in range(4)}
    failed: list[BaseException] = []

    def work(repo: Repo, branch: str) -> None:
        base = None
        try:
            for step in range(1, 16):
                number = random.getrandbits(60)
                result = repo.core.commit(
                    branch, state(number), base=base, first=base is None, step=step, message=str(number)
                )
                assert result.branch == branch and not result.conflict
                base = result.id
                told[branch].append((base, number))
                repo.log(branch, limit=3)
        except BaseException as error:
            failed.append(error)

    with Repo.open(path) as repo, Repo.open(path) as other:
        threads = [
            threading.Thread(target=work, args=(repo if at < 2 else other, branch)) for at, branch in enumerate(told)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, failed
        repo.refresh()
        for branch, lines in told.items():
            assert [info.id for info in repo.log(branch)] == [commit_id for commit_id, _ in reversed(lines)]
            for commit_id, number in lines:
                tensors = repo.state(commit_id)["model"]["main"]["tensors"]
                assert {name: tensors[name].bytes() for name in tensors} == contents(number)
    assert _core.fsck(str(path), level="full").clean
