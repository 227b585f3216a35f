"""The command line as a whole: what it loads, how it fails, what it says about itself."""

import os
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from gradient import _core, errors
from gradient.cli import COMMANDS, GROUPS, _params, load, main, overview

GRADIENT = Path(sysconfig.get_path("scripts")) / "gradient"
HEAVY = ("torch", "numpy", "pydantic", "rich", "click", "gradient.state", "gradient.engine")


def modules_after(words: list[str], folder: Path) -> set[str]:
    """Names of the modules that a fresh process has loaded after a command."""
    code = (
        "import sys; from gradient.cli import main; code = main(sys.argv[1:]); "
        "print(*sorted(sys.modules), sep='\\n', file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines())


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["log"],
        ["log", "--json"],
        ["show"],
        ["status"],
        ["branch"],
        ["ops"],
        ["diff", "main@10", "--stat"],
        ["--help"],
        ["log", "--help"],
        ["workspace", "status"],
        ["repo", "list"],
        ["checkout", "exp"],
        ["tag", "v1"],
    ],
    ids=" ".join,
)
def test_a_command_loads_nothing_heavy(sample, words):
    loaded = modules_after(words, sample.path)
    assert not loaded.intersection(HEAVY)


@pytest.mark.parametrize(
    "words", [["--version"], ["log", "-n", "2", "--oneline"], ["branch", "new", "main@10"]], ids=" ".join
)
def test_what_is_plain_to_read_needs_no_typer(sample, words):
    assert "typer" not in modules_after(words, sample.path)


def test_a_command_imports_no_other_command(sample):
    loaded = {name for name in modules_after(["ops"], sample.path) if name.startswith("gradient.cli.")}
    others = {f"gradient.cli.{command.module}" for command in COMMANDS.values()} - {"gradient.cli.ops"}
    assert not loaded & others


