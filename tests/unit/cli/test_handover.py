"""`resume` and `fork`: what the training script finds, and how its end is passed on."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

GRADIENT = str(Path(sysconfig.get_path("scripts")) / "gradient")
PRINT = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('GRADIENT_')}))"


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [GRADIENT, *words], cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def variables(folder: Path, *words: str, **environment: str) -> dict[str, str]:
    done = run(folder, *words, "--", sys.executable, "-c", PRINT, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_resume_hands_over_repository_ref_and_branch(sample):
    assert variables(sample.path, "resume", "main@20") == {
        "GRADIENT_WORKSPACE": str(sample.workspace),
        "GRADIENT_REPO": "gpt",
        "GRADIENT_RESUME_REF": "main@20",
        "GRADIENT_BRANCH": "main",
    }


@pytest.mark.parametrize("ref", ["latest", "HEAD"])
def test_resume_leaves_the_branch_to_the_script_if_the_ref_names_none(sample, ref):
    found = variables(sample.path, "resume", ref)
    assert found["GRADIENT_RESUME_REF"] == ref and "GRADIENT_BRANCH" not in found


def test_resume_works_from_the_workspace(sample):
    assert variables(sample.workspace, "--repo", "gpt", "resume", "latest")["GRADIENT_REPO"] == "gpt"


def test_stale_variables_do_not_get_through_but_autocommit_does(sample):
    stale = {"GRADIENT_BRANCH": "old", "GRADIENT_RESET_SEED": "7", "GRADIENT_AUTOCOMMIT": "5"}
    found = variables(sample.path, "resume", "latest", **stale)
    assert found["GRADIENT_AUTOCOMMIT"] == "5"
    assert "GRADIENT_BRANCH" not in found and "GRADIENT_RESET_SEED" not in found


def test_fork_hands_over_the_commit_the_new_branch_and_the_resets(sample):
    words = ["fork", "main@20", "hot", "--reset-optimizer", "--reset-scheduler", "--seed", "0"]
    assert variables(sample.path, *words) == {
        "GRADIENT_WORKSPACE": str(sample.workspace),
        "GRADIENT_REPO": "gpt",
        "GRADIENT_RESUME_REF": sample.ids["main@20"],
        "GRADIENT_BRANCH": "hot",
        "GRADIENT_RESET_OPTIMIZER": "1",
        "GRADIENT_RESET_SCHEDULER": "1",
        "GRADIENT_RESET_SEED": "0",
    }


def test_fork_resets_nothing_unless_asked(sample):
    assert not any("RESET" in name for name in variables(sample.path, "fork", "latest", "hot"))


@pytest.mark.parametrize(
    "words", [["resume", "main@20"], ["fork", "main@20", "hot"], ["resume", "main@20", "--"]], ids=" ".join
)
def test_without_a_command_the_variables_are_printed_and_the_code_is_2(sample, words):
    done = run(sample.path, *words)
    assert done.returncode == 2
    assert "export GRADIENT_REPO=gpt" in done.stdout.splitlines()
    assert "-- python train.py" in done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["resume", "nowhere@3"], 3),
        (["resume", "main@999"], 3),
        (["fork", "nowhere", "hot"], 3),
        (["fork", "main@20", "exp"], 4),
        (["fork", "main@20", "a b"], 2),
        (["fork", "main@20", "hot", "--seed", "-1"], 2),
        (["fork", "main@20"], 2),
    ],
    ids=str,
)
def test_what_can_not_be_is_said_before_the_script_starts(sample, words, code):
    done = run(sample.path, *words, "--", sys.executable, "-c", "print('started')")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")


def test_latest_of_a_branch_without_commits_is_not_found(sample):
    run(sample.path, "checkout", "-b", "other", "main@10")
    run(sample.workspace, "repo", "init", "empty")
    assert run(sample.workspace, "--repo", "empty", "resume", "latest", "--", "true").returncode == 3


@pytest.mark.parametrize("code", [0, 1, 42])
def test_the_exit_code_is_the_scripts(sample, code):
    assert (
        run(sample.path, "resume", "latest", "--", sys.executable, "-c", f"raise SystemExit({code})").returncode == code
    )


def test_the_script_keeps_its_arguments_and_its_own_double_dash(sample):
    done = run(
        sample.path,
        "resume",
        "latest",
        "--",
        sys.executable,
        "-c",
        "import sys; print(sys.argv[1:])",
        "--json",
        "--",
        "-n",
    )
    assert done.stdout == "['--json', '--', '-n']\n"


def test_a_program_that_does_not_exist_is_not_found(sample):
    done = run(sample.path, "resume", "latest", "--", "no-such-program")
    assert done.returncode == 3 and "no-such-program" in done.stderr
    assert "resuming" not in done.stderr, "nothing is said to be done that is not"
    done = run(sample.path, "fork", "latest", "hot", "--", "./no/such/program")
    assert done.returncode == 3 and "forking" not in done.stderr


def test_what_is_done_is_said_before_the_script_speaks(sample):
    done = run(sample.path, "resume", "latest", "--", sys.executable, "-c", "import os; os.write(2, b'script')")
    assert done.stderr == f"resuming main@30 ({sample.ids['main@30'][:8]})\nscript"


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["resume", "latest", "python", "train.py"], "gradient resume latest -- python train.py"),
        (["resume", "latest", "python", "train.py", "--lr", "3"], "gradient resume latest -- python train.py --lr 3"),
        (["fork", "main@20", "hot", "python", "a b"], "gradient fork main@20 hot -- python 'a b'"),
        (["fork", "a", "--seed", "3", "hot", "python"], "gradient fork a --seed 3 hot -- python"),
    ],
    ids=" ".join,
)
def test_a_program_without_the_double_dash_is_told_where_it_goes(gradient, sample, words, call):
    result = gradient(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"error: put -- before the command that is to be run\nhint: {call}\n"


@pytest.mark.parametrize(
    ("words", "name", "call"),
    [
        (["fork", "main@20", "--", "python", "t.py"], "NEW", "gradient fork main@20 NEW -- python t.py"),
        (["fork", "main@20"], "NEW", "gradient fork main@20 NEW -- CMD"),
        (["resume", "--", "python", "t.py"], "REF", "gradient resume REF -- python t.py"),
        (["fork"], "FROM", "gradient fork FROM NEW -- CMD"),
    ],
    ids=str,
)
def test_an_argument_that_is_missing_is_named_and_the_form_is_shown(gradient, sample, words, name, call):
    result = gradient(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {name} is missing: ") and result.err.endswith(f"\nhint: {call}\n")


def test_a_file_that_is_no_program_is_wrong_input(sample):
    (sample.path / "train.py").write_text("print(1)\n")
    done = run(sample.path, "resume", "latest", "--", "./train.py")
    assert done.returncode == 2 and "python ./train.py" in done.stderr


def test_the_script_takes_the_place_of_the_command_and_gets_its_signals(sample):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    child = subprocess.Popen(
        [GRADIENT, "resume", "latest", "--", sys.executable, "-c", code],
        cwd=sample.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    assert int(child.stdout.readline()) == child.pid
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=10) == -signal.SIGTERM


def test_the_shell_behind_it_is_not_deaf_to_closed_pipes(sample):
    done = run(
        sample.path, "resume", "latest", "--", "bash", "-c", "trap '' TERM; yes | head -1; echo ${PIPESTATUS[0]}"
    )
    assert done.stdout == "y\n141\n"
