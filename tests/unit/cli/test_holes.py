"""Commands on a repository with a commit, an operation or a stream that is not there: what can be read is shown."""

import os
import subprocess
import sys

import pytest

from gradient import Repo
from gradient.errors import CorruptionError


@pytest.fixture
def tip_lost(sample):
    """The pack of `main`'s newest commit is cut."""
    with Repo.open(sample.path) as repo:
        packs = {pack.name for pack in (sample.path / ".gradient-repo" / "packs").iterdir()}
        tip = repo.branches()["main"]
    for name in packs:
        pack = sample.path / ".gradient-repo" / "packs" / name
        whole = pack.read_bytes()
        pack.chmod(0o644)
        pack.write_bytes(whole[:10])
        with Repo.open(sample.path) as repo:
            try:
                repo.core.commit_info(tip)
            except CorruptionError:
                return sample
        pack.write_bytes(whole)
    raise AssertionError("no pack held the tip")


def test_log_shows_what_can_be_read_and_a_row_for_what_can_not(gradient, tip_lost):
    for words in (["log"], ["log", "--all"], ["log", "--graph", "--oneline"], ["log", "main"]):
        result = gradient(*words)
        assert result.code == 5
        for name in ("main@30", "main@20", "main@10"):
            assert tip_lost.ids[name][:8] in result.out, (words, name)
        hole = next(line for line in result.out.splitlines() if tip_lost.ids["main@30"][:8] in line)
        assert "can not be read" in hole and "main" in hole
        assert "gradient resume ID" in result.err and "repository: " in result.err


def test_log_json_has_what_can_not_be_read_as_a_field(gradient, tip_lost):
    result = gradient("log", "--all", "--json")
    assert result.code == 5
    assert [commit["step"] for commit in result.document["commits"]] == [25, 20, 10]
    (hole,) = result.document["unreadable"]
    assert (hole["id"], hole["child"], hole["refs"]) == (tip_lost.ids["main@30"], None, ["HEAD -> main"])
    assert result.error["code"] == "unreadable-commits"


@pytest.mark.parametrize("command", ["status", "branch"])
def test_status_and_branch_list_every_branch_with_an_unreadable_tip(gradient, tip_lost, command):
    result = gradient(command)
    assert result.code == 5
    assert tip_lost.ids["exp@25"][:8] in result.out and tip_lost.ids["main@30"][:8] in result.out
    document = gradient(command, "--json").document
    rows = {row["name"]: row for row in document["branches"]}
    assert (rows["main"]["id"], rows["main"]["step"], rows["main"]["readable"]) == (
        tip_lost.ids["main@30"],
        None,
        False,
    )
    assert (rows["exp"]["step"], rows["exp"]["readable"]) == (25, True)
    assert [row["id"] for row in document["unreadable"]] == [tip_lost.ids["main@30"]]


def test_older_steps_of_a_branch_with_an_unreadable_tip_are_found(gradient, tip_lost):
    shown = gradient("show", "main@20", "--json")
    assert shown.code == 0 and shown.document["id"] == tip_lost.ids["main@20"]
    assert "what operations say" in shown.err
    assert gradient("diff", "main@10", "main@20").code == 0
    refused = gradient("show", "main@30")
    assert refused.code == 5 and tip_lost.ids["main@30"][:8] in refused.err


def test_each_way_out_that_is_named_works(gradient, tip_lost):
    planned = gradient("repair")
    assert planned.code == 5
    assert "gradient resume ID" in planned.err and "gradient undo" in planned.err
    whole = tip_lost.ids["main@20"]
    assert gradient("branch", "again", whole[:8]).code == 0
    assert gradient("checkout", "again").code == 0
    deleted = gradient("branch", "--delete", "main", "--yes", "--json")
    assert deleted.code == 0, deleted.err
    assert deleted.document["num_unreadable"] == 1
    assert gradient("log", "--all").code == 0
    assert gradient("undo").code == 0
    assert gradient("branch").code == 5


def test_operations_behind_a_missing_one_are_listed_and_undone(gradient, sample):
    (sample.path / ".gradient-repo" / "ops" / f"{3:020}").unlink()
    result = gradient("ops", "--json")
    assert result.code == 5
    assert [row["number"] for row in result.document["operations"]] == [6, 5]
    assert "it is missing" in result.document["unreadable"]
    assert "from a copy" in result.error["hint"]
    assert gradient("ops", "-n", "2").code == 0
    assert gradient("undo").code == 0


@pytest.mark.parametrize("lost", ["format", "ops", "packs"])
def test_hints_lead_out_and_name_the_repository(gradient, sample, lost):
    (sample.path / ".gradient-repo" / lost).rename(sample.path / "elsewhere")
    for words in (["status"], ["fsck"], ["repair"], ["repair", "--apply"]):
        result = gradient(*words)
        assert result.code == 5, words
        assert "back from a copy" in result.err, (words, result.err)
        assert "gradient fsck says" not in result.err
        assert "error: " not in result.err or f"repository: {sample.path}" in result.err, words


def test_a_config_that_can_not_be_read_is_to_be_mended_or_deleted(gradient, sample):
    config = sample.path / ".gradient-repo" / "config.json"
    config.write_text("{")
    for command in ("fsck", "repair"):
        result = gradient(command)
        assert result.code == 5
        assert "or delete it" in result.err
    config.unlink()
    assert gradient("fsck").code == 0


def test_log_takes_no_ref_beside_all(gradient, sample):
    result = gradient("log", "main@10", "--all")
    assert result.code == 2 and "--all" in result.err


def test_a_number_that_is_none_is_said_in_plain_words(gradient, sample):
    assert "'x' is no whole number" in gradient("log", "-n", "x").err


@pytest.mark.parametrize(
    "words", [["status"], ["log", "--json"], ["--help"], ["--version"], ["log", "--help"]], ids=str
)
def test_a_closed_stdout_is_a_storage_error_and_a_closed_stderr_changes_no_exit_code(sample, words):
    def run(closed: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "gradient", "-C", str(sample.path), *words]
        command = ["sh", "-c", f'"$@" {closed}', "sh", *call]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))

    ended = run(">&-")
    assert ended.returncode == 6, ended.stderr
    assert "standard output could not be written" in ended.stderr
    assert "Traceback" not in ended.stderr
    silent = run("2>&-")
    assert silent.returncode == 0 and silent.stdout


def test_a_long_branch_name_makes_its_own_line_long_only(gradient, sample):
    name = "x" * 90
    assert gradient("branch", name).code == 0
    for command in ("branch", "status"):
        lines = gradient(command).out.splitlines()
        assert all(len(line) < 90 for line in lines if name not in line and "repository" not in line)