def best_of(number: int, words: list[str], folder: Path) -> float:
    """Seconds of the fastest of some cold calls: the others measure the machine's other work."""
    times = []
    for _ in range(number):
        began = time.perf_counter()
        subprocess.run([str(GRADIENT), *words], cwd=folder, capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    return min(times)


def test_version_and_log_start_at_once(sample):
    # Ten times what Python itself takes: the limit moves with the machine and with what else runs on it.
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    limit = max(0.25, 10 * (time.perf_counter() - began))
    assert best_of(5, ["--version"], sample.path) < limit
    assert best_of(5, ["log"], sample.path) < limit


def test_version_names_the_compiled_module(gradient):
    result = gradient("--version")
    assert (result.code, result.out) == (0, f"gradient {_core.__version__}\n")


def test_python_dash_m_is_the_same_program(sample):
    done = subprocess.run([sys.executable, "-m", "gradient", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"gradient {_core.__version__}\n"


def test_help_lists_every_command():
    text = overview()
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_begins_with_its_summary(gradient, name):
    result = gradient(*name.split(), "--help")
    lines = result.out.splitlines()
    assert (result.code, result.err) == (0, "")
    assert lines[0] == COMMANDS[name].summary
    assert lines[1] == "" and lines[2].startswith(f"usage: gradient {name}")
    assert lines[2].endswith(" -- CMD") == COMMANDS[name].takes_command
    assert lines[3] == "" and lines[4], "a text follows"


def test_the_usage_line_names_the_arguments_in_their_order(gradient):
    assert "usage: gradient fork FROM NEW [OPTIONS] -- CMD\n" in gradient("fork", "--help").out
    assert "usage: gradient resume REF -- CMD\n" in gradient("resume", "--help").out
    assert "usage: gradient log [REF|A..B] [OPTIONS]\n" in gradient("log", "--help").out
    assert "usage: gradient completion bash|zsh|fish\n" in gradient("completion", "--help").out


@pytest.mark.parametrize("name", COMMANDS)
def test_summaries_are_imperative_lines_without_a_stop(name):
    summary = COMMANDS[name].summary
    assert summary[0].isupper() and not summary.endswith(".") and len(summary) <= 72
    assert not summary.split()[0].endswith("s")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_says_what_it_is(name):
    for parameter in _params.parameters(load(COMMANDS[name])):
        declared = parameter.declared
        if not getattr(declared, "hidden", False):
            assert declared.help and not declared.help.endswith("."), parameter.name
            assert declared.metavar or parameter.kind is bool, parameter.name


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("resume", "fork", "completion")])
def test_every_command_that_reads_or_changes_has_json(name):
    declared = [parameter.declared for parameter in _params.parameters(load(COMMANDS[name]))]
    assert any("--json" in getattr(one, "names", ()) for one in declared)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_text(name):
    assert (load(COMMANDS[name]).__doc__ or "").count("\n\n") >= 1


@pytest.mark.parametrize("words", [[], ["workspace"], ["repo"]], ids=str)
def test_no_command_is_wrong_usage_and_shows_what_there_is(gradient, words):
    result = gradient(*words)
    assert (result.code, result.out) == (2, "")
    assert "Make a" in result.err


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group_is_a_result(gradient, group):
    result = gradient(group, "--help")
    assert result.code == 0 and result.out.startswith(GROUPS[group])


def test_a_mistyped_command_is_suggested(gradient):
    result = gradient("lgo")
    assert (result.code, result.out) == (2, "")
    assert result.err == "error: no such command: lgo\nhint: did you mean: gradient log\n"


@pytest.mark.parametrize(
    "words",
    [["log", "--josn"], ["log", "-n", "many"], ["log", "a", "b"], ["resume"], ["--repo"], ["--nonsense", "log"]],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_a_hint_and_code_2(gradient, sample, words):
    result = gradient(*words)
    assert (result.code, result.out) == (2, "")
    lines = result.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ") and lines[1].startswith("hint: gradient")


def test_an_error_under_json_is_one_object(gradient, sample):
    result = gradient("log", "nowhere@1", "--json")
    assert result.code == 3 and result.out == ""
    assert result.error["schema"] == "gradient.error/1"
    assert result.error["exit_code"] == 3
    assert result.error["code"] and result.error["message"]


def test_wrong_usage_under_json_is_one_object(gradient, sample):
    result = gradient("log", "--json", "--nonsense")
    assert result.code == 2 and result.error["code"] == "usage"


def test_json_behind_the_double_dash_is_the_childs(gradient, sample):
    result = gradient("resume", "nowhere@1", "--", "python", "--json")
    assert result.code == 3 and result.err.startswith("error: ")


def test_an_unknown_ref_suggests_the_nearest(gradient, sample):
    result = gradient("log", "mian@10")
    assert result.code == 3
    assert "did you mean main@10" in result.err


def test_no_repository_is_not_found_and_says_how_to_make_one(gradient, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = gradient("log")
    assert result.code == 3 and "gradient repo init" in result.err


def test_dash_c_works_from_elsewhere(gradient, sample, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert gradient("-C", str(sample.path), "log").code == 0
    monkeypatch.chdir(tmp_path)
    assert gradient("-C", "ws", "-C", "gpt", "log").code == 0


def test_dash_c_to_nowhere_is_not_found_and_says_what_it_takes(gradient, tmp_path):
    result = gradient("-C", "/nonexistent", "log")
    assert result.code == 3
    assert result.err.startswith("error: there is no folder /nonexistent\nhint: -C PATH takes a folder")
    (tmp_path / "train.py").write_text("")
    result = gradient("-C", str(tmp_path / "train.py"), "log")
    assert result.code == 3
    assert result.err.startswith(f"error: {tmp_path / 'train.py'} is a file and no folder\nhint: -C PATH takes")


def test_hints_of_the_command_line_name_its_options_and_no_arguments_of_python(gradient, sample, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    nowhere = gradient("log")
    assert "-C PATH" in nowhere.err and "repo=" not in nowhere.err and "workspace=" not in nowhere.err
    assert gradient("resume", "latest").err == nowhere.err
    monkeypatch.chdir(sample.workspace)
    gradient("repo", "init", "second")
    several = gradient("log")
    assert "gradient --repo gpt" in several.err and "repo=" not in several.err


def test_repo_names_one_of_several(gradient, sample, monkeypatch):
    monkeypatch.chdir(sample.workspace)
    assert gradient("repo", "init", "second").code == 0
    ambiguous = gradient("status")
    assert ambiguous.code == 2 and "gpt" in ambiguous.err and "second" in ambiguous.err
    assert gradient("--repo", "gpt", "status").out.startswith("repository gpt")
    assert gradient("--repo=second", "status").out.startswith("repository second")
    missing = gradient("--repo", "gtp", "status")
    assert missing.code == 3 and "gpt" in missing.err


def test_a_repo_name_that_is_a_path_is_wrong_input(gradient, sample):
    assert gradient("--repo", "../gpt", "status").code == 2


def test_a_damaged_format_file_is_damage(gradient, sample):
    file = sample.path / ".gradient-repo" / "format"
    raw = bytearray(file.read_bytes())
    raw[20] ^= 1
    os.chmod(file, 0o644)
    file.write_bytes(raw)
    result = gradient("log")
    assert result.code == 5
    lines = result.err.splitlines()
    assert lines[0].startswith("error: ") and lines[1] == f"repository: {sample.path}"
    assert gradient("log", "--json").error["repository"] == str(sample.path)
    assert gradient("-C", "..", "repo", "init", "gpt").err.splitlines()[1] == f"repository: {sample.path}"


def test_an_error_whose_cause_is_in_no_repository_names_none(gradient, sample):
    result = gradient("log", "nowhere@1")
    assert "repository:" not in result.err
    assert gradient("log", "nowhere@1", "--json").error["repository"] is None


@pytest.mark.parametrize("kind", ["CorruptionError", "FormatError", "StorageError"])
def test_what_lies_in_a_repository_is_said_with_its_folder(gradient, sample, monkeypatch, kind):
    def fails(*_: object, **__: object) -> None:
        raise getattr(errors, kind)("something is wrong", hint="do something")

    monkeypatch.setattr("gradient.repo.Repo.log_ends", fails)
    expected = f"error: something is wrong\nrepository: {sample.path}\nhint: do something\n"
    assert gradient("log").err == expected


def test_an_interrupt_is_130(monkeypatch, sample):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gradient.repo.Repo.log_ends", interrupted)
    assert main(["log"]) == 130


def test_a_bug_is_70_and_one_line(monkeypatch, gradient, sample):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("gradient.repo.Repo.log_ends", broken)
    result = gradient("log")
    assert result.code == 70
    assert result.err.splitlines()[0] == "error: unexpected RuntimeError: no such luck"


def test_a_closed_pipe_ends_quietly(sample):
    # The reader is gone before anything is written.
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([str(GRADIENT), "log"], cwd=sample.path, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is missing")
@pytest.mark.parametrize("words", [["log"], ["log", "--json"], ["--help"]], ids=" ".join)
def test_results_that_can_not_be_written_are_an_error_that_names_standard_output(sample, words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [str(GRADIENT), *words], cwd=sample.path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 6
    assert "standard output could not be written: No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_results_have_no_colour_off_a_terminal(gradient, sample):
    for words in (["log"], ["log", "--graph"], ["show"], ["status"], ["branch"]):
        assert "\x1b" not in gradient(*words).out
