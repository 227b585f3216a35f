"""A small repository with three commits, made once and copied for each test."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest
import torch

from gradient import GradientEngine


def objects() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.BatchNorm1d(32), torch.nn.Linear(32, 4))
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    loss = model(torch.randn(8, 16)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workspace = tmp_path_factory.mktemp("made") / "workspace"
    model, optimizer = objects()
    with GradientEngine.attach(model, optimizer, workspace=workspace, repo="gpt") as engine:
        for step in (10, 20, 30):
            train(model, optimizer)
            engine.commit(step, f"step {step}")
    return workspace


@pytest.fixture
def workspace(made: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the repository of this session, to be spoilt."""
    return pathlib.Path(shutil.copytree(made, tmp_path / "workspace"))


def gradient(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line as a user calls it, in `folder`."""
    command = [sys.executable, "-m", "gradient", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
