"""Row 28 of the reliability page: the same state has the same root hash, whoever commits it.

`GRADIENT_OTHER_PYTHONS` lists further interpreters, each with its own torch (`make other-versions` sets it).
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

import gradient

CHILD = pathlib.Path(__file__).with_name("root_child.py")
OTHERS = [path for path in os.environ.get("GRADIENT_OTHER_PYTHONS", "").split(os.pathsep) if path]
SEEDS = ["0", "1", "random"]


def committed(python: str, hash_seed: str) -> dict[str, str]:
    package = pathlib.Path(gradient.__file__).parents[1]
    env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(package), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([python, str(CHILD)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_processes_with_any_hash_seed_commit_the_same_root() -> None:
    assert len({committed(sys.executable, seed)["root"] for seed in SEEDS}) == 1


@pytest.mark.slow
@pytest.mark.skipif(not OTHERS, reason="not asked for: GRADIENT_OTHER_PYTHONS names no other interpreter")
@pytest.mark.parametrize("python", OTHERS)
def test_another_version_commits_the_same_root(python: str) -> None:
    here = committed(sys.executable, "0")
    for seed in SEEDS:
        there = committed(python, seed)
        assert there["root"] == here["root"], f"{there} and {here}"
    print(f"\n{there} as {here}")
    assert {key: there[key] for key in ("torch", "python")} != {key: here[key] for key in ("torch", "python")}
