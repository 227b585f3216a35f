"""Fixtures: a commit's content in memory, through the compiled module if it is built and through a fake if not."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[3]
if importlib.util.find_spec("gradient") is None:
    sys.path.insert(0, str(ROOT / "python"))


def _load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _is_built() -> bool:
    package = importlib.util.find_spec("gradient")
    return any(list(Path(folder).glob("_core*.so")) for folder in package.submodule_search_locations)


BUILT = _is_built()
if not BUILT:
    _load("gradient._core", Path(__file__).with_name("fake_core.py"))


class CarriedByRepository:
    """The content of a commit in a real repository."""

    def __init__(self, sections, folder):
        from gradient import _core

        self._repo, _ = _core.Repository.init(str(folder), name="test")
        self._id = self._repo.commit("main", sections, base=None, first=True, step=0).id
        self.root = self._repo.commit_info(self._id).root
        self.available = self._repo.components(self._id)
        self.read_into = self._repo.read_into

    def component(self, section, name):
        return self._repo.component(self._id, section, name)


@pytest.fixture
def folder(tmp_path):
    """Where the commits go: memory if there is a file system of it, for they are not here to last."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as made:
        yield Path(made)


@pytest.fixture
def carry(folder):
    """Make a commit of captured sections: `.available`, `.component(section, name)`, `.read_into(jobs)`."""
    count = 0

    def make(captured):
        nonlocal count
        sections = getattr(captured, "sections", captured)
        if not BUILT:
            return sys.modules["gradient._core"].Carried(sections)
        count += 1
        return CarriedByRepository(sections, folder / f"carried{count}")

    return make


@pytest.fixture
def put_back():
    """Restore a carried commit into a state; gives the plan."""
    from gradient.state import restore

    def run(state, carried, **options):
        plan = state.plan(carried.component, carried.available, **options)
        restore(plan, carried.read_into)
        return plan

    return run


@pytest.fixture
def round_trip(carry):
    """Flatten a value, carry it, and build it again."""
    from gradient.state.flatten import Flattener
    from gradient.state.plan import RestorePlan

    def run(value):
        carried = carry({"extra": {"it": {"value": Flattener("extra", "it").value(value, ("value",))}}})
        plan = RestorePlan()
        made = plan.values("extra", "it").value(carried.component("extra", "it")["value"], ("value",))
        carried.read_into(plan.jobs)
        plan.finish()
        return made

    return run


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    yield
    torch.set_default_dtype(torch.float32)
