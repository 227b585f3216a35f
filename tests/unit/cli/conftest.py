"""A workspace with a repository of four commits on two branches, made without torch; and a way to run commands."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gradient import _core, workspace
from gradient.cli import main


@dataclass(frozen=True)
class Result:
    """What one call printed and returned."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)


@dataclass(frozen=True)
class Sample:
    """Where the repository lies, and the ids of its commits by name."""

    workspace: Path
    path: Path
    ids: dict[str, str]


def state(value: float, *, width: int = 100) -> dict[str, Any]:
    """A training state whose weight is `value` in each element; it is longer than what is inlined."""
    weight = struct.pack("<f", value) * width
    return {
        "model": {"main": {"tensors": {"weight": _core.TensorLeaf("float32", [width], weight)}, "extra": {}}},
        "optim": {"main": {"groups": [{"lr": 0.1, "params": ["weight"]}], "state": {}}},
        "rng": {"python": {"value": (3, (1, 2, 3), None)}},
    }


def add_commit(path: Path, branch: str, step: int, *, base: str | None, value: float | None = None) -> str:
    repository = _core.Repository.open(str(path))
    result = repository.commit(
        branch,
        state(float(step) if value is None else value),
        base=base,
        first=True,
        step=step,
        message=f"step {step}",
        metrics={"loss": 1.0 / step},
        environment={"python": "3.11", "flags": {"deterministic": True}},
    )
    repository.close()
    return result.id


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    for name in ("NO_COLOR", "GRADIENT_PAGER", "GRADIENT_BRANCH", "GRADIENT_RESUME_REF"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "ws"
    workspace.init_workspace(root)
    path = root / "gpt"
    workspace.init_repo(path, description="a small model", workspace_path=root)
    ids: dict[str, str] = {}
    ids["main@10"] = add_commit(path, "main", 10, base=None)
    ids["main@20"] = add_commit(path, "main", 20, base=ids["main@10"])
    ids["main@30"] = add_commit(path, "main", 30, base=ids["main@20"])
    repository = _core.Repository.open(str(path))
    repository.create_branch("exp", ids["main@20"])
    repository.close()
    ids["exp@25"] = add_commit(path, "exp", 25, base=ids["main@20"])
    monkeypatch.chdir(path)
    return Sample(root, path, ids)


@pytest.fixture
def gradient(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def call(*words: str) -> Result:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call
