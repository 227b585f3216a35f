"""Every snippet of the README of gradient-desc 0.1.8, and both of its workflows, verbatim and twice in a row."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gradient import GradientConfig, GradientEngine, Repo

pytestmark = pytest.mark.usefixtures("elsewhere")


ZERO_SETUP = """
import torch
import torch.nn as nn
import torch.optim as optim
from gradient import GradientEngine

model = nn.Linear(4, 1)
opt = optim.Adam(model.parameters(), lr=1e-3)

# Both workspace and repo are auto-created!
engine = GradientEngine.attach(
    model, opt,
    workspace="./my_workspace",
    repo="my_model"
)
engine.autocommit(every=5)

start = engine.current_step
for step in range(start + 1, start + 21):
    loss = (model(torch.randn(32, 4)) ** 2).mean()
    loss.backward()
    opt.step()
    opt.zero_grad(set_to_none=True)
    engine.maybe_commit(step)
"""

INITIALISE = """
# Initialize workspace
gradient workspace init ./ml-experiments

# Create a repo for your model
cd ml-experiments
gradient repo init gpt4 --description "GPT-4 training runs"

# Check status
gradient workspace status
"""

DISCOVERED = """
from gradient import GradientEngine

# Auto-discovers workspace/repo from current directory
engine = GradientEngine.attach(model, optimizer)
"""

IMPORTS = """
from gradient import (
    GradientEngine,
    GradientConfig,
    # Workspace/Repo management
    WorkspaceConfig,
    RepoConfig,
    init_workspace,
    init_repo,
    find_workspace,
    find_repo,
    resolve_context,
)
"""

ATTACH = """
# Auto-create mode (simplest)
engine = GradientEngine.attach(
    model, optimizer,
    workspace="./my_workspace",
    repo="my_model"
)

# Auto-discover from current directory
engine = GradientEngine.attach(model, optimizer)

# With explicit config
engine = GradientEngine.attach(
    model, optimizer,
    scheduler=lr_scheduler,
    config=GradientConfig(
        workspace_path="./my_workspace",
        repo_name="my_model",
        branch="experiment",
    )
)
"""

OPERATIONS = """
engine.commit(step, message="")      # Write checkpoint (anchor or delta)
engine.resume("main@100")            # Resume from ref
engine.resume_latest()               # Resume latest on current branch
engine.fork(
    from_ref="main@100",
    new_branch="experiment",
    reset_optimizer=False,
    reset_scheduler=False,
    reset_rng_seed=None,
    message=""
)
"""

PERIODIC = """
# Periodic auto-commit
engine.autocommit(every=10)
start = engine.current_step

for step in range(start + 1, start + 1001):
    loss = train_step(...)
    engine.maybe_commit(step)
"""

MILESTONES = """
# Manual milestone commits
for step in range(start + 1, start + 501):
    loss = train_step(...)

    if step in {1, 50, 100, 250, 500}:
        engine.commit(step, message=f"milestone step {step}")
