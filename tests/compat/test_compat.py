"""Repositories of every format version that was ever written: each is read, checked, restored and written on."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import types

import pytest

from gradient import GradientEngine, Repo, _core

HERE = pathlib.Path(__file__).parent
FORMATS = sorted(path.name for path in HERE.glob("format-*"))
Expected = dict[str, dict[str, list[object]]]
"""Ref to path to dtype, shape and the SHA-256 of the bytes."""
EMPTY = ("cache", "leases", "lost+found", "tmp", "trash")


def load(name: str, path: pathlib.Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


make = load("compat_make", HERE / "make.py")


@pytest.fixture(params=FORMATS)
def kept(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> tuple[pathlib.Path, Expected]:
    """A copy of a kept repository, and what is expected of it."""
    workspace = pathlib.Path(shutil.copytree(HERE / request.param, tmp_path / "workspace"))
    for folder in EMPTY:
        # Version control keeps no empty folders.
        (workspace / "net" / ".gradient-repo" / folder).mkdir(exist_ok=True)
    return workspace, json.loads((workspace / "expected.json").read_text())


def test_the_present_format_is_among_them() -> None:
    assert FORMATS == ["format-1"]


def test_every_tensor_of_every_commit_is_what_it_was(
    kept: tuple[pathlib.Path, Expected],
) -> None:
    workspace, expected = kept
    report = _core.fsck(str(workspace / "net"), level="full")
    assert report.findings == [], [finding.what for finding in report.findings]
    assert report.counts["commits"] == 4
    with Repo.open(workspace / "net") as repo:
        assert sorted(repo.branches()) == ["exp", "main"]
        for ref, tensors in expected.items():
            assert len(tensors) > 15
            assert make.state(repo, ref) == tensors, ref


def test_the_second_reader_agrees(kept: tuple[pathlib.Path, Expected]) -> None:
    workspace, expected = kept
    reader = HERE.parent / "vectors" / "reference.py"
    command = [sys.executable, "-I", str(reader), str(workspace / "net"), "exp"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert {path: sha.rsplit(" ", 1)[1] for path, sha in found.items()} == {
        path: sha for path, (_, _, sha) in expected["exp@5"].items()
    }


def test_training_goes_on_from_it(kept: tuple[pathlib.Path, Expected]) -> None:
    workspace, expected = kept
    model, optimizer, scheduler = make.build()
    with GradientEngine.attach(model, optimizer, scheduler, workspace=workspace, repo="net") as engine:
        restored = {}
        engine.register_state("notes", getter=lambda: None, setter=lambda value: restored.update(notes=value))
        engine.register_state("array", getter=lambda: None, setter=lambda value: restored.update(array=value))
        engine.resume("main@2")
        assert restored["notes"] == {"odd": (1, None, b"x"), "set": {1, 2}}
        assert restored["array"].dtype == ">i4" and restored["array"].tolist() == list(range(99))
        make.train(model, optimizer, engine, 3)
    with Repo.open(workspace / "net") as repo:
        assert repo.resolve("main").step == 3
        assert make.state(repo, "main@2") == expected["main@2"], "an old commit changed"
