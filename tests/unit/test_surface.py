"""Every public name of gradient-desc 0.1.8, and every parameter of its signatures, is accepted.

The JSON was made once from the package itself, installed into a folder of its own (it brings our import name).
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import gradient

SURFACE = json.loads((Path(__file__).parents[1] / "surface" / "gradient-desc-0.1.8.json").read_text())


def ours(path: str) -> Any:
    found: Any = gradient
    for part in path.split("."):
        found = getattr(found, part)
    return found


def test_every_public_name_is_public_here() -> None:
    assert set(SURFACE["all"]) <= set(gradient.__all__)


@pytest.mark.parametrize("name", SURFACE["members"])
def test_every_member_is_there(name: str) -> None:
    fields = set(getattr(ours(name), "__dataclass_fields__", ()))
    assert set(SURFACE["members"][name]) <= fields | set(dir(ours(name)))


@pytest.mark.parametrize("path", SURFACE["callables"])
def test_every_parameter_is_accepted_the_way_it_was(path: str) -> None:
    theirs = SURFACE["callables"][path]
    given = [name for name in inspect.signature(ours(path)).parameters.values() if name.name not in ("self", "cls")]
    known = {parameter.name: parameter for parameter in given}
    for parameter in theirs:
        assert parameter["name"] in known
        if "default" in parameter:
            assert known[parameter["name"]].default is not inspect.Parameter.empty
    positions = [parameter["name"] for parameter in theirs if parameter["kind"] == "POSITIONAL_OR_KEYWORD"]
    assert [parameter.name for parameter in given][: len(positions)] == positions
    for name in positions:
        assert known[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    new = [parameter for parameter in given if parameter.name not in {their["name"] for their in theirs}]
    assert all(parameter.default is not inspect.Parameter.empty for parameter in new)
