"""Reading without an engine: `Repo`, single tensors, `gradient.load`."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradient
from gradient import (
    ConflictError,
    CorruptionError,
    GradientEngine,
    InvalidInputError,
    NotFoundError,
    Repo,
    StateMismatchError,
)

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def engine(run: Any, ws: Path) -> GradientEngine:
    engine = GradientEngine.attach(*run.parts, workspace=ws, repo="gpt")
    for step in (1, 2, 3):
        run.train(1)
        engine.commit(step, f"step {step}")
    return engine


@pytest.fixture
def repo(engine: GradientEngine, ws: Path) -> Repo:
    return Repo.open(ws / "gpt")


def test_the_log_and_refs_of_a_repository(repo: Repo, ws: Path) -> None:
    assert [info.step for info in repo.log()] == [3, 2, 1]
    assert [info.step for info in repo.log("main@1..main@3")] == [3, 2]
    assert [info.message for info in repo.log(limit=1)] == ["step 3"]
    assert repo.resolve("latest").name == "main@3"
    assert repo.resolve(repo.resolve("main@2").id[:12]).step == 2
    assert (repo.name, repo.path) == ("gpt", str(ws / "gpt"))


def test_a_state_is_nested_mappings_down_to_tensors(run: Any, repo: Repo) -> None:
    state = repo.state("main@3")
    weight = state["model"]["main"]["tensors"]["0.weight"]
    assert (weight.dtype, weight.shape) == ("float32", (24, 8))
    assert np.array_equal(weight.numpy(), run.model[0].weight.detach().numpy())
    assert weight.bytes() == run.model[0].weight.detach().numpy().tobytes()
    assert weight.to_float32().dtype == np.float32
    moments = state["optim"]["main"]["state"]["0.weight"]
    assert np.array_equal(moments["exp_avg"].numpy(), run.optimizer.state[run.model[0].weight]["exp_avg"].numpy())
    assert state["optim"]["main"]["groups"][0]["lr"] == run.optimizer.param_groups[0]["lr"]


def test_a_tensor_becomes_torchs_by_one_call(run: Any, repo: Repo) -> None:
    stored = repo.state("main@3")["model"]["main"]["tensors"]["noise"]
    assert torch.equal(gradient.state.to_torch(stored), run.noise)


def test_one_tensor_is_read_without_touching_the_others(run: Any, repo: Repo, ws: Path) -> None:
    wanted = run.noise.numpy().tobytes()
    packs = ws / "gpt" / ".gradient-repo" / "packs"
    pack = next(path for path in packs.iterdir() if wanted in path.read_bytes())
    content = bytearray(pack.read_bytes())
    content[content.find(wanted)] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(content)
    with Repo.open(ws / "gpt") as fresh:
        tensors = fresh.state("main@3")["model"]["main"]["tensors"]
        assert np.array_equal(tensors["0.weight"].numpy(), run.model[0].weight.detach().numpy())
        assert tensors["noise"].shape == (64,)
        with pytest.raises(CorruptionError):
            tensors["noise"].numpy()
        with pytest.raises(CorruptionError):
            fresh.verify("main@3")
        fresh.verify("main@2")


def test_bfloat16_is_read_without_torch(ws: Path) -> None:
    model = nn.Linear(16, 16).to(torch.bfloat16)
    GradientEngine.attach(model, workspace=ws, repo="half").commit(1)
    with Repo.open(ws / "half") as repo:
        stored = repo.state("latest")["model"]["main"]["tensors"]["weight"]
        assert stored.dtype == "bfloat16"
        assert np.array_equal(stored.to_float32(), model.weight.detach().float().numpy())


def test_tied_weights_are_one_stored_tensor(ws: Path) -> None:
    model = nn.ModuleDict({"a": nn.Linear(16, 16), "b": nn.Linear(16, 16)})
    model["b"].weight = model["a"].weight  # type: ignore[assignment]
    GradientEngine.attach(model, workspace=ws, repo="tied").commit(1)
    with Repo.open(ws / "tied") as repo:
        tensors = repo.state("latest")["model"]["main"]["tensors"]
        assert tensors["a.weight"] is tensors["b.weight"]


def test_reading_imports_no_torch(engine: GradientEngine, ws: Path) -> None:
    code = (
        "import sys; from gradient import Repo\n"
        f"repo = Repo.open({str(ws / 'gpt')!r}); repo.log(); repo.show('latest')\n"
        "repo.state('latest')['model']['main']['tensors']['0.weight'].numpy()\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_show_gathers_what_there_is_to_know(repo: Repo) -> None:
    repo.create_tag("v1", "main@2")
    shown = repo.show("v1")
    assert (shown.info.step, shown.branches, shown.tags) == (2, (), ("v1",))
    assert repo.show().branches == ("main",)
    components = {(row.section, row.name): row for row in shown.components}
    assert components["model", "main"].num_tensors > 5
    assert components["model", "main"].raw_len > 24 * 8 * 4
    assert not shown.data_captured
    assert shown.environment["torch"] == torch.__version__


def test_branches_tags_and_their_way_back(repo: Repo) -> None:
    at = repo.create_branch("exp", "main@2")
    assert repo.branches()["exp"] == at
    repo.rename_branch("exp", "better")
    assert repo.delete_branch("better") == at
    repo.undo()
    assert repo.branches()["better"] == at
    repo.redo()
    assert "better" not in repo.branches()
    repo.create_tag("v1", "main@1")
    assert repo.delete_tag("v1") == repo.resolve("main@1").id
    kinds = [operation.kind for operation in repo.operations()]
    assert kinds[-1] == "init"
    assert {"commit", "branch", "rename", "delete", "undo", "redo", "tag"} <= set(kinds)


def test_checkout_moves_head_to_branches_and_commits(repo: Repo) -> None:
    assert repo.checkout_new("exp", "main@1") == repo.resolve("main@1").id
    assert repo.head() == ("branch", "exp")
    assert repo.checkout("main") == ("branch", "main")
    assert repo.checkout("main@2") == ("commit", repo.resolve("main@2").id)
    with pytest.raises(NotFoundError):
        repo.checkout("nowhere")
    repo.checkout("main")
    with pytest.raises(ConflictError):
        repo.delete_branch("main")


def test_a_malformed_step_is_invalid_input_wherever_a_ref_is_taken(repo: Repo) -> None:
    for call in (repo.resolve, repo.log, repo.show, repo.state, repo.verify):
        with pytest.raises(InvalidInputError, match="a step is a whole number"):
            call("main@abc")


def test_a_wrong_name_in_a_state_suggests_the_nearest_and_is_a_key_error(repo: Repo) -> None:
    state = repo.state("main@1")
    with pytest.raises(KeyError) as section:
        state["modle"]
    with pytest.raises(NotFoundError) as component:
        state["model"]["man"]
    assert isinstance(component.value, KeyError)
    assert str(section.value) == "the commit's state has no section 'modle'"
    assert section.value.hint == "did you mean model?"  # type: ignore[attr-defined]
    assert "'man' in section 'model'" in str(component.value)
    assert component.value.hint == "did you mean main?"
    with pytest.raises(KeyError) as far:
        state["model"]["zzz"]
    assert far.value.hint == "there is main"  # type: ignore[attr-defined]
    assert "zzz" not in state
    assert state.get("zzz") is None
    assert pickle.loads(pickle.dumps(component.value)).hint == "did you mean main?"


def test_an_empty_repository_has_an_empty_log_and_a_head(ws: Path) -> None:
    gradient.init_repo(ws / "new", description="nothing yet")
    with Repo.open(ws / "new") as repo:
        assert (repo.log(), repo.head(), repo.description) == ([], ("branch", "main"), "nothing yet")
        assert repo.checkout_new("exp") is None
        assert repo.head() == ("branch", "exp")
        with pytest.raises(NotFoundError):
            repo.resolve("latest")


def test_a_folder_that_is_no_repository_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        Repo.open(tmp_path)
    assert caught.value.code == "no-repository"


def test_load_reads_weights_into_a_module_and_writes_nothing(
    run: Any, new_run: Callable[..., Any], engine: GradientEngine, ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.close()
    before = sorted(path for path in ws.rglob("*") if path.is_file() and "cache" not in path.parts)
    model = new_run(5).model
    random_state = torch.get_rng_state()
    step = gradient.load("main@3", model, workspace=ws, repo="gpt")
    assert step == 3
    assert torch.equal(model[0].weight, run.model[0].weight)
    assert torch.equal(model[1].running_mean, run.model[1].running_mean)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert sorted(path for path in ws.rglob("*") if path.is_file() and "cache" not in path.parts) == before
    monkeypatch.chdir(ws)
    assert gradient.load("latest", model) == 3


def test_load_into_another_model_touches_nothing(engine: GradientEngine, ws: Path) -> None:
    model = nn.Linear(8, 24)
    kept = model.weight.detach().clone()
    with pytest.raises(StateMismatchError):
        gradient.load("main@3", model, workspace=ws, repo="gpt")
    assert torch.equal(model.weight, kept)
    with pytest.raises(NotFoundError):
        gradient.load("main@3", model, workspace=ws, repo="gtp")
    assert not (ws / "gtp").exists()
