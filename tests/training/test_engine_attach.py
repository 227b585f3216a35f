"""Attach: which repository, which branch, and what a script is told."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gradient import (
    GradientConfig,
    GradientEngine,
    InvalidInputError,
    NotFoundError,
    Repo,
    StateMismatchError,
    StorageError,
    config,
    init_repo,
    init_workspace,
)

pytestmark = pytest.mark.usefixtures("elsewhere")


def attach(run: Any, ws: Path, repo: str = "gpt", **options: Any) -> GradientEngine:
    return GradientEngine.attach(*run.parts, workspace=ws, repo=repo, **options)


# Which repository


def test_naming_both_makes_both(run: Any, ws: Path) -> None:
    engine = attach(run, ws)
    assert (ws / ".gradient" / "config.json").is_file()
    assert (ws / "gpt" / ".gradient-repo" / "format").is_file()
    assert (engine.workspace_path, engine.repo_name, engine.repo_path) == (str(ws), "gpt", str(ws / "gpt"))
    assert (engine.branch, engine.current_step) == ("main", 0)


def test_attaching_where_everything_exists_is_no_error(run: Any, ws: Path) -> None:
    attach(run, ws).close()
    assert attach(run, ws).repo_name == "gpt"


def test_environment_beats_arguments(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIENT_WORKSPACE", str(tmp_path / "other"))
    monkeypatch.setenv("GRADIENT_REPO", "llama")
    engine = attach(run, tmp_path / "ws")
    assert engine.repo_path == str(tmp_path / "other" / "llama")
    assert not (tmp_path / "ws").exists()


def test_arguments_beat_the_config_and_the_config_beats_discovery(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_workspace(tmp_path / "here")
    init_repo(tmp_path / "here" / "found")
    monkeypatch.chdir(tmp_path / "here")
    settings = GradientConfig(tmp_path / "configured", "gpt")
    assert GradientEngine.attach(*run.parts).repo_path == str(tmp_path / "here" / "found")
    assert GradientEngine.attach(*run.parts, config=settings).repo_path == str(tmp_path / "configured" / "gpt")
    engine = GradientEngine.attach(*run.parts, repo="llama", config=settings)
    assert engine.repo_path == str(tmp_path / "configured" / "llama")


def test_a_config_alone_can_name_workspace_and_repository(run: Any, ws: Path) -> None:
    engine = GradientEngine.attach(*run.parts, config=GradientConfig(ws, "gpt", branch="experiment"))
    assert (engine.repo_path, engine.branch) == (str(ws / "gpt"), "experiment")


def test_in_a_workspace_with_one_repository_that_one_is_used_and_with_more_they_are_listed(
    run: Any, ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_workspace(ws)
    init_repo(ws / "gpt")
    monkeypatch.chdir(ws)
    assert GradientEngine.attach(*run.parts).repo_name == "gpt"
    init_repo(ws / "llama")
    with pytest.raises(InvalidInputError, match="gpt, llama"):
        GradientEngine.attach(*run.parts)


def test_nothing_named_and_nothing_found_is_an_error(run: Any) -> None:
    with pytest.raises(NotFoundError):
        GradientEngine.attach(*run.parts)


def test_a_repository_name_that_is_a_path_is_refused(run: Any, ws: Path) -> None:
    with pytest.raises(InvalidInputError):
        attach(run, ws, "../gpt")
    assert not ws.exists()


# Which branch


def test_the_branch_is_heads_unless_one_is_named(run: Any, ws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(run, ws).commit(1)
    with Repo.open(ws / "gpt") as repo:
        repo.checkout_new("exp")
    assert attach(run, ws).branch == "exp"
    assert attach(run, ws, config=GradientConfig(branch="other")).branch == "other"
    monkeypatch.setenv("GRADIENT_BRANCH", "asked")
    assert attach(run, ws, config=GradientConfig(branch="other")).branch == "asked"


def test_no_checkout_moves_a_running_engine_and_no_engine_moves_head(run: Any, ws: Path) -> None:
    engine = attach(run, ws)
    engine.commit(1)
    with Repo.open(ws / "gpt") as repo:
        repo.checkout_new("exp")
        assert str(engine.commit(2)) == "main@2"
        engine.fork(from_ref="main@2", new_branch="forked")
        repo.refresh()
        assert repo.head() == ("branch", "exp")


def test_with_head_on_no_branch_one_must_be_named(run: Any, ws: Path) -> None:
    attach(run, ws).commit(1)
    with Repo.open(ws / "gpt") as repo:
        repo.checkout("main@1")
        assert repo.head()[0] == "commit"
    with pytest.raises(InvalidInputError) as caught:
        attach(run, ws)
    assert "gradient checkout -b NEW" in (caught.value.hint or "")
    assert attach(run, ws, config=GradientConfig(branch="main")).branch == "main"


@pytest.mark.parametrize("name", ["a@b", "HEAD", "latest", "../x", "deadbeef"])
def test_a_branch_that_can_not_be_named_so_is_refused_at_attach(run: Any, ws: Path, name: str) -> None:
    with pytest.raises(InvalidInputError):
        attach(run, ws, config=GradientConfig(branch=name))


def test_the_branch_moves_with_the_first_commit_and_not_at_attach(run: Any, ws: Path) -> None:
    attach(run, ws)
    with Repo.open(ws / "gpt") as repo:
        assert repo.branches() == {}
        assert repo.log() == []


# What is said


def test_commits_on_the_branch_and_no_resume_are_said_once(
    run: Any, ws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attach(run, ws).commit(7)
    caplog.clear()
    engine = attach(run, ws)
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert "main@7" in lines[0]
    assert 'resume="latest"' in lines[0]
    assert engine.current_step == 0


def test_resume_latest_on_an_empty_branch_starts_fresh_and_says_so_and_the_call_raises(
    run: Any, ws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = attach(run, ws, resume="latest")
    assert engine.current_step == 0
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert "branch main has no commits yet" in lines[0]
    assert "starts anew" in lines[0]
    for call in (engine.resume_latest, lambda: engine.resume("latest")):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert "gradient log" not in (caught.value.hint or "gradient log"), "the log is empty too"


def test_on_an_empty_branch_the_hint_leads_to_the_commits_of_others(run: Any, ws: Path) -> None:
    attach(run, ws).commit(1)
    engine = attach(run, ws, config=GradientConfig(branch="new"))
    for call in (engine.resume_latest, lambda: engine.resume("latest")):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert "gradient log --all" in (caught.value.hint or "")


def test_a_file_where_the_workspace_should_be_is_called_a_file(run: Any, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    with pytest.raises(StorageError, match=r"train\.py is a file"):
        attach(run, tmp_path / "train.py")


def test_aggressive_compression_stores_exactly_and_says_so_once(run: Any, ws: Path) -> None:
    config._warned.discard("aggressive")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            engine = attach(run, ws, config=GradientConfig(compression="aggressive"))
    assert len([entry for entry in caught if "aggressive" in str(entry.message)]) == 1
    root = engine.commit(1).root
    assert attach(run, ws, "plain").commit(1).root == root


@pytest.mark.slow
def test_the_library_prints_nothing(ws: Path) -> None:
    script = (
        "import logging, torch; logging.getLogger('gradient').addHandler(logging.NullHandler())\n"
        "logging.getLogger('gradient').propagate = False\n"
        "from gradient import GradientEngine\n"
        "model = torch.nn.Linear(2, 2)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=1.0)\n"
        f"engine = GradientEngine.attach(model, optimizer, workspace={str(ws)!r}, repo='a')\n"
        "engine.commit(1); engine.commit(2); engine.resume('main@1'); engine.commit(1, 'again')\n"
    )
    flags = ["-W", "error", "-W", "ignore:gradient runs on a debug build"]
    done = subprocess.run([sys.executable, *flags, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Who may attach


def test_a_process_group_of_several_ranks_is_told_what_works_today(
    run: Any, ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = attach(run, ws)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    for call in (lambda: attach(run, ws), lambda: engine.commit(1)):
        with pytest.raises(InvalidInputError, match="4 ranks") as caught:
            call()
        assert caught.value.code == "process-group"
        assert "works today" in (caught.value.hint or "")
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    assert engine.commit(1).step == 1


def test_attaching_again_to_the_same_model_and_branch_closes_the_older_engine(run: Any, ws: Path) -> None:
    older = attach(run, ws)
    older.commit(1)
    newer = attach(run, ws, resume="latest")
    with pytest.raises(InvalidInputError) as caught:
        older.commit(2)
    assert caught.value.code == "closed"
    assert newer.commit(2).displaced is None


def test_engines_on_other_branches_or_models_stay_open(run: Any, new_run: Callable[..., Any], ws: Path) -> None:
    first = attach(run, ws)
    second = attach(run, ws, config=GradientConfig(branch="exp"))
    third = attach(new_run(1), ws, "llama")
    assert [str(engine.commit(1)) for engine in (first, second, third)] == ["main@1", "exp@1", "main@1"]


def test_another_engine_on_the_branch_is_said(
    run: Any, new_run: Callable[..., Any], ws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = attach(run, ws)
    attach(new_run(1), ws)
    assert sum("another engine" in record.getMessage() for record in caplog.records) == 1
    assert first.commit(1).step == 1


def test_models_and_optimizers_may_be_named(new_run: Callable[..., Any], ws: Path) -> None:
    actor, critic = new_run(0), new_run(1)
    engine = GradientEngine.attach(
        {"actor": actor.model, "critic": critic.model},
        {"actor": actor.optimizer, "critic": critic.optimizer},
        workspace=ws,
        repo="rl",
    )
    engine.commit(1)
    with Repo.open(ws / "rl") as repo:
        assert list(repo.state("main@1")["model"]) == ["actor", "critic"]
        assert list(repo.state("main@1")["optim"]) == ["actor", "critic"]


def test_a_model_alone_can_be_attached(run: Any, ws: Path) -> None:
    engine = GradientEngine.attach(run.model, workspace=ws, repo="gpt")
    before = run.model[0].weight.detach().clone()
    engine.commit(1)
    torch.nn.init.zeros_(run.model[0].weight)
    assert engine.resume("main@1") == 1
    assert torch.equal(run.model[0].weight, before)


# The environment


def test_the_hand_over_resumes_and_is_gone_afterwards(run: Any, ws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = attach(run, ws)
    run.train(2)
    engine.commit(2)
    kept = run.fingerprint()
    run.train(1)
    for name, value in {
        "GRADIENT_WORKSPACE": str(ws),
        "GRADIENT_REPO": "gpt",
        "GRADIENT_RESUME_REF": "main@2",
        "GRADIENT_AUTOCOMMIT": "3",
    }.items():
        monkeypatch.setenv(name, value)
    engine = GradientEngine.attach(*run.parts)
    assert (engine.current_step, run.fingerprint()) == (2, kept)
    assert not [name for name in os.environ if name.startswith("GRADIENT_")]
    engine.autocommit(every=5)
    assert engine.maybe_commit(5) is None
    assert str(engine.maybe_commit(6)) == "main@6"


def test_a_notebook_cell_run_twice_finds_the_repository_that_the_environment_named(
    run: Any, ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIENT_WORKSPACE", str(ws))
    monkeypatch.setenv("GRADIENT_REPO", "gpt")
    first = GradientEngine.attach(*run.parts)
    assert GradientEngine.attach(*run.parts).repo_path == first.repo_path


def test_an_attach_that_fails_leaves_the_hand_over_for_the_next(
    run: Any, ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(run, ws).commit(1)
    monkeypatch.setenv("GRADIENT_RESUME_REF", "main@1")
    with pytest.raises(StateMismatchError):
        GradientEngine.attach(torch.nn.Linear(3, 3), workspace=ws, repo="gpt")
    assert os.environ["GRADIENT_RESUME_REF"] == "main@1"
    assert attach(run, ws).current_step == 1


def test_a_hand_over_passes_by_an_attach_to_another_repository(
    run: Any, new_run: Callable[..., Any], ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, critic = run, new_run(1)
    for kind, repo in ((generator, "generator"), (critic, "critic")):
        attach(kind, ws, repo).commit(4)
    monkeypatch.setenv("GRADIENT_WORKSPACE", str(ws))
    monkeypatch.setenv("GRADIENT_REPO", "critic")
    monkeypatch.setenv("GRADIENT_RESUME_REF", "latest")
    first, second = attach(generator, ws, "generator"), attach(critic, ws, "critic")
    assert (first.repo_name, first.current_step) == ("generator", 0)
    assert (second.repo_name, second.current_step) == ("critic", 4)


def test_latest_by_the_environment_on_an_empty_branch_is_not_found(
    run: Any, ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIENT_RESUME_REF", "latest")
    with pytest.raises(NotFoundError):
        attach(run, ws)


def test_a_variable_that_makes_no_sense_is_refused(run: Any, ws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIENT_AUTOCOMMIT", "often")
    with pytest.raises(InvalidInputError, match="GRADIENT_AUTOCOMMIT"):
        attach(run, ws)


# The manifest


def test_the_manifest_is_there_from_attach_on_and_complete_at_the_end(run: Any, ws: Path) -> None:
    path = ws / "gpt" / "manifest.json"
    with attach(run, ws) as engine:
        assert json.loads(path.read_text())["checkpoints"] == []
        handles = [
            engine.commit(step, f"step {step}", metrics={"loss": 0.5, "bad": float("nan")}) for step in (1, 2, 3)
        ]
        engine.flush()
        manifest = json.loads(path.read_text())
        engine.commit(4)
    assert manifest["repo_name"] == "gpt"
    rows = manifest["checkpoints"]
    assert [(row["step"], row["branch"], row["type"], row["id"], row["root"]) for row in rows] == [
        (handle.step, "main", handle.kind, handle.id, handle.root) for handle in handles
    ]
    assert (rows[0]["file"], rows[0]["message"], rows[0]["metrics"]) == ("main@1", "step 1", {"loss": 0.5, "bad": None})
    assert [row["step"] for row in json.loads(path.read_text())["checkpoints"]] == [1, 2, 3, 4]


def test_the_manifest_is_never_read_back(run: Any, ws: Path) -> None:
    engine = attach(run, ws)
    engine.commit(1)
    engine.close()
    (ws / "gpt" / "manifest.json").write_text("{ not json")
    engine = attach(run, ws, resume="latest")
    assert engine.current_step == 1
    assert len(json.loads((ws / "gpt" / "manifest.json").read_text())["checkpoints"]) == 1


def test_the_manifest_has_the_beginning_of_a_very_long_message(run: Any, ws: Path) -> None:
    with attach(run, ws) as engine:
        engine.commit(1, "\x1b" * 100_000)
    rows = json.loads((ws / "gpt" / "manifest.json").read_text())["checkpoints"]
    assert [row["message"] for row in rows] == ["\x1b" * 4096]
