"""The second reader, which knows the pages and nothing of our code, reads what the extension wrote: every tensor.

It is held to the golden vectors of the codecs, too, which were made by other hands than the code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tracemalloc
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from gradient import GradientEngine, Repo

READER = pathlib.Path(__file__).with_name("reference.py")
VECTORS = json.loads(READER.with_name("pack.json").read_text())


def load_reader() -> ModuleType:
    """The reader as a module, for what its command line does not show."""
    spec = importlib.util.spec_from_file_location("reference", READER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module  # Its dataclasses look for it there.
    spec.loader.exec_module(module)
    return module


REFERENCE = load_reader()


def read(repo: pathlib.Path, ref: str = "main") -> subprocess.CompletedProcess[str]:
    # -I: neither this folder nor the environment's variables lead it to a module of ours.
    command = [sys.executable, "-I", str(READER), str(repo), ref]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def tensors(repo: pathlib.Path, ref: str = "main") -> dict[str, tuple[str, str]]:
    """Path to (dtype and shape, SHA-256), as the second reader prints them."""
    done = read(repo, ref)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return {path: (rest[:-65], rest[-64:]) for path, rest in rows}


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, torch.nn.Module, torch.optim.Optimizer]:
    """A repository with several commits, folded operations, a tag, tensors of several dtypes and sizes."""
    workspace = tmp_path_factory.mktemp("reference")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(600, 700), torch.nn.BatchNorm1d(700), torch.nn.Linear(700, 5))
    for dtype in (torch.float16, torch.bfloat16, torch.bool, torch.int64):
        model.register_buffer(f"as_{str(dtype)[6:]}", torch.arange(3001).to(dtype))
    model.register_buffer("channels", torch.randn(2, 3, 8, 9).contiguous(memory_format=torch.channels_last))
    model.register_buffer("odd", torch.tensor([float("nan"), -0.0, 1e-45, float("inf")]))
    model.register_buffer("empty", torch.empty(0, 3))
    optimizer = torch.optim.AdamW(model.parameters())
    with GradientEngine.attach(model, optimizer, workspace=workspace, repo="net") as engine:
        engine.register_state("array", getter=lambda: np.arange(5000, dtype=">i4"), setter=lambda value: None)
        for step in range(1, 5):
            optimizer.zero_grad()
            model(torch.randn(8, 600)).square().mean().backward()
            optimizer.step()
            engine.commit(step, metrics={"loss": 0.5})
    with Repo.open(workspace / "net") as repo:
        tip = repo.resolve("main").id
        for _ in range(300):
            repo.core.create_tag("t", tip)
            repo.core.delete_tag("t")
        repo.core.create_tag("best", tip)
        repo.core.maintain()
    assert list((workspace / "net" / ".gradient-repo" / "ops").glob("folded-*")), "the test needs folded operations"
    return workspace / "net", model, optimizer


def test_reads_every_tensor_bit_for_bit(trained: tuple[pathlib.Path, torch.nn.Module, torch.optim.Optimizer]) -> None:
    repo, model, optimizer = trained
    found = tensors(repo)
    expected = {f"model/main/tensors/{name}": digest(value) for name, value in model.state_dict().items()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter, state in optimizer.state.items():
        expected.update({f"optim/main/state/{names[id(parameter)]}/{key}": digest(state[key]) for key in state})
    assert len(expected) > 25
    for path, sha in expected.items():
        assert found[path][1] == sha, path
    assert found["extra/array/value"][1] == hashlib.sha256(np.arange(5000, dtype="<i4").tobytes()).hexdigest()
    assert found["model/main/tensors/channels"][0] == "float32 [2, 3, 8, 9]"
    assert {path.split("/")[0] for path in found} == {"model", "optim", "rng", "extra"}
    assert tensors(repo, "best") == found
    with Repo.open(repo) as opened:
        assert tensors(repo, opened.resolve("main@1").id) != found


def test_refuses_a_flipped_bit_wherever_it_is(
    trained: tuple[pathlib.Path, torch.nn.Module, torch.optim.Optimizer],
) -> None:
    repo, _, _ = trained
    root = repo / ".gradient-repo"
    draw = random.Random(0)
    tip = max((root / "packs").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    for file in [tip, *draw.sample(sorted((root / "ops").iterdir()), 4), root / "format"]:
        whole = file.read_bytes()
        for at in draw.sample(range(len(whole)), 3):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << draw.randrange(8)
            file.write_bytes(flipped)
            done = read(repo)
            assert done.returncode != 0, f"{file.name}, byte {at}"
            assert "Error" in done.stderr or "Refused" in done.stderr
        file.write_bytes(whole)
    assert read(repo).returncode == 0


def raw_bytes(value: str | list[str | list[Any]]) -> bytes:
    """Bytes of a vector: hex, or a list of hex and [hex, times]."""
    parts = [value] if isinstance(value, str) else value
    return b"".join(
        bytes.fromhex(part) if isinstance(part, str) else bytes.fromhex(part[0]) * part[1] for part in parts
    )


def decode(vector: dict[str, Any], raw_len: int) -> bytes:
    pipeline = [(codec, raw_bytes(parameters)) for codec, parameters in vector["pipeline"]]
    bases = [raw_bytes(base) for base in vector["bases"]]
    raw: bytes = REFERENCE.decode_entry(pipeline, raw_bytes(vector["payload"]), raw_len, bases)
    return raw


@pytest.mark.parametrize("vector", VECTORS["codecs"], ids=lambda vector: vector["name"])
def test_decodes_what_the_page_says(vector: dict[str, Any]) -> None:
    raw = raw_bytes(vector["raw"])
    assert decode(vector, len(raw)) == raw


@pytest.mark.parametrize("vector", VECTORS["refused_codecs"], ids=lambda vector: vector["why"])
def test_refuses_what_the_page_forbids_before_it_takes_memory(vector: dict[str, Any]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(REFERENCE.Refused):
            decode(vector, vector["raw_len"])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("vector", VECTORS["entries"], ids=lambda vector: vector["name"])
def test_decodes_the_entries_of_the_page_and_no_others(vector: dict[str, Any]) -> None:
    if "raw" in vector:
        assert decode(vector, vector["raw_len"]) == raw_bytes(vector["raw"])
        return
    with pytest.raises(REFERENCE.Refused):
        decode(vector, vector["raw_len"])


@pytest.mark.parametrize("vector", VECTORS["delta_packs"], ids=lambda vector: vector["name"])
def test_reads_delta_chains_and_refuses_those_that_break(
    vector: dict[str, Any], trained: tuple[pathlib.Path, Any, Any], tmp_path: pathlib.Path
) -> None:
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    file = tmp_path / ".gradient-repo" / "packs" / f"{vector['pack']}.pack"
    file.write_bytes(raw_bytes(vector["hex"]))
    assert file.stat().st_size == vector["len"]
    repository = REFERENCE.Repository(tmp_path)
    for chunk, raw in vector["chunks"]:
        if raw is not None:
            assert repository.chunk(bytes.fromhex(chunk)) == raw_bytes(raw)
            continue
        with pytest.raises(REFERENCE.Refused):
            repository.chunk(bytes.fromhex(chunk))
