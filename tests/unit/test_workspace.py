"""`gradient.workspace`: find, make and list workspaces and their repositories."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gradient import workspace
from gradient.errors import CorruptionError, InvalidInputError, NotFoundError, StorageError
from gradient.workspace import RepoLocation, locate


def repo_folder(root: Path, name: str) -> None:
    (root / name / ".gradient-repo").mkdir(parents=True)


@pytest.fixture
def ws(tmp_path: Path) -> Path:
    root = tmp_path / "ws"
    workspace.init_workspace(root)
    return root


def test_making_a_workspace_twice_returns_the_first_and_says_so(tmp_path: Path) -> None:
    first = workspace.init_workspace(tmp_path / "a" / "b", name="experiments")
    again = workspace.init_workspace(tmp_path / "a" / "b", name="other")
    assert (first.existed, again.existed) == (False, True)
    assert (again.name, again.root_path) == ("experiments", str(tmp_path / "a" / "b"))
    assert again == first


def test_a_marker_has_the_keys_of_gradient_desc(ws: Path) -> None:
    marker = json.loads((ws / ".gradient" / "config.json").read_text())
    assert sorted(marker) == ["created_at", "repos", "root_path", "workspace_name"]
    assert os.listdir(ws / ".gradient") == ["config.json"]


def test_which_repositories_there_are_is_read_from_the_folder_and_not_from_the_marker(ws: Path) -> None:
    repo_folder(ws, "llama")
    repo_folder(ws, "gpt")
    (ws / "notes").mkdir()
    assert workspace.list_workspace_repos(ws) == ["gpt", "llama"]
    config = workspace.load_workspace_config(ws)
    assert config is not None
    assert config.repos == ["gpt", "llama"]


def test_a_marker_from_elsewhere_does_not_say_where_the_workspace_is(ws: Path, tmp_path: Path) -> None:
    ws.rename(tmp_path / "moved")
    config = workspace.load_workspace_config(tmp_path / "moved")
    assert config is not None
    assert config.root_path == str(tmp_path / "moved")


def test_finding_walks_up_and_stops_at_the_nearest(ws: Path, tmp_path: Path) -> None:
    repo_folder(ws, "gpt")
    inner = ws / "gpt" / "logs"
    inner.mkdir()
    assert workspace.find_workspace(inner) == str(ws)
    assert workspace.find_repo(inner) == str(ws / "gpt")
    assert workspace.find_repo(ws) is None
    assert workspace.find_workspace(tmp_path) is None


def test_a_damaged_marker_is_named_and_is_no_crash(ws: Path) -> None:
    for content in (b"{", b"[]", b'{"repos": 3}', b"\xff", b" " * (70 << 10)):
        (ws / ".gradient" / "config.json").write_bytes(content)
        with pytest.raises(InvalidInputError, match=r"config\.json"):
            workspace.load_workspace_config(ws)


def test_a_workspace_that_can_not_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        workspace.init_workspace(tmp_path / "file" / "ws")
    assert caught.value.errno


def test_a_file_where_the_workspace_should_be_is_called_a_file(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text("")
    for call in (
        lambda: workspace.init_workspace(file),
        lambda: workspace.init_workspace(file / "ws"),
        lambda: locate(workspace=file),
        lambda: workspace.open_repo(workspace=file, repo="gpt"),
        lambda: workspace.list_workspace_repos(file),
    ):
        with pytest.raises(StorageError, match=r"train\.py is a file") as caught:
            call()
        assert caught.value.hint


def test_keys_of_a_marker_that_mean_nothing_are_said_once(ws: Path, caplog: pytest.LogCaptureFixture) -> None:
    marker = ws / ".gradient" / "config.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "retention": 3}))
    for _ in range(2):
        assert workspace.load_workspace_config(ws) is not None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'retention'" in caplog.text and str(marker) in caplog.text


# Which repository is meant


def test_the_repository_around_the_current_folder_is_meant(ws: Path) -> None:
    repo_folder(ws, "gpt")
    repo_folder(ws, "llama")
    assert locate(start=ws / "gpt") == RepoLocation(str(ws), "gpt")


def test_the_only_repository_of_a_workspace_is_meant(ws: Path) -> None:
    repo_folder(ws, "gpt")
    assert locate(start=ws) == RepoLocation(str(ws), "gpt")
    assert locate(workspace=ws) == RepoLocation(str(ws), "gpt")


def test_of_several_repositories_none_is_meant_and_all_are_listed(ws: Path) -> None:
    repo_folder(ws, "gpt")
    repo_folder(ws, "llama")
    with pytest.raises(InvalidInputError, match="gpt, llama") as caught:
        locate(start=ws)
    assert caught.value.code == "ambiguous-repository"


def test_a_name_beats_the_folder_that_one_stands_in(ws: Path) -> None:
    repo_folder(ws, "gpt")
    assert locate(repo="llama", start=ws / "gpt") == RepoLocation(str(ws), "llama")


def test_a_workspace_inside_a_repository_is_nearer_than_the_repository(ws: Path) -> None:
    repo_folder(ws, "gpt")
    inner = ws / "gpt" / "inner"
    workspace.init_workspace(inner)
    repo_folder(inner, "small")
    assert locate(start=inner) == RepoLocation(str(inner), "small")


def test_a_repository_without_a_workspace_is_found(tmp_path: Path) -> None:
    repo_folder(tmp_path, "gpt")
    assert locate(start=tmp_path / "gpt") == RepoLocation(str(tmp_path), "gpt")


def test_nowhere_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        locate(start=tmp_path)
    assert "gradient repo init" in (caught.value.hint or "")


def test_a_repository_that_is_not_there_is_not_opened_and_near_names_are_suggested(ws: Path) -> None:
    repo_folder(ws, "llama")
    with pytest.raises(NotFoundError) as caught:
        workspace.open_repo(workspace=ws, repo="lama")
    assert caught.value.hint == "did you mean llama?"
    assert not (ws / "lama").exists()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "/etc", "a\\b", ".hidden", "-x", "a b", "a\n", "x" * 256, "a.lock", "c:"]
)
def test_a_name_that_is_a_path_or_worse_names_no_repository(ws: Path, name: str) -> None:
    with pytest.raises(InvalidInputError):
        workspace.get_repo_path_in_workspace(ws, name)
    with pytest.raises(InvalidInputError):
        locate(workspace=ws, repo=name)


def test_a_repository_whose_making_was_cut_off_is_made_and_one_that_lost_its_format_is_not(ws: Path) -> None:
    location = RepoLocation(str(ws), "gpt")
    inside = ws / "gpt" / ".gradient-repo"
    (inside / "ops").mkdir(parents=True)
    assert not location.exists()
    assert workspace.load_repo_config(ws / "gpt") is None
    assert not workspace.init_repo(ws / "gpt").existed
    assert location.exists()
    (inside / "format").unlink()
    assert location.exists()
    with pytest.raises(CorruptionError, match="format"):
        workspace.open_repo(workspace=ws, repo="gpt")


def test_a_loop_of_links_where_the_repository_should_be_is_named_as_damage(ws: Path) -> None:
    (ws / "gpt").mkdir()
    (ws / "gpt" / ".gradient-repo").symlink_to(".gradient-repo")
    with pytest.raises(CorruptionError, match="symbolic link"):
        workspace.load_repo_config(ws / "gpt")
