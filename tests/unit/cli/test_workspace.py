"""`workspace` and `repo`: making and listing, twice without an error."""


def test_init_twice_is_no_error(gradient, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = gradient("workspace", "init", "./ml")
    assert first.code == 0 and first.out.startswith("made: workspace ml")
    again = gradient("workspace", "init", "./ml")
    assert again.code == 0 and again.out.startswith("exists already: workspace ml")
    assert gradient("workspace", "init", "./ml", "--json").document["created"] is False


def test_repo_init_twice_is_no_error(gradient, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gradient("workspace", "init")
    first = gradient("repo", "init", "gpt4", "--description", "GPT-4 training runs")
    assert first.code == 0 and first.out.startswith("made: repository gpt4")
    again = gradient("repo", "init", "gpt4", "-d", "another")
    assert again.code == 0 and again.out.startswith("exists already: repository gpt4")
    assert gradient("repo", "list").out.split(maxsplit=1) == ["gpt4", "GPT-4 training runs\n"]


def test_repo_init_outside_a_workspace_is_not_found(gradient, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = gradient("repo", "init", "gpt4")
    assert result.code == 3 and "gradient workspace init" in result.err


def test_a_repo_name_that_is_a_path_is_wrong_input(gradient, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gradient("workspace", "init", "ws")
    monkeypatch.chdir(tmp_path / "ws")
    for name in ("../up", "a/b", ".hidden"):
        assert gradient("repo", "init", name).code == 2
    assert not (tmp_path / "up").exists()


def test_workspace_status_shows_each_repository(gradient, sample):
    text = gradient("workspace", "status").out
    for part in ("workspace ws", "gpt  a small model", "4 commits", "* main@30", "exp@25"):
        assert part in text
    document = gradient("workspace", "status", "--json").document
    assert document["schema"] == "gradient.workspace-status/1"
    assert document["repos"][0]["num_commits"] == 4


def test_path_looks_elsewhere(gradient, sample, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert gradient("workspace", "status", "--path", str(sample.path)).code == 0
    assert gradient("repo", "list", "--path", str(sample.workspace), "--json").document["repos"][0]["name"] == "gpt"


def test_a_damaged_repository_does_not_hide_the_others(gradient, sample, monkeypatch):
    monkeypatch.chdir(sample.workspace)
    gradient("repo", "init", "hurt")
    (sample.workspace / "hurt" / ".gradient-repo" / "format").write_bytes(b"junk")
    result = gradient("workspace", "status")
    assert result.code == 0 and "hurt  can not be read" in result.out and "4 commits" in result.out
    listed = gradient("repo", "list")
    assert listed.code == 0 and "warning: hurt can not be read" in listed.err


def test_an_empty_workspace_says_what_to_do(gradient, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gradient("workspace", "init")
    assert "gradient repo init" in gradient("workspace", "status").err
    assert "gradient repo init" in gradient("repo", "list").err
    assert gradient("repo", "list", "--json").document["repos"] == []
