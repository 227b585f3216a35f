"""The environment is described the same each time, compared by name, and never set."""

from __future__ import annotations

import subprocess

import torch

from gradient.state import TrainState, environment


def test_it_is_plain_and_the_same_each_time():
    first = environment.describe()
    assert first == environment.describe()
    assert list(first) == sorted(first)
    assert {type(value) for value in first.values()} <= {str, int, bool}
    assert first["torch"] == str(torch.__version__)


def test_differences_are_named_once_each():
    now = environment.describe()
    old = {**now, "torch": "1.0", "threads": 99, "a_key_of_another_version": 1}
    lines = environment.compare(old, now)
    assert len(lines) == 2
    assert f"torch: 1.0 -> {now['torch']}" in lines


def test_many_differences_are_cut():
    old, new = {str(i): 0 for i in range(50)}, {str(i): 1 for i in range(50)}
    lines = environment.compare(old, new)
    assert len(lines) == environment.SHOWN_MAX
    assert lines[-1] == "and 31 more"


def test_a_flag_that_is_set_shows():
    before = environment.describe()
    torch.set_default_dtype(torch.float64)
    assert environment.compare(before, environment.describe()) == ["default_dtype: float32 -> float64"]


def test_nothing_of_it_is_in_the_state():
    captured = TrainState().capture()
    assert set(captured.sections) == {"rng"}
    assert captured.environment == environment.describe()


def test_the_source_commit_is_git_s_own_answer(tmp_path):
    assert environment.source_commit(tmp_path) is None

    def git(*words):
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@x", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert environment.source_commit(tmp_path) is None
    git("commit", "-q", "--allow-empty", "-m", "one")
    head = git("rev-parse", "HEAD")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert environment.source_commit(inner) == head
    git("pack-refs", "--all")
    assert environment.source_commit(tmp_path) == head
    git("worktree", "add", "-q", str(tmp_path / "tree"), "-b", "other")
    assert environment.source_commit(tmp_path / "tree") == head
    git("checkout", "-q", "--detach")
    assert environment.source_commit(tmp_path) == head
