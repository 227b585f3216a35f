"""The README's first pages do what they say, as they are written there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gradient import Repo

ROOT = Path(__file__).parents[2]


def blocks(heading: str) -> dict[str, str]:
    """The code under a heading of the README, by language."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL))


@pytest.mark.slow
def test_zero_setup_runs_as_it_is_written(elsewhere: Path) -> None:
    code = blocks("Zero setup")
    folder = elsewhere / "bin"
    folder.mkdir()
    for name, command in (("gradient", f"{sys.executable} -m gradient"), ("python", sys.executable)):
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)
    environ = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    (elsewhere / "train.py").write_text(code["python"])
    for script in ("python train.py", code["bash"]):
        done = subprocess.run(["sh", "-ec", script], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    with Repo.open("my_workspace/my_model") as repo:
        assert [info.step for info in repo.log("main")] == [40, 35, 30, 25, 20, 15, 10, 5]
        assert repo.resolve("hot").step == 30
    assert not (elsewhere / "my_workspace" / "my_workspace").exists()


def test_every_file_that_the_readme_links_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
