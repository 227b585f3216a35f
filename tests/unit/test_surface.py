"""Every public name of our ancestors, and every parameter of their signatures, is accepted.

Each JSON was made once from the package itself, installed into a folder of its own. Names of gradient-desc 0.1.8 are
those of `gradient`, names of torch-optstate 0.1.1 those of `gradient.optim`.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import gradient
import gradient.optim

FOLDER = Path(__file__).parents[1] / "surface"
HOMES = {"gradient-desc-0.1.8": gradient, "torch-optstate-0.1.1": gradient.optim}
SURFACES = {package: json.loads((FOLDER / f"{package}.json").read_text()) for package in HOMES}


def each(part: str) -> Any:
    cases = [(package, name) for package, surface in SURFACES.items() for name in surface[part]]
    return pytest.mark.parametrize(("package", "name"), cases)


def ours(package: str, path: str) -> Any:
    found: Any = HOMES[package]
    for part in path.split("."):
        found = getattr(found, part)
    return found


@each("all")
def test_every_public_name_is_public_here(package: str, name: str) -> None:
    assert name in HOMES[package].__all__ and ours(package, name) is not None


@each("members")
def test_every_member_is_there(package: str, name: str) -> None:
    found = ours(package, name)
    fields = set(getattr(found, "__dataclass_fields__", ()))
    # What an optimizer sets on itself is no member of its class.
    own = {"state"} if name == "OptimizerWrapper" else set()
    assert set(SURFACES[package]["members"][name]) <= fields | own | set(dir(found))


@each("callables")
def test_every_parameter_is_accepted_the_way_it_was(package: str, name: str) -> None:
    theirs = SURFACES[package]["callables"][name]
    found = ours(package, name)
    made = found.__new__ if name == "OptimizerWrapper" else found
    given = [parameter for parameter in inspect.signature(made).parameters.values()
             if parameter.name not in ("self", "cls")]  # fmt: skip
    known = {parameter.name: parameter for parameter in given}
    for parameter in theirs:
        assert parameter["name"] in known
        if "default" in parameter:
            assert known[parameter["name"]].default is not inspect.Parameter.empty
    positions = [parameter["name"] for parameter in theirs if parameter["kind"] == "POSITIONAL_OR_KEYWORD"]
    assert [parameter.name for parameter in given][: len(positions)] == positions
    for one in positions:
        assert known[one].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    new = [parameter for parameter in given if parameter.name not in {their["name"] for their in theirs}]
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    assert all(parameter.default is not inspect.Parameter.empty or parameter.kind in several for parameter in new)
