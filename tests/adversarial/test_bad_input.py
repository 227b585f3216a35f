"""What users get wrong: each has a typed error with a hint, an exit code, and loses nothing."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import pytest
import torch

from gradient import GradientConfig, GradientEngine, Repo
from gradient.errors import (
    FormatError,
    GradientError,
    InvalidInputError,
    NotFoundError,
    StateMismatchError,
    StorageError,
)

from .conftest import gradient, objects, train


def attach(workspace: pathlib.Path, **options: object) -> GradientEngine:
    model, optimizer = objects()
    return GradientEngine.attach(model, optimizer, workspace=workspace, repo="gpt", **options)  # type: ignore[arg-type]


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


def tips(workspace: pathlib.Path) -> dict[str, str]:
    with Repo.open(workspace / "gpt") as repo:
        return repo.branches()


@pytest.mark.parametrize(
    ("ref", "suggested"), [("main@31", "main@30"), ("mian@30", "main@30"), ("mian", "main"), ("ffffffffff", None)]
)
def test_a_ref_that_does_not_exist_names_the_nearest(workspace: pathlib.Path, ref: str, suggested: str | None) -> None:
    with attach(workspace) as engine, pytest.raises(NotFoundError) as caught:
        engine.resume(ref)
    assert caught.value.hint
    assert suggested is None or suggested in str(caught.value)
    shown = gradient(workspace / "gpt", "show", ref)
    assert shown.returncode == 3
    assert shown.stdout == ""
    assert shown.stderr.startswith("error: ")
    assert "hint: " in shown.stderr


def test_an_error_under_json_is_one_object_on_stderr(workspace: pathlib.Path) -> None:
    shown = gradient(workspace / "gpt", "log", "--json", "nowhere")
    document = json.loads(shown.stderr)
    assert shown.returncode == 3
    assert document["code"] == "ref-not-found"
    assert document["hint"]


def newer(file: pathlib.Path) -> None:
    """Make the envelope in `file` one of format version 9, with a right checksum."""
    from .test_damage import blake3

    body = bytearray(file.read_bytes()[:-32])
    body[4:8] = (9).to_bytes(4, "little")
    file.write_bytes(bytes(body) + blake3(bytes(body)))


def test_a_repository_of_a_newer_format_is_refused_by_every_door(workspace: pathlib.Path) -> None:
    newer(workspace / "gpt" / ".gradient-repo" / "format")
    with pytest.raises(FormatError) as caught:
        Repo.open(workspace / "gpt")
    assert caught.value.found == "format version 9"
    assert caught.value.hint
    with pytest.raises(FormatError):
        attach(workspace)
    assert gradient(workspace / "gpt", "log").returncode == 5


def test_a_folder_that_is_no_repository_is_not_found(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        Repo.open(tmp_path)
    assert "gradient repo init" in str(caught.value.hint)
    assert gradient(tmp_path, "log").returncode == 3
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_fit_is_told_all_differences_at_once_and_left_alone(workspace: pathlib.Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(16, 33), torch.nn.BatchNorm1d(33), torch.nn.Linear(33, 4, bias=False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    with (
        GradientEngine.attach(model, optimizer, workspace=workspace, repo="gpt") as engine,
        pytest.raises(StateMismatchError) as caught,
    ):
        engine.resume("main@30")
    text = " ".join([*caught.value.changed, *caught.value.unexpected, *caught.value.missing])
    for name in ("0.weight", "0.bias", "1.running_mean", "2.weight", "2.bias"):
        assert name in text, name
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert optimizer.param_groups[0]["lr"] == 5e-4
    assert torch.equal(generator, torch.get_rng_state())
    assert len(tips(workspace)) == 1


def test_a_step_that_goes_backwards_is_refused_and_the_next_one_taken(workspace: pathlib.Path) -> None:
    with attach(workspace, resume="latest") as engine:
        with pytest.raises(InvalidInputError) as caught:
            engine.commit(29)
        assert caught.value.code == "step-backwards"
        assert caught.value.hint
        assert str(engine.commit(31)) == "main@31"


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../b", "x\ny", "a b", ".hidden", "deadbeef", "HEAD"])
def test_a_name_that_is_a_path_or_means_something_else_is_refused(workspace: pathlib.Path, name: str) -> None:
    before = sorted(str(path) for path in workspace.parent.rglob("*"))
    with pytest.raises(InvalidInputError):
        attach(workspace, config=GradientConfig(branch=name))
    assert gradient(workspace / "gpt", "branch", "--", name, "main").returncode == 2
    assert gradient(workspace / "gpt", "tag", "--", name, "main").returncode == 2
    with pytest.raises(InvalidInputError):
        model, optimizer = objects()
        GradientEngine.attach(model, optimizer, workspace=workspace, repo="../elsewhere")
    assert sorted(str(path) for path in workspace.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {"b": lambda: None}]}, "b"),
        ({"device": torch.device("cpu")}, "device"),
        ({"s": {1, (2, lambda: None)}}, "s"),
        ({"bare": object()}, "bare"),
        ({"text": "\ud800"}, "text"),
    ],
)
def test_a_state_with_something_that_can_not_be_stored_is_refused_with_its_path(
    workspace: pathlib.Path, value: object, path: str
) -> None:
    before = tips(workspace)
    with attach(workspace) as engine:
        engine.register_state("env", getter=lambda: value, setter=lambda _: None)
        with pytest.raises(InvalidInputError) as caught:
            engine.commit(40)
    assert "extra/env" in str(caught.value)
    assert path in str(caught.value)
    assert tips(workspace) == before


def test_nan_and_infinities_come_back_bit_for_bit(tmp_path: pathlib.Path) -> None:
    odd = [float("nan"), struct.unpack("<d", bytes.fromhex("010000000000f47f"))[0], float("inf"), -float("inf"), -0.0]
    patterns = torch.tensor([0x7FC00000, 0x7F800001, -1, -(2**31), 1, 0x7F800000], dtype=torch.int32)
    model = torch.nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(patterns.view(torch.float32).reshape(1, 6))
    kept: dict[str, object] = {"values": odd}
    engine = GradientEngine.attach(model, workspace=tmp_path / "w", repo="r")
    engine.register_state("odd", getter=lambda: kept["values"], setter=lambda value: kept.update(values=value))
    engine.commit(1, metrics={"loss": float("nan"), "best": float("inf")})
    with torch.no_grad():
        model.weight.zero_()
    kept["values"] = None
    engine.resume("main@1")
    assert torch.equal(model.weight.detach().view(torch.int32).reshape(-1), patterns)
    values = kept["values"]
    assert isinstance(values, list)
    assert [bits(value) for value in values] == [bits(value) for value in odd]
    engine.close()
    shown = gradient(tmp_path / "w" / "r", "log", "--json")
    assert json.loads(shown.stdout)["commits"][0]["metrics"] == {"loss": "nan", "best": "inf"}


def test_a_process_forked_after_attach_is_told_so_and_the_parent_goes_on(workspace: pathlib.Path) -> None:
    with attach(workspace, resume="latest") as engine:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                engine.commit(31)
                said = "committed"
            except InvalidInputError as error:
                said = f"{error.code}|{error.hint}"
            except BaseException as error:
                said = repr(error)
            os.write(write, said.encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            code, hint = pipe.read().split("|")
        os.waitpid(child, 0)
        assert code == "forked"
        assert hint != "None"
        engine.commit(31)
    assert gradient(workspace / "gpt", "show", "main@31").returncode == 0


LATE = """
import sys, torch
from gradient import GradientEngine
sys.path.insert(0, {here!r})
from conftest import objects