"""

HELPERS = """
engine.autocommit(every=10)          # Set auto-commit interval
engine.maybe_commit(step)            # Commit if step matches interval
engine.current_step                  # Step resumed from (0 for fresh run)
"""

PROPERTIES = """
engine.workspace_path                # Path to workspace
engine.repo_name                     # Current repo name
engine.repo_path                     # Full path to repo
engine.branch                        # Current branch name
"""

REGISTER = """
engine.register_state(
    "env_state",
    getter=lambda: env.get_state(),
    setter=lambda s: env.set_state(s)
)
"""

CONFIG = """
GradientConfig(
    workspace_path="./my_workspace",
    repo_name="my_model",
    branch="main",
    reanchor_interval=None,
    compression="auto",  # "off" | "auto" | "aggressive"
)
"""


@pytest.fixture
def names() -> dict[str, Any]:
    """What the snippets take for granted."""
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def train_step(_: object) -> float:
        loss = (model(torch.randn(4, 4)) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return {
        "GradientEngine": GradientEngine,
        "GradientConfig": GradientConfig,
        "model": model,
        "optimizer": optimizer,
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 10),
        "train_step": train_step,
    }


@pytest.fixture
def attached(names: dict[str, Any]) -> dict[str, Any]:
    names["engine"] = GradientEngine.attach(
        names["model"], names["optimizer"], workspace="./my_workspace", repo="my_model"
    )
    return names


def steps(path: str, ref: str = "main") -> list[int]:
    with Repo.open(path) as repo:
        return [info.step for info in reversed(repo.log(ref))]


def in_a_process(code: str, cwd: Path) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=cwd, check=True)


# The two workflows


@pytest.mark.slow
def test_zero_setup_works_and_works_again(elsewhere: Path) -> None:
    for _ in range(2):
        in_a_process(ZERO_SETUP, elsewhere)
        assert steps("my_workspace/my_model") == [5, 10, 15, 20]
    with Repo.open("my_workspace/my_model") as repo:
        assert sorted(repo.branches()) == ["main", "main.1"]


@pytest.mark.slow
def test_initialised_on_the_command_line_works_and_works_again(elsewhere: Path) -> None:
    folder = elsewhere / "bin"
    folder.mkdir()
    command = folder / "gradient"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m gradient "$@"\n')
    command.chmod(0o755)
    environ = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    script = (
        "import torch\nmodel = torch.nn.Linear(4, 1)\noptimizer = torch.optim.Adam(model.parameters())\n"
        + DISCOVERED
        + "engine.commit(1)\n"
    )
    for _ in range(2):
        done = subprocess.run(
            ["sh", "-ec", INITIALISE], cwd=elsewhere, env=environ, check=True, capture_output=True, text=True
        )
        assert "gpt4" in done.stdout
        in_a_process(script, elsewhere / "ml-experiments")
    assert steps("ml-experiments/gpt4") == [1]


# The snippets


def test_the_import_surface() -> None:
    scope: dict[str, Any] = {}
    exec(IMPORTS, scope)
    assert all(scope[name] is not None for name in ("GradientEngine", "resolve_context", "RepoConfig"))


def test_every_way_to_attach(names: dict[str, Any], elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auto, discover, configured = ATTACH.split("\n\n")
    exec(auto, names)
    assert names["engine"].repo_path == str(elsewhere / "my_workspace" / "my_model")
    monkeypatch.chdir(elsewhere / "my_workspace" / "my_model")
    exec(discover, names)
    assert names["engine"].repo_path == str(elsewhere / "my_workspace" / "my_model")
    monkeypatch.chdir(elsewhere)
    exec(configured, names)
    assert (names["engine"].repo_name, names["engine"].branch) == ("my_model", "experiment")


def test_checkpoint_operations(attached: dict[str, Any]) -> None:
    attached["step"] = 100
    exec(OPERATIONS, attached)
    assert (attached["engine"].branch, attached["engine"].current_step) == ("experiment", 100)
    assert steps("my_workspace/my_model") == [100]


@pytest.mark.slow
def test_periodic_and_milestone_commits(attached: dict[str, Any]) -> None:
    exec(PERIODIC, attached)
    assert steps("my_workspace/my_model") == list(range(10, 1001, 10))
    attached["start"] = 1000
    exec(MILESTONES.replace("{1, 50, 100, 250, 500}", "{1001, 1050, 1500}"), attached)
    assert steps("my_workspace/my_model")[-3:] == [1001, 1050, 1500]


def test_milestone_commits_of_a_fresh_run(attached: dict[str, Any]) -> None:
    attached["start"] = attached["engine"].current_step
    attached["train_step"] = lambda _: 0.0
    exec(MILESTONES, attached)
    assert steps("my_workspace/my_model") == [1, 50, 100, 250, 500]


def test_training_loop_helpers_and_properties(attached: dict[str, Any], elsewhere: Path) -> None:
    attached["step"] = 20
    exec(HELPERS, attached)
    exec(PROPERTIES, attached)
    engine = attached["engine"]
    assert steps("my_workspace/my_model") == [20]
    assert (engine.current_step, engine.repo_name, engine.branch) == (0, "my_model", "main")
    assert engine.workspace_path == str(elsewhere / "my_workspace")
    assert engine.repo_path == str(elsewhere / "my_workspace" / "my_model")


def test_extensibility(attached: dict[str, Any]) -> None:
    class Env:
        state = {"level": 1}  # noqa: RUF012

        def get_state(self) -> dict[str, int]:
            return dict(self.state)

        def set_state(self, state: dict[str, int]) -> None:
            self.state = state

    env = attached["env"] = Env()
    exec(REGISTER, attached)
    attached["engine"].commit(1)
    env.state = {"level": 7}
    attached["engine"].resume("main@1")
    assert env.state == {"level": 1}


def test_the_config(names: dict[str, Any]) -> None:
    config = eval(CONFIG, names)
    assert (config.repo_path, config.branch, config.compression) == ("./my_workspace/my_model", "main", "auto")


def test_the_environment_variables(names: dict[str, Any], elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = GradientEngine.attach(names["model"], names["optimizer"], workspace="ws", repo="gpt")
    engine.commit(10)
    for name, value in {
        "WORKSPACE": str(elsewhere / "ws"),
        "REPO": "gpt",
        "RESUME_REF": "main@10",
        "BRANCH": "experiment",
        "AUTOCOMMIT": "10",
    }.items():
        monkeypatch.setenv(f"GRADIENT_{name}", value)
    engine = GradientEngine.attach(names["model"], names["optimizer"], workspace="./my_workspace", repo="my_model")
    assert (engine.repo_path, engine.branch, engine.current_step) == (str(elsewhere / "ws" / "gpt"), "experiment", 10)
    assert str(engine.maybe_commit(20)) == "experiment@20"


def test_the_manifest_has_the_keys_it_had(attached: dict[str, Any]) -> None:
    attached["engine"].commit(10)
    attached["engine"].flush()
    manifest = json.loads(Path("my_workspace/my_model/manifest.json").read_text())
    row = manifest["checkpoints"][0]
    assert manifest["repo_name"] == "my_model"
    assert (row["step"], row["branch"], row["type"]) == (10, "main", "anchor")
    assert isinstance(row["file"], str)


def test_the_folder_is_laid_out_as_it_was(attached: dict[str, Any]) -> None:
    for path in (".gradient/config.json", "my_model/.gradient-repo/config.json", "my_model/manifest.json"):
        assert (Path("my_workspace") / path).is_file()


def test_the_commands_of_the_readme_exist() -> None:
    for words in (
        ["workspace", "init"],
        ["workspace", "status"],
        ["repo", "init"],
        ["repo", "list"],
        ["status"],
        ["resume"],
        ["fork"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "gradient", *words, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stderr)
    assert shutil.which("sh")
