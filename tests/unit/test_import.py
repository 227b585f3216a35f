"""`import gradient`: light, whole, and clear about what is not there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gradient
from gradient import _installation


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_gradient_imports_neither_torch_nor_numpy() -> None:
    loaded = run(
        "import sys, gradient; gradient.Repo, gradient.GradientConfig, gradient.find_repo; print(*sys.modules)"
    )
    assert not {"torch", "numpy", "typer"} & set(loaded.split())


def test_every_public_name_is_there() -> None:
    for name in gradient.__all__:
        assert getattr(gradient, name) is not None
    assert set(gradient.__all__) <= set(dir(gradient))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gradient.nothing


def test_another_distribution_of_the_same_import_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_installation, "installed_foreign", lambda: ["gradient-desc"])
    with pytest.raises(ImportError, match="pip uninstall gradient-desc"):
        _installation.explain(ImportError("no module named _core"))


def test_without_another_distribution_nothing_is_explained() -> None:
    assert _installation.installed_foreign() == []
    _installation.explain(ImportError("no module named _core"))