model, optimizer = objects()
engine = GradientEngine.attach(model, optimizer, workspace={workspace!r}, repo="gpt")
assert engine.current_step == 40, engine.current_step
drawn = torch.get_rng_state()
state = {{"level": 0}}

def setter(value):
    torch.rand(3)  # A setter that draws: the generators are set again after it.
    state.update(value)

if sys.argv[1] == "claims":
    engine.register_state("curriculum", getter=lambda: dict(state), setter=setter)
    assert state == {{"level": 3}}, state
    assert torch.equal(drawn, torch.get_rng_state())
engine.commit(41)
print("committed")
"""


def test_state_registered_after_attach_under_resume_is_applied_and_unclaimed_state_is_refused(
    workspace: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with attach(workspace, resume="latest") as engine:
        engine.register_state("curriculum", getter=lambda: {"level": 3}, setter=lambda _: None)
        engine.commit(40)
    script = tmp_path / "late.py"
    script.write_text(LATE.format(here=str(pathlib.Path(__file__).parent), workspace=str(workspace)))
    command = [sys.executable, str(script)]
    ignoring = gradient(workspace / "gpt", "resume", "latest", "--", *command, "ignores")
    assert ignoring.returncode != 0
    assert "StateMismatchError" in ignoring.stderr
    assert "extra/curriculum" in ignoring.stderr
    claiming = gradient(workspace / "gpt", "resume", "latest", "--", *command, "claims")
    assert claiming.returncode == 0, claiming.stderr
    assert "committed" in claiming.stdout


READ_ONLY = """
import os, sys
from gradient import GradientEngine, Repo
from gradient.errors import StorageError
sys.path.insert(0, {here!r})
from conftest import objects

