"""Every public name of gradient-desc 0.1.8 and torch-optstate 0.1.1, and every parameter of theirs, is accepted.

Each JSON was made once from the package itself, installed into a folder of its own (gradient-desc brings our import
name).
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import gradient
from gradient import optim

FOLDER = Path(__file__).parents[1] / "surface"
HERE: dict[str, ModuleType] = {"gradient-desc-0.1.8": gradient, "torch-optstate-0.1.1": optim}
"""Where the names of each package are."""
SURFACES: dict[str, dict[str, Any]] = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in HERE}
NOT_KEPT = {
    "OptimizerWrapper": {
        # They mean nothing: never more than one parameter's state is in full.
        "chunk_size",
        "chunk_size_on_cuda",
        "initial_chunk_size",
        # Ids are the parameters themselves.
        "param_to_id",
    },
    # What a policy does not code has no codec.
    "WarmupPolicy": {"fp16_codec", "fp32_codec"},
    "AdaptiveWarmupPolicy": {"fp16_codec", "fp32_codec"},
    "ConfigurablePolicy": {"fp32_codec"},
}
"""Attributes that instances of torch-optstate's classes have and ours do not."""


def ours(package: str, path: str) -> Any:
    found: Any = HERE[package]
    for part in path.split("."):
        found = getattr(found, part)
    return found


def every(section: str) -> list[tuple[str, str]]:
    return [(package, name) for package, surface in SURFACES.items() for name in surface.get(section, ())]


def instance(name: str) -> Any:
    made = {
        "OptimizerWrapper": lambda: optim.wrap(torch.optim.AdamW([torch.nn.Parameter(torch.ones(4))])),
        "ConfigurablePolicy": lambda: optim.ConfigurablePolicy({}),
    }
    return made.get(name, getattr(optim, name))()


@pytest.mark.parametrize("package", SURFACES)
def test_every_public_name_is_public_here(package: str) -> None:
    assert set(SURFACES[package]["all"]) <= set(HERE[package].__all__)


def test_wrap_and_auto_wrap_are_names_of_the_package_itself() -> None:
    assert gradient.wrap is optim.wrap
    assert gradient.auto_wrap is optim.auto_wrap


@pytest.mark.parametrize(("package", "name"), every("members"))
def test_every_member_is_there(package: str, name: str) -> None:
    found = ours(package, name)
    fields = set(getattr(found, "__dataclass_fields__", ()))
    assert set(SURFACES[package]["members"][name]) <= fields | set(dir(found))


@pytest.mark.parametrize(("package", "name"), every("attributes"))
def test_every_attribute_of_an_instance_is_there_or_known_to_be_gone(package: str, name: str) -> None:
    made = instance(name)
    missing = {attribute for attribute in SURFACES[package]["attributes"][name] if not hasattr(made, attribute)}
    assert missing == NOT_KEPT.get(name, set())


def test_defaults_are_those_of_torch_optstate_but_for_where_codes_are_kept() -> None:
    package = "torch-optstate-0.1.1"
    other = set()
    for path, theirs in SURFACES[package]["callables"].items():
        known = inspect.signature(ours(package, path)).parameters
        other |= {
            (path, parameter["name"])
            for parameter in theirs
            if "default" in parameter and known[parameter["name"]].default != parameter["default"]
        }
    # Theirs moves codes to the memory of the CPU.
    assert other == {(codec, "offload_to_cpu") for codec in ("FP16Codec", "BF16Codec", "Int8MomentumCodec")}


@pytest.mark.parametrize(("package", "path"), every("callables"))
def test_every_parameter_is_accepted_the_way_it_was(package: str, path: str) -> None:
    theirs = SURFACES[package]["callables"][path]
    found = inspect.signature(ours(package, path)).parameters.values()
    given = [parameter for parameter in found if parameter.name not in ("self", "cls")]
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
