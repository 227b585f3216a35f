"""`log`, `show`, `diff` and `status`: what a repository holds."""

import pytest


def test_log_names_every_commit_of_the_line_newest_first(gradient, sample):
    text = gradient("log").out
    places = [text.index(sample.ids[name][:8]) for name in ("main@30", "main@20", "main@10")]
    assert places == sorted(places)
    assert sample.ids["exp@25"][:8] not in text


def test_log_json_is_one_document(gradient, sample):
    document = gradient("log", "--json").document
    assert document["schema"] == "gradient.log/1"
    assert [commit["step"] for commit in document["commits"]] == [30, 20, 10]
    first = document["commits"][0]
    assert first["id"] == sample.ids["main@30"]
    assert first["branch"] == "main" and first["message"] == "step 30"
    assert first["parents"] == [sample.ids["main@20"]]
    assert first["metrics"] == {"loss": 1 / 30}
    assert first["time"].endswith("Z") and "T" in first["time"]


def test_log_keys_are_those_of_the_other_commands(gradient, sample):
    commit = gradient("log", "--json").document["commits"][0]
    shown = gradient("show", "--json").document
    same = set(commit) & set(shown)
    assert {"id", "root", "parents", "branch", "step", "message", "metrics", "time", "kind", "added_bytes"} <= same
    assert {key: shown[key] for key in same} == {key: commit[key] for key in same}


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["exp"], [25, 20, 10]),
        (["main@20"], [20, 10]),
        (["main@10..main"], [30, 20]),
        (["main..exp"], [25]),
        (["exp.."], [30]),
        (["-n", "1"], [30]),
        (["-n", "0"], []),
        (["--all"], [30, 25, 20, 10]),
    ],
    ids=str,
)
def test_log_shows_what_is_asked_for(gradient, sample, words, steps):
    commits = gradient("log", *words, "--json").document["commits"]
    assert sorted((commit["step"] for commit in commits), reverse=True) == steps


def test_log_oneline_has_a_line_a_commit(gradient, sample):
    assert len(gradient("log", "--oneline").out.splitlines()) == 3
    assert len(gradient("log", "--all", "--oneline").out.splitlines()) == 4


def test_log_graph_draws_both_lines(gradient, sample):
    text = gradient("log", "--all", "--graph", "--oneline").out
    assert text.count("*") == 4 and "|" in text


def test_log_of_a_repository_without_commits_is_empty_and_no_error(gradient, sample, monkeypatch):
    monkeypatch.chdir(sample.workspace)
    gradient("repo", "init", "empty")
    result = gradient("--repo", "empty", "log")
    assert (result.code, result.out, result.err) == (0, "", "no commits yet\n")
    document = gradient("--repo", "empty", "log", "--json").document
    assert document["commits"] == []


def test_show_names_everything_about_a_commit(gradient, sample):
    text = gradient("show", "main@20").out
    assert sample.ids["main@20"] in text
    for part in ("main@20", "root", "model/main", "optim/main", "rng/python", "1 tensor", "400 B", "step 20", "3.11"):
        assert part in text
    assert "data position: not captured" in text


def test_show_json_lists_components(gradient, sample):
    document = gradient("show", "exp", "--json").document
    assert document["schema"] == "gradient.show/1"
    assert document["name"] == "exp@25" and document["branches"] == ["exp"]
    assert document["data_captured"] is False
    model = next(part for part in document["components"] if part["section"] == "model")
    assert (model["name"], model["num_tensors"], model["raw_len"]) == ("main", 1, 400)
    assert document["environment"] == {"python": "3.11", "flags": {"deterministic": True}}


def test_show_takes_an_id_prefix(gradient, sample):
    assert gradient("show", sample.ids["main@10"][:10], "--json").document["id"] == sample.ids["main@10"]


def test_diff_names_what_changed(gradient, sample):
    result = gradient("diff", "main@10", "main@20")
    assert result.out == "~ model/main/tensors/weight\n"


def test_diff_stat_counts(gradient, sample):
    assert gradient("diff", "main@10", "main@20", "--stat").out.split() == [
        "model/main",
        "1",
        "of",
        "2",
        "values",
        "400",
        "B",
    ]


def test_diff_of_equal_states_says_so(gradient, sample):
    result = gradient("diff", "main@10", "main@10")
    assert (result.code, result.out) == (0, "") and "same state" in result.err
    assert gradient("diff", "main@10", "main@10", "--json").document["equal"] is True


def test_diff_json_lists_paths(gradient, sample):
    document = gradient("diff", "main@10", "exp", "--json").document
    assert document["schema"] == "gradient.diff/1" and document["equal"] is False
    assert document["components"][0]["changes"] == [{"path": "tensors/weight", "change": "changed"}]


def test_status_says_where_head_stands(gradient, sample):
    text = gradient("status").out
    for part in ("repository gpt", "a small model", "on branch main", "4 commits", "main@30", "exp@25"):
        assert part in text


def test_status_json(gradient, sample):
    document = gradient("status", "--json").document
    assert document["schema"] == "gradient.status/1"
    assert document["head"] == {"branch": "main", "commit": sample.ids["main@30"]}
    assert [branch["name"] for branch in document["branches"]] == ["exp", "main"]
    assert document["num_commits"] == 4 and document["disk_bytes"] > 0


def test_status_names_variables_that_wait_for_a_script(gradient, sample, monkeypatch):
    monkeypatch.setenv("GRADIENT_RESUME_REF", "main@10")
    assert "GRADIENT_RESUME_REF=main@10" in gradient("status").out


def test_log_that_shows_nothing_says_so_only_where_it_is_news(gradient, sample):
    assert (gradient("log", "-n", "0").out, gradient("log", "-n", "0").err) == ("", "")
    result = gradient("log", "main..main")
    assert (result.code, result.out, result.err) == (0, "", "no commits in that range\n")


def test_status_names_tags_and_where_they_stand(gradient, sample):
    gradient("tag", "v1", "main@20")
    line = next(line for line in gradient("status").out.splitlines() if "v1" in line)
    assert line.startswith("  tag v1, main@20") and sample.ids["main@20"][:8] in line


@pytest.mark.parametrize("words", [["log"], ["show"], ["resume"], ["diff"], ["branch", "new"]], ids=" ".join)
@pytest.mark.parametrize("ref", ["main@abc", "main@-1", "main@", "main@1.5"])
def test_a_malformed_step_is_wrong_input_and_not_not_found(gradient, sample, words, ref):
    result = gradient(*words, ref)
    assert result.code == 2 and "a step is a whole number" in result.err


@pytest.mark.parametrize("words", [["resume", "latest"], ["show"]], ids=" ".join)
def test_in_a_repository_without_commits_no_hint_leads_to_its_empty_log(gradient, sample, monkeypatch, words):
    monkeypatch.chdir(sample.workspace)
    gradient("repo", "init", "empty")
    result = gradient("--repo", "empty", *words)
    assert result.code == 3 and "gradient log" not in result.err
    assert "hint: nothing is committed in this repository yet" in result.err