model, optimizer = objects()
import torch
os.setgroups([])
os.setegid(65534)
os.seteuid(65534)
with Repo.open({repo!r}) as repo:
    assert [info.step for info in repo.log()] == [30, 20, 10]
    tensor = repo.state("main@20")["model"]["main"]["tensors"]["0.weight"]
    assert tensor.numpy().shape == (32, 16)
    try:
        repo.create_tag("v1", "main@20")
    except StorageError as error:
        assert error.errno == 13, error.errno
        assert error.hint
    else:
        raise SystemExit("a tag was written into a read-only folder")
try:
    engine = GradientEngine.attach(model, optimizer, workspace={workspace!r}, repo="gpt", resume="latest")
    engine.commit(40)
except StorageError as error:
    assert error.hint
    print("refused", error.errno)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the right is missing: only root takes on another user's")
def test_a_read_only_folder_can_be_read_and_refuses_writes_with_a_hint(made: pathlib.Path) -> None:
    # Not in pytest's own folder, which only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder).chmod(0o755)
        workspace = pathlib.Path(shutil.copytree(made, pathlib.Path(folder) / "workspace"))
        for path in [workspace, *workspace.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
        here = str(pathlib.Path(__file__).parent)
        script = READ_ONLY.format(here=here, repo=str(workspace / "gpt"), workspace=str(workspace))
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert "refused 13" in ran.stdout
        assert {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()} == before


def test_what_went_wrong_before_a_commit_does_not_stop_the_next(workspace: pathlib.Path) -> None:
    model, optimizer = objects()
    with GradientEngine.attach(model, optimizer, workspace=workspace, repo="gpt", resume="latest") as engine:
        wrong: list[object] = [-1, 1.5, "30", None, True, 2**70]
        for step in wrong:
            with pytest.raises(GradientError):
                engine.commit(step)  # type: ignore[arg-type]
        train(model, optimizer)
        with pytest.raises(InvalidInputError):
            engine.commit(31, metrics={"loss": "low"})  # type: ignore[dict-item]
        assert engine.commit(31).step == 31
    with pytest.raises(StorageError), Repo.open(workspace / "gpt") as repo:
        (workspace / "gpt" / ".gradient-repo" / "packs").rename(workspace / "packs")
        repo.state("main@10")["model"]["main"]["tensors"]["0.weight"].bytes()
