"""`completion`: what a Tab key offers."""

import os
import shutil
import subprocess
import sysconfig

import pytest

from gradient.cli.completion import SCRIPTS


def offered(gradient, *words: str) -> list[str]:
    return gradient("completion", "words", "--", *words).out.split()


def test_commands_are_offered(gradient):
    assert offered(gradient, "") == sorted(offered(gradient, ""))
    assert {"log", "workspace", "resume"} <= set(offered(gradient, ""))
    assert offered(gradient, "ch") == ["checkout"]
    assert offered(gradient, "-C", "/tmp", "wo") == ["workspace"]
    assert offered(gradient, "workspace", "") == ["init", "status"]


def test_options_are_offered(gradient):
    assert offered(gradient, "log", "--o") == ["--oneline"]
    assert "--dry-run" in offered(gradient, "branch", "--")


def test_refs_are_offered_where_refs_are_taken(gradient, sample):
    assert offered(gradient, "checkout", "") == ["HEAD", "exp", "latest", "main"]
    assert offered(gradient, "resume", "ma") == ["main"]
    assert offered(gradient, "ops", "") == []


def test_outside_a_repository_there_is_nothing_and_no_error(gradient, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = gradient("completion", "words", "--", "checkout", "")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_behind_the_double_dash_files_are_the_shells_business(gradient, sample):
    assert offered(gradient, "resume", "latest", "--", "py") == []


@pytest.mark.parametrize("shell", SCRIPTS)
def test_a_script_is_valid_for_its_shell(gradient, shell, tmp_path):
    text = gradient("completion", shell).out
    assert "gradient completion" in text.splitlines()[0] + text.splitlines()[1]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is missing")
    script = tmp_path / "script"
    script.write_text(text)
    subprocess.run([shell, "-n", str(script)], check=True)


def test_bash_completes_a_word(gradient, sample):
    script = gradient("completion", "bash").out
    ask = 'COMP_LINE="gradient checkout ma"; COMP_POINT=20; _gradient_completion; echo "${COMPREPLY[@]}"'
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, env={**os.environ, "PATH": path}, check=True
    )
    assert done.stdout == "main\n"


def test_an_unknown_shell_is_wrong_input(gradient):
    result = gradient("completion", "csh")
    assert result.code == 2 and "bash" in result.err
