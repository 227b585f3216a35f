"""What a stranger's commit declares, holds or is called does no harm to whoever reads it."""

from __future__ import annotations

import pathlib

import pytest
import torch

from gradient import GradientConfig, GradientEngine, Repo
from gradient._core import Alias
from gradient.cli._out import safe
from gradient.errors import CorruptionError, InvalidInputError
from gradient.memory import available_bytes, check_declared
from gradient.state import RestorePlan
from gradient.state.train_state import compare
from gradient.stored import State


def attach(workspace: pathlib.Path, **options: object) -> tuple[GradientEngine, torch.nn.Module]:
    model = torch.nn.Linear(64, 64)
    config = GradientConfig(workspace_path=workspace, repo_name="r", **options)  # type: ignore[arg-type]
    return GradientEngine.attach(model, torch.optim.Adam(model.parameters()), config=config), model


def test_the_available_memory_is_some_and_less_than_the_machine_has() -> None:
    assert 1 << 20 < available_bytes() < 1 << 50


def test_a_terabyte_is_refused_with_the_name_and_the_way_out() -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_declared(1 << 50, None, what="model/main/w", way_out="buy memory")
    assert caught.value.code == "restore-too-large"
    assert "model/main/w declares 1024 TiB" in str(caught.value)
    assert "buy memory" in str(caught.value.hint)
    check_declared(1 << 50, 1 << 50, what="w", way_out="")


@pytest.mark.parametrize("limit", [-1, 1.5, "1", True])
def test_a_limit_is_a_number_of_bytes(limit: object) -> None:
    with pytest.raises(InvalidInputError):
        GradientConfig(max_restore_bytes=limit)  # type: ignore[arg-type]


def test_reading_a_tensor_beyond_the_limit_names_it_and_reads_nothing(tmp_path: pathlib.Path) -> None:
    engine, _ = attach(tmp_path / "w")
    with engine:
        engine.commit(1)
    with Repo.open(tmp_path / "w" / "r") as repo:
        weight = repo.state()["model"]["main"]["tensors"]["weight"]
        for read in (weight.bytes, weight.numpy, weight.to_float32):
            with pytest.raises(InvalidInputError) as caught:
                read(max_restore_bytes=64 * 64 * 4 - 1)
            assert "model/main/tensors/weight" in str(caught.value)
            assert "max_restore_bytes=16384" in str(caught.value.hint)
            read(max_restore_bytes=64 * 64 * 4)


def test_a_restore_that_would_make_more_than_the_limit_is_refused_and_touches_nothing(tmp_path: pathlib.Path) -> None:
    engine, model = attach(tmp_path / "w")
    with engine:
        engine.register_state("table", getter=lambda: torch.zeros(5000), setter=lambda _: None)
        engine.commit(1)
    engine, model = attach(tmp_path / "w", max_restore_bytes=19_999)
    with engine:
        engine.register_state("table", getter=lambda: None, setter=lambda _: None)
        before = model.weight.detach().clone()
        with pytest.raises(InvalidInputError) as caught:
            engine.resume("main@1")
        assert caught.value.code == "restore-too-large"
        assert "extra/table" in str(caught.value)
        assert torch.equal(model.weight, before)
    engine, _ = attach(tmp_path / "w", max_restore_bytes=1 << 20)
    with engine:
        engine.register_state("table", getter=lambda: None, setter=lambda _: None)
        engine.resume("main@1")


class Odd:
    """A part, or a repository, that holds what nobody wrote."""

    section, name = "model", "main"

    def compare(self, mapping: dict[str, object], plan: object, names: object) -> None:
        mapping["extra"]

    def components(self, commit_id: str) -> dict[str, list[str]]:
        return {"model": ["main"]}

    def component(self, commit_id: str, section: str, name: str) -> dict[str, object]:
        return {"tensors": {"a": Alias(("tensors", "b"))}}


def test_a_component_that_nobody_could_have_written_is_damage_when_it_is_restored_or_read() -> None:
    with pytest.raises(CorruptionError) as caught:
        compare(Odd(), {}, RestorePlan(), None)  # type: ignore[arg-type]
    assert "model/main" in str(caught.value)
    with pytest.raises(CorruptionError) as caught:
        _ = State(Odd(), "")["model"]["main"]  # type: ignore[arg-type]
    assert "model/main" in str(caught.value)
    assert caught.value.code == "malformed-state"


@pytest.mark.parametrize("painted", [False, True])
def test_control_characters_are_written_out_and_so_are_a_stranger_s_colours(painted: bool) -> None:
    text = "a\x1b[31mb\x1b[8mhidden\x1b]0;title\x07\r\tc\n"
    assert safe(text, painted=painted) == "a\\x1b[31mb\\x1b[8mhidden\\x1b]0;title\\x07\\r\tc\n"
    assert safe("plain\n\ttext", painted=painted) == "plain\n\ttext"
