"""`branch`, `tag`, `checkout`, `ops`, `undo` and `redo`: moving refs, and taking it back."""

import pytest

from gradient.errors import ConflictError
from gradient.repo import Repo


def branches(gradient) -> dict[str, str]:
    return {row["name"]: row["id"] for row in gradient("branch", "--json").document["branches"]}


def head(gradient) -> dict[str, str | None]:
    return gradient("branch", "--json").document["head"]


def test_branch_lists_and_marks_heads(gradient, sample):
    for words in (["branch"], ["branch", "--list"]):
        lines = gradient(*words).out.splitlines()
        assert lines[0].startswith("  exp") and lines[1].startswith("* main")


def test_branch_makes_one_at_head_or_at_a_ref(gradient, sample):
    assert gradient("branch", "here").code == 0
    assert gradient("branch", "there", "main@10").code == 0
    found = branches(gradient)
    assert (found["here"], found["there"]) == (sample.ids["main@30"], sample.ids["main@10"])


@pytest.mark.parametrize("name", ["main", "exp"])
def test_branch_that_exists_is_4(gradient, sample, name):
    result = gradient("branch", name)
    assert result.code == 4 and branches(gradient)[name] == sample.ids[{"main": "main@30", "exp": "exp@25"}[name]]


@pytest.mark.parametrize("name", ["a b", "HEAD", "latest", "x@1", "../up", "-x", "deadbeef", "a..b", ""])
def test_a_name_that_can_not_be_is_2(gradient, sample, name):
    assert gradient("branch", "--", name).code == 2


def test_branch_is_renamed_and_head_goes_along(gradient, sample):
    assert gradient("branch", "--rename", "main", "trunk").code == 0
    assert branches(gradient)["trunk"] == sample.ids["main@30"]
    assert head(gradient)["branch"] == "trunk"


def test_deleting_without_a_terminal_shows_the_plan_and_does_nothing(gradient, sample):
    result = gradient("branch", "--delete", "exp")
    assert result.code == 2 and "exp" in branches(gradient)
    assert "1 commit (" in result.err and "2 commits kept: on branch main" not in result.err
    assert "2 commits kept" in result.err and "--yes" in result.err


def test_dry_run_is_the_plan_alone(gradient, sample):
    result = gradient("branch", "--delete", "exp", "--dry-run")
    assert result.code == 0 and "branch exp at " + sample.ids["exp@25"][:8] in result.out
    assert "exp" in branches(gradient)
    document = gradient("branch", "--delete", "exp", "--dry-run", "--json").document
    assert document["schema"] == "gradient.branch-delete/1"
    assert document["deleted"] is False and document["lost"]["num_commits"] == 1
    assert document["kept"]["num_commits"] == 2


def test_deleted_branch_comes_back_by_undo(gradient, sample):
    assert gradient("branch", "--delete", "exp", "--yes").code == 0
    assert "exp" not in branches(gradient)
    undone = gradient("undo")
    assert undone.code == 0
    assert undone.out.startswith("undone: delete branch exp (operation 7); HEAD is on branch main")
    assert branches(gradient)["exp"] == sample.ids["exp@25"]
    assert gradient("redo").code == 0
    assert "exp" not in branches(gradient)


def test_the_branch_under_head_is_not_deleted(gradient, sample):
    for extra in (["--yes"], ["--dry-run"]):
        result = gradient("branch", "--delete", "main", *extra)
        assert result.code == 4
        with Repo.open(sample.path) as repo, pytest.raises(ConflictError) as caught:
            repo.delete_branch("main")
        assert result.err == f"error: {caught.value}\nhint: {caught.value.hint}\n"
        error = gradient("branch", "--delete", "main", *extra, "--json").error
        assert (error["code"], error["exit_code"]) == (caught.value.code, 4)
    assert "main" in branches(gradient)


def test_deleting_what_is_not_there_suggests_the_nearest(gradient, sample):
    result = gradient("branch", "--delete", "exq", "--yes")
    assert result.code == 3 and "exp" in result.err


