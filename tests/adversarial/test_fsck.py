"""`gradient fsck` and `gradient repair`, as a user runs them on a repository that something happened to."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
import torch

from gradient import GradientEngine, Repo


def gradient(folder: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradient", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def repo(tmp_path: pathlib.Path) -> pathlib.Path:
    """A repository of three commits."""
    torch.manual_seed(0)
    model = torch.nn.Linear(40, 30)
    optimizer = torch.optim.AdamW(model.parameters())
    with GradientEngine.attach(model, optimizer, workspace=tmp_path / "w", repo="gpt") as engine:
        for step in (1, 2, 3):
            optimizer.zero_grad()
            model(torch.randn(4, 40)).square().mean().backward()
            optimizer.step()
            engine.commit(step)
    return tmp_path / "w" / "gpt"


def contents(repo: pathlib.Path) -> dict[str, bytes]:
    root = repo / ".gradient-repo"
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def flip(file: pathlib.Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def packs(repo: pathlib.Path) -> list[pathlib.Path]:
    """The packs in the order in which they were last written."""
    return sorted((repo / ".gradient-repo" / "packs").iterdir(), key=lambda file: file.stat().st_mtime_ns)


def test_a_healthy_repository_is_clean_and_nothing_is_written(repo: pathlib.Path) -> None:
    before = contents(repo)
    for option in ((), ("--quick",), ("--full",), ("--sample", "50%")):
        checked = gradient(repo, "fsck", *option)
        assert checked.returncode == 0
        assert "3 commits" in checked.stdout and checked.stdout.rstrip().endswith("clean")
    assert gradient(repo, "repair").stdout == "nothing to repair\n"
    assert contents(repo) == before


def test_json_has_every_count_and_finding(repo: pathlib.Path) -> None:
    first, *_ = packs(repo)
    flip(first, 100)
    checked = gradient(repo, "fsck", "--full", "--json")
    assert checked.returncode == 5
    document = json.loads(checked.stdout)
    assert document["schema"] == "gradient.fsck/1"
    assert not document["clean"]
    assert (document["commits"], document["packs"], document["packs_read_in_full"]) == (3, 3, 3)
    errors = [finding for finding in document["findings"] if finding["severity"] == "error"]
    # And those of what is coded against it.
    assert f"packs/{first.name}" in {error["file"] for error in errors}
    # What is stored as a difference to what is lost is lost too.
    with Repo.open(repo) as opened:
        lost = {commit["id"] for commit in document["lost_commits"]}
        deltas = {info.id for info in opened.log() if info.kind == "delta"}
        assert lost == {opened.resolve("main@1").id} | deltas
    planned = json.loads(gradient(repo, "repair", "--json").stdout)
    assert planned["schema"] == "gradient.repair/1"
    assert planned["moves"] == [] and len(planned["left"]) == len(errors)


def test_the_quick_check_sees_structure_and_the_full_one_every_byte(repo: pathlib.Path) -> None:
    _, second, third = packs(repo)
    flip(second, 100)
    assert gradient(repo, "fsck", "--quick").returncode == 0
    assert gradient(repo, "fsck").returncode == 0
    assert gradient(repo, "fsck", "--sample", "100%").returncode == 5
    assert gradient(repo, "fsck", "--full").returncode == 5
    flip(third, third.stat().st_size - 20)
    assert gradient(repo, "fsck", "--quick").returncode == 5


def test_a_torn_head_is_repaired_and_the_commit_is_back(repo: pathlib.Path) -> None:
    head = max((repo / ".gradient-repo" / "ops").iterdir())
    whole = head.read_bytes()
    with Repo.open(repo) as opened:
        tip = opened.resolve("main").id
    head.write_bytes(whole[: len(whole) // 2])
    before = contents(repo)
    planned = gradient(repo, "repair")
    assert planned.returncode == 0
    assert f"would move ops/{head.name}" in planned.stdout
    assert f"branch main would go on to commit {tip[:8]}" in planned.stdout
    assert contents(repo) == before, "a plan changes nothing"
    done = gradient(repo, "repair", "--apply")
    assert done.returncode == 0
    aside = repo / ".gradient-repo" / "lost+found"
    assert (aside / f"ops-{head.name}").read_bytes() == whole[: len(whole) // 2]
    assert json.loads(next(aside.glob("repair-*.json")).read_text())["moves"][0]["to"] == f"lost+found/ops-{head.name}"
    assert gradient(repo, "fsck", "--full").returncode == 0
    with Repo.open(repo) as opened:
        assert opened.resolve("main").id == tip
    assert gradient(repo, "undo").returncode == 0
    assert gradient(repo, "ops").stdout.count("repair") == 2


def test_a_repository_that_does_not_open_is_checked(repo: pathlib.Path) -> None:
    flip(repo / ".gradient-repo" / "format", 20)
    assert gradient(repo, "log").returncode == 5
    checked = gradient(repo, "fsck", "--full")
    assert checked.returncode == 5
    assert checked.stdout.startswith("error: format")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fsck", "--quick", "--full"), "exclude"),
        (("fsck", "--sample", "200%"), "200%"),
        (("fsck", "--sample", "x"), "x"),
        (("fsck", "--sample", "nan"), "nan"),
    ],
)
def test_options_that_make_no_sense_are_refused(repo: pathlib.Path, words: tuple[str, ...], said: str) -> None:
    refused = gradient(repo, *words)
    assert refused.returncode == 2
    assert said in refused.stderr


def test_a_folder_without_a_repository_is_not_found(tmp_path: pathlib.Path) -> None:
    assert gradient(tmp_path, "fsck").returncode == 3