@pytest.mark.parametrize(
    "words",
    [
        ["--rename", "main"],
        ["--delete"],
        ["--delete", "a", "b"],
        ["--list", "x"],
        ["x", "--yes"],
        ["--list", "--delete", "x"],
    ],
    ids=" ".join,
)
def test_options_that_do_not_fit_are_2(gradient, sample, words):
    assert gradient("branch", *words).code == 2


def test_tags_are_made_listed_and_deleted(gradient, sample):
    assert gradient("tag", "v1", "main@20").code == 0
    assert gradient("tag").out.split() == ["v1", "main@20", sample.ids["main@20"][:8]]
    assert gradient("tag", "--json").document["tags"] == [{"name": "v1", "commit": sample.ids["main@20"]}]
    assert gradient("show", "v1", "--json").document["tags"] == ["v1"]
    assert gradient("tag", "v1").code == 4
    assert gradient("tag", "main").code == 4
    assert gradient("tag", "--delete", "v1").code == 2
    assert gradient("tag", "--delete", "v1", "--yes").code == 0
    assert gradient("tag").out == ""
    gradient("undo")
    assert "v1" in gradient("tag").out


def test_checkout_moves_head_to_a_branch(gradient, sample):
    result = gradient("checkout", "exp")
    assert (result.code, result.out) == (0, "HEAD is on branch exp\n")
    assert head(gradient) == {"branch": "exp", "commit": sample.ids["exp@25"]}
    assert gradient("log", "--json").document["commits"][0]["step"] == 25


def test_checkout_b_makes_a_branch_and_goes_there(gradient, sample):
    assert gradient("checkout", "-b", "new", "main@10").code == 0
    assert head(gradient) == {"branch": "new", "commit": sample.ids["main@10"]}
    assert gradient("checkout", "-b", "new").code == 4


def test_checkout_of_a_commit_leaves_head_on_no_branch(gradient, sample):
    result = gradient("checkout", "main@20")
    assert result.code == 0 and "gradient checkout -b" in result.err
    assert head(gradient) == {"branch": None, "commit": sample.ids["main@20"]}
    assert gradient("status").out.count("on no branch") == 1


def test_checkout_of_nothing_known_is_3(gradient, sample):
    assert gradient("checkout", "nowhere").code == 3
    assert gradient("checkout").code == 2


def test_checkout_b_on_a_repository_without_commits(gradient, sample, monkeypatch):
    monkeypatch.chdir(sample.workspace)
    gradient("repo", "init", "empty")
    assert gradient("--repo", "empty", "checkout", "-b", "first").code == 0
    assert gradient("--repo", "empty", "status", "--json").document["head"] == {"branch": "first", "commit": None}


def test_ops_lists_every_change_newest_first(gradient, sample):
    gradient("checkout", "exp")
    document = gradient("ops", "--json").document
    assert document["schema"] == "gradient.ops/1"
    kinds = [operation["kind"] for operation in document["operations"]]
    assert kinds == ["checkout", "commit", "branch", "commit", "commit", "commit", "init"]
    numbers = [operation["number"] for operation in document["operations"]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(gradient("ops", "-n", "2").out.splitlines()) == 2


@pytest.mark.parametrize(
    "words",
    [["branch", "x"], ["branch", "--rename", "exp", "y"], ["tag", "v1"], ["checkout", "exp"], ["checkout", "main@10"]],
    ids=" ".join,
)
def test_every_move_of_a_ref_can_be_undone_and_redone(gradient, sample, words):
    def look() -> tuple[object, ...]:
        return branches(gradient), gradient("tag", "--json").document["tags"], head(gradient)

    before = look()
    assert gradient(*words).code == 0
    after = look()
    assert after != before
    assert gradient("undo").code == 0
    assert look() == before
    assert gradient("redo").code == 0
    assert look() == after


def test_undone_operations_are_marked(gradient, sample):
    gradient("branch", "x")
    assert gradient("undo", "--json").document["schema"] == "gradient.undo/1"
    operations = gradient("ops", "--json").document["operations"]
    assert operations[0]["kind"] == "undo" and operations[1]["undone"] is True


def test_nothing_to_redo_is_an_error_with_a_code(gradient, sample):
    assert gradient("redo").code in (2, 3)
